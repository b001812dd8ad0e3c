"""The methods, by the name that commands, params.yaml and dvc.yaml use. One file and one line each."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data.params import UserError, strict
from training.encoder import load_encoder
from training.task import METHOD, METHOD_WEIGHTS, Task

CLASSES = {
    "clip": "Clip",
    "negclip": "NegClip",
    "ce_clip": "CeClip",
    "cma_clip": "CmaClip",
    "lincir": "LinCir",
    "syncmask": "SyncMask",
    "simla": "Simla",
}


class Methods(Mapping[str, type[Task]]):
    """{name: class}; a method's file is imported when it is asked for, so one method's mistake stops no other."""

    def __getitem__(self, name: str) -> type[Task]:
        if name not in CLASSES:
            raise KeyError(name)
        return getattr(importlib.import_module(f"training.methods.{name}"), CLASSES[name])

    def __iter__(self) -> Iterator[str]:
        return iter(CLASSES)

    def __len__(self) -> int:
        return len(CLASSES)


METHODS = Methods()


def load_task(folder: Path) -> Task:
    """The trained method of a model folder that has a `method.json`, in eval mode."""
    path = folder / METHOD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        method = METHODS[content["method"]]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: names no method ({error}). Train the model again (`dvc repro`).") from None
    config: Any = strict(method.Config, content["config"], where=f"{path}: config")
    return method.restore(config, load_encoder(folder), folder / METHOD_WEIGHTS)
