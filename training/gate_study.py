"""How often the gate is right: its error rates by simulation, in docs/studies/gate.{json,md,png}.

python -m training.gate_study              the full curves, some minutes on one core
python -m training.gate_study --quick      a twentieth of the worlds, to see that it works

Reads nothing; the test suite runs smaller versions of the same simulations (tests/training/test_gate_rates.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from data import stage
from data.record import write_atomically
from training.gate_worlds import World, first_lucky, rule
from training.statistics import estimate
from training.verdict import judge

DOCS, NAME, SEED = Path("docs/studies"), "gate", 101
WIDE, MARGIN = 0.5, 0.02  # a margin that nothing breaks, so that only superiority counts; and one in use
ATTEMPTS = 20
LUCK = "compose"  # an endpoint with one compared metric: the worst case, for Holm's correction takes nothing away
EFFECTS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.12)
FAMILIES = (100, 200, 400, 800)
DECIDED = 1.6  # a gain of this over the square root of the families passes in most worlds
COVERED = ((25, 1), (25, 6), (100, 1), (100, 6), (400, 1), (400, 6))  # families, items of each

Rows = list[dict[str, Any]]


def lucky(worlds: int) -> Rows:
    """The share of worlds in which one of k equal challengers was promoted, with and without spending alpha."""
    found, by = [], rule(WIDE, endpoint=LUCK)
    for spend in (True, False):
        generator = np.random.default_rng(SEED)
        firsts = [first_lucky(generator, ATTEMPTS, by, spend=spend) for _ in _told(worlds, f"spend={spend}")]
        for k in range(1, ATTEMPTS + 1):
            share = sum(0 < first <= k for first in firsts) / worlds
            found.append({"spend": spend, "attempts": k, "share": round(share, 4), "worlds": worlds})
    return found


def power(worlds: int) -> Rows:
    """Verdicts by true effect and number of families of three items; no loss on the other benchmarks."""
    generator, found, by = np.random.default_rng(SEED + 1), [], rule(MARGIN)
    for families in FAMILIES:
        for effect in EFFECTS:
            verdicts: Counter[str] = Counter()
            for _ in _told(worlds, f"{families} families, effect {effect}"):
                world = World(generator, families)
                challenger = world.challenger(by.primary, effect, elsewhere=effect)
                verdicts[judge(challenger, world.champion, by).verdict] += 1
            found.append({"families": families, "items": 3 * families, "effect": effect, "worlds": worlds,
                          **_shares(verdicts, worlds)})  # fmt: skip
    return found


def coverage(worlds: int) -> Rows:
    """How often a 95 % interval holds the true difference: families resampled, and items as if they were independent.

    A family's own mean difference is -0.6, 0, 0.2 or 0.8, so the true difference is 0.1.
    """
    generator, found = np.random.default_rng(SEED + 2), []
    means = np.array([-0.6, 0.0, 0.2, 0.8])
    for families, size in COVERED:
        hits = Counter({"families": 0, "items": 0})
        for _ in _told(worlds, f"{families} families of {size}"):
            mean = np.repeat(generator.choice(means, families), size)
            values = np.where(generator.random(len(mean)) < np.abs(mean), np.sign(mean), 0.0)
            units = {"families": np.repeat(np.arange(families), size), "items": np.arange(len(mean))}
            for how, unit in units.items():
                e = estimate(values, unit, (-1.0, 1.0), draws=1000)
                hits[how] += int(e.low <= means.mean() <= e.high)
        found.append({"families": families, "size": size, "worlds": worlds, **_shares(hits, worlds)})
    return found


def halving(passes: int) -> Rows:
    """What a random half of the families says where all of them pass."""
    found, by = [], rule(MARGIN)
    for families in FAMILIES:
        generator, verdicts = np.random.default_rng(SEED + families), Counter[str]()
        for _ in _told(passes, f"halves of {families} families"):
            passing = None
            while passing is None:
                world, effect = World(generator, families), DECIDED / families**0.5
                challenger = world.challenger(by.primary, effect, elsewhere=effect)
                if judge(challenger, world.champion, by).verdict == "pass":
                    passing = world.half(challenger)
            verdicts[judge(*passing, by).verdict] += 1
        found.append({"families": families, "passes": passes, **_shares(verdicts, passes)})
    return found


def study(scale: float) -> dict[str, Any]:
    """Every number of the study. `scale` multiplies how many worlds are drawn."""

    def worlds(full: int) -> int:
        return max(5, round(full * scale))

    return {"alpha": 0.05, "seed": SEED, "lucky": lucky(worlds(1500)), "power": power(worlds(100)),
            "coverage": coverage(worlds(1000)), "halving": halving(worlds(100))}  # fmt: skip


def _told(worlds: int, what: str) -> Any:
    return stage.progress(range(worlds), what="worlds", label=f"gate_study, {what}")


def _shares(counts: Counter[str], total: int) -> dict[str, float]:
    names = counts if set(counts) <= {"families", "items"} else ("pass", "inconclusive", "fail")
    return {f"by_{n}" if n in ("families", "items") else n: round(counts[n] / total, 4) for n in names}


def draw(found: dict[str, Any], path: Path) -> None:
    """Four panels: luck, power, coverage, halves."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from training.plots import BAD, FAINT, GOOD, OPEN, PLAIN

    figure = Figure(figsize=(9.6, 7.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    (luck, strength), (cover, halves) = figure.subplots(2, 2)
    for spend, colour, label in ((True, GOOD, "alpha spent"), (False, BAD, "every attempt at the first level")):
        rows = [row for row in found["lucky"] if row["spend"] is spend]
        luck.plot([r["attempts"] for r in rows], [100 * r["share"] for r in rows], "o-", color=colour, label=label)
    luck.axhline(100 * found["alpha"], color=FAINT, linestyle="--", label="alpha")
    luck.set(title="Equal challengers: one was promoted", xlabel="attempts at one champion", ylabel="% of worlds")
    luck.set_xticks(range(2, ATTEMPTS + 1, 2))
    for families, colour in zip(FAMILIES, (OPEN, BAD, PLAIN, GOOD), strict=True):
        rows = [row for row in found["power"] if row["families"] == families]
        points, shares = ([100 * row[key] for row in rows] for key in ("effect", "pass"))
        strength.plot(points, shares, "o-", color=colour, label=f"{3 * families:,} items")
    strength.set(title="Power of a first attempt", xlabel="true gain, points", ylabel="% promoted")
    places = np.arange(len(COVERED))
    for shift, how, colour in ((-0.15, "families", GOOD), (0.15, "items", BAD)):
        values = [100 * row[f"by_{how}"] for row in found["coverage"]]
        cover.bar(places + shift, values, 0.28, color=colour, label=f"{how} resampled")
    cover.axhline(95, color=FAINT, linestyle="--")
    cover.set(title="Coverage of 95 % intervals", ylabel="% hold the truth", ylim=(50, 108), xlabel="families x items")
    cover.set_xticks(places, [f"{families} x {size}" for families, size in COVERED])
    bottom = np.zeros(len(FAMILIES))
    for verdict, colour in (("pass", GOOD), ("inconclusive", OPEN), ("fail", BAD)):
        heights = np.array([100 * row[verdict] for row in found["halving"]])
        halves.bar([f"{3 * f:,}" for f in FAMILIES], heights, 0.5, bottom=bottom, color=colour, label=verdict)
        bottom += heights
    halves.set(title="A pass, judged on half of its families", xlabel="items of the pass", ylabel="%", ylim=(0, 116))
    for axes in (luck, strength, cover, halves):
        axes.legend(fontsize=8, edgecolor="none", ncols=1 if axes in (luck, strength) else 3)
        axes.grid(axis="y", color="#eceff1")
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.savefig(path, metadata={"Software": None})


def page(found: dict[str, Any]) -> str:
    """The study as markdown."""
    last = {row["spend"]: row for row in found["lucky"] if row["attempts"] == ATTEMPTS}
    return "\n\n".join([
        "# How often the gate is right",
        "Claim: a model that is no better than its champion replaces it with a chance of at most alpha = "
        f"{100 * found['alpha']:g} %, over all attempts; too few items give `inconclusive`, never `fail`.",
        f"Simulated worlds (`training/gate_worlds.py`, seed {found['seed']}): families of three items share how hard "
        "they are, and a challenger is better on some families and worse on others by 15 points, so items are not "
        f"independent. Made by `python -m training.gate_study`. With spending, one of {ATTEMPTS} equal challengers was "
        f"promoted in {100 * last[True]['share']:.1f} % of {last[True]['worlds']:,} worlds; judged at the first "
        f"attempt's level every time, in {100 * last[False]['share']:.1f} %.",
        f"![curves]({NAME}.png)",
        "## Equal challengers: the chance that one of k was promoted\n\nOne compared metric, so that Holm's correction "
        "takes nothing away; the margin is out of reach, so that only superiority counts.\n\n" + _table(found["lucky"]),
        "## Verdicts of a first attempt, by true gain on every benchmark (margin 2 points)\n\n"
        + _table(found["power"]),
        "## Coverage of 95 % intervals\n\nFamilies succeed or fail together; the true difference is 10 points. "
        "Percentile intervals, with the two added items of `training.statistics.estimate`.\n\n"
        + _table(found["coverage"]),
        "## A pass, judged on a random half of its families\n\n" + _table(found["halving"]),
    ]) + "\n"  # fmt: skip


def _table(rows: Rows) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the worlds")
    parser.add_argument("--out", type=Path, default=DOCS, help=f"folder of the three files (default: {DOCS})")
    args = parser.parse_args(argv)
    found = study(0.05 if args.quick else 1.0)
    args.out.mkdir(parents=True, exist_ok=True)
    write_atomically(args.out / f"{NAME}.json", json.dumps(found, indent=1) + "\n")
    draw(found, args.out / f"{NAME}.png")
    write_atomically(args.out / f"{NAME}.md", page(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
