"""Planted true "negatives" are found again: 0, 2, 5 and 10 % lie in the audit's interval, as often as it promises."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from catalogs import product, starter_rows

from data.negatives.audit import AuditConfig, Verdict, estimate, judge, key_of, sample
from data.negatives.noise import SHARES, plant
from data.negatives.witnesses import Witnesses
from data.text import fold

Row = dict[str, Any]
NOISE = (0.0, 0.02, 0.05, 0.10)
PLAIN = (("black", "yellow"), ("white", "purple"), ("blue", "orange"), ("red", "green"), ("grey", "pink"))
LIMIT = AuditConfig().max_error


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [dict(row) for row in starter_rows()[:2500]]


@pytest.fixture(scope="module")
def negatives(rows: list[Row]) -> list[Row]:
    """False statements that owe nothing to the generator: an unlike colour, umbrellas in the place of an article."""
    found = []
    for row in rows:
        caption = row["derived_caption"]
        for old, new in PLAIN:
            if row["base_colour"] == old.title() and new not in (row["title"] or "").lower():
                found.append(_edited(row, "colour", "attribute", caption, caption.replace(old, new, 1)))
        if row["article_type"] in ("Shirts", "Tshirts", "Watches"):
            umbrella = caption.replace(row["article_type"].lower(), "umbrellas")
            found.append(_edited(row, "article", "object", caption, umbrella))
    return found


def _edited(row: Row, edit: str, edit_type: str, caption: str, negative: str) -> Row:
    return {"row_id": row["row_id"], "caption_kind": "derived", "caption": caption, "edit_type": edit_type,
            "edit": edit, "negative": negative}  # fmt: skip


@pytest.fixture(scope="module")
def witnesses(rows: list[Row]) -> Witnesses:
    return Witnesses(rows)


def test_planting_hits_the_share_and_repeats_with_the_seed(rows: list[Row], negatives: list[Row]) -> None:
    assert len(negatives) > 1000
    for share in NOISE:
        planted = plant(negatives, rows, share, 5)
        assert planted == plant(negatives, rows, share, 5)
        assert planted.share == pytest.approx(share, abs=0.51 / len(negatives))
        changed = [bool(kind) for kind in planted.kinds]
        assert [row != old for row, old in zip(planted.rows, negatives, strict=True)] == changed
    assert plant(negatives, rows, 0.1, 5).kinds != plant(negatives, rows, 0.1, 6).kinds


def test_every_kind_is_planted_and_says_something_else(rows: list[Row], negatives: list[Row]) -> None:
    planted = plant(negatives, rows, 0.3, 1)
    kinds = Counter(planted.kinds)
    assert all(kinds[kind] > 20 for kind in SHARES)
    for row, kind in zip(planted.rows, planted.kinds, strict=True):
        if kind:
            assert fold(row["negative"]) != fold(row["caption"])


def test_planted_words_are_true_by_hand() -> None:
    rows = [product(title="Puma Men White Tee", usage="Sports"),
            product(row_id="r1", title="Another Name", article_type="Tops", image_key="k0")]  # fmt: skip
    item = _edited(rows[0], "colour", "attribute", "Puma Men White Tee", "Puma Men Red Tee")
    texts = {(p.kinds[0], p.rows[0]["negative"]) for p in (plant([item], rows, 1.0, seed) for seed in range(60))}
    assert ("synonym", "Puma Men White T-shirt") in texts or ("synonym", "Puma Men White T-Shirt") in texts
    assert ("caption", "Another Name") in texts
    assert {kind for kind, _ in texts} == set(SHARES)
    assert any(kind == "attribute" and "Sports" in text for kind, text in texts)


@pytest.mark.parametrize("share", NOISE)
def test_planted_noise_is_recovered(rows: list[Row], negatives: list[Row], witnesses: Witnesses, share: float) -> None:
    for seed in range(3):
        planted = plant(negatives, rows, share, seed)
        found = estimate(judge(planted.rows, witnesses), Counter(row["edit"] for row in negatives)).whole.error
        assert found.low <= planted.share <= found.high, (seed, planted.share, found)
        assert (found.high <= LIMIT) == (share == 0.0), (seed, found)  # clean negatives pass, 2 % of noise does not


@pytest.mark.parametrize("share", NOISE[1:])
def test_coverage_over_samples_is_near_nominal(
    rows: list[Row], negatives: list[Row], witnesses: Witnesses, share: float
) -> None:  # fmt: skip
    """The whole set is judged once; of the intervals of many samples of it, about 95 in 100 hold the planted share."""
    planted = plant(negatives, rows, share, 9)
    everything = {key_of(verdict.row): verdict for verdict in judge(planted.rows, witnesses)}
    population = Counter(row["edit"] for row in planted.rows)
    inside = 0
    for seed in range(120):
        drawn = [everything[key_of(row)] for row in sample(planted.rows, 150, seed)]
        error = estimate(drawn, population).whole.error
        inside += error.low <= planted.share <= error.high
    assert inside >= 0.92 * 120


def test_labels_recover_what_no_witness_can_see(rows: list[Row], negatives: list[Row], witnesses: Witnesses) -> None:
    """Negatives true for a reason that stands nowhere: without labels they pass unseen, with 300 they do not."""
    generator = np.random.default_rng(4)
    truth = generator.random(len(negatives)) < 0.1
    judged = judge(negatives, witnesses)
    population = Counter(row["edit"] for row in negatives)
    assert estimate(judged, population).whole.error.high < LIMIT
    said = set(generator.permutation(len(negatives))[:300].tolist())
    labelled = [Verdict(v.row, v.witnesses, bool(truth[n]) if n in said else None) for n, v in enumerate(judged)]
    error = estimate(labelled, population).whole.error
    assert error.low <= truth.mean() <= error.high
    assert error.high > LIMIT


def test_recall_by_kind_is_high(rows: list[Row], negatives: list[Row], witnesses: Witnesses) -> None:
    planted = plant(negatives, rows, 0.3, 2)
    found = judge(planted.rows, witnesses)
    for kind in SHARES:
        heard = [verdict.true for verdict, how in zip(found, planted.kinds, strict=True) if how == kind]
        assert np.mean(heard) > 0.95, kind
