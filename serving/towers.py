"""The encoder's two towers as ONNX files, and how far they are from PyTorch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from data.images import decode_rgb, to_pixels
from serving.golden import Case
from training.encoder import DualEncoder

IMAGE, TEXT = "image.onnx", "text.onnx"
OPSET = 18


class ImageTower(nn.Module):
    """uint8 (B, H, W, 3), as Pillow gives it, to float32 (B, D)."""

    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        return self.encoder.encode_image(pixels.permute(0, 3, 1, 2))


class TextTower(nn.Module):
    """int64 (B, L) ids and mask to float32 (B, D)."""

    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.encoder.encode_text(ids, mask)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How ONNX Runtime's embeddings (N, D) compare with PyTorch's, over `items` inputs."""

    items: int
    cosine: float  # the least
    difference: float  # the greatest, absolute, of one component


def write(folder: Path, encoder: DualEncoder) -> None:
    """Write image.onnx and text.onnx; batch and text length are free. Equal weights give equal bytes."""
    height, width = encoder.config.image_size
    # Two examples, because a dimension of 1 would be taken for a constant.
    pixels = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    ids, mask = encoder.tokenize(["a red dress", "a pair of blue running shoes for women"])
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=1, max=encoder.config.max_tokens)
    _export(ImageTower(encoder), (pixels,), ["pixels"], ({0: batch},), folder / IMAGE)
    _export(
        TextTower(encoder), (ids, mask), ["ids", "mask"], ({0: batch, 1: length}, {0: batch, 1: length}), folder / TEXT
    )


def compare(folder: Path, encoder: DualEncoder, cases: Sequence[Case]) -> dict[str, Agreement]:
    """{tower: agreement} on the golden inputs, in one padded batch per tower: that is how a busy server runs them."""
    texts = [case for case in cases if case.text is not None]
    ids, mask = encoder.tokenize([str(case.text) for case in texts])
    served_texts = _run(folder / TEXT, {"ids": ids.numpy(), "mask": mask.numpy()})
    photos = [case for case in cases if case.image is not None]
    pixels = np.stack([to_pixels(decode_rgb(case.image or b""), encoder.config.image_size) for case in photos])
    served_images = _run(folder / IMAGE, {"pixels": pixels})
    return {
        "text": agreement(served_texts, np.array([case.text_embedding for case in texts], np.float32)),
        "image": agreement(served_images, np.array([case.image_embedding for case in photos], np.float32)),
    }


def agreement(served: np.ndarray, offline: np.ndarray) -> Agreement:
    """Compare two arrays (N, D) of unit vectors row by row."""
    if not np.isfinite(served).all():
        return Agreement(items=len(served), cosine=-1.0, difference=2.0)  # as bad as unit vectors can be
    lengths = np.linalg.norm(served, axis=1) * np.linalg.norm(offline, axis=1)
    cosines = (served.astype(np.float64) * offline).sum(1) / np.maximum(lengths, 1e-12)
    return Agreement(
        items=len(served), cosine=float(cosines.min()), difference=float(np.abs(served - offline).max())
    )  # fmt: skip


def _export(module: nn.Module, example: tuple[Tensor, ...], names: list[str], dynamic: Any, path: Path) -> None:
    with _quiet():
        program = torch.onnx.export(
            module.eval(), example, dynamo=True, opset_version=OPSET, input_names=names, output_names=["unit_vector"],
            dynamic_shapes=dynamic, external_data=False, verbose=False,
        )  # fmt: skip
    if program is None:
        raise RuntimeError(f"{path.name}: PyTorch exported nothing")
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _strip(model: Any) -> None:
    """Drop names and stack traces of the exporting process: they differ between machines and help nobody who serves."""
    for holder in (model, model.graph, *model.functions):
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")
    for part in (
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
    ):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _run(path: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints progress and warns about its own internals; errors still come as exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
