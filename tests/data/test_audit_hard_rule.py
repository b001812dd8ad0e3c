"""The brute-force reading of the hard rule sees each way to break it."""

from __future__ import annotations

from typing import Any

import pytest
from catalogs import product

from data.negatives.hard_rule import violations

Row = dict[str, Any]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"negative": "Puma Men Blue Tee", "replacement": "Blue"}, "the replacement may be true of the group"),
        (
            {"negative": "Puma Men Green Tee", "replacement": "Green"},
            "the replacement is named in a caption of the group",
        ),
        ({"negative": "Puma Men Navy Top", "replacement": "Navy Top"}, "the replacement is no known word"),
        ({"negative": "Puma Women Navy Tee"}, "the negative differs outside the offsets"),
        ({"start": 8}, "the offsets do not point at the original"),
        ({"caption": "Puma Men White Teee"}, "the caption is not the product's"),
        ({"negative": "puma men red tee", "replacement": "red"}, "the negative is a caption of the group"),
    ],
)
def test_the_hard_rule_sees_what_is_planted(change: Row, wrong: str) -> None:
    rows = [
        product(row_id="a", title="Puma Men White Tee", base_colour="White"),
        product(row_id="b", title="Puma  men white tee", base_colour="Navy Blue", image_key="k1"),
        product(row_id="c", title="Puma Men Red Tee", base_colour="Black", image_key="k0"),
        product(row_id="d", title="Puma Green Tee", base_colour="Black", image_key="k0"),
    ]
    good = {
        "row_id": "a", "caption_kind": "title", "caption": "Puma Men White Tee", "edit_type": "attribute",
        "edit": "colour", "negative": "Puma Men Pink Tee", "start": 9, "end": 14, "original": "White",
        "replacement": "Pink",
    }  # fmt: skip
    assert list(violations([good], rows)) == []
    assert (wrong, "a") in list(violations([{**good, **change}], rows))
