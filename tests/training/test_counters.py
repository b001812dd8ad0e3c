"""What a step costs, counted and not timed: tokens, floating point operations, passes, and waits for the device."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from training import openclip, trainer
from training.config import EncoderConfig, TowerSpec, TrainerConfig
from training.distributed import Outputs
from training.encoder import DualEncoder
from training.methods.ce_clip import CeClip
from training.methods.clip import Clip
from training.task import Batch, Task, Tokens

CATALOG = Path(__file__).resolve().parents[2] / "data/starter/drop-1/catalog.csv"
ROWS, WIDTH, LAYERS, SIDE, PATCH, EMBED = 16, 64, 3, 48, 16, 32
PATCHES = (SIDE // PATCH) ** 2


@pytest.fixture
def encoder() -> DualEncoder:
    """A CLIP of two small towers and the real vocabulary."""
    torch.manual_seed(0)
    common = {"embed_dim": EMBED, "quick_gelu": True}
    vision = {"layers": LAYERS, "width": WIDTH, "head_width": 16, "patch_size": PATCH, "image_size": SIDE}
    text = {"layers": LAYERS, "width": WIDTH, "heads": 4}
    return DualEncoder(
        EncoderConfig(
            image_size=(SIDE, SIDE), embed_dim=EMBED, max_tokens=77,
            image=TowerSpec(kind="open_clip", arch="t", shape={**common, "vision_cfg": vision},
                            mean=openclip.MEAN, std=openclip.STD),
            text=TowerSpec(kind="open_clip", arch="t", shape={**common, "text_cfg": text}),
        ),
        openclip.tokenizer(),
    )  # fmt: skip


def titles(count: int) -> list[str]:
    """Real titles."""
    return pd.read_csv(CATALOG, usecols=["productDisplayName"], nrows=count).productDisplayName.tolist()


def a_batch(encoder: DualEncoder) -> dict[str, Any]:
    """A batch of `ROWS` with two negatives per row, written by hand from the titles."""
    texts = titles(ROWS)
    valid = torch.zeros(ROWS, 4, dtype=torch.bool)
    valid[:, 1:3] = True
    negatives = [text.replace(" ", f" {word} ", 1) for text in texts for word in ("red", "wool")]
    return {
        "image": torch.randint(0, 256, (ROWS, 3, SIDE, SIDE), dtype=torch.uint8),
        "caption": Tokens(*encoder.tokenize(texts)),
        "negatives": (Tokens(*encoder.tokenize(negatives)), valid),
        "place": torch.arange(ROWS),
    }


class Calls:
    """How often each module was called, and with how many tokens."""

    def __init__(self, **modules: nn.Module) -> None:
        self.count: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        for name, module in modules.items():
            module.register_forward_pre_hook(lambda _, inputs, name=name: self._note(name, inputs[0]))

    def _note(self, name: str, value: Tensor) -> None:
        self.count[name] += 1
        self.tokens[name] += value.shape[0] * value.shape[1]


@pytest.mark.parametrize("rows", [32, 64])
def test_little_of_what_the_text_tower_computes_is_padding(encoder: DualEncoder, rows: int) -> None:
    """Tokens through the tower per token needed, on real titles: at most 1.25, where padding to 77 costs 8."""
    task = Clip(Clip.Config(), encoder)
    calls = Calls(text=encoder.text.trunk.layers[0])
    needed, padded = 0, 0
    every = titles(4 * rows)
    for start in range(0, len(every), rows):
        tokens = Tokens(*encoder.tokenize(every[start : start + rows]))
        needed, padded = needed + int(tokens.mask.sum()), padded + 77 * rows
        with torch.no_grad():
            task.texts(tokens)
    assert calls.tokens["text"] / needed <= 1.25
    assert padded / needed > 7


def test_passes_per_step(encoder: DualEncoder) -> None:
    """One image pass per step, and every text goes through the text tower once: five per row, fewer where invalid."""
    batch = a_batch(encoder)
    for task, texts in ((Clip(Clip.Config(), encoder), ROWS), (CeClip(CeClip.Config(), encoder), 3 * ROWS + 1)):
        seen: list[int] = []
        calls = Calls(image=encoder.image.trunk.layers[0])
        handle = encoder.text.trunk.layers[0].register_forward_pre_hook(lambda _, x, seen=seen: seen.append(len(x[0])))
        task.training_step(batch, 0)["loss"].backward()
        handle.remove()
        assert calls.count["image"] == 1
        assert sum(seen) == texts


def layer(tokens: int, length: int, read: int | None = None) -> float:
    """Multiply-adds x 2 of a layer over `tokens` tokens in texts of `length`; `read`: only so many are read after it.

    Matrices: query, key, value 3 W², out W², feed 8 W²; attention 2 L W per token for logits and for mixing each.
    """
    read = tokens if read is None else read
    return 2 * WIDTH * (2 * WIDTH * tokens + 10 * WIDTH * read + 2 * length * read)


def tower(groups: list[tuple[int, int]], *, projection: int = EMBED) -> float:
    """Forward operations of a tower over `groups` of (sequences, length), the last layer at one position each."""
    total = 0.0
    for count, length in groups:
        total += (LAYERS - 1) * layer(count * length, length) + layer(count * length, length, count)
        total += 2 * count * WIDTH * projection
    return total


@pytest.mark.parametrize("method", [Clip, CeClip])
def test_operations_of_a_step(encoder: DualEncoder, method: type[Task]) -> None:
    """Forward once and backward twice the towers' analytic count, within 5 %."""
    task = method.build(method.Config(), encoder)
    batch = a_batch(encoder)
    shapes: list[tuple[int, int]] = []
    encoder.text.trunk.layers[0].register_forward_pre_hook(lambda _, x: shapes.append(x[0].shape[:2]))
    with FlopCounterMode(display=False) as counter:
        task.training_step(batch, 0)["loss"].backward()
    patches = 2 * ROWS * PATCHES * 3 * PATCH**2 * WIDTH
    image = tower([(ROWS, PATCHES + 1)])
    expected = 3 * (tower(shapes) + image) + 2 * patches  # pixels need no gradient
    rows = ROWS if method is Clip else 5 * ROWS
    expected += (
        3 * 2 * ROWS * rows * EMBED * (1 if method is Clip else 2)
    )  # logits of pictures, and of texts with texts
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.05)


class Given:
    """A source of one batch, given at every step."""

    def __init__(self, batch: Batch, steps: int) -> None:
        self.batch, self.steps = batch, steps

    def starts_epoch(self, step: int) -> int | None:
        return 0 if step == 0 else None

    def progress(self, step: int) -> float:
        return step / self.steps

    def row_ids(self, step: int) -> list[str]:
        return []

    def batches(self, step: int) -> list[Batch]:
        return [self.batch]

    def observe(self, step: int, outputs: Outputs) -> None: ...

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None: ...

    def close(self) -> None: ...


class Waits(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts what makes the host wait for a value from the device, per step: `.item()`, `float()`, `bool()` and kin."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.steps and function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
            self.steps[-1] += 1
        return function(*args, **(kwargs or {}))


class Losses(Task):
    """A task that never looks at a value: what is counted is the loop's own."""

    needs = frozenset({"image"})

    def encode(self, batch: Batch, step: int) -> Outputs:
        return {"image": self.images(batch)}

    def losses(self, outputs: Outputs, step: int) -> dict[str, Tensor]:
        return {"loss": outputs["image"].square().sum() * self.scale()}

    def after_step(self) -> None: ...


def test_the_loop_reads_no_value_between_log_steps(
    encoder: DualEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    waits = Waits()
    task = Losses(None, encoder)
    task.before_step = lambda step, progress: waits.steps.append(0)  # type: ignore[method-assign]
    batch = {"image": torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8), "place": torch.arange(2)}
    config = TrainerConfig(batch=2, log_every=4, lr=1e-4, clip=1.0, threads=1, precision="fp32", frozen=("text.trunk",))
    with waits:
        trainer.fit(task, Given(batch, 12), config, name="counted", binding="0" * 64)
    assert [number for number, count in enumerate(waits.steps, 1) if count] == [4, 8, 12]
    lines = (tmp_path / "runs/train/counted/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [4, 8, 12]
