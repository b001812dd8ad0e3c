"""cma_clip: image and title of a product to its attributes (Liu et al. 2021, arXiv 2112.03562; short at ICIP 2022).

No code was published; a value marked [proposal] is ours, where the accessible material gives none.

    B, d, K                 batch, joint width (the embedding's), tasks;  C_k classes of task k;  y^k labels, -1 absent
    T (B, Lt, d), e         text tokens, and where the global one is;  I (B, 1 + P, d) image tokens, global one first
    T', I'                  the global tokens after sequence-wise attention (SA) over [T; I]
    λ^k                     weights of (image, text) by task k's keyless gate (modality-wise attention, MA)
    p^k = softmax(MLP_k(λ_I^k I' + λ_T^k T'))
    L = Σ_k a_k CE(p^k, y^k) + β L_itc        each CE a mean over the task's labelled rows; L_itc before SA
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from data.params import UserError
from data.stage import Run
from training.attributes.export import attributes_function
from training.attributes.modality import (
    Gate,
    KeylessGate,
    Network,
    SequenceAttention,
    TaskHead,
    classification,
    soft_itc,
)
from training.attributes.report import show_weights
from training.attributes.source import Items, LabelledSource, Words, labelled_source, task_labels, titled
from training.attributes.tokens import projections, sequences
from training.config import TrainerConfig
from training.distributed import Outputs
from training.encoder import DualEncoder
from training.labels import classes
from training.source import IMAGES, Products, load_products
from training.task import BASE, DATASET, Batch, ExportSpec, Task

Array = npt.NDArray[np.float32]
ROWS = 256  # products per pass of `answers`
HIDE = 0  # purpose of the random numbers that hide a modality


class CmaClip(Task):
    """CMA-CLIP. `network` is everything behind the towers."""

    needs = frozenset({"image", "caption", "text"})
    stage = "train@cma_clip"
    inputs = (DATASET, BASE)
    saved = ("network",)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of the network and its loss.

        Attributes:
            layers, heads: L_f and H of SA [proposal; sweep L_f in 1, 2, 4, 6]. Without layers the modalities meet in
                the gates alone: the paper's "w/o SA".
            dropout: in SA and the heads [proposal].
            gate: `separate` keyless vectors per modality, one `shared`, their `mean` (the paper's "w/o MA"), `concat`.
            gate_bias: a bias per modality in the gates.
            type_emb: a learnt vector per modality on its tokens; figure 1 of the paper draws none.
            token_proj: how tokens get to width d: by the `tower`'s projection, which CLIP has, or by `fresh` linear
                layers. Towers that project pooled features only take fresh ones either way.
            patch_levels: convolutional towers: the feature levels that are patch tokens; none for the highest.
            modalities: what the model sees: `both`, or the control that has only the `image` or the `text`.
            modality_dropout: chance per side that training hides it [proposal].
            beta: β; 0 is the control [proposal].
            itc_epochs: epochs of L_itc alone before L: the two-stage form.
            task_weights: a_k, 1 where not named [proposal].
            classes: the classes of each task, which a trained model carries with it; none for those of the dataset.
        """

        layers: int = 2
        heads: int = 8
        dropout: float = 0.1
        gate: Gate = "separate"
        gate_bias: bool = False
        type_emb: bool = False
        token_proj: Literal["tower", "fresh"] = "tower"
        patch_levels: tuple[int, ...] = ()
        modalities: Literal["both", "image", "text"] = "both"
        modality_dropout: float = 0.1
        beta: float = 0.1
        itc_epochs: int = 0
        task_weights: dict[str, float] = dataclasses.field(default_factory=dict)
        classes: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

        def __post_init__(self) -> None:
            if not 0 <= self.modality_dropout <= 0.5:
                raise ValueError(f"modality_dropout must lie in [0, 0.5], found {self.modality_dropout}.")

    config: Config
    aligning = False  # in the first of two stages, L_itc alone

    def __init__(self, config: Config, encoder: DualEncoder) -> None:
        super().__init__(config, encoder)
        self.tasks = list(config.classes)
        if wrong := set(config.task_weights) - set(self.tasks):
            raise UserError(f"cma_clip.task_weights: `{wrong.pop()}` is not one of the tasks {', '.join(self.tasks)}.")
        self.levels = config.patch_levels if config.layers else None  # without SA no tokens are needed
        width, c = encoder.config.embed_dim, config
        attention = SequenceAttention(width, c.layers, c.heads, c.dropout, c.type_emb)
        heads = {
            task: TaskHead(width, len(names), KeylessGate(width, c.gate, c.gate_bias), c.dropout)
            for task, names in c.classes.items()
        }
        self.network = Network(attention, heads, *projections(encoder, c.token_proj == "fresh", self.levels))

    @classmethod
    def build(cls, config: Config, base: DualEncoder | None) -> CmaClip:
        """The task for the classes of the dataset. Raises `UserError` if it has none."""
        assert base is not None
        known = config.classes or {task: tuple(names) for task, names in classes(DATASET).items() if names}
        if not known:
            raise UserError(f"{DATASET}: no attribute has a value that is frequent enough. Land more products.")
        return cls(dataclasses.replace(config, classes=known), base)

    def source(self, trainer: TrainerConfig, name: str, words: Words | None = None) -> LabelledSource:
        """Titles, labels, and what frozen towers make of titles and pictures; new projections fit its scale.

        `words`: what the frozen text tower makes of the training titles, where an earlier run has it.
        """
        if self.own_patches() and "image.trunk" in trainer.frozen:
            raise UserError(
                "cma_clip.token_proj: `fresh` needs pixels; do not freeze CLIP's image.trunk, or set `tower`."
            )
        made = labelled_source(self, trainer, name, self.tasks, self.levels, words)
        self.network.standardise(None if made.words is None else made.words.flat, made.patches)
        return made

    def own_patches(self) -> bool:
        """Whether patch tokens come from before the projection of CLIP's image tower, which no cache keeps."""
        return self.encoder.config.image.kind == "open_clip" and self.network.patches is not None

    def before_step(self, step: int, progress: float) -> None:
        self.aligning = progress < self.config.itc_epochs

    def encode(self, batch: Batch, step: int) -> Outputs:
        """Embeddings before SA, normalised; logits and λ of every task; the rows' labels and texts."""
        present = self.present(batch["has_text"])
        if self.training:  # of what a row has; the only one it has is never hidden
            present = present & ~(self.hidden(batch, step) & present.all(1, keepdim=True))
        with self.autocast():
            tokens, a, b = self.fuse(batch, present)
        logits, weights = self.network.classify(tokens.float(), present)
        return {
            "image": F.normalize(a.float(), dim=-1), "text": F.normalize(b.float(), dim=-1), "text_id": batch["text"],
            "has_text": batch["has_text"], "labels": batch["labels"], "weights": weights, **logits,
        }  # fmt: skip

    def fuse(self, batch: Batch, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """I' and T' (b, 2, d), and the embeddings (b, d) of picture and text that SA started from."""
        s = sequences(self.encoder, batch, self.network.words, self.network.patches, self.levels)
        there = present[:, :1].expand(-1, s.image.shape[1])
        return self.network.attention(s.text, s.valid & present[:, 1:], s.end, s.image, there), s.a, s.b

    def recognise(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Probabilities (b, C_k) by task and λ (b, K, 2) of image and text, in float32."""
        present = self.present(batch["has_text"])
        logits, weights = self.network.classify(self.fuse(batch, present)[0], present)
        return {task: found.softmax(1) for task, found in logits.items()}, weights

    def present(self, has_text: Tensor) -> Tensor:
        """Which of (image, text) the model may see of each row, bool (b, 2)."""
        if self.config.modalities == "both":
            return torch.stack([torch.ones_like(has_text), has_text], 1)
        image = torch.full_like(has_text, self.config.modalities == "image")
        return torch.stack([image, ~image], 1)

    def hidden(self, batch: Batch, step: int) -> Tensor:
        """Which of (image, text) training hides of each row, bool (b, 2), never both."""
        chance, p = self.draw(batch, step, HIDE, 1), self.config.modality_dropout
        return torch.cat([chance < p, chance >= 1 - p], 1)

    def losses(self, outputs: Outputs, step: int) -> dict[str, Tensor]:
        weights = [self.config.task_weights.get(task, 1.0) for task in self.tasks]
        terms = classification([outputs[task] for task in self.tasks], outputs["labels"], weights)
        rows = outputs["has_text"]  # L_itc knows no products without a text
        text = outputs["text_id"][rows]
        itc = soft_itc(outputs["image"][rows], outputs["text"][rows], self.scale(), text[:, None] == text)
        total = torch.stack(terms).sum()
        shares = outputs["weights"].detach().mean(0)[:, 0]
        return {
            "loss": itc + 0 * total if self.aligning else total + self.config.beta * itc, "itc": itc,
            **dict(zip(self.tasks, terms, strict=True)),
            **{f"lambda_image_{task}": share for task, share in zip(self.tasks, shares, strict=True)},
        }  # fmt: skip

    def attributes(
        self, images: Path, keys: Sequence[str], texts: Sequence[str | None]
    ) -> dict[str, tuple[list[str], Array]]:
        """Per task its class names and their probabilities (N, C) for products with a picture and, maybe, a text."""
        found, _ = self.answers(Items(self.encoder, images, keys, texts, self.levels))
        return {task: (list(self.config.classes[task]), found[task]) for task in self.tasks}

    def modality_weights(self, images: Path, keys: Sequence[str], texts: Sequence[str | None]) -> dict[str, Array]:
        """Per task λ (N, 2), what its gate gave to picture and text of each product.

        Not an explanation: after SA the image token has read the text, so λ_T = 0 does not mean the text is unused.
        """
        _, weights = self.answers(Items(self.encoder, images, keys, texts, self.levels))
        return {task: weights[:, k] for k, task in enumerate(self.tasks)}

    @torch.inference_mode()
    def answers(self, items: Items) -> tuple[dict[str, Array], Array]:
        """Probabilities (N, C_k) by task and λ (N, K, 2) of items, dropout off."""
        device, before = self.encoder.logit_scale.device, self.training
        self.eval()
        names = self.config.classes
        found = {task: np.zeros((len(items), len(names[task])), np.float32) for task in self.tasks}
        weights = np.zeros((len(items), len(self.tasks), 2), np.float32)
        for start in range(0, len(items), ROWS):
            rows = np.arange(start, min(start + ROWS, len(items)))
            batch = {key: value.to(device) for key, value in items.take(rows).items()}
            made, shares = self.recognise(batch)
            weights[rows] = shares.cpu().numpy()
            for task in self.tasks:
                found[task][rows] = made[task].cpu().numpy()
        self.train(before)
        return found, weights

    def validate(self) -> dict[str, float]:
        """Mean accuracy over tasks on the validation split, that of each, and each gate's mean λ_I."""
        products = titled(load_products(DATASET, "val"))
        found, weights = self.answers(self._shown(products))
        labels = task_labels(products, self.tasks)
        known = [(task, labels[:, k]) for k, task in enumerate(self.tasks) if (labels[:, k] >= 0).any()]
        right = {task: (found[task].argmax(1) == given)[given >= 0].mean() for task, given in known}
        shares = {f"lambda_image_{task}": weights[:, k, 0].mean() for k, task in enumerate(self.tasks)}
        by_task = {f"val_accuracy_{task}": value for task, value in right.items()}
        numbers = {"val_accuracy": np.mean(list(right.values())), **by_task, **shares}
        return {name: round(float(value), 4) for name, value in numbers.items()}

    def report(self, run: Run) -> None:
        """How each task weighs picture and title, as a table and a picture of the training record."""
        _, weights = self.answers(self._shown(titled(load_products(DATASET, "val"))))
        show_weights(run, {task: weights[:, k, 0] for k, task in enumerate(self.tasks)})

    def _shown(self, products: Products) -> Items:
        texts = [title for title, _ in products.captions]
        return Items(self.encoder, DATASET / IMAGES, products.image_keys, texts, self.levels)

    def export_spec(self) -> ExportSpec:
        """`attributes`: pixels and token ids to the probabilities of every task and λ."""
        return ExportSpec(("attributes",), (), {"attributes": attributes_function(self)})
