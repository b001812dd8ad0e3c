"""Texts from files that hold no pictures: what a corpus is widened with, and what benchmarks keep to themselves.

A file is known by its name: .csv, .tsv, .jsonl, .json or .txt, each also gzipped (.gz), all UTF-8.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from data.params import UserError

MAX_FIELD = 1 << 20  # characters of one field; more is no caption but a broken file
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'])")
_WORD = re.compile(r"[^\W\d_]{2,}|\b[aAI]\b")


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """One entry of `corpus.texts` in params.yaml.

    columns: which columns (keys of a jsonl line) hold captions; none for a .txt file, whose lines are captions.
    sentences: take every sentence of a text for a caption of its own; for descriptions that are longer than captions.
    """

    path: str
    columns: tuple[str, ...] = ()
    sentences: bool = False


def read_texts(source: TextSource) -> Iterator[str]:
    """The texts of a source in the file's order, untouched. Raises `UserError` that names the file, line and cure."""
    path = Path(source.path)
    kind = _kind(path)
    if kind not in ("csv", "tsv", "jsonl", "txt"):
        raise UserError(f"{path}: texts are read from .csv, .tsv, .jsonl or .txt (also .gz); convert it.")
    if (kind == "txt") == bool(source.columns):
        cure = "its lines are the captions; leave `columns` out" if kind == "txt" else "say which `columns` to read"
        raise UserError(f"{path}: {cure} (corpus.texts in params.yaml).")
    for line, fields in _records(path, kind):
        for column in source.columns or ("",):
            if column not in fields:
                known = ", ".join(name for name in fields if name) or "none"
                raise UserError(f"{path}:{line}: no column `{column}`. It has: {known}.")
            text = fields[column]
            if text is not None and not isinstance(text, str):
                raise UserError(f"{path}:{line}: `{column}` is no text but {text!r:.40}. Name another column.")
            yield from _SENTENCE_END.split(text or "") if source.sentences else (text or "",)


def benchmark_texts(path: Path) -> Iterator[str]:
    """Every string of at least two words in a benchmark's file, or in all text files below a folder.

    Any string of its JSON counts, whatever its key: captions, foils, modifications; no list of keys can go stale.
    """
    if not path.exists():
        raise UserError(f"{path}: not found. Mend `corpus` in params.yaml, or put the benchmark's files there.")
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    files = [file for file in files if path.is_file() or _kind(file) in _READERS]
    if not files:
        raise UserError(f"{path}: holds no .csv, .tsv, .json, .jsonl or .txt file (also .gz), so nothing to leave out.")
    for file in files:
        if _kind(file) not in _READERS:
            raise UserError(f"{file}: benchmarks are read from .csv, .tsv, .json, .jsonl or .txt files (also .gz).")
        for _, fields in _records(file, _kind(file)):
            yield from (text for text in _strings(fields) if len(_WORD.findall(text)) > 1)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (Mapping, list)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(item)


def _kind(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.removeprefix(".").lower()


def _records(path: Path, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, {column: value}) of a file; a line of text has the column "". Raises `UserError`."""
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") if path.suffix == ".gz" else path.open(
            encoding="utf-8", newline=""
        ) as stream:  # fmt: skip
            yield from _READERS[kind](path, stream)
    except FileNotFoundError:
        raise UserError(f"{path}: not found. Mend `corpus` in params.yaml, or put the file there.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}). Copy the file again.") from None


def _read_csv(path: Path, stream: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(MAX_FIELD)
    reader = csv.DictReader(stream, delimiter="\t" if _kind(path) == "tsv" else ",", strict=True)
    try:
        for row in reader:
            if None in row:
                raise UserError(f"{path}:{reader.line_num}: more fields than the header has columns. Quote the text.")
            yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num + 1}: {error}. Mend the quotes of this line.") from None


def _read_jsonl(path: Path, stream: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(stream, start=1):
        if not line.isspace():
            value = _parse(path, number, line)
            if not isinstance(value, dict):
                raise UserError(f"{path}:{number}: expected an object in braces, found {line.strip():.40}.")
            yield number, value


def _read_json(path: Path, stream: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    yield 1, {"": _parse(path, 1, stream.read())}


def _read_lines(path: Path, stream: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(stream, start=1):
        yield number, {"": line}


def _parse(path: Path, line: int, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}:{line}: not valid JSON ({error}). Mend or remove the line.") from None


_READERS: dict[str, Callable[[Path, TextIO], Iterator[tuple[int, dict[str, Any]]]]] = {
    "csv": _read_csv, "tsv": _read_csv, "jsonl": _read_jsonl, "json": _read_json, "txt": _read_lines
}  # fmt: skip
