"""Mistakes that the exams of `compose` and `attributes`, their suites and their gate must not survive."""

RANKS = "training/ranking.py"
ATTRIBUTES = "training/benchmarks/attributes.py"
SUITE = "data/suites_composed.py"
BENCH, GATE = "tests/training/test_endpoint_benchmarks.py", "tests/training/test_gate.py"
DATA = "tests/data/test_suites.py"
ROBUSTNESS, SHOWN = "training/benchmarks/robustness.py", "tests/training/test_diagnostics.py"

MUTANTS: list[tuple[str, str, str, str]] = [
    (RANKS, "scores >= best - TIE", "scores > best", f"{BENCH}::TestComposedRanks::test_pessimistic_rank"),
    (
        RANKS, "            scores[rows, own[part]] = -np.inf\n", "            pass\n",
        f"{BENCH}::TestComposedRanks::test_reference_is_nearest_and_target_second",
    ),
    (
        RANKS, "best - TIE) & ~correct)", "best - TIE))",
        f"{BENCH}::TestComposedRanks::test_further_targets_push_nothing_down",
    ),
    (
        ATTRIBUTES, "(np.array(names)[chosen] == labels[mine]) & clear", "np.array(names)[chosen] == labels[mine]",
        f"{BENCH}::TestAttributes::test_highest_probability_strictly",
    ),
    (
        ATTRIBUTES, "title or None for", "title for",
        f"{BENCH}::TestAttributes::test_missing_titles_are_told_as_none",
    ),
    (
        ATTRIBUTES, "generator.integers(0, families, families), minlength=families)[units]",
        "generator.integers(0, len(units), len(units)), minlength=len(units))",
        f"{BENCH}::TestRecallAtPrecision::test_interval_is_of_families_and_the_same_every_time",
    ),
    (
        ATTRIBUTES, "    control=CONTROL,\n", "",
        f"{GATE}::test_a_model_that_learnt_the_commonest_class_is_not_promoted",
    ),
    (
        "training/verdict.py", "in of_endpoint(config.endpoint).items()", "in BENCHMARKS.items()",
        f"{GATE}::test_each_endpoint_is_judged_by_its_own_benchmarks",
    ),
    (
        SUITE, ' - {row["image_key"]}', "",
        f"{DATA}::test_a_photo_that_query_and_answer_share_is_no_answer",
    ),
    (
        SUITE,
        "return () if any(row[name] is None and name not in lacking for name in CHANGES) else tuple",
        "return tuple",
        f"{DATA}::test_unknown_attributes_are_neither_asked_about_nor_answers",
    ),
    (
        "training/benchmarks/category.py", "== labels) & clear", "== labels)",
        f"{SHOWN}::TestCategory::test_the_likeliest_type_and_no_tie",
    ),
    (
        ROBUSTNESS, "items, examinee.attributes(keys, [None] * len(keys))", "items, examinee.attributes(keys, titles)",
        f"{SHOWN}::TestRobustness::test_without_the_title_is_what_is_answered_to_none",
    ),
    (
        ROBUSTNESS, "items.sort_by(\"item_id\").slice(0, ITEMS)", "items.slice(items.num_rows - ITEMS)",
        f"{SHOWN}::TestRobustness::test_the_sample_is_the_smallest_ids_and_ranks_are_among_all",
    ),
]  # fmt: skip
