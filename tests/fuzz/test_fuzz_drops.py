"""Property-based fuzzing of drop reading: hostile tables, pictures, tars and mappings, and any of their bytes changed.

Whatever arrives either lands or is refused by one `UserError` that is safe to print, and the drop is left as it was.
A short run is part of `make test`; `FUZZ_SECONDS=600` runs the same for ten minutes on examples that are new each time.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import resource
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from landing import attempt
from small_drops import HEADER, build, jpeg, tree
from target import Target

from data.land import land
from data.params import UserError

SECONDS = int(os.environ.get("FUZZ_SECONDS", "0"))
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
GROWTH = 200_000  # KiB that a run may add to a process that has landed a good drop

NASTY = [
    "", " ", "NA", "\0", "a\0b", "=1+1", "-2+3", "@SUM(A1)", "\u202eevil\u202c", "\u200f", "a\u200bb", "\ufeff",
    "\ufffd", "\x1b[2J", "\r", "\n", "\u2028", '"', "'", ",", "\\", "../x", "/etc/passwd", "é", "e\u0301", "ﬁ", "İ",
    "<script>alert(1)</script>", "{{7*7}}", "${jndi:ldap://x}", "x" * 20_000, "1e309", "nan", "2016.0", "٢٠١٦",
    "\U0010ffff", "ß",
]  # fmt: skip
TEXT = st.one_of(st.sampled_from(NASTY), st.text(max_size=20))
NAMES = st.one_of(st.sampled_from([*HEADER, "withdrawn", "shard", "derived_caption"]), TEXT)
PICTURES = [
    jpeg(1, (6, 8)),
    jpeg(2, (6, 8), format="PNG"),
    jpeg(3, (6, 8), format="WEBP"),
    jpeg(4, (600, 500)),
    b"",
    b"GIF89a",
]
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(HEADER)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
KINDS = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE,
         tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, b"Z"]  # fmt: skip


@st.composite
def rows(draw: st.DrawFn) -> list[dict[str, str]]:
    """One to four products, some of whose fields are nasty, missing or called something else."""
    found = build(draw(st.integers(1, 4))).rows
    for row in found:
        for _ in range(draw(st.integers(0, 3))):
            row[draw(st.sampled_from(list(row)))] = draw(TEXT)
    old, new = draw(st.sampled_from(HEADER)), draw(NAMES)
    if draw(st.integers(0, 4)) == 0:
        found = [{new if key == old else key: value for key, value in row.items()} for row in found]
    return found


def write_table(draw: st.DrawFn, folder: Path, found: list[dict[str, str]]) -> None:
    match draw(st.sampled_from(["csv", "jsonl", "parquet"])):
        case "csv":
            with (folder / "catalog.csv").open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, list(found[0]))
                writer.writeheader()
                writer.writerows(found)
        case "jsonl":
            values = [{**row, **({draw(NAMES): draw(VALUES)} if draw(st.booleans()) else {})} for row in found]
            (folder / "catalog.jsonl").write_text("\n".join(map(json.dumps, values)), encoding="utf-8")
        case _:
            table = pa.Table.from_pylist(found)
            column = draw(st.sampled_from(table.column_names))
            kind = draw(
                st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.binary()])
            )
            table = table.set_column(
                table.column_names.index(column), column, table[column].cast(pa.string()).cast(kind)
            )
            pq.write_table(table, folder / "catalog.parquet")


def write_pictures(draw: st.DrawFn, folder: Path, found: list[dict[str, str]]) -> None:
    images = [(row.get("image") or "", draw(st.sampled_from(PICTURES))) for row in found]
    match draw(st.sampled_from(["folder", "tar", "shard", "none"])):
        case "folder":
            (folder / "images").mkdir()
            for number, (_, data) in enumerate(images, start=7):
                (folder / "images" / f"{number:05d}.jpg").write_bytes(data)
        case "tar":
            with tarfile.open(folder / "images.tar", "w", format=draw(st.sampled_from([0, 1, 2]))) as archive:
                for name, data in images:
                    add_member(draw, archive, name, data)
        case "shard":
            ids = [draw(st.one_of(st.just(str(row.get("id"))), TEXT)) for row in found]
            pq.write_table(pa.table({"id": ids, "image": [data for _, data in images]}), folder / "images.parquet")


def add_member(draw: st.DrawFn, archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(draw(st.one_of(st.just(name), NAMES)).replace("\0", "0") or "x.jpg")
    member.type = draw(st.one_of(st.just(tarfile.REGTYPE), st.sampled_from(KINDS)))
    member.size = len(data)
    member.linkname = "x"
    if archive.format == tarfile.PAX_FORMAT and draw(st.booleans()):
        keys = st.sampled_from(["size", "path", "GNU.sparse.major", "GNU.sparse.map", "GNU.sparse.size", "mtime"])
        member.pax_headers = {draw(keys): draw(st.sampled_from(["1", "-1", "-512", "99999999999", "0,1", "x", "../y"]))}
    with contextlib.suppress(ValueError, UnicodeEncodeError):  # what tarfile itself will not write
        archive.addfile(member, io.BytesIO(data))


def write_mapping(draw: st.DrawFn, folder: Path) -> None:
    keys = ["catalog", "columns", "constants", "vocabulary", "filled", "caption", "values", "spaces", "x"]
    content = st.dictionaries(
        st.sampled_from(keys),
        st.one_of(VALUES, st.dictionaries(NAMES, st.one_of(TEXT, st.just("any")), max_size=3)),
        max_size=4,
    )
    text = draw(st.one_of(TEXT, content.map(json.dumps)))
    (folder / "mapping.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))


def damage(draw: st.DrawFn, folder: Path) -> None:
    """Some bytes of one file overwritten, cut out, repeated or put in."""
    file = draw(st.sampled_from(sorted(path for path in folder.rglob("*") if path.is_file())))
    content = bytearray(file.read_bytes())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        end = min(len(content), at + draw(st.integers(0, 40)))
        match draw(st.sampled_from(["overwrite", "cut", "repeat", "end", "insert"])):
            case "overwrite":
                content[at:end] = draw(st.binary(min_size=end - at, max_size=end - at))
            case "cut":
                del content[at:end]
            case "repeat":
                content[at:at] = content[at:end] * draw(st.integers(1, 50))
            case "end":
                del content[at:]
            case _:
                content[at:at] = draw(
                    st.one_of(st.binary(max_size=20), TEXT.map(lambda text: text.encode("utf-8", "replace")))
                )
    file.write_bytes(bytes(content))


def write_drop(draw: st.DrawFn, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    found = draw(rows())
    write_table(draw, folder, found)
    write_pictures(draw, folder, found)
    if draw(st.integers(0, 3)) == 0:
        write_mapping(draw, folder)
    if draw(st.booleans()):
        damage(draw, folder)


def fuzz(examples: int, folder: Path, run: Any) -> None:
    """`run(data)` on so many examples, or for `FUZZ_SECONDS` on ever new ones; memory must not grow meanwhile."""
    assert attempt(build(3).write(folder / "good"), folder / "out") == ""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    until = time.monotonic() + SECONDS
    rounds = 1
    one_round = settings(
        max_examples=examples, deadline=None, suppress_health_check=CHECKS, derandomize=not SECONDS, database=None
    )(given(st.data())(run))
    one_round()
    while time.monotonic() < until:
        one_round()
        rounds += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{rounds * examples} examples, {grown} KiB more memory")
    assert grown < GROWTH, f"{grown} KiB more memory"


@pytest.mark.timeout(SECONDS + 600)
def test_any_drop_lands_or_is_refused_in_words(tmp_path: Path) -> None:
    def run(data: st.DataObject) -> None:
        write_drop(data.draw, tmp_path / "drop")
        refused = attempt(tmp_path / "drop", tmp_path / "out")
        event("refused" if refused else "landed")

    fuzz(60, tmp_path, run)


@pytest.mark.timeout(SECONDS + 600)
def test_a_refused_landing_leaves_nothing_behind(repository: Path, tmp_path: Path) -> None:
    """The whole of landing, with DVC and Data Docs: the workspace is as before, or has one more drop."""
    drop = tmp_path / "drop"

    def run(data: st.DataObject) -> None:
        write_drop(data.draw, drop)
        before, arrived = tree(repository / "store"), tree(drop)
        try:
            (landing,) = land([drop])
            kept = landing.folder.relative_to("store").as_posix()
        except UserError:
            kept = "/"
        after = {name: data for name, data in tree(repository / "store").items() if not name.startswith(kept)}
        assert {name: data for name, data in before.items() if not name.startswith(kept)}.items() <= after.items()
        assert [name for name in after if ".partial" in name or ".old" in name] == []
        assert tree(drop) == arrived

    fuzz(4, tmp_path, run)


def test_the_corpus_of_the_coverage_guided_fuzzer_still_passes(tmp_path: Path) -> None:
    """What atheris_drops.py has found worth keeping: one input for every branch that it reached."""
    target = Target(tmp_path)
    inputs = sorted((Path(__file__).parent / "corpus").iterdir())
    for file in inputs:
        target(file.read_bytes())
    assert sum(file.stat().st_size for file in inputs) < 200_000
