"""Which model is champion of an endpoint: the one its next challenger is compared with.

    store/champions/<endpoint>/CURRENT          record id of the champion, one line
    store/champions/<endpoint>/<id[:12]>/       its model folder, kept whatever is trained later

A promotion moves the pointer, so it is read when a gate runs and is no DVC dependency: `dvc repro` right after a
promotion has nothing to do. The history of promotions is the registry's (serving); here is only the present.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

from data import record
from data.params import UserError
from data.stage import replace_folder

CHAMPIONS = Path("store/champions")
CURRENT = "CURRENT"
BASE = "base"  # the model that every endpoint's first challenger meets
ENDPOINTS = {  # which methods compete for an endpoint
    "search": ("ce_clip", "syncmask", "simla", "clip", "negclip"),
    "compose": ("lincir",),
    "attributes": ("cma_clip",),
}


@dataclasses.dataclass(frozen=True)
class Champion:
    """The champion of an endpoint: the record id of its model and the folder of the kept copy."""

    endpoint: str
    model_record: str
    folder: Path


def endpoint_of(method: str) -> str:
    """The endpoint a method competes for. Raises `UserError` for a method that competes for none."""
    for endpoint, methods in ENDPOINTS.items():
        if method in methods:
            return endpoint
    known = ", ".join(sorted(m for methods in ENDPOINTS.values() for m in methods))
    raise UserError(f"`{method}` competes for no endpoint, so there is nothing to judge it against. Known: {known}.")


def current(endpoint: str) -> Champion | None:
    """The present champion of an endpoint, None before the first promotion.

    Raises `UserError` if the pointer names a model whose copy is absent or not the one it names. File contents are
    hashed by `install` and `point`; `record.verify(champion.folder)` does it again.
    """
    pointer = _home(endpoint) / CURRENT
    if not pointer.is_file():
        return None
    return _kept(endpoint, pointer.read_text(encoding="utf-8").strip())


def install(endpoint: str, model_folder: Path) -> Champion:
    """Keep a copy of a model folder, so that it can be pointed at; the pointer does not move.

    Files are hard-linked where the file system allows it, so a copy costs no space; nothing ever writes them in
    place. Installing the same model again changes nothing. Raises `UserError` if a file does not match its record.
    """
    model_record = record.verify(model_folder).id
    target = _folder(endpoint, model_record)
    if not _intact(target):
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(model_folder, partial, copy_function=_link_or_copy)
        replace_folder(partial, target)
    return _kept(endpoint, model_record)


def point(endpoint: str, model_record: str) -> Champion:
    """Make an installed model the champion; atomic, and verified first. Going back is pointing at the previous one."""
    champion = _kept(endpoint, model_record)
    record.verify(champion.folder)
    record.write_atomically(_home(endpoint) / CURRENT, model_record + "\n")
    return champion


def _kept(endpoint: str, model_record: str) -> Champion:
    folder = _folder(endpoint, model_record)
    cure = f"Install the model again by promoting it, or remove {CHAMPIONS / endpoint / CURRENT} to start from base."
    if not folder.is_dir():
        raise UserError(f"{folder}: the champion's model folder is missing. {cure}")
    found = record.read(folder).id
    if found != model_record:
        raise UserError(f"{folder}: holds model {found[:12]}, not {model_record[:12]}. {cure}")
    return Champion(endpoint=endpoint, model_record=model_record, folder=folder)


def _folder(endpoint: str, model_record: str) -> Path:
    if len(model_record) != 64 or set(model_record) - set("0123456789abcdef"):
        raise UserError(f"{CHAMPIONS / endpoint}: `{model_record}` is not a record id. Promote a model again.")
    return _home(endpoint) / model_record[:12]


def _home(endpoint: str) -> Path:
    if endpoint not in ENDPOINTS:
        raise UserError(f"`{endpoint}` is no endpoint. Known: {', '.join(sorted(ENDPOINTS))}.")
    return CHAMPIONS / endpoint


def _intact(folder: Path) -> bool:
    try:
        record.verify(folder)
    except UserError:
        return False
    return True


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(Path(source).resolve(), target)  # the file itself, should DVC have put a symbolic link here
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)
