"""CMA-CLIP: the mistakes of its specification, sections 13 (pitfalls) and 14 (P1 to P9)."""

from __future__ import annotations

METHOD, NETWORK = "training/methods/cma_clip.py", "training/attributes/modality.py"
TOKENS, RECALL = "training/attributes/tokens.py", "training/recall_at_precision.py"
SOURCE, LABELS, TOWERS = "training/attributes/source.py", "training/labels.py", "training/towers.py"
M, N = "tests/training/test_cma_clip.py", "tests/training/test_modality.py"
SOFTMAX = "weights = scores.masked_fill(~present, -torch.inf).softmax(1)"

MUTANTS: list[tuple[str, str, str, str]] = [
    # P1 the misprinted weight; P2 a bias instead of a softmax, a gate that gets no gradient
    (
        NETWORK,
        SOFTMAX,
        "weights = scores / scores.sum(1, keepdim=True).exp()",
        f"{N}::test_two_tasks_weigh_the_same_tokens_in_their_own_way",
    ),
    (
        NETWORK,
        "return (weights[:, :, None] * tokens).sum(1), weights",
        "return (weights.detach()[:, :, None] * tokens).sum(1), weights",
        f"{N}::test_gate_gradient",
    ),
    # pitfall 1: only the two global tokens enter the attention
    (
        TOKENS,
        "return torch.cat([pooled[:, None].to(tokens.dtype), tokens], 1), pooled",
        "return pooled[:, None], pooled",
        f"{M}::test_every_patch_and_word_reaches_the_answer",
    ),
    # 2, P3: no mask over padding
    (
        NETWORK,
        "scores.masked_fill(~valid[:, None, None, :], torch.finfo(scores.dtype).min)",
        "scores + 0",
        f"{N}::test_padding_is_not_attended_to",
    ),
    (
        TOKENS,
        "valid = F.pad(caption.mask > 0, (1, 0), value=True)",
        "valid = F.pad(caption.mask >= 0, (1, 0), value=True)",
        f"{M}::test_padding_and_what_lies_behind_the_end_do_not_matter",
    ),
    # 3, P4: a causal mask; type vectors that are not added
    (
        NETWORK,
        "mixed = scores.softmax(-1)",
        "mixed = scores.masked_fill(torch.ones_like(scores).triu(1) > 0, -1e9).softmax(-1)",
        f"{N}::test_the_order_of_tokens_has_no_meaning",
    ),
    (
        NETWORK,
        "text, image = text + self.types[0], image + self.types[1]",
        "text, image = text + 0, image + 0",
        f"{N}::test_type_vectors_tell_the_modalities_apart",
    ),
    # 4: the text read at its first token
    (
        NETWORK,
        "at = torch.stack([torch.full_like(end, text.shape[1]), end], 1)",
        "at = torch.stack([torch.full_like(end, text.shape[1]), 0 * end], 1)",
        f"{N}::test_the_global_text_token_is_read_where_it_is",
    ),
    (
        TOKENS,
        "caption.mask.sum(1) - 1, pooled",
        "0 * caption.mask.sum(1), pooled",
        f"{M}::test_clip_tokens_are_projected_and_the_end_is_read",
    ),
    # section 3: tokens normalised before the fusion
    (
        TOKENS,
        "return Sequences(text, valid, end, image, a, b)",
        "return Sequences(F.normalize(text, dim=-1), valid, end, F.normalize(image, dim=-1), a, b)",
        f"{M}::test_clip_tokens_are_projected_and_the_end_is_read",
    ),
    # 5: one gate for all tasks
    (
        METHOD,
        "KeylessGate(width, c.gate, c.gate_bias)",
        "self.__dict__.setdefault('one', KeylessGate(width, c.gate, c.gate_bias))",
        f"{M}::test_every_task_has_a_gate_of_its_own",
    ),
    # 6: softmax over the batch, sigmoid gates
    (NETWORK, SOFTMAX, "weights = scores.masked_fill(~present, -torch.inf).softmax(0)", f"{N}::test_gate_algebra"),
    (NETWORK, SOFTMAX, "weights = scores.masked_fill(~present, -torch.inf).sigmoid()", f"{N}::test_gate_algebra"),
    # 7, P5: means over unlabelled rows, over all tasks, and 0 / 0
    (
        NETWORK,
        "(target >= 0).sum().clamp_min(1)",
        "len(target)",
        f"{N}::test_classification_counts_each_task_s_own_labels",
    ),
    (
        NETWORK,
        "(target >= 0).sum().clamp_min(1)",
        "(target >= 0).sum()",
        f"{N}::test_classification_counts_each_task_s_own_labels",
    ),
    (
        METHOD,
        "total = torch.stack(terms).sum()",
        "total = torch.stack(terms).mean()",
        f"{M}::test_two_stages_and_the_weight_of_the_contrastive_loss",
    ),
    # 8: the contrastive loss after the fusion; without the fix for equal texts; with rows that have no text
    (
        METHOD,
        '"image": F.normalize(a.float(), dim=-1)',
        '"image": F.normalize(tokens[:, 0].float(), dim=-1)',
        f"{M}::test_the_contrastive_loss_comes_before_attention_and_leaves_out_rows_without_a_text",
    ),
    (
        METHOD,
        "text[:, None] == text)",
        "torch.eye(len(text), device=text.device) > 0)",
        f"{M}::test_equal_titles_are_not_each_other_s_negatives",
    ),
    (
        METHOD,
        'rows = outputs["has_text"]',
        'rows = torch.ones_like(outputs["has_text"])',
        f"{M}::test_the_contrastive_loss_comes_before_attention_and_leaves_out_rows_without_a_text",
    ),
    (
        NETWORK,
        "target = same.float() / same.sum(1, keepdim=True)",
        "target = same.float()",
        f"{N}::test_contrastive_loss_knows_equal_texts",
    ),
    # 9: towers at the rate of new modules
    (
        METHOD,
        'saved = ("network",)',
        "saved = ()",
        f"{M}::test_new_modules_learn_at_their_own_rate_and_gates_do_not_decay",
    ),
    # 10, P6: attention where it is switched off, and none where it is on
    (
        METHOD,
        "SequenceAttention(width, c.layers,",
        "SequenceAttention(width, max(1, c.layers),",
        f"{M}::test_only_attention_carries_the_text_into_the_image_token[0]",
    ),
    (
        METHOD,
        "SequenceAttention(width, c.layers,",
        "SequenceAttention(width, 0,",
        f"{M}::test_only_attention_carries_the_text_into_the_image_token[2]",
    ),
    # 11, P7: stopping at the first threshold that fails; cutting through equal confidences
    (
        RECALL,
        "(hits >= enough)\n",
        "(np.cumprod(hits >= enough) > 0)\n",
        f"{N}::test_recall_looks_past_the_first_threshold_that_fails",
    ),
    (
        RECALL,
        "cut = np.append(ranked[1:] != ranked[:-1], True)",
        "cut = np.append(ranked[1:] == ranked[1:], True)",
        f"{N}::test_equal_confidences_are_accepted_together",
    ),
    # P8: separate gates that are one
    (NETWORK, '{"separate": 2, "shared": 1}', '{"separate": 1, "shared": 1}', f"{N}::test_parameter_counts"),
    # sections 5 and 8: a missing modality that still speaks, in the gate and in the attention; both sides hidden
    (NETWORK, SOFTMAX, "weights = scores.softmax(1)", f"{N}::test_a_missing_modality_has_no_weight_and_no_say"),
    (METHOD, "s.valid & present[:, 1:]", "s.valid", f"{M}::test_controls_see_one_modality[image]"),
    (METHOD, "chance >= 1 - p", "chance < p", f"{M}::test_training_hides_one_side_at_times_and_never_both"),
    # labels: captions that spell out the answers; rare values as classes; tokens of the wrong cells
    (
        SOURCE,
        "captions=[(title, None) for title, _ in products.captions]",
        "captions=list(products.captions)",
        f"{M}::test_a_title_that_is_missing_is_not_replaced_by_the_answers",
    ),
    (
        LABELS,
        "found >= LEAST",
        "found >= 1",
        "tests/training/test_labels.py::test_classes_are_the_frequent_values_of_the_train_split",
    ),
    (
        TOWERS,
        "return down @ level @ across.T",
        "return down @ level @ across.roll(1, 0).T",
        "tests/training/test_patch_tokens.py::test_cells_average_what_they_cover",
    ),
]
