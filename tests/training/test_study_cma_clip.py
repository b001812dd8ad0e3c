"""The CMA-CLIP study: its noise, its outcomes, and that recall can be computed from them again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from training.labels import labels
from training.recall_at_precision import recall_at_precision
from training.studies import cma_clip
from training.studies.cma_clip import ARMS, CONDITIONS, SETTINGS, STUDY, donors


def test_wrong_titles_come_from_other_products() -> None:
    groups = np.arange(400) // 4
    found = donors(groups, 0.4, seed=3)
    wrong = found != np.arange(400)
    assert wrong.sum() == 160
    assert (groups[found[wrong]] != groups[wrong]).all()
    np.testing.assert_array_equal(found, donors(groups, 0.4, seed=3))
    np.testing.assert_array_equal(donors(groups, 0.0, seed=3), np.arange(400))


def test_arms_have_settings_and_headlines_exist() -> None:
    assert SETTINGS.keys() == ARMS.keys() == STUDY.arms.keys()
    assert STUDY.rivals("concatenation, noisy") == ("CMA-CLIP, noisy",)
    names = {f"{metric}, {condition}" for metric, *_ in cma_clip.measured(0, 0, 0, 0) for condition in CONDITIONS}
    assert {metric for _, metric, _ in STUDY.headline} <= names


@pytest.mark.parametrize("arm", ["CMA-CLIP", "concatenation, noisy"])
def test_a_run_scores_every_labelled_product_under_every_condition(
    workspace: Path, arm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = dataclasses.replace(cma_clip.settings(0), epochs=1, batch=8, threads=1)
    monkeypatch.setattr(cma_clip, "settings", lambda seed: short)
    monkeypatch.setattr(cma_clip, "LEVELS", (0, 1))
    cma_clip.frozen_words.cache_clear()
    frame = cma_clip.run(arm, 0).to_pandas()
    cma_clip.frozen_words.cache_clear()
    known = int((labels(Path("store/dataset"), "test")[:, 2:] >= 0).sum())
    assert len(frame) == known * len(CONDITIONS) * 3
    assert set(frame["slice"]) == {"gender", "season", "usage"}
    clean = frame[frame.metric == "accuracy, clean"]
    recalled = frame[frame.metric == "recall at 90 % precision, clean"]
    for task, rows in clean.groupby("slice"):
        again = recall_at_precision(rows.outcome.to_numpy(), rows.detail.to_numpy())
        assert recalled[recalled.slice == task].outcome.mean() == pytest.approx(again)
    assert frame[frame.metric == "title weight, clean"].outcome.between(0, 1).all()
