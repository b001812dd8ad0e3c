"""Groups of texts of like length, so that little of what is computed is padding."""

from __future__ import annotations

from collections.abc import Sequence

OVERHEAD = 24  # tokens that one more group costs: its calls, and its smaller matrices


def cuts(lengths: Sequence[int]) -> list[int]:
    """Where to cut texts sorted by length, so that the padded tokens and `OVERHEAD` per group are fewest.

    Args:
        lengths: ascending, at least one.

    Returns the ends of the groups, ascending; the last one is the number of texts. Every group is padded to its longest
    text. Cuts lie only where the length changes, and the best ones are found exactly, by dynamic programming over the
    distinct lengths (77 at most for CLIP).
    """
    ends = [i for i in range(1, len(lengths)) if lengths[i] != lengths[i - 1]] + [len(lengths)]
    best, came_from = (
        [0.0],
        [0],
    )  # per number of distinct lengths covered: fewest tokens, and where the last group began
    starts = [0, *ends]
    for stop, end in enumerate(ends):
        costs = [best[begin] + lengths[end - 1] * (end - starts[begin]) + OVERHEAD for begin in range(stop + 1)]
        begin = min(range(stop + 1), key=costs.__getitem__)
        best.append(costs[begin])
        came_from.append(begin)
    found, at = [], len(ends)
    while at:
        found.append(starts[at])
        at = came_from[at]
    return found[::-1]
