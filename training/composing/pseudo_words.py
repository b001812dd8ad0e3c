"""Pseudo words: a vector in place of a word of a text, so that a prompt can speak of an image.

The pseudo word is written `$`: wherever a text's tokens hold the id of a free-standing `$`, the same vector takes the
place of that word's embedding. Batch axis B, tokens L, word width d, shared space P.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.keywords import MARK
from data.params import UserError
from data.text import clean
from training.encoder import BATCH, DualEncoder
from training.features import trunk_features
from training.task import BUCKETS, ExportFunction, Task, Tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PSEUDO = "$"
CONDITION = "{condition}"


def pseudo_id(tokenizer: Tokenizer) -> int:
    """The id of a free-standing `$`, 259 in CLIP. Raises `UserError` where the vocabulary has none."""
    ids = tokenizer.encode(PSEUDO, add_special_tokens=False).ids
    if len(ids) != 1 or str(tokenizer.id_to_token(ids[0])).removesuffix("</w>") != PSEUDO:
        raise UserError(f"tokenizer.json: `{PSEUDO}` is no token of its own; a pseudo word cannot be written.")
    return int(ids[0])


class MarkedTexts:
    """Tokenises texts in which `MARK` stands for the pseudo word, wherever it stands, inside of words too."""

    def __init__(self, encoder: DualEncoder) -> None:
        from tokenizers import AddedToken, Tokenizer

        self.pseudo = pseudo_id(encoder.tokenizer)
        self.tokenizer = Tokenizer.from_str(encoder.tokenizer.to_str())
        self.tokenizer.no_padding()
        self.tokenizer.add_special_tokens([AddedToken(MARK, normalized=False, special=True)])
        self.mark = self.tokenizer.token_to_id(MARK)
        self.photo = self._ids(f"a photo of {MARK}")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text with its specials. One whose every `MARK` is cut off becomes "a photo of $"."""
        encoded = self.tokenizer.encode_batch(list(texts))
        return [self._replaced(e.ids) if self.mark in e.ids else list(self.photo) for e in encoded]

    def _ids(self, text: str) -> list[int]:
        return self._replaced(self.tokenizer.encode(text).ids)

    def _replaced(self, ids: list[int]) -> list[int]:
        # Left as it is, the mark's id would lie above CLIP's end-of-text id, by which the text's feature is found.
        return [self.pseudo if i == self.mark else i for i in ids]


def prompts(encoder: DualEncoder, template: str, conditions: Sequence[str]) -> Tokens:
    """Tokens of the template with each condition: exactly one pseudo word in each, or a `UserError`.

    `$` is taken out of the conditions. One that is too long loses its end, never the words before it; an empty one
    leaves the template up to its pseudo word.
    """
    wishes = [clean(condition.replace(PSEUDO, " ")) for condition in conditions]
    bare = template[: template.index(PSEUDO) + 1]
    ids, mask = encoder.tokenize([template.replace(CONDITION, wish) if wish else bare for wish in wishes])
    pseudo = pseudo_id(encoder.tokenizer)
    for condition, row in zip(conditions, ids.tolist(), strict=True):
        count = row.count(pseudo)
        if count != 1:
            raise UserError(
                f"condition {condition!r}: its prompt has {count} pseudo words in place of one; put blanks around the "
                f"`{PSEUDO}` of the prompt `{template}`, and say the condition in plain letters."
            )
    return Tokens(ids, mask)


def features(trunk: Any, pseudo: int, ids: Tensor, mask: Tensor, v: Tensor | None) -> Tensor:
    """Trunk features (B, W) of tokens (B, L), with v (B, d) as the word wherever the id is `pseudo`."""
    words = trunk.look_up(ids)
    if v is not None:
        words = torch.where((ids == pseudo)[:, :, None], v[:, None].to(words.dtype), words)
    return trunk.encode(words, mask)


class Composer(Task):
    """A method over a frozen dual encoder that learns φ, from an image embedding to a pseudo word. Answers `compose`.

    φ sees un-normalised embeddings (B, P), or unit vectors with the setting `l2_normalize`, in training as later.
    """

    saved = ("phi",)
    phi: nn.Module

    def __init__(self, config: Any, encoder: DualEncoder) -> None:
        super().__init__(config, encoder)
        encoder.requires_grad_(False)
        self.pseudo = pseudo_id(encoder.tokenizer)
        self.cast: dict[torch.device, Any] = {}
        self.embed_width = encoder.config.embed_dim
        self.word_width = encoder.text.trunk.look_up(torch.zeros(1, 1, dtype=torch.int64)).shape[2]

    def train(self, mode: bool = True) -> Composer:
        """φ trains; the frozen encoder stays as it is used, without dropout."""
        super().train(mode)
        self.encoder.eval()
        return self

    def autocast(self) -> torch.autocast:
        """As the trainer asks for it in training; answers are always float32."""
        return super().autocast() if self.training else torch.autocast("cpu", enabled=False)

    def trunk(self) -> Any:
        """The text trunk; where training runs in bf16, a copy whose matrices are cast once.

        Autocast casts a frozen matrix anew in every pass, and keeps the casts of learning ones only. The same bits.
        """
        trunk, device = self.encoder.text.trunk, self.encoder.logit_scale.device
        if not (self.training and self.precision is torch.bfloat16):
            return trunk
        if device not in self.cast:
            self.cast[device] = copy.deepcopy(trunk)
            for module in self.cast[device].modules():
                if isinstance(module, nn.Linear):
                    module.bfloat16()
        return self.cast[device]

    def pseudo_word(self, embedding: Tensor) -> Tensor:
        """v = φ(embedding), (B, P) to (B, d), float32."""
        with self.autocast():
            return self.phi(F.normalize(embedding, dim=1) if self.config.l2_normalize else embedding).float()

    def embed(self, tokens: Tokens, v: Tensor | None = None) -> Tensor:
        """f of the tokens, with v (B, d) at every pseudo word: (B, P), un-normalised, float32.

        Texts run in length buckets, each cut to its own longest: what lies behind a text's last token is never read.
        """
        trunk, lengths = self.trunk(), tokens.mask.sum(1)
        order = lengths.argsort(stable=True)
        parts = []
        for rows in order.chunk(BUCKETS):
            width = int(lengths[rows].max())
            ids, mask = tokens.ids[rows, :width], tokens.mask[rows, :width]
            with self.autocast():
                found = features(trunk, self.pseudo, ids, mask, None if v is None else v[rows])
            parts.append(found.float())
        return self.encoder.text.head(torch.cat(parts)[order.argsort()])

    @torch.no_grad()
    def compose(self, images: Path, keys: Sequence[str], conditions: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors (N, P) to search a gallery of image embeddings with: this picture, but with that condition.

        Args:
            images: parquet file with the pictures `keys`.
            conditions: a few words each, which take their place in the prompt.
        """
        if not keys:
            return np.zeros((0, self.embed_width), np.float32)
        size = self.encoder.config.image_size
        pictures = trunk_features(self.encoder.image.trunk, size, images, keys, "compose")
        return self.compose_features(pictures, conditions)

    @torch.no_grad()
    def compose_features(self, pictures: npt.NDArray[np.float32], conditions: Sequence[str]) -> npt.NDArray[np.float32]:
        """`compose` of pictures by what the image trunk makes of them, (N, F) float32, at least one."""
        device, tokens = self.encoder.logit_scale.device, prompts(self.encoder, self.config.prompt, conditions)
        made = []
        for start in range(0, len(pictures), BATCH):
            rows = slice(start, start + BATCH)
            embedding = self.encoder.image.head(torch.from_numpy(pictures[rows]).to(device)).float()
            part = Tokens(tokens.ids[rows], tokens.mask[rows]).to(device)
            made.append(F.normalize(self.embed(part, self.pseudo_word(embedding)), dim=1).cpu())
        return torch.cat(made).numpy()

    def compose_function(self) -> ExportFunction:
        """`compose` of an un-normalised image embedding (B, P) and a prompt's ids and mask (B, L)."""
        tokens = prompts(self.encoder, self.config.prompt, ["in red", "for women and in a darker blue"])
        image = torch.zeros(2, self.embed_width)
        rows = {0: "batch"}
        return ExportFunction(
            module=ComposeQuery(self).eval(),
            inputs={"image": image, "ids": tokens.ids, "mask": tokens.mask},
            outputs=("query",),
            axes={"image": rows, "ids": {**rows, 1: "length"}, "mask": {**rows, 1: "length"}},
        )


class ComposeQuery(nn.Module):
    """Un-normalised image embedding (B, P), ids and mask (B, L) of a prompt, to the unit query (B, P)."""

    def __init__(self, task: Composer) -> None:
        super().__init__()
        self.phi, self.text, self.pseudo = task.phi, task.encoder.text, task.pseudo
        self.l2_normalize = task.config.l2_normalize

    def forward(self, image: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        v = self.phi(F.normalize(image, dim=1) if self.l2_normalize else image)
        return F.normalize(self.text.head(features(self.text.trunk, self.pseudo, ids, mask, v)), dim=1)


def check_prompt(template: str) -> None:
    """Raise `ValueError` unless the template has one pseudo word and, after it, one place for the condition."""
    words = template.split()
    if template.count(PSEUDO) != 1 or PSEUDO not in words or template.count(CONDITION) != 1:
        raise ValueError(f"prompt must have one `{PSEUDO}` between blanks and one `{CONDITION}`, found `{template}`.")
    if template.index(CONDITION) < template.index(PSEUDO):
        raise ValueError(f"prompt must say `{PSEUDO}` before `{CONDITION}`: a long condition is cut at its end.")
