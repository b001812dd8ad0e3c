"""config.pbtxt of an endpoint's model: the tensors that callers send and get, and how requests are batched."""

from __future__ import annotations

import json
from collections.abc import Mapping

CONFIG = "config.pbtxt"
INPUTS = (("text", "TYPE_STRING"), ("image", "TYPE_STRING"), ("k", "TYPE_INT32"))
OUTPUTS = (
    ("ids", "TYPE_STRING", -1), ("titles", "TYPE_STRING", -1), ("scores", "TYPE_FP32", -1), ("match", "TYPE_FP32", 1),
    ("text_embedding", "TYPE_FP32", -1), ("image_embedding", "TYPE_FP32", -1), ("record", "TYPE_STRING", 1),
)  # fmt: skip


def search_config(*, max_batch: int, queue_delay_us: int, parameters: Mapping[str, str]) -> str:
    """config.pbtxt of the `search` endpoint, without name and version policy (Triton takes the folder's name)."""
    inputs = ",\n".join(f'  {{ name: "{name}" data_type: {kind} dims: [ 1 ] optional: true }}' for name, kind in INPUTS)
    outputs = ",\n".join(f'  {{ name: "{name}" data_type: {kind} dims: [ {size} ] }}' for name, kind, size in OUTPUTS)
    return (
        f'backend: "python"\nmax_batch_size: {max_batch}\n'
        f"input [\n{inputs}\n]\noutput [\n{outputs}\n]\n"
        "instance_group [ { count: 1 kind: KIND_CPU } ]\n"
        f"dynamic_batching {{ max_queue_delay_microseconds: {queue_delay_us} }}\n"
        + "".join(parameter(key, value) for key, value in parameters.items())
    )


def parameter(key: str, value: str) -> str:
    """One line of a config.pbtxt: a parameter that the backend and whoever asks for the model's config can read."""
    return f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}\n"
