"""CE-CLIP: the mistakes of its specification, sections 7 and 9, in the order of the numbers there."""

from __future__ import annotations

METHOD, LOSSES, TASK = "training/methods/ce_clip.py", "training/losses.py", "training/task.py"
RELATION, BLOCKS = "data/negatives/relation.py", "training/clip_blocks.py"
FILTERS = "data/negatives/filters.py"
CE, ITC = "tests/training/test_ce_clip.py", "tests/training/test_losses.py"
SWAPS = "tests/data/test_negatives_relation.py"

MUTANTS: list[tuple[str, str, str, str]] = [
    # 1 negatives left out of the image's softmax; invalid ones masked there; a sum where a mean belongs
    (LOSSES, "if negatives is not None:", "if negatives is None and valid is not None:",
     f"{ITC}::test_hard_negatives_widen_only_the_image_to_text_half"),
    (METHOD, "valid if c.itc_mask_invalid else None", "valid", f"{CE}::test_totals_of_two_calls"),
    (LOSSES, "F.cross_entropy(by_image, target)", 'F.cross_entropy(by_image, target, reduction="sum")',
     f"{ITC}::test_plain_clip_loss"),
    # 2 type-major negatives
    (METHOD, "features[count:].reshape(count, len(TYPES), -1)",
     "features[count:].reshape(len(TYPES), count, -1).transpose(0, 1)", f"{CE}::test_negatives_are_sample_major"),
    # 3 the mean over valid entries; a sum; invalid entries counted; a gradient into the threshold
    (METHOD, 'hinge.mean() if reduction == "all"', 'hinge.sum() / valid.sum() if reduction == "all"',
     f"{CE}::test_cmr_with_the_first_threshold"),
    (METHOD, 'hinge.mean() if reduction == "all"', 'hinge.sum() if reduction == "all"',
     f"{CE}::test_cmr_with_the_first_threshold"),
    (METHOD, ".clamp_min(0) * valid", ".clamp_min(0)", f"{CE}::test_an_invalid_negative_costs_nothing"),
    (METHOD, "@torch.no_grad()\ndef next_theta", "def next_theta",
     f"{CE}::test_cmr_gradients_and_none_into_theta"),
    # 4 the threshold moves before it is used; it is not bounded
    (METHOD, '        parts = {\n            "itc"',
     "        self.theta = next_theta(g, h, valid, self.theta, c.upper, 'mean')\n"
     '        parts = {\n            "itc"', f"{CE}::test_threshold_is_used_before_it_moves"),
    (METHOD, "gap.clamp(0, upper)", "gap.clamp(min=0)", f"{CE}::test_threshold_is_bounded"),
    # 5 targets of the intra-modal loss; its positive left in the released form; every text's negatives in `own_only`
    (METHOD, 'int(mode == "released_2023")', 'int(mode != "released_head")', f"{CE}::test_imc_modes"),
    (METHOD, 'int(mode == "released_2023")', "0", f"{CE}::test_imc_modes"),
    (METHOD, 'flat if mode == "released_head" else ', "", f"{CE}::test_imc_modes"),
    (METHOD, 'if mode == "own_only":', "if False:", f"{CE}::test_imc_modes"),
    (METHOD, "F.cross_entropy(logits, target)", 'F.cross_entropy(logits, target, reduction="sum")',
     f"{CE}::test_imc_modes"),
    # 6 the weights changed over
    (METHOD, 'c.alpha * parts["cmr"] + c.beta * parts["imc"]', 'parts["cmr"] + c.beta * parts["imc"]',
     f"{CE}::test_totals_of_two_calls"),
    # 8 counting by value; g over valid samples only; an empty type that loses its threshold; no new start per epoch
    (METHOD, "count = valid.sum(0)", "count = (h * valid != 0).sum(0)", f"{CE}::test_threshold_counts_by_the_mask"),
    (METHOD, "gap = g.mean() - (h * valid).sum(0) / count.clamp_min(1)",
     "gap = ((g[:, None] - h) * valid).sum(0) / count.clamp_min(1)", f"{CE}::test_threshold_counts_by_the_mask"),
    (METHOD, "torch.where(count > 0, gap.clamp(0, upper), theta)", "gap.clamp(0, upper)",
     f"{CE}::test_a_type_without_valid_negatives_keeps_its_threshold"),
    (METHOD, "self.theta.fill_(self.config.fixed if", "self.theta + (self.config.fixed if",
     f"{CE}::test_threshold_starts_anew_with_each_epoch_and_survives_a_checkpoint"),
    # 9 texts put back in another order; the shared `###` in the wrong places
    (TASK, "torch.cat(parts)[order.argsort()]", "torch.cat(parts)[order]",
     f"{CE}::test_trimmed_bucketed_and_shared_encoding_equals_the_naive_one"),
    (METHOD, "torch.full(valid.shape, len(features) - 1,", "torch.full(valid.shape, 0,",
     f"{CE}::test_trimmed_bucketed_and_shared_encoding_equals_the_naive_one"),
    # 10 GELU where the weights were trained with QuickGELU
    (BLOCKS, "quick_gelu(y) if self.quick_gelu else F.gelu(y)", "F.gelu(y)",
     "tests/training/test_openclip.py::test_text_outputs_and_gradients_are_open_clips"),
    # 11 a swap by substring; across a symmetric relation; a replacement equal to the original
    (RELATION, 'return Draft("swap", start, end, replacement)',
     'return Draft("swap", 0, len(caption), caption.replace(one, "#").replace(two, one).replace("#", two))',
     f"{SWAPS}::test_noun_phrases_change_places_across_an_asymmetric_relation"),
    (RELATION, "        if word.text in SYMMETRIC:\n", "        if not word.text:\n",
     f"{SWAPS}::test_symmetric_relations_are_refused_and_words_never_torn"),
    (FILTERS, "not self.closed.get(term.kind, _EMPTY).isdisjoint(term.values)", "False",
     "tests/data/test_negatives.py::test_a_replacement_equal_to_the_original_is_refused"),
]  # fmt: skip
