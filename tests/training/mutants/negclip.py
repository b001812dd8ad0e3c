"""NegCLIP: where its rows and columns stand, its neighbours, its swaps."""

from __future__ import annotations

METHOD, SOURCE, SWAPS = "training/methods/negclip.py", "training/neighbours_source.py", "data/negatives/swaps.py"
TEST, DATA = "tests/training/test_negclip.py", "tests/data/test_negatives_swaps.py"

MUTANTS: list[tuple[str, str, str, str]] = [
    # images interleaved and texts not; a micro-batch's rows mixed up; columns of negatives that there are not; none
    (METHOD, '"image": pairs(image)', '"image": image.unflatten(0, (-1, 2))',
     f"{TEST}::test_every_row_brings_two_images_and_four_texts"),
    (METHOD, "stacked.unflatten(0, (2, -1)).transpose(0, 1)", "stacked.unflatten(0, (-1, 2))",
     f"{TEST}::test_micro_batches_hold_the_rows_of_the_whole"),
    (METHOD, "negative[:, None], valid[:, None])", "negative[:, None])",
     f"{TEST}::test_a_missing_negative_has_no_column"),
    (METHOD, "itc(image, text, self.scale(), negative[:, None], valid[:, None])", "itc(image, text, self.scale())",
     f"{TEST}::test_the_loss_of_the_specification"),
    # the neighbour with the row's own caption or negative; one of its own family; one that the batch already has
    (SOURCE, "self.own[hard, self._kinds(hard)]", "self.own[positions, self._kinds(positions)]",
     f"{TEST}::test_negatives_belong_to_the_captions_that_are_shown"),
    (SOURCE, "np.stack([positions, hard], 1)", "np.stack([positions, hard])",
     f"{TEST}::test_negatives_belong_to_the_captions_that_are_shown"),
    (SOURCE, "similarity.masked_fill_(", "similarity.masked_fill(", f"{TEST}::test_nearest_of_other_families"),
    (SOURCE, "if groups[p] not in taken", "if p not in ()",
     f"{TEST}::test_a_neighbour_of_a_family_in_the_batch_gives_way"),
    (SOURCE, "similarity.topk(min(count, len(features)), 1)", "(-similarity).topk(min(count, len(features)), 1)",
     f"{TEST}::test_nearest_is_the_same_in_blocks"),
    # swaps by substring, inside words, and of spans whose order does not matter
    ("data/negatives/relation.py", 'return Draft("swap", start, end, replacement)',
     'return Draft("swap", 0, len(caption), caption.replace(one, "#").replace(two, one).replace("#", two))',
     f"{DATA}::test_a_swap_is_of_whole_words_and_only_reorders"),
    (SWAPS, '_WORD = re.compile(r"\\S+")', '_WORD = re.compile(r"\\w+")',
     f"{DATA}::test_a_swap_is_of_whole_words_and_only_reorders"),
    (SWAPS, "if not _interchangeable(caption, *pair)", "if pair",
     f"{DATA}::test_pairs_whose_order_does_not_matter_stay"),
    (SWAPS, "if fold(made.negative) in known:", "if not made.negative:",
     f"{DATA}::test_pairs_whose_order_does_not_matter_stay"),
]  # fmt: skip
