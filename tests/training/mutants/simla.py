"""SIMLA: the mistakes of its specification, sections 10 (pitfalls, by number) and 11 (tests, by number)."""

from __future__ import annotations

METHOD, STREAM, LOSSES = "training/methods/simla.py", "training/fused/single_stream.py", "training/fused/alignment.py"
WORDS, CODES, MASKS = "training/fused/keywords.py", "training/fused/visual_tokens.py", "training/fused/masking.py"
FUSION, MOMENTUM, TOWERS = "training/fused/fusion.py", "training/fused/momentum.py", "training/towers.py"
S, T, K = (f"tests/training/test_{name}.py" for name in ("simla", "single_stream", "keywords"))
V, M, B = (f"tests/training/test_{name}.py" for name in ("visual_tokens", "momentum", "masking"))
QUEUED = 'self._new = o["f_teacher"].detach(), o["t_teacher"].detach()'
START = '        caption: Tokens = batch["caption"]\n        teacher, made'

MUTANTS: list[tuple[str, str, str, str]] = [
    # 11.1, pitfalls 6, 9, 10: the teacher and the queues
    (MOMENTUM, "for _, value in pairs], 1 - momentum)", "for _, value in pairs], momentum)",
     f"{M}::test_moving_average_by_hand"),
    (MOMENTUM, "return super().train(False)", "return super().train(mode)",
     f"{M}::test_teacher_never_drops_anything_out"),
    (MOMENTUM, "        if size % rows:", "        if False:",
     f"{M}::test_queue_refuses_a_batch_that_does_not_divide_it"),
    (METHOD, "        self.teacher.update(self.config.momentum)\n", "",
     f"{S}::test_teacher_moves_once_per_step_and_before_it_is_used"),
    (METHOD, START, START.replace("        teacher", "        self.teacher.update(0.9)\n        teacher"),
     f"{S}::test_teacher_moves_once_per_step_and_before_it_is_used"),
    (METHOD, QUEUED, 'self.queue.push(o["f_teacher"], o["t_teacher"], torch.zeros(len(o["f"])))',
     f"{S}::test_queue_takes_the_teachers_features_after_the_step"),
    (METHOD, ', "queue": self.queue.state()}', "}", f"{S}::test_state_goes_round"),
    # pitfall 11: a ramp that starts again
    (METHOD, "min(1.0, progress)", "min(1.0, progress % 1)",
     f"{S}::test_alpha_rises_over_the_first_epoch_and_is_a_function_of_progress"),
    # 11.2, pitfalls 1 and 2: text-mode output into fusion; a fused pass without the picture
    (STREAM, "x = trunk.embed(words[:, :width].index_select(0, chunk))",
     "x = trunk.contextual(words[chunk, :width], mask[chunk, :width])",
     f"{T}::test_both_roles_are_the_same_parameters"),
    (FUSION, "x, logits = cross.attend(x, pair, source_bias)", "_, logits = cross.attend(x, pair, source_bias)",
     f"{T}::test_text_role_knows_no_picture_and_fused_role_does"),
    # 11.3, pitfall 8: what each modality may see
    (METHOD, "v = student.tokens(pixels, hidden)", "v = student.tokens(pixels)",
     f"{T}::test_each_modality_is_told_from_the_other"),
    (STREAM, "projected = fusion.project(trunk.embed(words))",
     "projected = fusion.project(trunk.contextual(words, mask))",
     f"{T}::test_words_are_read_without_context_by_patches"),
    (STREAM, "nothing, projected, bias, at)", "nothing, projected, None, at)",
     f"{T}::test_buckets_and_padding_change_nothing"),
    (TOWERS, "self.norm(words + self.positions.weight[: words.shape[1]])",
     "self.norm(words.add_(self.positions.weight[: words.shape[1]]))",
     f"{T}::test_position_embeddings_are_added_out_of_place"),
    # what is left out of the last layer: [CLS] must not be, nor may a place stand for another
    (FUSION, "rank[:, 0] = 2", "pass", f"{T}::test_what_is_not_wanted_is_left_out_and_nothing_else_changes"),
    (FUSION, "asking = x.gather(1, at[:, :, None].expand(-1, -1, width))", "asking = x[:, : at.shape[1]]",
     f"{T}::test_what_is_not_wanted_is_left_out_and_nothing_else_changes"),
    (METHOD, "maskable = caption.mask.bool() & (caption.ids != self.cls_id)", "maskable = caption.mask.bool()",
     f"{S}::test_masked_words_leave_cls_and_padding_alone_but_not_sep"),
    # 11.4: the student's own keys
    (LOSSES, "torch.cat([t_teacher, queue.text])", "torch.cat([t.detach(), queue.text])", f"{S}::test_itc_by_hand"),
    (LOSSES, "torch.cat([t_teacher, queue.text]), torch.cat([f_teacher, queue.image])", "t_teacher, f_teacher",
     f"{S}::test_itc_by_hand"),
    # 11.5, pitfall 7: labels, order and negatives of matching
    (LOSSES, "labels[: len(logits) // 3] = 1", "labels[: len(logits) // 2] = 1", f"{S}::test_itm_by_hand"),
    (LOSSES, "softmax(1) + 1e-4", "softmax(1)", f"{S}::test_one_hot_similarities_still_have_negatives"),
    (LOSSES, "    weights.fill_diagonal_(0)\n", "",
     f"{S}::test_negatives_are_drawn_by_the_softmax_off_the_diagonal"),
    (LOSSES, "torch.multinomial(weights.cpu(), 1, generator=generator)[:, 0]", "weights.cpu().argmax(1)",
     f"{S}::test_negatives_are_drawn_by_the_softmax_off_the_diagonal"),
    (METHOD, "pictures += [own, wrong_pictures, own]", "pictures += [own, own, wrong_pictures]",
     f"{S}::test_itm_pairs_are_in_the_papers_order"),
    # 11.6: the axis of distillation
    (LOSSES, "(teacher.softmax(-1) * logs)", "(teacher.softmax(-1) * logits.log_softmax(0))",
     f"{S}::test_distillation_by_hand"),
    # 11.7, pitfalls 3, 4 and 5: the vote, its attention, and its loss
    (WORDS, "chosen = seen.topk(", "chosen = seen.mean(1, keepdim=True).topk(",
     f"{K}::test_keyword_voting_by_hand"),
    (WORDS, "    made[:, dropped.to(words.device)] = 0\n", "", f"{K}::test_keyword_voting_by_hand"),
    (WORDS, "    counts = counts * mask  # of captions with fewer tokens than votes\n", "",
     f"{K}::test_padding_has_no_vote_and_specials_are_no_keywords"),
    (STREAM, "fused.probabilities[:, :, 0]", "fused.cross.softmax(-1)[:, :, 0]",
     f"{S}::test_keywords_come_from_the_teachers_self_attention_and_picture"),
    (METHOD, 'v_teacher if self.config.keyword_images == "teacher" else v)', "v)",
     f"{S}::test_keywords_come_from_the_teachers_self_attention_and_picture"),
    (METHOD, "distributed.mean(each.sum(), each.numel())", "each.sum()",
     f"{S}::test_concept_loss_is_a_mean_over_samples_and_words"),
    # 11.8, pitfall 12: masks and codes lie where the patches are
    (MASKS, "if 0 < new <= most:", "if 0 < new:",
     f"{B}::test_block_masks_have_the_published_counts_and_hang_together"),
    (CODES, ".argmax(1).flatten(1)", ".argmax(1).mT.flatten(1)",
     f"{V}::test_dvae_codes_are_row_major_and_of_mapped_pixels"),
    (CODES, "SECOND = 1_000_000", "SECOND = 0", f"{V}::test_independent_view_has_them_elsewhere"),
]  # fmt: skip
