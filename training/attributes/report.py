"""How a trained CMA-CLIP weighs picture and title, task by task, for its training record."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from data.stage import Run

PICTURE = "modality_weights.png"


def show_weights(run: Run, shares: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """A table and a picture of λ_I (N,) by task: its mean, and where the middle nine tenths of the products lie."""
    rows = []
    for task, found in shares.items():
        low, high = np.quantile(found, (0.05, 0.95))
        numbers = {"picture": found.mean(), "title": 1 - found.mean(), "picture_5%": low, "picture_95%": high}
        rows.append({"task": task, **{name: round(float(value), 3) for name, value in numbers.items()}})
    run.table("Modality weights", rows)
    _draw(run, shares)


def _draw(run: Run, shares: Mapping[str, npt.NDArray[np.float32]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1 + 0.5 * len(shares)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.boxplot(list(shares.values()), orientation="horizontal", whis=(5, 95), showfliers=False, showmeans=True)
    axes.set_yticks(range(1, len(shares) + 1), [task.replace("_", " ") for task in shares])
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.set_xlabel("weight of the picture, the title has the rest; box: middle half, whiskers: 5 to 95 %")
    axes.set_title("Modality weights by task, validation split", loc="left", fontweight="bold")
    figure.savefig(run.out / PICTURE, metadata={"Software": None})
    run.picture("Modality weights", run.out / PICTURE)
