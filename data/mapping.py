"""What a catalog calls its columns and how it fills them: `mapping.yaml` of a drop, so that a new domain needs no code.

    catalog: grocery                            # its name: products are told apart by catalog and id
    columns: {title: class_name}                # column of the schema: column of the drop's table
    constants: {usage: Food}                    # column of the schema: the value of every row
    values: {gender: {"True": Kids, "*": ""}}   # column: {what the table says: what it means, "*": any other value}
    spaces: {title: "-_"}                       # column: characters that stand for a space
    vocabulary: {article_type: any}             # column: any, or the list of values it may have
    filled: [title, article_type]               # columns without whose value a row is quarantined; the id always is
    caption: "{article_type} from {usage}"      # template of derived captions; what is missing takes its words along

A key that is left out keeps what the schema says (data/schema.py). Everything is text, as it is in a table: `False` is
the word. Columns that `columns` does not name are found by their schema name or alias; where it names any, the table
needs no others than these, the id and the filled ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from data import caption, reports, schema
from data.params import UserError, strict

FILE = "mapping.yaml"  # in a drop's folder
LONGEST = 2_000  # characters of a message about a mapping
MAX_BYTES = 1 << 16
ANY, OTHER = "any", "*"

_BESIDE = (schema.IMAGE, schema.SHARD, schema.WITHDRAWN)
_READ = (*schema.NAMES, *_BESIDE)
_CATALOG = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def _check_names(setting: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{setting}.{name}: no column of the schema; it has {', '.join(known)}")


@dataclass(frozen=True, kw_only=True)
class CatalogMapping:
    """The settings of a `mapping.yaml`; the defaults are the fashion catalog's, whose drops need no mapping."""

    catalog: str = schema.CATALOG
    columns: dict[str, str] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    values: dict[str, dict[str, str]] = field(default_factory=dict)
    spaces: dict[str, str] = field(default_factory=dict)
    vocabulary: dict[str, Any] = field(default_factory=dict)
    filled: tuple[str, ...] = tuple(column.name for column in schema.COLUMNS if column.filled)
    caption: str = schema.CAPTION

    def __post_init__(self) -> None:
        if not _CATALOG.fullmatch(self.catalog):
            raise ValueError(f"catalog: {self.catalog!r} is no name; use up to 64 of a-z, 0-9, `.`, `_` and `-`")
        given = {name: getattr(self, name) for name in ("constants", "values", "spaces", "vocabulary", "filled")}
        for setting, names in {"columns": self.columns, **given}.items():
            _check_names(setting, names, _READ if setting == "columns" else schema.NAMES)
        if twice := sorted(set(self.columns) & set(self.constants)):
            raise ValueError(f"{twice[0]}: both under columns and under constants; leave one of them out")
        if "id" in self.constants:
            raise ValueError("constants.id: every product has an id of its own; name the id's column under columns")
        for name, listed in self.vocabulary.items():
            if listed != ANY and not (isinstance(listed, list) and listed and all(isinstance(v, str) for v in listed)):
                raise ValueError(f"vocabulary.{name}: write `any`, or the list of values in brackets")
        try:
            names = [part.name for part in caption.parts(self.caption)]
        except ValueError as error:
            raise ValueError(f"caption: {error}") from None
        _check_names("caption", names, [name for name in schema.NAMES if name not in ("id", "derived_caption")])

    @property
    def required(self) -> tuple[str, ...]:
        """The schema columns that a drop's table must have, in the schema's order."""
        if self.columns:
            needed = {"id", *self.columns, *self.filled}
        else:
            needed = {column.name for column in schema.COLUMNS if column.in_table}
        return tuple(name for name in schema.NAMES if name in needed - set(self.constants))

    def find_columns(self, header: Iterable[str]) -> dict[str, str]:
        """{name: the header's own spelling} of every column that is read.

        Names are those of the schema and `image`, `shard` and `withdrawn`; the last three must be spelled so, or be
        named under `columns`. Columns with a constant are not read.
        """
        header = list(header)
        found = schema.find_columns(header) | {name: name for name in _BESIDE if name in header}
        found |= {name: source for name, source in self.columns.items() if source in header}
        lost = {name for name, source in self.columns.items() if source not in header}
        return {name: source for name, source in found.items() if name not in {*lost, *self.constants}}

    def converter(self, column: str) -> Callable[[str], str] | None:
        """What turns the table's text in a schema column into the row's; None where it is taken as it is."""
        meanings, spaces = self.values.get(column, {}), self.spaces.get(column, "")
        if not meanings and not spaces:
            return None
        blank = str.maketrans(dict.fromkeys(spaces, " "))
        return lambda text: meanings.get(text, meanings.get(OTHER, text.translate(blank)))

    def derive_caption(self, row: Mapping[str, str]) -> str:
        """The caption of a row of schema columns (text, as landed); empty if it has none of the template's values."""
        return schema.derive_caption(row, self.caption)

    def is_filled(self, column: str) -> bool:
        """Is a row without a value in this column quarantined?"""
        return column == "id" or column in self.filled

    def vocabulary_of(self, column: str) -> tuple[str, ...] | None:
        """The values that a column may have; None: any."""
        listed = self.vocabulary.get(column, schema.BY_NAME[column].vocabulary)
        return None if listed == ANY or not listed else tuple(listed)


FASHION = CatalogMapping()


def mapping_of(drop: Path, given: Path | None = None) -> CatalogMapping:
    """The mapping of a drop: the one `given`, else the `mapping.yaml` in its folder, else the fashion catalog's."""
    path = given or drop / FILE
    return read_mapping(path) if given or path.exists() else FASHION


def read_mapping(path: Path) -> CatalogMapping:
    """The mapping in a file. Raises `UserError` that names the file, the key and the cure."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: {path.stat().st_size:,} bytes; a mapping has at most {MAX_BYTES:,}.")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a mapping file.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save it as UTF-8.") from None
    try:
        _check_plain(yaml.compose(text, Loader=yaml.BaseLoader), set(), str(path))
        content = yaml.load(text, Loader=yaml.BaseLoader)  # leaves every scalar the text it is
        return strict(CatalogMapping, {} if content in (None, "") else content, where=str(path))
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())[:200]}).") from None
    except UserError as error:  # it names keys, which whoever wrote the file may have filled with anything
        raise UserError(reports.quoted(str(error), LONGEST)) from None


def _check_plain(node: Any, seen: set[int], where: str) -> None:
    """No key twice (YAML would keep the last), and no aliases, with which a small file can stand for a huge one."""
    if node is None:
        return
    if id(node) in seen:
        raise UserError(f"{where}: a mapping has no anchors and aliases; write the value out.")
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise UserError(f"{where}: `{twice}` is there twice; leave one of them out.")
        for key, below in node.value:
            _check_plain(below, seen, f"{where}: {key.value}")
    elif isinstance(node, yaml.SequenceNode):
        for below in node.value:
            _check_plain(below, seen, where)
