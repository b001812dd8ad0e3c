"""The contract between a method and the trainer: what every method file under methods/ provides.

The trainer knows only this class. A method is a `Task` with a frozen `Config`. It turns its rows of a batch into
outputs (`encode`) and the outputs of all rows into losses (`losses`); that cut is where several processes exchange
features and where a large batch is taken in pieces. A method never sees an optimiser, a device, a file or a clock.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from data.params import UserError, canonical
from training.distributed import Outputs
from training.encoder import DualEncoder, save_encoder

if TYPE_CHECKING:
    from data.stage import Run
    from training.config import TrainerConfig
    from training.source import Batches

Key = Literal["image", "caption", "negatives", "product", "text", "index"]
Batch = Mapping[str, Any]
BUCKET = 64  # texts that are enough for a group of their own
BUCKETS = 3  # least length groups per text pass: sorted by length and cut, each group is padded to its own longest only
METHOD, METHOD_WEIGHTS = "method.json", "method.safetensors"
DATASET, HARD, BASE = Path("store/dataset"), Path("store/negatives"), Path("store/models/base")


@dataclass(frozen=True)
class Tokens:
    """Tokenised texts: ids and mask int64 (N, L), L the longest of these texts.

    `features` float32 (N, W): what a frozen text trunk makes of them, where it was computed beforehand.
    """

    ids: Tensor
    mask: Tensor
    features: Tensor | None = None

    def to(self, device: torch.device) -> Tokens:
        return Tokens(
            self.ids.to(device), self.mask.to(device), None if self.features is None else self.features.to(device)
        )


@dataclass(frozen=True)
class ExportFunction:
    """One served function of a trained model, ready for `torch.onnx.export`.

    Attributes:
        module: plain tensors in, a tuple of tensors (or one) out; eval mode.
        inputs: example tensors by input name, float32 or int64.
        outputs: names of what the module returns, in order.
        axes: {input name: {axis: its name}} of the axes that may have any length; axes of one name go together.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    axes: dict[str, dict[int, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ExportSpec:
    """What leaves training: the endpoints a trained model can hold, and what serves them.

    `functions` names the encoder functions (`encode_image`, `encode_text`); `modules` holds what a method has besides.
    """

    endpoints: tuple[str, ...]
    functions: tuple[str, ...]
    modules: dict[str, ExportFunction] = field(default_factory=dict)


class Task(nn.Module):
    """A method in training.

    A batch holds b rows of the global batch of B, on the model's device, with the keys of `needs` and always `place`:
        image: trunk features float32 (b, F) where the trunk is frozen, else pixels uint8 (b, 3, H, W);
        caption: `Tokens` of b captions;
        negatives: (`Tokens` of the V valid ones, sample-major; validity bool (b, 4), in the order of `sampling.TYPES`);
        product: int64 (b,) product family (equal photo or title); text: int64 (b,) which distinct caption it is;
        index: int64 (b,) position in the training products; place: int64 (b,) row of the global batch.
    """

    Config: ClassVar[type]
    needs: ClassVar[frozenset[Key]]
    stage: ClassVar[str]  # the stage of dvc.yaml that trains it
    inputs: ClassVar[tuple[Path, ...]] = (DATASET, HARD, BASE)
    saved: ClassVar[tuple[str, ...]] = ()  # submodules that belong to the trained model besides the encoder

    config: Any
    seed: int = 0  # set by the trainer, like `rows` and `precision`
    rows: int = 0  # B, the global batch

    def __init__(self, config: Any, encoder: DualEncoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.precision = torch.float32

    @classmethod
    def build(cls, config: Any, base: DualEncoder | None) -> Task:
        """The task at its start. `base` is the base model where `inputs` names it, else None: own towers."""
        assert base is not None
        return cls(config, base)

    def source(self, trainer: TrainerConfig, name: str) -> Batches:
        """Where this method's batches come from: the products of the train split, with the keys of `needs`."""
        from training.source import product_source

        return product_source(self, trainer, name)

    def before_step(self, step: int, progress: float) -> None:
        """Called once before a step's first `encode`; `progress` counts epochs done, 1.5 is half through the second."""

    def encode(self, batch: Batch, step: int) -> Outputs:
        """What the losses need of these rows: tensors with one entry per row first. A function: it changes no state.

        Called with one micro-batch after the other, twice each where the trainer accumulates. Chance comes from
        `draw`, so that it falls alike however the batch is divided.
        """
        raise NotImplementedError

    def losses(self, outputs: Outputs, step: int) -> dict[str, Tensor]:
        """Scalars by name from the outputs of all B rows; `loss` is differentiated, the other parts are logged.

        Called once per step, on every rank. A loss that costs much may be computed for the rows of
        `distributed.shard(B)` only, with `distributed.mean` for its mean. This is where queues and thresholds move on.
        """
        raise NotImplementedError

    def training_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """`encode` and `losses` of a batch in one piece."""
        return self.losses(self.encode(batch, step), step)

    def on_epoch(self, epoch: int) -> None:
        """Called before the first step of every epoch, also of a resumed one only if it was not called before."""

    def after_step(self) -> None:
        """Called after the optimiser. Keeps s = exp(logit_scale) in [1, 100] [open_clip_train/train.py]."""
        with torch.no_grad():
            self.encoder.logit_scale.clamp_(0, math.log(100))

    def validate(self) -> dict[str, float]:
        """Numbers on the validation split, the first one is what checkpoints are chosen by (more is better)."""
        from training.source import load_products
        from training.validation import retrieval

        return retrieval(self.encoder, load_products(DATASET, "val"), DATASET)

    def report(self, run: Run) -> None:
        """What the record of the training shows of this method besides its curve: tables and pictures."""

    def export_spec(self) -> ExportSpec:
        """CLIP-family methods serve `search` with two functions."""
        return ExportSpec(endpoints=("search",), functions=("encode_image", "encode_text"))

    def save(self, folder: Path) -> None:
        """Write the trained model: the encoder's three files, and `method.*` where the method has more than it."""
        save_encoder(folder, self.encoder)
        if not self.saved:
            return
        text = json.dumps({"method": _name(self), "config": canonical(self.config)}, indent=2, sort_keys=True)
        (folder / METHOD).write_text(text + "\n", encoding="utf-8")
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.own_state().items()}
        safetensors.torch.save_file(state, folder / METHOD_WEIGHTS)

    @classmethod
    def restore(cls, config: Any, encoder: DualEncoder, weights: Path) -> Task:
        """The trained model that `save` wrote, in eval mode. Raises `UserError` if the weights do not fit."""
        task = cls(config, encoder)
        state = safetensors.torch.load_file(weights)
        if wrong := sorted(state.keys() ^ task.own_state().keys()):
            raise UserError(f"{weights}: not of this version of the method ({wrong[0]}). Train it again (`dvc repro`).")
        task.load_state_dict(state, strict=False)
        return task.eval()

    def own_state(self) -> dict[str, Tensor]:
        """Parameters and buffers of the `saved` submodules."""
        return {name: value for name, value in self.state_dict().items() if name.split(".")[0] in self.saved}

    def extra_state(self) -> dict[str, Tensor]:
        """Tensors besides parameters that learn and that a resumed run needs: queues, thresholds, a teacher."""
        return {}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `extra_state` gave."""

    def draw(self, batch: Batch, step: int, purpose: int, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), float32 (b, *shape): a function of seed, step, purpose and place in the batch."""
        numbers = torch.rand((self.rows, *shape), generator=self.generator(step, purpose))
        place = batch["place"]
        return numbers[place.cpu()].to(place.device)

    def generator(self, step: int, purpose: int) -> torch.Generator:
        """A CPU generator of this step's own, one per purpose (0, 1, 2 … as the method numbers them)."""
        made = torch.Generator()
        made.manual_seed((self.seed * 1_000_003 + step) * 64 + purpose)
        return made

    def images(self, batch: Batch) -> Tensor:
        """Image embeddings (b, D), from cached features or from pixels."""
        if batch["image"].dtype != torch.uint8:
            return self.encoder.project_image(batch["image"])
        with self.autocast():
            features = self.encoder.image.trunk(batch["image"])
        return self.encoder.project_image(features.float())

    def texts(self, *groups: Tokens) -> Tensor:
        """Embeddings (N, D) of all texts of `groups` in order, padded no longer than their length bucket needs."""
        unknown = [group for group in groups if group.features is None]
        made = iter(self.text_features(unknown).split([len(group.ids) for group in unknown])) if unknown else iter(())
        found = [next(made) if group.features is None else group.features for group in groups]
        return self.encoder.project_text(torch.cat(found))

    def text_features(self, groups: Sequence[Tokens]) -> Tensor:
        """Text trunk features float32 (N, W) of all texts of `groups` in order, run in `BUCKETS` by length."""
        lengths = torch.cat([g.mask.sum(1) for g in groups])
        longest = int(lengths.max())
        ids, mask = (
            torch.cat([_fit(getattr(g, name), longest) for g in groups]) for name in ("ids", "mask")
        )  # fmt: skip
        trunk, order, parts = self.encoder.text.trunk, lengths.argsort(stable=True), []
        words = trunk.look_up(ids)  # once: the gradient of every look-up is a matrix of the whole vocabulary
        for rows in order.chunk(max(BUCKETS, len(order) // BUCKET)):
            width = int(lengths[rows].max())
            with self.autocast():
                parts.append(trunk.encode(words[rows, :width], mask[rows, :width]).float())
        return torch.cat(parts)[order.argsort()]

    def scale(self) -> Tensor:
        """s = exp(logit_scale)."""
        return self.encoder.logit_scale.exp()

    def autocast(self) -> torch.autocast:
        """bf16 for trunks where the trainer asks for it; heads, logits and losses stay float32."""
        device = self.encoder.logit_scale.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.precision is torch.bfloat16)


def _name(task: Task) -> str:
    """The method's name: that of its module."""
    return type(task).__module__.rpartition(".")[2]


def _fit(array: Tensor, width: int) -> Tensor:
    """(N, L) cut or zero-padded to (N, width)."""
    return nn.functional.pad(array, (0, width - array.shape[1]))
