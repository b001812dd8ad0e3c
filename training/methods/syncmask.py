"""syncmask: masks drawn where image and text co-occur, in batches of semi-hard neighbours ("SyncMask-style").

Song, Hwang, Yoon, Choi, Gu, CVPR 2024, arXiv 2404.01156; built on ALBEF (arXiv 2107.07651) and GRIT-VLP (2208.04060).
Confirmed of the paper are its ideas and losses; ratios, scores and the target of MIM are choices, each a setting here.
Tags of settings: [A] ALBEF's code, [G] GRIT-VLP's code, [F] FashionSAP's code, [choice] not settled by a source.
    I, T, Î, T̂   image, text, and both masked by M_v, M_w (training.fused.sync_masks)
    E_v image encoder (ViT), E_t lower and E_f upper BERT layers, E_f with cross-attention to E_v(·), fed with E_t(·)
    f, t (B, d)   normalised projections of the image's [CLS] and of the text; ' marks the teacher, the student's EMA
    L = L_itc(f, t, f', t', queues) + L_itm(E_f(T, I)) + L_mlm(E_f(T̂, I)) + L_mim(decoder(E_v(Î), E_t(T)))
One clean teacher pass per step gives masks, keys of ITC and targets of MIM. What no loss reaches of an image alone is
the text: hence MIM's own decoder with cross-attention to E_t(T).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.params import UserError
from training.config import TrainerConfig
from training.distributed import Outputs
from training.encoder import DualEncoder
from training.fused.fusion import MlmHead, initialise
from training.fused.grouped_source import KINDS_OF_PICK, GroupedSource, Grouping
from training.fused.grouping import Negatives, Rule, negatives
from training.fused.masking import replace_tokens
from training.fused.momentum import Queue, Teacher
from training.fused.multimodal import (
    MimDecoder,
    MimTarget,
    Multimodal,
    in_buckets,
    match_loss,
    mim_loss,
    mim_outputs,
    normalised_features,
    normalised_pixels,
    read_texts,
    word_logits,
)
from training.fused.pretrained import Towers, fit_heads, own_towers
from training.fused.product_itc import grit_itc, momentum_itc, product_targets
from training.fused.sync_masks import (
    Maps,
    MaskRule,
    Masks,
    Score,
    Vocabulary,
    attention_maps,
    draw_masks,
    feature_logits,
)
from training.fused.visual_tokens import Dvae, load_dvae
from training.source import Batches, product_source
from training.task import DATASET, Batch, Task, Tokens
from training.towers import BertLayer, padding_bias

PATCHES, WORDS, MIX, REPLACE, NEGATIVE = range(5)  # purposes of chance
SECTION = "methods.syncmask"
FASHIONGEN = Towers(max_tokens=75)


class Taught(NamedTuple):
    """What one clean pass of the teacher gives: f', t', patch features, and the maps P̄, R̄."""

    image: Tensor
    text: Tensor
    patches: Tensor
    maps: Maps


class SyncMask(Task):
    """SyncMask-style pretraining. State: teacher and queues; the order of batches is the source's."""

    needs = frozenset({"image", "caption", "product", "text"})
    stage = "train@syncmask"
    inputs = (DATASET,)
    saved = ("fusion", "itm", "mlm", "mim")

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings.

        Attributes:
            towers: E_v and the whole BERT; 75 tokens as in fine-tuning on FashionGen [F].
            fusion_layer: BERT layers below it are E_t, the others E_f [A configs/config_bert.json].
            fit_heads: products whose features standardise what enters g_v and g_t at the start; 0 for plain linear maps
                [A].
            momentum: m of the teacher [A]; SyncMask's own is unknown.
            itc: `momentum`, queues and soft product-aware targets [A, F; choice]; `grit`, within the batch [G].
            queue: pairs of the queue, a multiple of the batch; FashionGen has too few products for 65,536 [choice].
            alpha: weight of the teacher in ITC's targets, ramped up over the first epoch [A].
            consistency: weight of GRIT's consistency term [G].
            score: how patches and words are scored, see `training.fused.sync_masks` [choice]; `random` is the ablation.
            synchronised: which masks follow the scores; the other one is random (ablation).
            layers: layers of E_f whose attention is averaged, -1 the last; none for all [choice].
            feature_tau: temperature of the cosines of `score=feature` [choice].
            patches_masked, words_masked: r_v, r_w [choice; AttMask 0.3, ALBEF text 0.15, GRIT text 0.5].
            temperature: T of the draw, 0 takes the best, large ignores the scores [choice].
            random_share: p_rand, share of samples with random masks [choice].
            aligned: the teacher starts aligned; else p_rand falls from 1 to `random_share` over the first epoch.
            never_masked: words left out of C besides [CLS], [SEP] and [PAD], such as stop words.
            distill: weight of the teacher's distribution over words in MLM; 0 for none, and no second teacher pass.
            mim: the target of MIM: teacher `feature`, `pixel`s normalised per patch, or `dvae` ids [choice].
            mim_layers: blocks of MIM's decoder [choice].
            dvae, codes: file with the encoder of a dVAE and how many codes it has, for `mim=dvae`.
            batches: `grouped` as GRIT, or `random` in every epoch (ablation).
            hard, margin, window: which neighbour is hard enough, see `training.fused.grouping.Rule` [choice].
            collect, space: pairs collected before they are grouped, and elements per chain [G configs/Pretrain.yaml].
            draw_negatives: ITM negatives in proportion to similarity [A] in place of the nearest allowed [G].
        """

        towers: Towers = FASHIONGEN
        fusion_layer: int = 6
        fit_heads: int = 0
        momentum: float = 0.995
        itc: Literal["momentum", "grit"] = "momentum"
        queue: int = 16384
        alpha: float = 0.4
        consistency: float = 0.2
        score: Score = "bisoftmax"
        synchronised: Literal["both", "text", "image"] = "both"
        layers: tuple[int, ...] = (-1,)
        feature_tau: float = 0.07
        patches_masked: float = 0.3
        words_masked: float = 0.3
        temperature: float = 0.5
        random_share: float = 0.1
        aligned: bool = False
        never_masked: tuple[str, ...] = ()
        distill: float = 0.0
        mim: MimTarget = "feature"
        mim_layers: int = 2
        dvae: str = "weights/dvae.pt"
        codes: int = 8192
        batches: Literal["grouped", "random"] = "grouped"
        hard: Literal["top1", "exclude_id", "semi", "rank_window"] = "semi"
        margin: float = 0.0
        window: tuple[int, int] = (2, 10)
        collect: int = 48000
        space: int = 1920
        draw_negatives: bool = False

    config: Config
    teacher: Teacher  # made when a training starts: a trained model has none
    queue: Queue | None
    visual: Dvae

    def __init__(self, config: Config, encoder: DualEncoder, upper: Sequence[BertLayer] = ()) -> None:
        super().__init__(config, encoder)
        self.rule = Rule(hard=config.hard, margin=config.margin, window=config.window)
        self.masking = MaskRule(
            score=config.score, synchronised=config.synchronised, patches=config.patches_masked,
            words=config.words_masked, temperature=config.temperature,
        )  # fmt: skip
        self.words = Vocabulary(encoder.tokenizer, config.never_masked)
        text, image = encoder.config.text.shape, encoder.config.image.shape
        width, eps = text["hidden_size"], text["layer_norm_eps"]
        self.fusion = Multimodal(upper or self._upper_layers(), image["width"], eps)
        self.itm = nn.Linear(width, 2)
        self.mlm = MlmHead(width, text["vocab_size"], eps)
        decoder = [BertLayer(image["width"], image["heads"], image["inner"], eps) for _ in range(config.mim_layers)]
        self.mim = MimDecoder(
            decoder, width, eps, mim_outputs(config.mim, image["width"], image["patch"], config.codes)
        )
        self.itm.apply(initialise)
        self.p_rand, self.alpha = config.random_share, config.alpha
        self.picks: Tensor | None = None

    @classmethod
    def build(cls, config: Config, base: DualEncoder | None) -> SyncMask:  # type: ignore[override]
        """Own towers, the BERT cut in two, and a teacher that equals the student."""
        encoder = own_towers(config.towers, f"{SECTION}.towers")
        layers = list(encoder.text.trunk.layers)
        if not 0 < config.fusion_layer < len(layers):
            raise UserError(f"{SECTION}.fusion_layer: must leave layers on both sides of 1 to {len(layers) - 1}.")
        encoder.text.trunk.layers = nn.ModuleList(layers[: config.fusion_layer])
        shape = {**encoder.config.text.shape, "num_hidden_layers": config.fusion_layer}
        text = dataclasses.replace(encoder.config.text, shape=shape)
        encoder.config = dataclasses.replace(encoder.config, text=text)
        made = cls(config, encoder, layers[config.fusion_layer :])
        made.begin()
        return made

    def begin(self) -> None:
        """A teacher equal to the student as it is now, queues of noise, and the visual tokenizer if MIM takes one."""
        self.teacher = Teacher({
            "image": self.encoder.image, "text": self.encoder.text, "fusion": self.fusion,
            **({"mlm": self.mlm} if self.config.distill else {}),
        })  # fmt: skip
        self.queue = None
        if self.config.itc == "momentum":
            chance = torch.Generator().manual_seed(torch.initial_seed())
            self.queue = Queue(self.config.queue, self.encoder.config.embed_dim, chance)
        if self.config.mim == "dvae":
            self.visual = Dvae(self.encoder.image.trunk.grid, self.config.codes)
            load_dvae(self.visual, Path(self.config.dvae))

    def source(self, trainer: TrainerConfig, name: str) -> Batches:
        made = product_source(self, trainer, name, GroupedSource)
        assert isinstance(made, GroupedSource)
        return self.attach(made)

    def attach(self, source: GroupedSource) -> GroupedSource:
        """Tell a source how to group, log what it picked, and fit the heads to what it shows."""
        c = self.config
        source.group(Grouping(self.rule, c.collect, c.space) if c.batches == "grouped" else None)
        self.picks = source.rates
        if c.fit_heads:
            fit_heads(self.encoder, source.sample(c.fit_heads))
            self.begin()  # the teacher's heads are the student's
        return source

    def before_step(self, step: int, progress: float) -> None:
        """The teacher moves on before it is used; α rises and p_rand falls over the first epoch."""
        c = self.config
        self.teacher.update(c.momentum)
        ramp = min(1.0, progress)
        self.alpha = c.alpha * ramp
        self.p_rand = c.random_share if c.aligned else 1 - ramp * (1 - c.random_share)

    def encode(self, batch: Batch, step: int) -> Outputs:
        tokens, pixels = batch["caption"], batch["image"]
        if pixels.dtype != torch.uint8:
            raise UserError("trainer.frozen: syncmask masks pixels; name blocks of image.trunk there, not all of it.")
        trunk, text, shared = self.encoder.image.trunk, self.encoder.text.trunk, self._shared_blocks()
        with self.autocast():
            below = trunk.lower(trunk.embed(pixels), shared)
            v = trunk.run(below, shared)
        taught = self._teach(batch, below if shared else None, shared)
        masks = self._masks(taught.maps, batch, step)
        ids, labels = self._hide(tokens, masks.words, batch, step)
        words, hidden_words = text.look_up(torch.cat([tokens.ids, ids])).chunk(2)
        with self.autocast():
            w = read_texts(text, words, tokens.mask)
            logits = word_logits(text, self.fusion, self.mlm, v, hidden_words, tokens.mask, masks.words)
        mlm, count = self._mlm(logits, ids, labels, masks.words, batch)
        return {
            "image": self.encoder.project_image(v[:, 0].float()),
            "text": self.encoder.project_text(text.pool(w, tokens.mask).float()),
            "image_teacher": taught.image, "text_teacher": taught.text, "patches": v, "words": w,
            "mask": tokens.mask, "product": batch["product"], "same_text": batch["text"],
            "mlm": mlm, "mlm_count": count, "mim": self._mim(w, masks.patches, batch, taught.patches),
            "patch_entropy": masks.patch_entropy, "word_entropy": masks.word_entropy,
        }  # fmt: skip

    def losses(self, outputs: Outputs, step: int) -> dict[str, Tensor]:
        with self.autocast():
            matching = match_loss(self.fusion, self.itm, outputs, *self._negatives(outputs, step))
        parts = {
            **self._itc(outputs), **matching, "mlm": outputs["mlm"].sum() / outputs["mlm_count"].sum().clamp_min(1),
            "mim": outputs["mim"].mean(),
        }  # fmt: skip
        loss = parts["itc"] + parts["itm"] + parts["mlm"] + parts["mim"]
        seen = {key: outputs[key].mean() for key in ("patch_entropy", "word_entropy")}
        rates = torch.zeros(len(KINDS_OF_PICK)) if self.picks is None else self.picks.clone()
        picks = {f"picks_{kind}": rate.to(loss.device) for kind, rate in zip(KINDS_OF_PICK, rates, strict=True)}
        return {"loss": loss, **parts, **seen, **picks}

    def after_step(self) -> None:
        """τ stays in [0.001, 0.5] [A]."""
        with torch.no_grad():
            self.encoder.logit_scale.clamp_(math.log(2), math.log(1000))

    def extra_state(self) -> dict[str, Tensor]:
        parts = {"teacher": self.teacher.state(), "queue": self.queue.state() if self.queue else {}}
        return {f"{part}/{name}": tensor for part, state in parts.items() for name, tensor in state.items()}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        for part in (self.teacher, self.queue):
            if part is not None:
                prefix = "teacher/" if part is self.teacher else "queue/"
                part.load_state({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    def _upper_layers(self) -> list[BertLayer]:
        s = self.encoder.config.text.shape
        count = self.config.towers.text_layers - self.config.fusion_layer
        sizes = s["hidden_size"], s["num_attention_heads"], s["intermediate_size"], s["layer_norm_eps"]
        return [BertLayer(*sizes) for _ in range(count)]

    def _shared_blocks(self) -> int:
        """How many first blocks of E_v teacher and student have in common, patches below them included: frozen ones."""
        trunk = self.encoder.image.trunk
        if any(p.requires_grad for p in (trunk.patch_embed.proj.weight, trunk.cls_token, trunk.pos_embed)):
            return 0
        learns = [any(p.requires_grad for p in block.parameters()) for block in trunk.blocks]
        return [*learns, True].index(True)

    @torch.no_grad()
    def _teach(self, batch: Batch, below: Tensor | None, shared: int) -> Taught:
        """The teacher's pass over the unmasked image and text; `below` is what leaves the shared blocks."""
        image, text, fusion = (self.teacher.parts[name] for name in ("image", "text", "fusion"))
        tokens = batch["caption"]
        with self.autocast():
            v = image.trunk.tokens(batch["image"]) if below is None else image.trunk.run(below, shared)
            w = read_texts(text.trunk, text.trunk.look_up(tokens.ids), tokens.mask)

            def look(rows: Tensor, width: int) -> Tensor:
                """Fused features (R, width, W), or cross-attention logits (R, width, heads of all layers, N + 1)."""
                bias = padding_bias(tokens.mask[rows, :width], w.dtype)
                fused, layers = fusion(w[rows, :width], bias, fusion.project(v[rows]))
                if self.config.score == "feature":
                    return fused
                return torch.cat([layers[i] for i in self.config.layers] or layers, 1).transpose(1, 2).float()

            found = in_buckets(tokens.mask, look)
        if self.config.score == "feature":
            logits = feature_logits(text.head(found.float()), image.head(v.float()), self.config.feature_tau)
        else:
            logits = found.transpose(1, 2)
        return Taught(
            F.normalize(image.head(v[:, 0].float()), dim=-1),
            F.normalize(text.head(text.trunk.pool(w, tokens.mask).float()), dim=-1),
            v, attention_maps(logits, self.words.content(tokens.ids, tokens.mask)),
        )  # fmt: skip

    @torch.no_grad()
    def _masks(self, maps: Maps, batch: Batch, step: int) -> Masks:
        """M_v and M_w of one map. A share p_rand of the samples takes scores that are all alike."""
        longest, (_, length, patches) = self.encoder.config.max_tokens, maps.looks.shape
        return draw_masks(
            self.masking, maps, self.words.words(batch["caption"].ids, maps.content),
            self.draw(batch, step, MIX) < self.p_rand, self.draw(batch, step, PATCHES, patches),
            self.draw(batch, step, WORDS, longest)[:, :length],  # the same whatever the length
        )  # fmt: skip

    def _hide(self, tokens: Tokens, chosen: Tensor, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """T̂ and its labels, (b, L) each."""
        chance = self.draw(batch, step, REPLACE, self.encoder.config.max_tokens, 2)[:, : chosen.shape[1]]
        return replace_tokens(tokens.ids, chosen, chance, self.words.mask_id, self.words.size)

    def _mlm(self, logits: Tensor, ids: Tensor, labels: Tensor, chosen: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Σ CE over M_w of E_f(E_t(T̂), E_v(I)), and how many tokens that is, of each row (b,)."""
        loss = F.cross_entropy(logits, labels[chosen], reduction="none")
        if share := self.config.distill:
            image, text, fusion, head = (self.teacher.parts[k] for k in ("image", "text", "fusion", "mlm"))
            with torch.no_grad(), self.autocast():
                known, mask = image.trunk.tokens(batch["image"]), batch["caption"].mask
                taught = word_logits(text.trunk, fusion, head, known, text.trunk.look_up(ids), mask, chosen)
                target = taught.softmax(1)
            loss = (1 - share) * loss - share * (target * logits.log_softmax(1)).sum(1)
        rows = chosen.nonzero()[:, 0]
        return loss.new_zeros(len(chosen)).index_add(0, rows, loss), chosen.sum(1).float()

    def _mim(self, w: Tensor, chosen: Tensor, batch: Batch, taught: Tensor) -> Tensor:
        """Mean loss of each row's masked patches (b,): masked image, unmasked text."""
        kind, pixels, patch = self.config.mim, batch["image"], self.encoder.config.image.shape["patch"]
        with self.autocast():
            masked = self.encoder.image.trunk.tokens(pixels, chosen)
            predicted = self.mim(masked, w, batch["caption"].mask, chosen)
        if kind == "feature":
            target = normalised_features(taught[:, 1:])
        else:
            target = normalised_pixels(pixels, patch) if kind == "pixel" else self.visual(pixels)
        return mim_loss(kind, predicted, target[chosen]).view(len(chosen), -1).mean(1)

    def _itc(self, outputs: Outputs) -> dict[str, Tensor]:
        """L_itc of all rows; the teacher's features then enter the queues."""
        image, text, scale = outputs["image"], outputs["text"], self.scale()
        if self.queue is None:
            loss, agree = grit_itc(image, text, scale, self.config.consistency)
            return {"itc": loss, "consistency": agree.detach()}
        known = outputs["image_teacher"].detach(), outputs["text_teacher"].detach()
        bank = torch.cat([known[0], self.queue.image]), torch.cat([known[1], self.queue.text])
        y = product_targets(outputs["product"], torch.cat([outputs["product"], self.queue.ids]))
        loss = momentum_itc(image, text, known, bank, y, scale, self.alpha)
        self.queue.push(*known, outputs["product"])
        return {"itc": loss}

    @torch.no_grad()
    def _negatives(self, outputs: Outputs, step: int) -> tuple[Negatives, Negatives]:
        """Of each row the text for its image, and the image for its text."""
        similarity = outputs["image"] @ outputs["text"].T
        ids, tau = (outputs["product"], outputs["same_text"]), float(1 / self.scale())
        chance: list[Tensor | None] = [None, None]
        if self.config.draw_negatives or self.config.hard == "rank_window":
            numbers = torch.rand(2, *similarity.shape, generator=self.generator(step, NEGATIVE))
            chance = list(numbers.to(similarity.device))
        return (
            negatives(similarity, *ids, self.rule, chance[0], tau),
            negatives(similarity.T, *ids, self.rule, chance[1], tau),
        )
