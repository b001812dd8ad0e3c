"""The dual encoder: an image and a text tower that share one embedding space, and its folder on disk.

A model folder holds `model.json` (architecture), `weights.safetensors` and `tokenizer.json` (Hugging Face tokenizers).
Batch axis B, pixels H x W, tokens L, trunk features F, embedding D.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data import stage
from data.params import UserError, canonical, strict
from training.config import EncoderConfig, TowerSpec
from training.features import trunk_features
from training.towers import BertTrunk, Head, TimmTrunk

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MODEL, WEIGHTS, TOKENIZER = "model.json", "weights.safetensors", "tokenizer.json"
BATCH = 64


class Tower(nn.Module):
    """A trunk and its projection head; `trunk` output (B, F) of a frozen trunk can be cached."""

    trunk: Any
    head: Any

    def __init__(self, trunk: Any, head: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head


class DualEncoder(nn.Module):
    """Image and text towers with L2-normalised outputs and the learned temperature, `logit_scale` = log(1 / tau)."""

    def __init__(self, config: EncoderConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.config = config
        self.image = _tower(config.image, config.embed_dim)
        self.text = _tower(config.text, config.embed_dim)
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.tokenizer = tokenizer
        self.tokenizer.enable_truncation(config.max_tokens)
        self.tokenizer.enable_padding(pad_id=0)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32 (B, D), L2-normalised."""
        return self.project_image(self.image.trunk(pixels))

    def project_image(self, features: Tensor) -> Tensor:
        """Trunk features (B, F), cached ones for instance, to float32 (B, D), L2-normalised."""
        return F.normalize(self.image.head(features).float(), dim=-1)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """int64 (B, L) token ids and their mask to float32 (B, D), L2-normalised."""
        return self.project_text(self.text.trunk(ids, mask))

    def project_text(self, features: Tensor) -> Tensor:
        """Trunk features (B, F) of texts to float32 (B, D), L2-normalised."""
        return F.normalize(self.text.head(features).float(), dim=-1)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Texts to int64 (B, L) ids and mask, L the longest of these texts but at most `max_tokens`."""
        encoded = self.tokenizer.encode_batch(list(texts))
        ids = torch.tensor([e.ids for e in encoded], dtype=torch.int64)
        return ids, torch.tensor([e.attention_mask for e in encoded], dtype=torch.int64)


def save_encoder(folder: Path, encoder: DualEncoder) -> None:
    """Write the three files of a model folder; equal weights give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(canonical(encoder.config), indent=2, sort_keys=True)
    (folder / MODEL).write_text(text + "\n", encoding="utf-8")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    safetensors.torch.save_file(state, folder / WEIGHTS)
    encoder.tokenizer.save(str(folder / TOKENIZER))


def load_encoder(folder: Path) -> DualEncoder:
    """The encoder of a model folder, in eval mode. Raises `UserError` naming what is missing or does not fit."""
    from tokenizers import Tokenizer

    for name in (MODEL, WEIGHTS, TOKENIZER):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: not found. Train the model again (`dvc repro`), or `dvc checkout`.")
    try:
        config = strict(EncoderConfig, json.loads((folder / MODEL).read_text(encoding="utf-8")), str(folder / MODEL))
        encoder = DualEncoder(config, Tokenizer.from_file(str(folder / TOKENIZER)))
        encoder.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS), strict=True)
    except UserError:
        raise
    except Exception as error:  # json, tokenizers, safetensors and torch each raise kinds of their own
        words = " ".join(str(error).split())[:300]
        raise UserError(f"{folder}: the model files do not fit together ({words}). Train the model again.") from None
    return encoder.eval()


def embed_images(encoder: DualEncoder, images: Path, keys: Sequence[str], label: str) -> np.ndarray:
    """Embeddings (N, D) float32 of the pictures `keys` in the parquet file `images`; trunk features are cached."""
    features = trunk_features(encoder.image.trunk, encoder.config.image_size, images, keys, label)
    device = encoder.logit_scale.device
    made = np.zeros((len(keys), encoder.config.embed_dim), np.float32)
    with torch.inference_mode():
        for rows in _full(np.arange(len(keys)), 16 * BATCH):
            made[rows] = encoder.project_image(torch.from_numpy(features[rows]).to(device)).cpu().numpy()
    return made


def embed_texts(encoder: DualEncoder, texts: Sequence[str]) -> np.ndarray:
    """Embeddings (N, D) float32; equal texts are encoded once, and texts of as many tokens together.

    A text's vector is the same to the last bit whatever it is asked with, so it can be kept: kernels may round
    differently for another batch or padding, and neither depends on the others here.
    """
    distinct = sorted(set(texts))
    made = np.zeros((len(distinct), encoder.config.embed_dim), np.float32)
    lengths = np.array([sum(e.attention_mask) for e in encoder.tokenizer.encode_batch(distinct)])
    batches = [
        rows for length in np.unique(lengths) for rows in _full(np.flatnonzero(lengths == length), BATCH)
    ]  # fmt: skip
    device = encoder.logit_scale.device
    with torch.inference_mode():
        for rows in stage.progress(batches, what=f"batches of {BATCH} texts", label="text tower"):
            ids, mask = encoder.tokenize([distinct[row] for row in rows])
            made[rows] = encoder.encode_text(ids.to(device), mask.to(device)).cpu().numpy()
    place = {text: i for i, text in enumerate(distinct)}
    return made[[place[text] for text in texts]]


def _tower(spec: TowerSpec, embed_dim: int) -> Tower:
    if spec.kind == "open_clip":
        from training.openclip import ClipImageTrunk, ClipTextTrunk

        return Tower(ClipImageTrunk(spec) if spec.mean else ClipTextTrunk(spec), nn.Identity())
    if spec.kind == "vit":
        from training.vit import VitTrunk

        trunk: Any = VitTrunk(spec)
    else:
        trunk = TimmTrunk(spec) if spec.kind == "timm" else BertTrunk(spec)
    return Tower(trunk, Head(trunk.width, spec.hidden, embed_dim, spec.dropout))


def _full(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """`rows` in batches of exactly `size`, the last one filled up with its last row."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield np.pad(part, (0, size - len(part)), mode="edge")
