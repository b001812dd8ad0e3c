"""CLIP on own layers, the loader, and what the counters count: mistakes, and the tests that see them."""

BLOCKS, CLIP, LOADER = "training/clip_blocks.py", "training/openclip.py", "training/loader.py"
TESTS, PICTURES, COUNTS = (f"tests/training/test_{name}.py" for name in ("openclip", "loader", "counters"))
TEXT = f"{TESTS}::test_text_outputs_and_gradients_are_open_clips"
IMAGE = f"{TESTS}::test_image_outputs_and_gradients_are_open_clips"
SHORT = f"{TESTS}::test_the_short_last_layer_is_the_whole_one"

MUTANTS: list[tuple[str, str, str, str]] = [
    (CLIP, "device=x.device).triu(1)", "device=x.device).triu(2)", TEXT),  # a token sees the one behind it
    (CLIP, "return mask.sum(1) - 1", "return mask.sum(1) - 2", TEXT),  # read before the end of text
    (CLIP, "> end[:, None]", "> end[:, None] + 1", SHORT),  # the short last layer looks at padding
    (CLIP, "(self.positions[1:] - offset)", "self.positions[1:]", IMAGE),  # the mean is left out
    (CLIP, "self.patches.weight / self.std", "self.patches.weight", IMAGE),  # and the deviation
    (CLIP, ".permute(0, 2, 4, 1, 3, 5)", ".permute(0, 4, 2, 1, 3, 5)",
     f"{TESTS}::test_rectangular_pictures_and_patches"),  # patches column by column
    (BLOCKS, "* q.shape[-1] ** -0.5", "* q.shape[-1] ** 0.5", TEXT),
    (BLOCKS, "QUICK = 1.702", "QUICK = 1.0", f"{TESTS}::test_quick_gelu_by_hand"),
    (BLOCKS, "weight[width:], offset[width:]), 2)", "weight[width:], offset[width:]), 2)[::-1]", SHORT),  # k is v
    (BLOCKS, '"ln_1": "norm1"', '"ln_1": "norm2"', TEXT),
    (LOADER, 'and "exif" not in image.info', "", f"{PICTURES}::test_whole_pictures_are_those_of_evaluation"),
    (LOADER, "antialias=True", "antialias=False", f"{PICTURES}::test_crops_are_pillows_to_two_levels"),
    ("training/task.py", "words[rows, :width], mask[rows, :width]", "words[rows], mask[rows]",
     f"{COUNTS}::test_little_of_what_the_text_tower_computes_is_padding"),
    ("training/methods/ce_clip.py", "self.texts(captions, negatives, self.invalid.to(valid.device))",
     "self.texts(captions, negatives, self.invalid.to(valid.device), captions)[: len(captions.ids) + "
     "len(negatives.ids) + 1]", f"{COUNTS}::test_passes_per_step"),
    ("training/trainer.py", "self.journal.add(step, lr, parts)",
     'self.journal.add(step, float(parts["loss"]) * 0 + lr, parts)',
     f"{COUNTS}::test_the_loop_reads_no_value_between_log_steps"),
]  # fmt: skip
