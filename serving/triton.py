"""A typed client of the local Triton: model control, readiness, and questions to the `search` endpoint (gRPC)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.params import UserError
from serving.server import Server, control_headers

CALL_TIMEOUT = 30.0  # seconds; loads have their own limit
POLL = 0.02
WANTED = ("ids", "titles", "scores", "match", "text_embedding", "image_embedding", "record")
GONE = ("is not at ready state", "is not found", "unknown model")  # Triton's words for a version no longer served


class TritonError(UserError):
    """What Triton answered instead of a result, in its own words."""

    @property
    def version_gone(self) -> bool:
        """Whether the asked-for version is not being served (any more)."""
        return any(words in str(self) for words in GONE)


@dataclass(frozen=True, kw_only=True)
class Query:
    """One question: a text, an encoded image, or both; and how many products to name."""

    text: str | None = None
    image: bytes | None = None
    k: int = 10


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer. Embeddings are float32 (D,), all NaN for what was not asked; `match` is NaN unless both were."""

    model: str
    version: int
    record: str
    ids: list[str]
    titles: list[str]
    scores: np.ndarray
    match: float
    text_embedding: np.ndarray
    image_embedding: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """One line of the server's repository index. `state` is READY, LOADING, UNLOADING or UNAVAILABLE."""

    name: str
    version: int
    state: str
    reason: str


class Triton:
    """Talks to one server. Safe to share between threads; `close` it, or use it as a context manager."""

    def __init__(self, server: Server) -> None:
        import tritonclient.grpc as grpc

        self._grpc = grpc
        self._client = grpc.InferenceServerClient(f"127.0.0.1:{server.grpc}")
        self._headers = control_headers()

    def __enter__(self) -> Triton:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def live(self) -> bool:
        """Whether the server answers at all."""
        try:
            return bool(self._client.is_server_live(client_timeout=5.0))
        except self._errors:
            return False

    def ready(self, model: str, version: int | None = None) -> bool:
        """Whether a model (one version of it, if given) takes requests."""
        try:
            return bool(self._client.is_model_ready(model, _text(version), client_timeout=5.0))
        except self._errors:
            return False

    def index(self) -> list[ModelState]:
        """Every model version the server knows, as it sees it right now."""
        found = self._call(
            self._client.get_model_repository_index, headers=self._headers, as_json=True, client_timeout=CALL_TIMEOUT
        )
        return [
            ModelState(
                name=m["name"], version=int(m.get("version") or 0),
                state=m.get("state", "UNAVAILABLE"), reason=m.get("reason", ""),
            )
            for m in found.get("models", [])
        ]  # fmt: skip

    def load(self, model: str, timeout: float) -> None:
        """Load a model, or reload it after its config changed. Raises `TritonError`; what served before goes on."""
        self._call(self._client.load_model, model, headers=self._headers, client_timeout=timeout)

    def unload(self, model: str) -> None:
        """Unload every version of a model, if it is loaded."""
        if any(state.name == model for state in self.index()):
            self._call(self._client.unload_model, model, headers=self._headers, client_timeout=CALL_TIMEOUT)

    def wait_ready(self, model: str, version: int, timeout: float) -> None:
        """Poll until one version takes requests. Raises `TritonError` with the server's reason after `timeout` s."""
        deadline = time.monotonic() + timeout
        while not self.ready(model, version):
            if time.monotonic() >= deadline:
                reason = next((m.reason for m in self.index() if (m.name, m.version) == (model, version)), "")
                raise TritonError(f"{model} version {version} is not ready after {timeout:.0f} s. {reason}".strip())
            time.sleep(POLL)

    def search(self, query: Query, *, model: str = "search", version: int | None = None) -> Answer:
        """Ask one question; of one version if given, else of the newest one loaded. Raises `TritonError`."""
        inputs = [self._input(name, value) for name, value in _inputs(query).items()]
        outputs = [self._grpc.InferRequestedOutput(name) for name in WANTED]
        result = self._call(
            self._client.infer, model, inputs, model_version=_text(version), outputs=outputs,
            client_timeout=CALL_TIMEOUT,
        )  # fmt: skip
        return _answer(result)

    def _input(self, name: str, value: np.ndarray) -> Any:
        made = self._grpc.InferInput(name, list(value.shape), "INT32" if value.dtype == np.int32 else "BYTES")
        made.set_data_from_numpy(value)
        return made

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        from tritonclient.utils import InferenceServerException

        return (InferenceServerException,)

    def _call(self, function: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except self._errors as error:
            words = " ".join(str(error.message()).split())  # type: ignore[attr-defined]
            raise TritonError(words or str(error)) from None


def _inputs(query: Query) -> Mapping[str, np.ndarray]:
    """The request's tensors, each of shape (1, 1): one query, one value."""
    found: dict[str, np.ndarray] = {"k": np.array([[query.k]], np.int32)}
    if query.text is not None:
        found["text"] = np.array([[query.text.encode()]], object)
    if query.image is not None:
        found["image"] = np.array([[query.image]], object)
    return found


def _answer(result: Any) -> Answer:
    head = result.get_response()
    value = {name: result.as_numpy(name)[0] for name in WANTED}
    return Answer(
        model=head.model_name, version=int(head.model_version), record=value["record"][0].decode(),
        ids=[v.decode() for v in value["ids"]], titles=[v.decode() for v in value["titles"]],
        scores=value["scores"], match=float(value["match"][0]),
        text_embedding=value["text_embedding"], image_embedding=value["image_embedding"],
    )  # fmt: skip


def _text(version: int | None) -> str:
    return "" if version is None else str(version)
