"""lincir: language-only training for zero-shot composed image retrieval (Gu, Chun, Kim, Kang, Yun, CVPR 2024).

arXiv 2312.01998; code navervision/lincir (LIN below; not copied, its licence is non-commercial). A pseudo word `$`
stands for an image in a prompt. φ makes it of the image's embedding and is learnt from captions alone, by self-masking
projection: keywords of a caption give way to `$`, and the caption's embedding must come out as before. Symbols:
    f            the frozen text encoder, un-normalised (·, P);  d   width of a word embedding
    t = f(caption)  (B, P);  u ~ U(0, 1)  (B, 1);  n ~ N(0, 1)  (B, P);  ε = u ⊙ n
    v = φ(t + ε)  (B, d);  t̂ = f(masked caption with v at every `$`)  (B, P)
    L = 1/(BP) Σ_bj (t̂_bj - t_bj)²
The noise widens what φ learns on, so that image embeddings, which lie beside those of texts, are no strangers to it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.keywords import KeywordMode
from training.composing.captions import Captions, CaptionSource, cached_targets, load_captions
from training.composing.pseudo_words import Composer, check_prompt
from training.composing.questions import val_retrieval
from training.config import TrainerConfig
from training.distributed import Outputs
from training.encoder import DualEncoder
from training.task import BASE, DATASET, Batch, ExportSpec, Tokens
from training.trainer import prepare

CORPUS = Path("store/corpus")
VALIDATED = 256  # held-out captions per pass


class Phi(nn.Sequential):
    """φ: Linear P→4P, GELU, dropout, Linear 4P→4P, GELU, dropout, Linear 4P→d; no norm before or after [LIN models]."""

    def __init__(self, embed_width: int, word_width: int, dropout: float) -> None:
        inner = 4 * embed_width
        super().__init__(
            nn.Linear(embed_width, inner), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(inner, inner), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(inner, word_width),
        )  # fmt: skip


class LinCir(Composer):
    """LinCIR: φ is all that learns; no picture is seen before the first question."""

    needs = frozenset()
    stage = "train@lincir"
    inputs = (CORPUS, DATASET, BASE)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of the method, with the publication's values.

        Attributes:
            keyword_mode: `offsets` replaces each keyword where it stands; `official` every occurrence of its letters,
                as the released code does [LIN loader.py].
            noise: whether ε is added to what φ sees; without it is the paper's ablation.
            dropout: of φ's two hidden layers [LIN train_phi.py, 0.5].
            l2_normalize: φ sees unit vectors, (t + ε)/‖t + ε‖ and image embeddings alike [LIN train_phi.py, off].
            recompute: take t anew at every visit, as the released code does, and not from the cache: the same numbers.
            steps: of training, whatever the size of the corpus [the paper's 20,000]; none for the trainer's epochs.
            prompt: of a question, with the image's `$` and the condition [LIN validate.py].
        """

        keyword_mode: KeywordMode = "offsets"
        noise: bool = True
        dropout: float = 0.5
        l2_normalize: bool = False
        recompute: bool = False
        steps: int | None = None
        prompt: str = "a photo of $ that {condition}"

        def __post_init__(self) -> None:
            check_prompt(self.prompt)
            if not 0 <= self.dropout < 1:
                raise ValueError(f"dropout must lie in [0, 1), found {self.dropout}.")
            if self.steps is not None and self.steps < 1:
                raise ValueError(f"steps must be at least 1, found {self.steps}.")

    config: Config

    def __init__(self, config: Config, encoder: DualEncoder) -> None:
        super().__init__(config, encoder)
        self.phi = Phi(self.embed_width, self.word_width, config.dropout)

    def source(self, trainer: TrainerConfig, name: str) -> CaptionSource:
        """Captions of the corpus, without the held-out ones, with their cached targets t."""
        self.to(prepare(trainer))
        captions = load_captions(CORPUS, self.encoder, self.config.keyword_mode, held_out=False)
        targets = None if self.config.recompute else cached_targets(self, captions, trainer.precision, name)
        return CaptionSource(captions, trainer, targets, self.config.steps)

    def encode(self, batch: Batch, step: int) -> Outputs:
        t = batch["target"].float() if "target" in batch else self.target(batch["caption"])
        epsilon = self.epsilon(batch, step) if self.config.noise else 0.0
        return {"found": self.embed(batch["masked"], self.pseudo_word(t + epsilon)), "target": t}

    @torch.no_grad()
    def target(self, caption: Tokens) -> Tensor:
        """t = f(caption), (B, P), without a graph."""
        return self.embed(caption)

    def epsilon(self, batch: Batch, step: int) -> Tensor:
        """ε of these rows (b, P), the same however the batch is divided."""
        place = batch["place"]
        return noise(self.rows, self.embed_width, self.generator(step, 0))[place.cpu()].to(place.device)

    def losses(self, outputs: Outputs, step: int) -> dict[str, Tensor]:
        """L, and the mean cosine of t̂ and t, which a few texts with long embeddings cannot rule."""
        found, target = outputs["found"], outputs["target"]
        return {"loss": smp(found, target), "cosine": F.cosine_similarity(found.detach(), target).mean()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """`val_smp_cosine` of held-out captions, which needs no picture, and composed retrieval among val products."""
        held = load_captions(CORPUS, self.encoder, self.config.keyword_mode, held_out=True)
        return {"val_smp_cosine": round(self.smp_cosine(held), 4), **val_retrieval(self.encoder, self.compose)}

    def smp_cosine(self, captions: Captions) -> float:
        """Mean cosine of t̂ and t without noise and dropout."""
        device = self.encoder.logit_scale.device
        cosines = []
        for start in range(0, len(captions), VALIDATED):
            rows = captions.rows(start, start + VALIDATED)
            t = self.embed(captions.texts.take(rows).to(device))
            found = self.embed(captions.masked.take(rows).to(device), self.pseudo_word(t))
            cosines.append(F.cosine_similarity(found, t))
        return float(torch.cat(cosines).mean())

    def export_spec(self) -> ExportSpec:
        """`compose` answers questions; `encode_image` makes the gallery."""
        return ExportSpec(
            endpoints=("compose",), functions=("encode_image",), modules={"compose": self.compose_function()}
        )


def noise(rows: int, width: int, generator: torch.Generator) -> Tensor:
    """ε = u ⊙ n (rows, width): one u per row, so the norms are spread over all lengths [LIN train_phi.py]."""
    u = torch.rand((rows, 1), generator=generator)
    return u * torch.randn((rows, width), generator=generator)


def smp(found: Tensor, target: Tensor) -> Tensor:
    """L: the mean over samples and coordinates of the squared difference, float32."""
    return F.mse_loss(found.float(), target.float())
