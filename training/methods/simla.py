"""simla: single-stream multi-level alignment (Khan, Vijay Kumar B G, Yu, Schulter, Chandraker, Fu, ECCV 2022).

arXiv 2203.14395; code codezakh/SIMLA (C below). Symbols, B pairs, N patches, L tokens, D width, d embedding, V words, K
visual codes; a prime marks the momentum teacher's:
    I, T              picture and caption; Î picture with masked patches M (B, N), T̂ caption with masked words
    v (B, N+1, D)     E_v(I), v_0 its [CLS];    E_l(T) the BERT without, E_mm the same layers with cross-attention
    f, t (B, d)       norm(g_v(v_0)), norm(g_l(E_l(T)_0));    τ temperature, α weight of the teacher's soft targets
    L = L_itc + L_itm + (L_mlm + L_mim) + L_psl                                                              [P eq. 10]
One stack, two roles: a fused pass starts again from word embeddings, and reads either the words as queries of the
picture (`read_words`) or the patches as queries of the words (`read_patches`). The towers have no dropout.
The passes are in single_stream.py, the terms of the losses in alignment.py and keywords.py, the visual codes in
visual_tokens.py.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.params import UserError
from training import distributed
from training.config import TrainerConfig
from training.distributed import Outputs
from training.encoder import DualEncoder
from training.fused import keywords
from training.fused.alignment import contrast, distilled, embedding, hard_negatives, match, per_row
from training.fused.fusion import Fusion, MlmHead, initialise
from training.fused.keywords import Drop
from training.fused.masking import bert_mask, block_mask
from training.fused.momentum import Queue, Teacher
from training.fused.pretrained import Towers, fit_heads, own_towers
from training.fused.single_stream import read_patches, read_text, read_words
from training.fused.visual_tokens import Dvae, PatchCodes, TwoViews, catalog_pixels, load_dvae
from training.source import IMAGES, Batches, Source, load_products, product_source
from training.task import DATASET, Batch, Task, Tokens

Level = Literal["itm", "mlm", "mim", "psl"]
_WORDS, _PATCHES, _NEGATIVES = range(3)  # purposes of chance
SEED = 0  # of what the start draws: the queues' noise, the pictures that the catalog's codes are fitted on


class Simla(Task):
    """SIMLA in pre-training on the catalog's pairs."""

    needs = frozenset({"image", "caption"})
    stage = "train@simla"
    inputs = (DATASET,)
    saved = ("fusion", "itm", "mlm", "mim", "concept", "visual")

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings, with the publication's values.

        Attributes:
            towers: the vision transformer and the BERT; equally wide, for patches pass through the BERT's layers.
            levels: losses besides L_itc [P table 1 adds them in this order].
            fit_heads: products whose features standardise what enters g_v and g_l at the start; 0 for plain linear maps
                [C].
            queue: Q, a multiple of the batch [P §2.5].
            momentum: m of the teacher [P §2.5].
            alpha: α after its linear rise over the first epoch [P §2.5, C Pretrain.py].
            mask_words: chance of a word to be masked [C configs/Pretrain.yaml].
            mask_patches, mask_block: most patches that are masked, and least of a block [C caption_dataset.py].
            visual: the path of DALL-E's dVAE encoder [P §2.3], `random` for one without weights, or `catalog`: k-means
                codes of the catalog's patches, the only value that needs no file, and so the default.
            codes: K [P §2.3].
            tokenizer_view: the codes' picture: `shared` with the towers as in BEiT, or `independent`, a crop of its own
                whose codes do not lie where the patches are [C caption_dataset.py].
            votes, keywords: each head votes for so many words, the so many most voted are keywords [C pretrain.py].
            keyword_images: whose picture features the keyword pass reads: `teacher` [P §2.4] or `student` [C].
            keyword_drop: ids that are no keywords: only `cls` [C], all `specials`, or `stop_words` as well.
        """

        towers: Towers = dataclasses.field(default_factory=Towers)
        levels: tuple[Level, ...] = ("itm", "mlm", "mim", "psl")
        fit_heads: int = 0
        queue: int = 65536
        momentum: float = 0.995
        alpha: float = 0.4
        mask_words: float = 0.15
        mask_patches: int = 75
        mask_block: int = 16
        visual: str = "catalog"
        codes: int = 8192
        tokenizer_view: Literal["shared", "independent"] = "shared"
        votes: int = 4
        keywords: int = 5
        keyword_images: Literal["teacher", "student"] = "teacher"
        keyword_drop: Drop = "specials"

    config: Config
    visual: Any  # uint8 pixels (B, 3, H, W) to codes (B, N); a fixed one may be put in its place

    def __init__(self, config: Config, encoder: DualEncoder) -> None:
        super().__init__(config, encoder)
        image, text = encoder.image.trunk, encoder.text.trunk
        if image.width != text.width:
            raise UserError(
                f"methods.simla.towers: the picture's features are {image.width} wide and the text's {text.width}; "
                "patches pass through the text's layers, so take towers of one width."
            )
        width, vocabulary = text.width, len(text.words.weight)
        shape = encoder.config.text.shape
        self.fusion = Fusion(len(text.layers), width, shape["num_attention_heads"], width, text.eps)
        self.itm = nn.Linear(width, 2)
        self.mlm = MlmHead(width, vocabulary, text.eps)
        self.mim = nn.Linear(width, config.codes)
        self.concept = nn.Linear(encoder.config.embed_dim, vocabulary)  # reads f, not v_0 [C pretrain.py]
        for head in (self.itm, self.mim, self.concept):
            head.apply(initialise)
        self.visual = (PatchCodes if config.visual == "catalog" else Dvae)(image.grid, config.codes)
        self._freeze_unused()
        self.student: dict[str, Any] = {
            "image": encoder.image, "text": encoder.text, "fusion": self.fusion, "mlm": self.mlm, "mim": self.mim,
            "concept": self.concept,
        }  # fmt: skip
        self.teacher = Teacher(self.student)
        self.queue = Queue(config.queue, encoder.config.embed_dim, torch.Generator().manual_seed(SEED))
        self.alpha = 0.0
        self._new: tuple[Tensor, Tensor] | None = None
        self.words = vocabulary
        self.cls_id, self.mask_id = keywords.special_ids(encoder.tokenizer)
        self.dropped = keywords.dropped_ids(encoder.tokenizer, config.keyword_drop)

    @classmethod
    def build(cls, config: Config, base: DualEncoder | None) -> Simla:
        """Own towers; the visual codes fitted on the train split's pictures, or the dVAE read from its file."""
        task = cls(config, own_towers(config.towers, "methods.simla.towers"))
        if config.visual == "catalog":
            keys = load_products(DATASET, "train").image_keys
            task.visual.fit(catalog_pixels(DATASET / IMAGES, keys, task.encoder.config.image_size, SEED), SEED)
        elif config.visual != "random":
            load_dvae(task.visual, Path(config.visual))
        return task

    def source(self, trainer: TrainerConfig, name: str) -> Batches:
        if "image.trunk" in trainer.frozen:
            raise UserError(f"methods.{name}: `image.trunk` must not be frozen as a whole; masks need pixels.")
        made = product_source(self, trainer, name, TwoViews if self.config.tokenizer_view == "independent" else Source)
        if self.config.fit_heads:
            fit_heads(self.encoder, made.sample(self.config.fit_heads))
            self.teacher = Teacher(self.student)  # its heads are the student's
        return made

    def before_step(self, step: int, progress: float) -> None:
        """Clamp τ, raise α, and move the teacher, in this order and before the teacher is used [C pretrain.py]."""
        with torch.no_grad():
            self.encoder.logit_scale.clamp_(math.log(1 / 0.5), math.log(1 / 0.001))
        self.alpha = self.config.alpha * min(1.0, progress)
        self.teacher.update(self.config.momentum)

    def encode(self, batch: Batch, step: int) -> Outputs:
        """Features of these pairs by student and teacher, and L_mim, which needs no other pair."""
        caption: Tokens = batch["caption"]
        teacher, made = self.teacher.parts, {"ids": caption.ids, "mask": caption.mask}
        hidden = self._patch_mask(batch, step) if "mim" in self.config.levels else None
        made |= self._word_mask(batch, step) if "mlm" in self.config.levels else {}
        made |= self._look_up(self.encoder.text.trunk, made)
        with torch.no_grad():
            taught = self._look_up(teacher["text"].trunk, made)
        with self.autocast():
            (v, v_masked), (v_teacher, v_masked_teacher) = self._pictures(batch["image"], hidden)
            text = read_text(self.student, made["words"], caption.mask)
            with torch.no_grad():
                text_teacher = read_text(teacher, taught["words"], caption.mask)
                made |= self._teach(made, taught, v.detach(), v_teacher)
            if hidden is not None:
                codes = self.visual(batch.get("tokenizer_view", batch["image"]))[hidden]
                guesses = self.guess_patches(self.student, v_masked, made["words"], caption.mask, hidden)
                with torch.no_grad():
                    soft = self.guess_patches(teacher, v_masked_teacher, taught["words"], caption.mask, hidden)
                made |= self._mim(guesses, codes, soft, hidden)
        made |= {"v": v.float(), "f": embedding(self.encoder.image, v[:, 0]), "t": embedding(self.encoder.text, text)}
        with torch.no_grad():
            made["f_teacher"] = embedding(teacher["image"], v_teacher[:, 0])
            made["t_teacher"] = embedding(teacher["text"], text_teacher)
        return made

    def losses(self, outputs: Outputs, step: int) -> dict[str, Tensor]:
        """All levels. The fused passes of L_itm and L_mlm are this rank's rows only; the other levels are cheap."""
        levels, o = self.config.levels, outputs
        itc, s, u = contrast(o["f"], o["t"], o["f_teacher"], o["t_teacher"], self.queue, self.scale(), self.alpha)
        parts = {"itc": itc}
        if "itm" in levels or "mlm" in levels:
            parts |= self._fused(o, s, u, step)
        if "mim" in levels:
            count = o["mim_count"].sum().clamp_min(1)
            parts |= {"mim": o["mim"].sum() / count, "mim_accuracy": o["mim_right"].sum() / count}
        if "psl" in levels:
            parts |= self._psl(o)
        self._new = o["f_teacher"].detach(), o["t_teacher"].detach()
        return {"loss": torch.stack([parts[level] for level in ("itc", *levels)]).sum(), **parts}

    def after_step(self) -> None:
        """Enqueue the step's teacher features: only now, for the backward pass reads the queue."""
        if self._new is not None:
            self.queue.push(*self._new, torch.zeros(len(self._new[0]), dtype=torch.int64))
            self._new = None

    def extra_state(self) -> dict[str, Tensor]:
        """Teacher and queues. α and the masks are functions of the step."""
        parts = {"teacher": self.teacher.state(), "queue": self.queue.state()}
        return {f"{name}.{key}": value for name, state in parts.items() for key, value in state.items()}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        for name, part in (("teacher", self.teacher), ("queue", self.queue)):
            part.load_state({k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")})

    def _look_up(self, trunk: Any, texts: Outputs) -> Outputs:
        """Embeddings (b, L, D) of captions, `words`, and of T̂ if there is one, `masked_words`: one look-up."""
        names = {"ids": "words", "masked": "masked_words"}
        chosen = {names[key]: texts[key] for key in names if key in texts}
        found = trunk.look_up(torch.cat(list(chosen.values())))
        return dict(zip(chosen, found.chunk(len(chosen)), strict=True))

    def _mim(self, guesses: Tensor, codes: Tensor, soft: Tensor, hidden: Tensor) -> Outputs:
        """Sums of L_mim and of right guesses over each row's masked patches, and their number [P §2.3 eq. 7].

        Logits of student and teacher (M, K) and codes (M,) of the patches set in `hidden` (b, N).
        """
        return {
            "mim": per_row(distilled(guesses, codes, soft, self.alpha), hidden),
            "mim_right": per_row((guesses.argmax(1) == codes).float(), hidden),
            "mim_count": hidden.sum(1),
        }

    def guess_patches(
        self, parts: Mapping[str, Any], v_masked: Tensor, words: Tensor, mask: Tensor, hidden: Tensor
    ) -> Tensor:
        """mim(E_mm(Î | T)) of the patches set in `hidden` only, float32 (M, K), by student or teacher `parts`."""
        wanted = F.pad(hidden, (1, 0))
        return parts["mim"](read_patches(parts, v_masked, words, mask, wanted)[wanted]).float()

    def _pictures(self, pixels: Tensor, hidden: Tensor | None) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(v, v̂) of the student and of the teacher; v̂ is empty without masks `hidden` (B, N).

        Whole and masked pictures are one batch. What is frozen from the bottom up is one computation for both models.
        """
        count = len(pixels)
        if hidden is not None:
            pixels = pixels.repeat(2, 1, 1, 1)
            hidden = torch.cat([torch.zeros_like(hidden), hidden])
        student, teacher = self.encoder.image.trunk, self.teacher.parts["image"].trunk
        fixed = student.fixed()
        if fixed is None:
            v = student.tokens(pixels, hidden)
            with torch.no_grad():
                v_teacher = teacher.tokens(pixels, hidden)
        else:
            with torch.no_grad():
                x = student.lower(student.embed(pixels, hidden), fixed)
                v_teacher = teacher.run(x, fixed)
            v = student.run(x, fixed)
        return (v[:count], v[count:]), (v_teacher[:count], v_teacher[count:])

    def _patch_mask(self, batch: Batch, step: int) -> Tensor:
        """M, bool (b, N): BEiT's blocks, one seed per row."""
        rows, columns = self.encoder.image.trunk.grid
        seeds = (self.draw(batch, step, _PATCHES) * 2**24).long().tolist()
        c = self.config
        masks = [block_mask(rows, columns, c.mask_patches, c.mask_block, random.Random(seed)) for seed in seeds]
        return torch.stack(masks).to(batch["place"].device)

    def _teach(self, texts: Outputs, words: Outputs, v: Tensor, v_teacher: Tensor) -> Outputs:
        """What the teacher's fused passes give: features of T̂ for L_mlm's soft targets, and keywords. One batch.

        `texts` and the teacher's `words` for them; v of the student and v' (b, N+1, D).
        """
        parts, count, mask = self.teacher.parts, len(v), texts["mask"]
        read, pictures, wanted = [], [], []
        if "mlm" in self.config.levels:
            read.append(words["masked_words"])
            pictures.append(v_teacher)
            wanted.append(texts["chosen"].bool())
        if "psl" in self.config.levels:
            read.append(words["words"])
            pictures.append(v_teacher if self.config.keyword_images == "teacher" else v)
            wanted.append(torch.zeros_like(mask, dtype=torch.bool))  # [CLS] comes in any case
        if not read:
            return {}
        if pictures[0] is pictures[-1]:  # one picture read twice: its keys and values are made once
            pictures = pictures[:1]
        rows = torch.arange(len(read) * count, device=v.device) % (len(pictures) * count)
        projected = parts["fusion"].project(torch.cat(pictures))
        masks = mask.repeat(len(read), 1)
        tokens, attention = read_words(parts, torch.cat(read), masks, projected, rows, torch.cat(wanted))
        made: Outputs = {}
        if "mlm" in self.config.levels:
            made["mlm_teacher"] = tokens[:count]
        if "psl" in self.config.levels:
            found = keywords.vote(attention[-count:], mask, self.config.votes, self.config.keywords)
            made["keywords"] = keywords.words_at(texts["ids"], found)
        return made

    def _word_mask(self, batch: Batch, step: int) -> Outputs:
        """T̂ as `masked` (b, L), and which of its words are to be told, `chosen` (b, L)."""
        caption: Tokens = batch["caption"]
        chance = self.draw(batch, step, _WORDS, self.encoder.config.max_tokens, 3)[:, : caption.ids.shape[1]]
        maskable = caption.mask.bool() & (caption.ids != self.cls_id)  # [SEP] may be masked [C pretrain.py]
        masked, labels = bert_mask(caption.ids, maskable, chance, self.config.mask_words, self.mask_id, self.words)
        return {"masked": masked, "chosen": (labels >= 0).byte()}

    def _fused(self, o: Outputs, s: Tensor, u: Tensor, step: int) -> dict[str, Tensor]:
        """L_itm and L_mlm of this rank's rows: pairs (T | I) and (T̂ | I) are one batch, and each picture's keys and
        values are made once [P §2.2 eq. 5, §2.3 eq. 6]."""
        levels, shard = self.config.levels, distributed.shard(len(o["ids"]))
        own = torch.arange(shard.start, shard.stop, device=s.device)
        words, texts, pictures, wanted = [], [], [], []
        if "itm" in levels:
            generator = self.generator(step, _NEGATIVES)
            wrong_pictures = hard_negatives(u, generator)[own]  # for text b by its own row of u
            wrong_texts = hard_negatives(s, generator)[own]
            texts += [own, own, wrong_texts]
            pictures += [own, wrong_pictures, own]
            words += [o["words"].index_select(0, rows) for rows in texts]
            wanted += [torch.zeros_like(o["mask"][rows], dtype=torch.bool) for rows in texts]
        if "mlm" in levels:
            texts.append(own)
            pictures.append(own)
            words.append(o["masked_words"].index_select(0, own))
            wanted.append(o["chosen"][own].bool())
        needed, rows = torch.cat(pictures).unique(return_inverse=True)
        with self.autocast():
            projected = self.fusion.project(o["v"].index_select(0, needed))
            masks = o["mask"][torch.cat(texts)]
            tokens, _ = read_words(self.student, torch.cat(words), masks, projected, rows, torch.cat(wanted))
        made: dict[str, Tensor] = {}
        if "itm" in levels:
            each = match(self.itm(tokens[: 3 * len(own), 0].float()))
            made["itm"] = distributed.mean(each.sum(), len(each))
        if "mlm" in levels:
            chosen = o["chosen"][own].bool()
            made["mlm"] = self._mlm(tokens[-len(own) :][chosen], o["ids"][own][chosen], o["mlm_teacher"][own][chosen])
        return made

    def _mlm(self, tokens: Tensor, labels: Tensor, teacher: Tensor) -> Tensor:
        """L_mlm over the masked positions only: features (M, D) of both models, labels (M,)."""
        with self.autocast():
            logits = self.mlm(tokens, self.encoder.text.trunk.words.weight).float()
            with torch.no_grad():
                targets = self.teacher.parts["mlm"](teacher, self.teacher.parts["text"].trunk.words.weight).float()
        each = distilled(logits, labels, targets, self.alpha)
        return distributed.mean(each.sum(), len(each))

    def _psl(self, o: Outputs) -> dict[str, Tensor]:
        """L_psl of this rank's rows, and the share of keywords that the concept head finds likelier than not."""
        shard = distributed.shard(len(o["f"]))
        y = keywords.multi_hot(shard.of(o["keywords"]), self.words, self.dropped)
        z = self.concept(shard.of(o["f"]))
        with torch.no_grad():
            soft = self.teacher.parts["concept"](shard.of(o["f_teacher"])).sigmoid()
        each = keywords.concepts(z, y, soft, self.alpha)
        recall = ((z > 0) & (y > 0)).sum() / y.sum().clamp_min(1)
        return {"psl": distributed.mean(each.sum(), each.numel()), "psl_recall": recall}

    def _freeze_unused(self) -> None:
        """What no loss of `levels` reaches does not learn."""
        heads: dict[Level, nn.Module] = {"itm": self.itm, "mlm": self.mlm, "mim": self.mim, "psl": self.concept}
        for level, head in heads.items():
            head.requires_grad_(level in self.config.levels)
        if not {"itm", "mlm", "mim"} & set(self.config.levels):
            self.fusion.requires_grad_(False)
        self.encoder.image.trunk.mask_token.requires_grad_("mim" in self.config.levels)
