"""Groups of texts by length against every possible grouping."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from training.buckets import OVERHEAD, cuts


def cost(lengths: list[int], ends: list[int]) -> int:
    return sum(lengths[b - 1] * (b - a) + OVERHEAD for a, b in itertools.pairwise([0, *ends]))


@given(st.lists(st.integers(2, 77), min_size=1, max_size=9).map(sorted))
def test_no_grouping_is_cheaper(lengths: list[int]) -> None:
    found = cuts(lengths)
    assert found == sorted(set(found))
    assert found[-1] == len(lengths)
    every = (
        [*chosen, len(lengths)]
        for count in range(len(lengths))
        for chosen in itertools.combinations(range(1, len(lengths)), count)
    )
    assert cost(lengths, found) == min(cost(lengths, list(ends)) for ends in every)


def test_by_hand() -> None:
    """Ten texts of 4 tokens and one of 60: 660 tokens together, 40 + 60 apart and one group more."""
    assert cuts([4] * 10 + [60]) == [10, 11]
    assert cuts([4, 5, 6]) == [3]
    assert cuts([7]) == [1]
