"""The log of a training run: losses without times for the model folder, rates for whoever watches, and the curve."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.record import write_atomically

METRICS, CURVE, BOARDS = "metrics.jsonl", "loss.png", "tensorboard"
History = list[dict[str, Any]]
COLOURS = ("#1f4e79", "#b7791f", "#1a7f37", "#c0392b", "#6b4e9b", "#5f6b73", "#2a9d8f", "#8d5524")


class Journal:
    """Means of the loss and its parts over every `log_every` steps, and what validations found.

    `history` and `validations` are functions of the training alone and go into the model folder. The file at `path`,
    runs/train/<stage>/, also says items per second and the seconds left; runs/tensorboard/ has the same numbers for
    TensorBoard. Without a path nothing is written: the journal of a process that is not the first.
    """

    def __init__(self, path: Path | None, steps: int, batch: int, log_every: int) -> None:
        self.path, self.steps, self.batch, self.log_every = path, steps, batch, log_every
        self.history: History = []
        self.validations: History = []
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._since = (time.monotonic(), 0)
        self._board: Any = None

    def open(self, step: int) -> None:
        """Start to write after `step` steps: what a killed run wrote beyond its last checkpoint is dropped."""
        self._since = (time.monotonic(), step)
        if self.path is None:
            return
        kept = [line for line in _lines(self.path) if json.loads(line)["step"] <= step] if step else []
        write_atomically(self.path, "".join(f"{line}\n" for line in kept))
        from tensorboard.summary import Writer

        board = self.path.parents[2] / BOARDS / self.path.parent.name
        if not step:
            shutil.rmtree(board, ignore_errors=True)
        self._board = Writer(str(board))

    def add(self, step: int, lr: float, parts: Mapping[str, Tensor]) -> None:
        """Take note of one step; its values stay on their device until the interval ends."""
        for key, value in parts.items():
            self._sums[key] = self._sums.get(key, 0) + value.detach()
        self._count += 1
        done = step + 1
        if done % self.log_every and done != self.steps:
            return
        totals = torch.stack([total.float() for total in self._sums.values()]).tolist()  # one wait for the device
        means = {key: round(total / self._count, 6) for key, total in zip(self._sums, totals, strict=True)}
        line = {"step": done, "lr": float(f"{lr:.6g}"), **means}
        self.history.append(line)
        self._sums, self._count = {}, 0
        self._write({**line, **self._rates(done)})

    def validated(self, done: int, numbers: Mapping[str, float]) -> bool:
        """Take note of a validation after `done` steps; whether its first number is the best so far."""
        line = {"step": done, **numbers}
        first = next(iter(numbers))
        best = all(line[first] > earlier[first] for earlier in self.validations)
        self.validations.append(line)
        self._write(line)
        return best

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, in types a checkpoint may hold."""
        logs = {"history": json.dumps(self.history), "validations": json.dumps(self.validations)}
        return {**logs, "sums": dict(self._sums), "count": self._count}

    def load(self, state: Mapping[str, Any]) -> None:
        """Put `state` back."""
        self.history[:] = json.loads(state["history"])
        self.validations[:] = json.loads(state["validations"])
        self._sums, self._count = dict(state["sums"]), state["count"]

    def _write(self, line: Mapping[str, float]) -> None:
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        for key, value in line.items():
            if key != "step":
                self._board.add_scalar(key, value, int(line["step"]))
        self._board.flush()

    def _rates(self, done: int) -> dict[str, float]:
        begun, first = self._since
        rate = (done - first) / max(time.monotonic() - begun, 1e-9)
        return {"items_per_s": round(rate * self.batch, 2), "eta_s": round((self.steps - done) / rate, 1)}


def write_history(folder: Path, history: History, title: str) -> Path:
    """Write `metrics.jsonl` and the picture of it, whose path is returned."""
    (folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in history), encoding="utf-8")
    draw_curve(history, folder / CURVE, title)
    return folder / CURVE


def draw_curve(history: History, path: Path, title: str) -> None:
    """Plot the loss, and its parts below it where there are any, over the steps; equal histories give equal bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = [key for key in history[0] if key not in ("step", "lr", "loss")]
    figure = Figure(figsize=(9.6, 6.0 if parts else 3.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2 if parts else 1, 1, sharex=True, squeeze=False)[:, 0]
    for panel, keys in zip(panels, (["loss"], parts), strict=False):
        for key, colour in zip(keys, COLOURS, strict=False):
            panel.plot([line["step"] for line in history], [line[key] for line in history], color=colour, label=key)
        panel.grid(color="#eceff1")
        panel.set_ylim(bottom=0)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
        panel.legend(frameon=False, ncols=4, loc="upper right")
    panels[0].set_title(title, loc="left", fontweight="bold")
    panels[-1].set_xlabel("step")
    figure.savefig(path, metadata={"Software": None})


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
