"""A tiny catalog, tiny encoders with random weights, and verdicts about them: all real files, made in milliseconds."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from data import record, stage
from data.images import decode_rgb, to_pixels
from training.config import EncoderConfig, TowerSpec
from training.encoder import DualEncoder, save_encoder

COLOURS = {"Red": (200, 30, 30), "Blue": (30, 60, 200), "Green": (30, 160, 60), "Black": (20, 20, 20)}
ARTICLES = ("Shirt", "Dress", "Shoes", "Watch", "Bag")
GENDERS = ("Men", "Women", "Kids")
WORDS = [w.lower() for w in (*COLOURS, *ARTICLES, *GENDERS)] + [
    "a",
    "for",
    "of",
    "the",
    "and",
    "wallet",
    "jeans",
    "running",
    "white",
]


def picture(colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (45, 60)) -> bytes:
    """A JPEG of a noisy patch of colour; `size` is (width, height)."""
    noise = np.random.default_rng(seed).integers(-40, 40, (size[1], size[0], 3))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def write_dataset(folder: Path) -> None:
    """60 products, every third in the test split; ids do not sort like rows, and two products share one picture."""
    products, pictures = [], {}
    combinations = [(g, c, a) for g in GENDERS for c in COLOURS for a in ARTICLES]
    for row, (gender, colour, article) in enumerate(combinations):
        key = f"{1 if row == 0 else row:032x}"  # rows 0 and 1 show the same picture
        pictures.setdefault(key, picture(COLOURS[colour], row))
        products.append({
            "row_id": f"{row:016x}", "drop_id": "0" * 12, "id": str(9000 + 7 * row % 60 * 100 + row),
            "title": None if row == 5 else f"{gender} {colour} {article}", "gender": gender, "article_type": article,
            "base_colour": colour, "derived_caption": f"{colour} {article} for {gender}".lower(), "image_key": key,
            "group": row, "split": ("train", "val", "test")[row % 3],
        })  # fmt: skip
    with stage.run(
        "dataset", kind="dataset", command="python -m data.dataset", out=folder, inputs=[], parameters={}
    ) as run:
        pq.write_table(pa.Table.from_pylist(products), run.out / "products.parquet")
        images = [{"image_key": k, "jpeg": v, "width": 45, "height": 60} for k, v in pictures.items()]
        pq.write_table(pa.Table.from_pylist(images), run.out / "images.parquet")


def tokenizer() -> Tokenizer:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def encoder(seed: int, embed_dim: int = 24) -> DualEncoder:
    """A random convolutional image tower and a random one-layer BERT; every seed is another model."""
    torch.manual_seed(seed)
    config = EncoderConfig(
        image_size=(48, 36), embed_dim=embed_dim, max_tokens=8,
        image=TowerSpec(kind="timm", arch="test_efficientnet", mean=(127.0,) * 3, std=(128.0,) * 3),
        text=TowerSpec(kind="bert", arch="bert", hidden=16, shape={
            "vocab_size": len(WORDS) + 2, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 64, "max_position_embeddings": 16, "layer_norm_eps": 1e-12,
        }),
    )  # fmt: skip
    made = DualEncoder(config, tokenizer()).eval()
    with torch.inference_mode():  # standardised features spread the embeddings out, as training would
        pixels = [to_pixels(decode_rgb(picture(colour, i)), (48, 36)) for i, colour in enumerate(COLOURS.values())]
        made.image.head.fit(made.image.trunk(torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2).copy())))
        made.text.head.fit(made.text.trunk(*made.tokenize([f"{c} {a}" for c in COLOURS for a in ARTICLES])))
    return made


def write_model(folder: Path, seed: int) -> str:
    """A model folder with its record; returns the record id."""
    with stage.run(
        f"train@{folder.name}", kind="model", command=f"python -m training.train {folder.name}", out=folder,
        inputs=[], parameters={"seed": seed}, force=True,
    ) as run:  # fmt: skip
        save_encoder(run.out, encoder(seed))
    return record.read(folder).id


def write_verdict(folder: Path, model_record: str, champion: str | None, verdict: str = "pass", **more: Any) -> None:
    """A verdict on `model_record` against the champion `champion` (None: the base model)."""
    content = {
        "method": folder.name, "endpoint": "search", "model_record": model_record, "verdict": verdict,
        "champion": {"kind": "champion" if champion else "base", "model_record": champion or "b" * 64},
        "needs_more_items": 120 if verdict == "inconclusive" else None, "reason": f"{verdict}: for the test", **more,
    }  # fmt: skip
    with stage.run(
        f"gate@{folder.name}", kind="verdict", command=f"python -m training.gate {folder.name}", out=folder,
        inputs=[], parameters=content, force=True,
    ) as run:  # fmt: skip
        (run.out / "verdict.json").write_text(json.dumps(content))


def model_of(method: str) -> str:
    """The record id of the model in store/models/<method>."""
    return record.read(Path("store/models") / method).id


def let_pass(method: str, champion: str | None = None) -> None:
    """A passing verdict on the model of `method`, against the champion's model record (None: the base model)."""
    write_verdict(Path("store/verdicts") / method, model_of(method), champion)


def reseal(folder: Path) -> None:
    """Make the record of a folder fit its files again, as if the damage in it had been exported."""
    found = record.read(folder)
    sealed = dataclasses.replace(found, outputs=record.describe_outputs(folder))
    (folder / record.RECORD).write_text(sealed.to_json())
