"""VQA, its answer decoder, and pointing: the mistakes of their specification (benchmarks.md §8.1, §8.2)."""

from __future__ import annotations

VQA, REFCOCO = "training/benchmarks/vqa.py", "training/benchmarks/refcoco.py"
ANSWERING, GROUNDING = "training/fused/answering.py", "training/fused/grounding.py"
V, R = (f"tests/training/official/test_{name}_official.py" for name in ("vqa", "refcoco"))
A, G = "tests/training/test_answering.py", "tests/training/test_grounding.py"

MUTANTS: list[tuple[str, str, str, str]] = [
    # an annotator must not agree with himself; ground truths keep their number words
    (VQA, "min(1, (count - 1) / 3)", "min(1, count / 3)", f"{V}::test_accuracy_by_agreement"),
    (
        VQA,
        "[without_punctuation(answer) for answer in given]",
        "[normalised(answer) for answer in given]",
        f"{V}::test_annotators_get_the_punctuation_pass_only_and_only_where_they_differ",
    ),
    (
        VQA,
        "    if len(set(given)) > 1:\n",
        "    if given:\n",
        f"{V}::test_annotators_get_the_punctuation_pass_only_and_only_where_they_differ",
    ),
    (VQA, "outcome[row] = min(", "outcome[row] = max(", f"{V}::test_a_tie_gets_the_least_accuracy"),
    # the answer of the sample before; a tie; a map's tiny scale; the area without its root
    (
        REFCOCO,
        "right[place] = scores[best] > TIE and",
        "right[place] =",
        f"{R}::test_a_tie_is_no_success_and_nothing_is_left_over_from_the_sample_before",
    ),
    (
        REFCOCO,
        "hits[alike].all()",
        "hits[best]",
        f"{R}::test_a_tie_is_no_success_and_nothing_is_left_over_from_the_sample_before",
    ),
    (REFCOCO, " / np.float32(top)", "", f"{R}::test_the_scale_of_a_map_does_not_matter"),
    (
        REFCOCO,
        "math.sqrt(box[2] * box[3])",
        "(box[2] * box[3])",
        f"{R}::test_a_box_scores_its_sum_over_the_root_of_its_area",
    ),
    # Grad-CAM: negative gradients, [CLS], padding; the wrong logit
    (GROUNDING, "gradient.clamp_min(0)", "gradient", f"{G}::test_map_by_hand"),
    (GROUNDING, "[..., 1:]", "[..., :-1]", f"{G}::test_map_by_hand"),
    (GROUNDING, "(shown * mask[:, :, None]).sum(1)", "shown.sum(1)", f"{G}::test_map_by_hand"),
    (GROUNDING, ".float()[:, 1]", ".float()[:, 0]", f"{G}::test_gradient_is_that_of_the_score_by_each_attention"),
    # the decoder: sees what comes later; starts from the first layers; weights and end of answer forgotten
    (ANSWERING, ".triu(1)", ".triu(2)", f"{A}::test_answers_are_ranked_by_their_whole_likelihood"),
    (ANSWERING, "layers[-len(own) :]", "layers[: len(own)]", f"{A}::test_decoder_starts_from_the_last_layers"),
    (ANSWERING, ' * batch["weights"]', "", f"{A}::test_loss_is_the_weighted_mean_over_questions"),
    (ANSWERING, "[:, :keep]", "", f"{A}::test_only_the_likeliest_first_tokens_are_looked_at"),
    (ANSWERING, "padding_bias(mask, x.dtype))", "None)", f"{A}::test_answers_are_ranked_by_their_whole_likelihood"),
]
