"""Answers to questions about a picture, ranked out of a fixed list by a decoder (ALBEF, Li et al. 2021, arXiv
2107.07651 §4; SIMLA, arXiv 2203.14395 §3.1).

    x = fused features of the question's words with the picture     p(a) = Π_l p(a_l | a_<l, x), [SEP] included
    L = mean over questions of Σ_a w_a (-log p(a)),   w_a the share of annotators who gave a

The decoder is BERT layers that read x where the layers below read the picture, and starts from the last of those. A
question's answers are ranked by log p(a); only the `keep` likeliest by their first token are looked at. ALBEF's code
adds log p(a_1) to that sum a second time, which this does not. Answers A, words L of a question, width W, vocabulary V.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.config import TowerSpec
from training.distributed import Outputs
from training.fused.alignment import distilled, per_row
from training.fused.fusion import Fusion, MlmHead, initialise
from training.fused.heads.stack import Stack
from training.fused.heads.tuned import Tuned
from training.fused.reading import read
from training.task import Batch, Tokens
from training.towers import BertTrunk, padding_bias

MARKS = re.compile(r"[,.'!?\"()*#:;~]")


class AnswerDecoder(nn.Module):
    """Writes an answer token by token after [CLS], reading the fused question."""

    def __init__(self, spec: TowerSpec, layers: int) -> None:
        super().__init__()
        s = {**spec.shape, "num_hidden_layers": layers}
        width, eps = s["hidden_size"], s["layer_norm_eps"]
        self.text = BertTrunk(dataclasses.replace(spec, shape=s))
        self.fusion = Fusion(layers, width, s["num_attention_heads"], width, eps)
        self.words = MlmHead(width, s["vocab_size"], eps)

    def begin(self, text: BertTrunk, stack: Stack, words: MlmHead) -> None:
        """Start from the embeddings, the last layers and the word head of a trained method, which has at least as many
        layers; the way into the question starts anew where the picture is not as wide as the text."""
        own, layers = list(self.text.layers), [*text.layers, *stack.layers]
        self.apply(initialise)
        self.text.words.load_state_dict(text.words.state_dict())
        self.text.positions.load_state_dict(text.positions.state_dict())
        self.text.norm.load_state_dict(text.norm.state_dict())
        self.words.load_state_dict(words.state_dict())
        for made, layer in zip(own, layers[-len(own) :], strict=True):
            made.load_state_dict(layer.state_dict())
        lowest = max(len(own) - len(stack.crosses), 0)  # layers that read no picture have nothing to start from
        for made, cross in zip(self.fusion.crosses[lowest:], stack.crosses[-len(own) :], strict=True):
            mine = made.state_dict()
            made.load_state_dict(mine | {k: v for k, v in cross.state_dict().items() if v.shape == mine[k].shape})

    def forward(self, answers: Tokens, question: list[Tensor], mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits float32 (M, V) of every token after an answer's [CLS], those tokens (M,), and where they stand in the
        answers, bool (A, length - 1).

        Args:
            question, mask: of each answer its question: keys and values by layer, and which words are none of padding.
        """
        ids, told = answers.ids[:, :-1], answers.mask[:, 1:].bool()
        later = torch.ones(ids.shape[1], ids.shape[1], device=ids.device).triu(1)
        x = self.text.embed(self.text.look_up(ids))
        fused = self.fusion(self.text.layers, x, later * -1e9, question, padding_bias(mask, x.dtype))
        return self.words(fused.tokens[told], self.text.words.weight).float(), answers.ids[:, 1:][told], told

    def rank(self, x: Tensor, mask: Tensor, candidates: Tokens, keep: int) -> Tensor:
        """Probabilities (B, C) among the candidates of B questions x (B, L, W) with `mask`; 0 for those not kept."""
        question = self.fusion.project(x)
        start = Tokens(
            candidates.ids[:1, :1].expand(len(x), 2), torch.ones_like(candidates.ids[:1, :1]).expand(len(x), 2)
        )
        first = self(start, question, mask)[0].log_softmax(1)[:, candidates.ids[:, 1]]
        kept = first.argsort(dim=1, descending=True, stable=True)[:, :keep]
        rows = torch.arange(len(x), device=x.device).repeat_interleave(kept.shape[1])
        chosen, lengths = kept.flatten(), candidates.mask.sum(1)
        longest = int(lengths[chosen].max())
        answers = Tokens(candidates.ids[chosen, :longest], candidates.mask[chosen, :longest])
        logits, labels, told = self(answers, [part.index_select(0, rows) for part in question], mask[rows])
        whole = -per_row(F.cross_entropy(logits, labels, reduction="none"), told)
        return torch.full_like(first, -torch.inf).scatter(1, kept, whole.view_as(kept)).softmax(1)


class Answering(Tuned):
    """A trained fused method and its decoder, fine-tuned together.

    A batch holds `image` uint8 (b, 1, 3, H, W), `caption` (`Tokens` of b questions), `answers` (`Tokens` of all their
    answers), `of` int64 (A,), the row of each answer's question, and `weights` float32 (A,).
    """

    saved = ("stack", "decoder")

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(Tuned.Config):
        """Settings.

        Attributes:
            layers: of the decoder [SIMLA's VQA: 6, half of the BERT's].
            keep: answers per question that are ranked by all their tokens [k_test of ALBEF's configs/VQA.yaml].
        """

        layers: int = 6
        keep: int = 128

    config: Config

    def make(self, text: TowerSpec) -> None:
        self.decoder = AnswerDecoder(text, self.config.layers)

    def encode(self, batch: Batch, step: int) -> Outputs:
        """Σ_a w_a (-log p(a)) of each question (b,)."""
        logits, labels, told = self._write(batch, self.parts())
        taught = logits.detach()
        if self.teacher is not None:
            with torch.no_grad():
                taught = self._write(batch, self.teacher.parts)[0]
        each = per_row(distilled(logits, labels, taught, self.alpha), told) * batch["weights"]
        return {"each": each.new_zeros(len(batch["place"])).index_add(0, batch["of"], each)}

    def losses(self, outputs: Outputs, step: int) -> dict[str, Tensor]:
        return {"loss": outputs["each"].mean()}

    def validate(self) -> dict[str, float]:
        return {}

    @torch.inference_mode()
    def answer(self, pixels: Tensor, questions: Tokens, candidates: Tokens) -> Tensor:
        """Probabilities (b, C) of the candidates, for pixels (b, 1, 3, H, W)."""
        x = self._fuse(self.parts(), pixels, questions)
        return self.decoder.rank(x, questions.mask, candidates, self.config.keep)

    def _write(self, batch: Batch, parts: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """What the decoder gives for the batch's answers."""
        asked: Tokens = batch["caption"]
        with self.autocast():
            x = self._fuse(parts, batch["image"], asked)
            question = [part.index_select(0, batch["of"]) for part in parts["decoder"].fusion.project(x)]
            found: tuple[Tensor, Tensor, Tensor] = parts["decoder"](batch["answers"], question, asked.mask[batch["of"]])
        return found

    def _fuse(self, parts: Mapping[str, Any], pixels: Tensor, questions: Tokens) -> Tensor:
        v = parts["image"].trunk.tokens(pixels[:, 0])
        return read(parts["stack"], parts["text"].trunk, questions, v)


def clean_question(question: str) -> str:
    """Lower case, without marks; "-" and "/" are blanks [ALBEF]."""
    return " ".join(MARKS.sub("", question.lower()).replace("-", " ").replace("/", " ").split())
