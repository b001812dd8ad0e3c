"""Strict reading of `params.yaml`, the only place for values.

A dataclass is the schema of one section: every key must be a field, every value must have the field's type, and a
mistake names the file, the key and the cure. The dataclass' defaults stand for keys the file leaves out.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from data.reports import shortened, visible

T = TypeVar("T")
PARAMS = Path("params.yaml")
LONGEST = 3_000  # characters of a message


class UserError(Exception):
    """Bad input, said in one sentence that names the file, row or field, and the cure. Shown without a traceback.

    It may quote the input, so what would drive a terminal or hide in the sentence is spelled out, and little of it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(visible(message), LONGEST))


class _Yaml12(yaml.SafeLoader):
    """PyYAML with the plain scalars of YAML 1.2, as DVC reads and writes them: `1e-5` is a number, `no` is a word."""


_Yaml12.yaml_implicit_resolvers = {}
for _tag, _first, _pattern in (
    ("bool", "tTfF", r"true|True|TRUE|false|False|FALSE"),
    ("int", "-+0123456789", r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+"),
    ("float", "-+.0123456789", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan"),
    ("null", ["~", "n", "N", ""], r"~|null|Null|NULL|"),
    ("merge", "<", r"<<"),
):
    _Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def read_yaml(text: str) -> Any:
    """The plain value of a YAML text, its numbers read as DVC reads them. Raises `yaml.YAMLError`."""
    return yaml.load(text, Loader=_Yaml12)


def load(path: Path = PARAMS) -> dict[str, Any]:
    """The whole of a YAML file, `params.yaml` or `dvc.yaml`. Raises `UserError` if it is missing or no mapping."""
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found. Run from the folder that holds {path.name}.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of sections, found {type(content).__name__}.")
    return content


def section(cls: type[T], key: str, path: Path = PARAMS) -> T:
    """The section at the dotted `key`, as a `cls`. `{preset}` in the key stands for the file's `preset` value."""
    content = load(path)
    if "{preset}" in key:
        key = key.format(preset=content.get("preset", "starter"))
    node: Any = content
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise UserError(f"{path}: section `{key}` is missing. Add it, or restore the file with `git checkout`.")
        node = node[part]
    return strict(cls, node or {}, where=f"{path}: {key}")


def strict(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """`cls(**values)` after checking every key and type; nested dataclasses are read the same way."""
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: expected a mapping of settings, found {values!r}.")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            cure = f"Did you mean `{near[0]}`?" if near else f"Known settings: {', '.join(sorted(fields))}."
            raise UserError(f"{where}.{key}: unknown setting. {cure}")
    missing = [n for n, f in fields.items() if n not in values and _required(f)]
    if missing:
        raise UserError(f"{where}: missing setting(s) {', '.join(missing)}.")
    try:
        return cls(**{key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()})
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def canonical(value: Any) -> Any:
    """A dataclass, path, tuple or mapping as plain JSON values, in one canonical form."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: canonical(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def canonical_hash(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`: sorted keys, no spaces, UTF-8, no NaN."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return strict(typing.cast(type, hint), value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise UserError(f"{where}: {value!r} is not one of {', '.join(map(repr, arguments))}.")
        return value
    if origin in (tuple, list) and isinstance(value, (list, tuple)):
        item = arguments[0] if arguments else Any
        return origin(_convert(item, v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        return {str(k): _convert(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if hint is Any:
        return value
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    expected = getattr(hint, "__name__", str(hint))
    raise UserError(f"{where}: expected {expected}, found {value!r} ({type(value).__name__}).")
