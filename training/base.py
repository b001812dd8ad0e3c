"""STAGE  The pretrained dual encoder that every CLIP-family method starts from.

Either a whole CLIP model (`base.clip`), or two packaged towers whose projection heads are aligned on the train split's
captions while the towers stay as they are, as in locked-image tuning (Zhai et al. 2022, arXiv 2111.07991).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import torch
from torch import Tensor

from data import stage
from data.params import UserError, canonical_hash, section
from data.record import describe_input
from training import checkpoint, trainer
from training.config import BaseConfig, ClipWeights, EncoderConfig, ImageWeights
from training.distributed import Outputs
from training.encoder import DualEncoder, save_encoder
from training.journal import write_history
from training.losses import itc
from training.source import Features, Source, load_products
from training.task import DATASET, Batch, Task
from training.texts import sentence_features
from training.validation import retrieval
from training.weights import image_tower, text_tower

OUT = Path("store/models/base")
TRUNKS = ("image.trunk", "text.trunk")


class Align(Task):
    """CLIP's loss over features of frozen trunks: only the two projection heads and the temperature learn."""

    needs = frozenset({"image", "caption"})

    def encode(self, batch: Batch, step: int) -> Outputs:
        return {"image": self.images(batch), "text": self.texts(batch["caption"])}

    def losses(self, outputs: Outputs, step: int) -> dict[str, Tensor]:
        return {"loss": itc(outputs["image"], outputs["text"], self.scale())}


def build(args: argparse.Namespace) -> None:
    """Make `store/models/base`."""
    config = section(BaseConfig, "{preset}.base")
    with stage.run(
        "base", kind="model", command="python -m training.base", out=OUT, inputs=[DATASET], parameters=config,
        seeds={"align": config.align.seed}, force=args.force,
    ) as run:  # fmt: skip
        if run.up_to_date:
            return
        trainer.prepare(config.align)
        if config.clip:
            encoder = clip_encoder(config.clip)
        else:
            encoder = packaged_encoder(config)
            align(encoder, config, run)
        save_encoder(run.out, encoder)
        numbers = retrieval(encoder, load_products(DATASET, "val"), DATASET)
        run.summary(method="base", embed_dim=encoder.config.embed_dim, **numbers)
    checkpoint.clear(trainer.RUNS / "base")


def align(encoder: DualEncoder, config: BaseConfig, run: stage.Run) -> None:
    """Train the heads on the train split's titles and derived captions, towers frozen."""
    settings = dataclasses.replace(config.align, frozen=TRUNKS)
    products = load_products(DATASET, "train")
    pictures = Features(encoder, DATASET, products.image_keys, "base")
    encoder.image.head.fit(torch.from_numpy(pictures.features))
    source = Source(products, encoder, pictures, settings, Align.needs)
    source.texts.features = sentence_features(encoder, source.texts)
    encoder.text.head.fit(source.texts.features)
    binding = canonical_hash({"config": config, "inputs": [describe_input(DATASET)]})
    history = trainer.fit(Align.build(None, encoder), source, settings, name="base", binding=binding).history
    run.picture("Alignment of the heads", write_history(run.out, history, "base: contrastive loss of the heads"))
    falls = history[-1]["loss"] < history[0]["loss"]
    run.check("loss_falls", falls, severity="critical", description="The last interval's loss is below the first's.")


def packaged_encoder(config: BaseConfig) -> DualEncoder:
    """A dual encoder of pretrained towers with fresh heads, seeded by `align.seed`."""
    image_spec, image_state = image_tower(config.image)
    text_spec, text_state, tokenizer = text_tower(config.text)
    encoder = DualEncoder(
        EncoderConfig(
            image_size=config.image.size, embed_dim=config.embed_dim, max_tokens=config.text.max_tokens,
            image=image_spec, text=text_spec,
        ),
        tokenizer,
    )  # fmt: skip
    encoder.image.trunk.load_unfolded(image_state)
    check_grid(encoder, config.image)
    encoder.text.trunk.load_state_dict(text_state, strict=True)
    return encoder.eval()


def check_grid(encoder: DualEncoder, config: ImageWeights) -> None:
    """The grid's cells must cover its level exactly. Raises `UserError` naming the level's size if they do not."""
    if not config.grid:
        return
    level, rows, columns = config.grid
    reduction = encoder.image.trunk.net.feature_info[level]["reduction"]
    height, width = (-(-side // reduction) for side in config.size)
    if height % rows or width % columns:
        raise UserError(f"base.image.grid: {rows} x {columns} cells does not divide level {level}, {height} x {width}.")


def clip_encoder(config: ClipWeights) -> DualEncoder:
    """A CLIP model of open_clip as a dual encoder."""
    from training import openclip

    image, text, state, scale = openclip.pretrained(config.model, config.weights)
    size = image.shape["vision_cfg"]["image_size"]
    encoder = DualEncoder(
        EncoderConfig(
            image_size=tuple(size) if isinstance(size, list) else (size, size), embed_dim=image.shape["embed_dim"],
            max_tokens=text.shape["text_cfg"]["context_length"], image=image, text=text,
        ),
        openclip.tokenizer(),
    )  # fmt: skip
    for trunk, prefix in ((encoder.image.trunk, "visual."), (encoder.text.trunk, "text.")):
        trunk.load_open_clip({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    encoder.logit_scale.data.fill_(scale)
    return encoder.eval()


def main(argv: list[str] | None = None) -> int:
    return stage.main(build, description=__doc__, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
