"""Triton Python backend of the `search` endpoint: text, or image, or both, to products.

Runs in the serving environment (numpy < 2, onnxruntime, tokenizers, pillow) and needs nothing but the files beside it:
the two towers as ONNX, the tokenizer, the product index and settings.json. Exported as `model.py`.

A product's score is its image's cosine with the query: the text's embedding, the image's, or the mean of the two.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb
from pixels import BadImage, to_pixels  # beside this file in the version folder
from tokenizers import Tokenizer


class BadRequest(ValueError):
    """A request that cannot be answered, said in one sentence that names the input and the cure."""


@dataclass
class Asked:
    """One request of B queries: texts and decoded images (both of length B, or empty), and the number of products."""

    k: int
    texts: list[str] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)

    @property
    def size(self) -> int:
        return max(len(self.texts), len(self.images))


class TritonPythonModel:
    """One loaded version. Triton calls `initialize` once, `execute` with a batch of requests, `finalize` never late."""

    def initialize(self, args: dict[str, str]) -> None:
        if int(np.__version__.split(".")[0]) >= 2:
            raise RuntimeError(
                f"numpy {np.__version__}: this Triton's stub returns empty tensors under numpy 2; install numpy<2"
            )
        here = Path(args["model_repository"]) / args["model_version"]
        self.settings = json.loads((here / "settings.json").read_text(encoding="utf-8"))
        self.tokenizer = Tokenizer.from_file(str(here / "tokenizer.json"))  # cuts and pads as it was saved to
        self.text_tower = _tower(here / "text.onnx", self.settings["threads"])
        self.image_tower = _tower(here / "image.onnx", self.settings["threads"])
        self.index = np.load(here / "embeddings.npy", mmap_mode="r", allow_pickle=False)
        products = json.loads((here / "products.json").read_text(encoding="utf-8"))
        self.ids = np.array([i.encode() for i in products["id"]], object)
        self.titles = np.array([t.encode() for t in products["title"]], object)
        if not len(self.ids) == len(self.titles) == len(self.index):
            raise RuntimeError("products.json and embeddings.npy differ in length; export the model again")
        self._warm_up()

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request, in order. A bad request gets an error; the others in its batch are answered."""
        parsed = [self._parse(request) for request in requests]
        good = [asked for asked in parsed if isinstance(asked, Asked)]
        texts = iter(self._embed_texts([text for asked in good for text in asked.texts]))
        images = iter(self._embed_images([image for asked in good for image in asked.images]))
        responses = []
        for asked in parsed:
            if isinstance(asked, Asked):
                text = np.stack([next(texts) for _ in asked.texts]) if asked.texts else None
                image = np.stack([next(images) for _ in asked.images]) if asked.images else None
                responses.append(self._answer(asked, text, image))
            else:
                responses.append(pb.InferenceResponse(error=pb.TritonError(str(asked))))
        return responses

    def _parse(self, request: Any) -> Asked | BadRequest:
        try:
            values = {name: _value(request, name) for name in ("text", "image", "k")}
            asked = Asked(
                k=self._products(values["k"]),
                texts=[self._text(v) for v in values["text"]],
                images=[self._pixels(v) for v in values["image"]],
            )
        except BadRequest as error:
            return error
        if not asked.size:
            return BadRequest("the request has neither `text` nor `image`; send one, or both.")
        return asked

    def _products(self, values: list[Any]) -> int:
        most = min(self.settings["max_k"], len(self.ids))
        wanted = {int(v) for v in values} or {min(self.settings["default_k"], most)}
        if len(wanted) > 1:
            raise BadRequest("k: the queries of one request must ask for the same number of products.")
        k = wanted.pop()
        if not 1 <= k <= most:
            raise BadRequest(f"k: {k} is out of range; ask for 1 to {most} products.")
        return k

    def _text(self, value: bytes) -> str:
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            raise BadRequest("text: not UTF-8; encode it as UTF-8.") from None
        if not text.strip():
            raise BadRequest("text: empty; send some words, or leave the input out.")
        if len(text) > self.settings["max_text"]:
            raise BadRequest(f"text: {len(text)} characters, more than {self.settings['max_text']}; shorten it.")
        return text

    def _pixels(self, value: bytes) -> np.ndarray:
        try:
            return to_pixels(value, tuple(self.settings["image_size"]), **self.settings["image_limits"])
        except BadImage as error:
            raise BadRequest(f"image: {error}") from None

    def _embed_texts(self, texts: list[str]) -> np.ndarray:
        """float32 (N, D), all texts in one pass, padded to the longest."""
        if not texts:
            return np.empty((0, self.index.shape[1]), np.float32)
        encoded = self.tokenizer.encode_batch(texts)
        ids = np.array([e.ids for e in encoded], np.int64)
        mask = np.array([e.attention_mask for e in encoded], np.int64)
        return self.text_tower.run(None, {"ids": ids, "mask": mask})[0]

    def _embed_images(self, images: list[np.ndarray]) -> np.ndarray:
        """float32 (N, D), all images in one pass."""
        if not images:
            return np.empty((0, self.index.shape[1]), np.float32)
        return self.image_tower.run(None, {"pixels": np.stack(images)})[0]

    def _answer(self, asked: Asked, text: np.ndarray | None, image: np.ndarray | None) -> Any:
        given = [e for e in (text, image) if e is not None]
        scores = (sum(given) / len(given)) @ self.index.T
        rows = np.stack([top_k(s, asked.k) for s in scores])
        absent = np.full((asked.size, self.index.shape[1]), np.nan, np.float32)
        match = (text * image).sum(1) if text is not None and image is not None else absent[:, 0]
        record = np.full((asked.size, 1), self.settings["model_record"].encode(), object)
        return pb.InferenceResponse([
            pb.Tensor("ids", self.ids[rows]),
            pb.Tensor("titles", self.titles[rows]),
            pb.Tensor("scores", np.take_along_axis(scores, rows, 1)),
            pb.Tensor("match", match[:, None]),
            pb.Tensor("text_embedding", absent if text is None else text),
            pb.Tensor("image_embedding", absent if image is None else image),
            pb.Tensor("record", record),
        ])  # fmt: skip

    def _warm_up(self) -> None:
        """The first pass through a session allocates; a broken tower is found here and not by a caller."""
        height, width = self.settings["image_size"]
        self._embed_texts(["warm up"])
        self._embed_images([np.zeros((height, width, 3), np.uint8)])


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k highest scores, best first; the index is sorted by product id, so the lower row wins a tie."""
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    rows = np.flatnonzero(scores >= least)
    return rows[np.argsort(-scores[rows], kind="stable")[:k]]


def _value(request: Any, name: str) -> list[Any]:
    tensor = pb.get_input_tensor_by_name(request, name)
    return [] if tensor is None else list(tensor.as_numpy().reshape(-1))


def _tower(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads of an idle server would take the cores from everything else on the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
