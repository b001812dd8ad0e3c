"""LinCIR: the mistakes of its specification, sections 10 and 11, in the order of the tests there."""

from __future__ import annotations

METHOD, PSEUDO, SOURCE = (
    "training/methods/lincir.py",
    "training/composing/pseudo_words.py",
    "training/composing/captions.py",
)
KEYWORDS, CORPUS, METRICS = "data/keywords.py", "data/corpus.py", "training/composing/questions.py"
LINCIR, ANSWERS = "tests/training/test_lincir.py", "tests/training/test_lincir_answers.py"
DATA = "tests/data/test_corpus.py"

MUTANTS: list[tuple[str, str, str, str]] = [
    # 1 letters replaced inside words; determiners dropped; the mark's own id above the end of text; no way out; no anew
    (KEYWORDS, 'if mode == "official" else _mask_offsets', "if mode else _mask_offsets", f"{DATA}::test_golden_masks"),
    (KEYWORDS, '"ADJ", "DET"}', '"ADJ"}', f"{DATA}::test_spans_are_maximal_runs"),
    (CORPUS, "Exam([*exam, *held_titles(products)])", "Exam(exam)",
     "tests/data/test_corpus_texts.py::test_planted_overlaps_are_left_out_counted_and_proven"),
    (PSEUDO, "[self.pseudo if i == self.mark else i for i in ids]", "list(ids)", f"{LINCIR}::test_golden_ids"),
    (PSEUDO, "self._replaced(e.ids) if self.mark in e.ids else list(self.photo)", "self._replaced(e.ids)",
     f"{LINCIR}::test_a_pseudo_word_that_is_cut_off_gives_way_to_a_photo"),
    (SOURCE, "[self.config.seed, epoch, use]", "[self.config.seed, use]",
     f"{LINCIR}::test_random_words_are_drawn_anew_with_every_epoch"),
    # 2 only the first pseudo word written; another text's vector
    (PSEUDO, "(ids == pseudo)[:, :, None]", "((ids == pseudo) & ((ids == pseudo).cumsum(1) == 1))[:, :, None]",
     f"{LINCIR}::test_toy_encoder"),
    (PSEUDO, "None if v is None else v[rows]", "None if v is None else v[: len(rows)]",
     f"{LINCIR}::test_every_text_gets_its_own_vector"),
    # 3 the loss summed over coordinates; taken of unit vectors
    (METHOD, "F.mse_loss(found.float(), target.float())",
     'F.mse_loss(found.float(), target.float(), reduction="sum") / len(found)',
     f"{LINCIR}::test_loss_is_the_mean_over_samples_and_coordinates"),
    (METHOD, "F.mse_loss(found.float(), target.float())",
     "F.mse_loss(F.normalize(found.float(), dim=1), F.normalize(target.float(), dim=1))",
     f"{LINCIR}::test_loss_is_the_mean_over_samples_and_coordinates"),
    # 4 a scale per coordinate; plain Gaussian; noise on the target too
    (METHOD, "u = torch.rand((rows, 1)", "u = torch.rand((rows, width)",
     f"{LINCIR}::test_noise_has_one_scale_per_sample"),
    (METHOD, "return u * torch.randn(", "return torch.randn(", f"{LINCIR}::test_noise_has_one_scale_per_sample"),
    (METHOD, 'self.pseudo_word(t + epsilon)), "target": t}', 'self.pseudo_word(t + epsilon)), "target": t + epsilon}',
     f"{LINCIR}::test_noise_reaches_phi_alone_and_falls_alike_however_the_batch_is_divided"),
    # 5 an encoder that learns, or drops out
    (PSEUDO, "encoder.requires_grad_(False)", "encoder.requires_grad_(True)", f"{LINCIR}::test_phi_alone_learns"),
    (PSEUDO, "        self.encoder.eval()", "        self.encoder.train(mode)", f"{LINCIR}::test_phi_alone_learns"),
    # 6 texts cut to the shortest of their bucket; returned in the order of their lengths
    (PSEUDO, "width = int(lengths[rows].max())", "width = int(lengths[rows].min())",
     f"{LINCIR}::test_cut_and_bucketed_texts_equal_padded_ones"),
    (PSEUDO, "[order.argsort()]", "[order]", f"{LINCIR}::test_cut_and_bucketed_texts_equal_padded_ones"),
    # 7 one dropout missing
    (METHOD, "nn.Linear(inner, inner), nn.GELU(), nn.Dropout(dropout),", "nn.Linear(inner, inner), nn.GELU(),",
     f"{LINCIR}::test_shape_of_phi"),
    # 8 precision shared by all targets, however many; captions averaged as they are; the reference in the ranking
    (METRICS, "enumerate(found)) / min(k, targets)", "enumerate(found)) / targets",
     f"{LINCIR}::test_average_precision"),
    (METRICS, "total = _unit(first) + _unit(second)", "total = first + second",
     f"{LINCIR}::test_two_captions_are_merged_as_unit_vectors"),
    (METRICS, "np.delete(scores, [own, *right])", "np.delete(scores, right)", f"{LINCIR}::test_average_precision"),
    # 9 targets of other weights
    (SOURCE, "        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())\n", "",
     f"{LINCIR}::test_what_changes_a_target_changes_its_cache"),
    # pitfalls: embeddings normalised in one phase only; a prompt without its image; `$` of the user; seen captions
    (PSEUDO, "embedding = self.encoder.image.head(torch.from_numpy(pictures[rows]).to(device)).float()",
     "embedding = self.encoder.project_image(torch.from_numpy(pictures[rows]).to(device))",
     f"{ANSWERS}::test_the_image_enters_as_it_leaves_the_encoder"),
    (PSEUDO, "self.phi(F.normalize(image, dim=1) if self.l2_normalize else image)", "self.phi(image)",
     f"{ANSWERS}::test_the_norm_of_what_phi_sees_can_be_fixed"),
    (PSEUDO, "if count != 1:", "if count > 1:", f"{ANSWERS}::test_a_pseudo_word_glued_to_punctuation_is_refused"),
    (PSEUDO, 'condition.replace(PSEUDO, " ")', "condition", f"{ANSWERS}::test_a_prompt_has_exactly_one_pseudo_word"),
    (SOURCE, '("held_out", "==", held_out)', '("held_out", "in", [True, False])',
     f"{ANSWERS}::test_held_out_captions_are_not_trained_on"),
]  # fmt: skip
