"""Mistakes that SyncMask's masks, groups and losses must not survive."""

MASKS, METHOD, FUSED = "training/fused/sync_masks.py", "training/methods/syncmask.py", "training/fused/multimodal.py"
GROUPS, SOURCE, ITC = "training/fused/grouping.py", "training/fused/grouped_source.py", "training/fused/product_itc.py"
SCORES, CHAIN = "tests/training/test_sync_masks.py", "tests/training/test_grouping.py"
WHOLE, EPOCHS = "tests/training/test_syncmask.py", "tests/training/test_grouped_source.py"

MUTANTS: list[tuple[str, str, str, str]] = [
    # the text score summed from the map whose rows already sum to 1
    (MASKS, "    return maps.claims.mean(2)\n", "    return maps.looks.sum(2) * maps.content\n",
     f"{SCORES}::test_the_text_score_is_not_constant"),
    # the image's [CLS] column left in the softmax
    (MASKS, "z.softmax(3).mean(1), claims", "logits.float().softmax(3)[..., 1:].mean(1), claims",
     f"{SCORES}::test_the_image_cls_column_is_left_out_before_the_softmax"),
    # logits averaged over heads in place of probabilities
    (MASKS, "z.softmax(3).mean(1), claims", "z.mean(1).softmax(2), claims", f"{SCORES}::test_maps_by_hand"),
    # padding as rows of the mean over words, and as columns of the softmax over words
    (MASKS, "    weights = maps.content.float()\n", "    weights = torch.ones_like(maps.content).float()\n",
     f"{SCORES}::test_padding_changes_nothing"),
    (MASKS, "z.masked_fill(~content[:, None, :, None], MASKED).softmax(2)", "z.softmax(2)",
     f"{SCORES}::test_padding_changes_nothing"),
    # pieces of a word masked one by one; a score of 0 that is never chosen
    (MASKS, "content & ~self.continues[ids]", "content",
     f"{SCORES}::test_pieces_of_a_word_are_masked_together_and_counts_are_exact"),
    (MASKS, "gumbel_top_k(scores.clamp_min(LEAST), counts", "gumbel_top_k(scores, counts",
     f"{SCORES}::test_patch_counts_are_exact_even_where_scores_vanish"),
    # masks drawn from the student; a teacher that sees masked pictures; one that moves by 1 - m
    (METHOD, 'image, text, fusion = (self.teacher.parts[name] for name in ("image", "text", "fusion"))',
     "image, text, fusion = self.encoder.image, self.encoder.text, self.fusion",
     f"{WHOLE}::test_masks_hang_on_the_teacher_alone"),
    (METHOD, 'image.trunk.tokens(batch["image"]) if below is None',
     'image.trunk.tokens(batch["image"], torch.ones(len(batch["image"]), 16).bool()) if below is None',
     f"{WHOLE}::test_the_teacher_sees_no_mask_and_no_dropout"),
    (METHOD, "self.teacher.update(c.momentum)", "self.teacher.update(1 - c.momentum)", f"{WHOLE}::test_ema_by_hand"),
    # MIM that sees what it predicts; targets of the patch before; targets not normalised
    (METHOD, "trunk.tokens(pixels, chosen)", "trunk.tokens(pixels)",
     f"{WHOLE}::test_mlm_sees_the_whole_image_and_mim_the_whole_text"),
    (METHOD, "normalised_features(taught[:, 1:])", "normalised_features(taught[:, :-1])",
     f"{WHOLE}::test_mim_counts_masked_patches_only"),
    (METHOD, "normalised_features(taught[:, 1:])", "taught[:, 1:].float()",
     f"{WHOLE}::test_mim_counts_masked_patches_only"),
    # random masks drawn from other numbers than synchronised ones
    (METHOD, "self.draw(batch, step, PATCHES, patches)", "self.draw(batch, step, REPLACE, patches)",
     f"{WHOLE}::test_random_scores_and_top1_are_plain_grit"),
    # only the last product excluded; the same text allowed; a bound that is not the element's own pair
    (GROUPS, "held = held | alike if place % batch", "held = alike if place % batch",
     f"{CHAIN}::test_two_views_do_not_meet_again_in_one_batch"),
    (GROUPS, "(products == products[current]) | (words == words[current])", "products == products[current]",
     f"{CHAIN}::test_the_same_text_is_refused_too"),
    (GROUPS, "_next(s, float(similarity[current, current]), unused", "_next(s, 1.0, unused",
     f"{CHAIN}::test_semi_hard_refuses_the_same_product_and_what_is_nearer_than_the_pair"),
    # no turns between the directions; used elements that come again; ids in float32; chunks torn apart
    (GROUPS, "similarity[current] if place % 2 else similarity[:, current]", "similarity[current]",
     f"{CHAIN}::test_top1_walks_to_the_nearest"),
    (GROUPS, "        unused[current] = False\n", "        unused[current] = place % 3 == 0\n",
     f"{CHAIN}::test_an_order_is_a_permutation_of_what_was_seen"),
    (GROUPS, "order.append(part.index[places])", "order.append(part.index[places].astype(np.float32).astype(np.int64))",
     f"{CHAIN}::test_an_order_is_a_permutation_of_what_was_seen"),
    (GROUPS, "    chunks = [order[start", "    order = rng.permutation(order)\n    chunks = [order[start",
     f"{CHAIN}::test_chunks_survive_the_shuffle_intact"),
    # true matches as negatives; rows without a negative counted as wrong
    (GROUPS, "same = (products[:, None] == products) | (words[:, None] == words)", "pass",
     f"{CHAIN}::test_a_negative_never_shares_product_or_text"),
    (FUSED, 'F.cross_entropy(logits, labels, reduction="none") * counts',
     'F.cross_entropy(logits, labels, reduction="none")', f"{WHOLE}::test_rows_without_a_negative_do_not_count"),
    # what an epoch left out stays out; a resumed run that forgets what was grouped; grouping by the wrong epoch's texts
    (SOURCE, "return take_in(chunks, left_out, self.products.groups, words, rng)", "return chunks",
     f"{EPOCHS}::test_the_next_epoch_shows_what_this_one_showed_and_what_it_left_out"),
    (SOURCE, 'self._grouped = [state["grouped"].numpy()]', "self._grouped = []",
     f"{EPOCHS}::test_a_resumed_run_sees_the_same_batches"),
    (SOURCE, "self.config.seed, epoch + 1)[positions, 0]", "self.config.seed, epoch)[positions, 0]",
     f"{EPOCHS}::test_no_batch_has_a_product_or_text_twice"),
    # one right answer only; ids that do not follow their features; targets that learn
    (ITC, "right = (products[:, None] == bank).float()", "right = torch.eye(len(products), len(bank))",
     f"{WHOLE}::test_itc_by_hand"),
    (METHOD, 'self.queue.push(*known, outputs["product"])', 'self.queue.push(*known, outputs["product"].flip(0))',
     f"{WHOLE}::test_ids_enter_the_queue_with_their_features"),
    (ITC, "by_text.detach().softmax(1)", "by_text.softmax(1)", f"{WHOLE}::test_consistency_targets_carry_no_gradient"),
]  # fmt: skip
