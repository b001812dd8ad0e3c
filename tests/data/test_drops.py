"""Reading a drop: every layout gives the same rows, and every kind of broken drop is refused with its cure."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_drops import STARTER, Built, build, jpeg

from data import schema
from data.drops import Drop, hash_drop, read_drop
from data.images import ImageLimits
from data.land import examine_pictures
from data.mapping import CatalogMapping
from data.params import UserError


def pictures_of(drop: Drop) -> list[bytes | None]:
    return [place and place.read() for place in drop.places]


def refusal(folder: Path) -> str:
    """The one sentence with which a drop is refused, whether by its table or by an image."""
    with pytest.raises(UserError) as caught:
        examine_pictures(read_drop(folder), ImageLimits(max_pixels=100_000))
    return str(caught.value)


@pytest.mark.parametrize("table", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("images", ["folder", "tar", "shards"])
def test_every_layout_gives_the_same_rows_and_images(built: Built, tmp_path: Path, table: str, images: str) -> None:
    drop = read_drop(built.write(tmp_path / "drop", table, images))
    assert {name: drop.table.columns[name] for name in schema.NAMES if name != "derived_caption"} == {
        column: [row[source] for row in built.rows]
        for column, source in schema.find_columns(built.rows[0]).items()
    }  # fmt: skip
    assert drop.table.columns["id"][0] == "00007"
    assert drop.table.columns["derived_caption"][0] == "blue tshirts for men, casual wear"
    assert pictures_of(drop) == list(built.images.values())
    assert [place.size for place in drop.places if place] == [len(data) for data in built.images.values()]


def test_the_starter_catalog_in_its_own_form() -> None:
    drop = read_drop(STARTER / "drop-1")
    assert (len(drop), drop.drop_id) == (9661, "e0264b47e10f")
    assert [drop.table.columns["id"][row] for row, place in enumerate(drop.places) if place is None] == ["12347"]


def test_na_and_blanks_stay_text(built: Built, tmp_path: Path) -> None:
    built.rows[0] |= {"productDisplayName": "NA", "season": "", "usage": "  "}
    for table in ("csv", "jsonl", "parquet"):
        columns = read_drop(built.write(tmp_path / table, table)).table.columns
        assert (columns["title"][0], columns["season"][0], columns["usage"][0]) == ("NA", "", "  ")


def test_a_parquet_table_may_hold_its_images_and_numbers(built: Built, tmp_path: Path) -> None:
    (tmp_path / "drop").mkdir()
    table = pa.Table.from_pylist([row | {"image": built.images[row["image"]]} for row in built.rows])
    years = pa.array([2011.0, None] + [2012.0] * 10)
    ids = pa.array(range(12), pa.int64())
    table = table.set_column(table.schema.get_field_index("year"), "year", years)
    table = table.set_column(0, "id", ids)
    pq.write_table(table, tmp_path / "drop" / "products.parquet")
    drop = read_drop(tmp_path / "drop")
    assert drop.table.columns["year"][:3] == ["2011", "", "2012"]
    assert drop.table.columns["id"][:3] == ["0", "1", "2"]
    assert pictures_of(drop) == list(built.images.values())


def test_lines_are_those_an_editor_shows(built: Built, tmp_path: Path) -> None:
    built.rows[1]["productDisplayName"] = "Two\nlines"
    assert read_drop(built.write(tmp_path / "a")).table.lines[:4].tolist() == [2, 3, 5, 6]
    assert read_drop(built.write(tmp_path / "b", "jsonl")).table.lines[:3].tolist() == [1, 2, 3]


def test_an_image_is_found_by_id_where_the_table_names_none(built: Built, tmp_path: Path) -> None:
    for row in built.rows:
        row["image"] = ""
    for images in ("folder", "tar", "shards"):
        assert pictures_of(read_drop(built.write(tmp_path / images, images=images))) == list(built.images.values())


def test_the_hash_is_of_names_and_contents_only(built: Built, tmp_path: Path) -> None:
    one = built.write(tmp_path / "one")
    other = tmp_path / "elsewhere" / "other name"
    shutil.copytree(one, other, copy_function=shutil.copyfile)
    (other / ".DS_Store").write_bytes(b"x")
    assert hash_drop(one) == hash_drop(other)
    (other / "images" / "00007.jpg").rename(other / "images" / "00007.jpeg")
    assert hash_drop(one) != hash_drop(other)
    (other / "images" / "00007.jpeg").rename(other / "images" / "00007.jpg")
    (other / "images" / "00007.jpg").write_bytes(jpeg(99))
    assert hash_drop(one) != hash_drop(other)


def test_a_drop_that_changes_while_it_is_read_is_noticed(built: Built, tmp_path: Path) -> None:
    folder = built.write(tmp_path / "drop")
    drop = read_drop(folder)
    drop.check_unchanged()
    (folder / "images" / "00007.jpg").write_bytes(b"more")
    with pytest.raises(UserError, match=r"00007\.jpg: changed while it was read"):
        drop.check_unchanged()


def drop_column(built: Built, name: str) -> None:
    for row in built.rows:
        del row[name]


def set_all(built: Built, name: str, value: str) -> None:
    for row in built.rows:
        row[name] = value


REFUSED_TABLES: list[tuple[str, Callable[[Built], object], list[str]]] = [
    ("missing column", lambda b: drop_column(b, "gender"), ["catalog.csv", "`gender`", "missing", "Add the column"]),
    ("no rows", lambda b: b.rows.clear() or b.rows.append({}), ["catalog.csv", "empty"]),
    ("year is text", lambda b: set_all(b, "year", "Summer"), ["`year`", "12 of 12 rows", "line 2", "'Summer'"]),
    ("path goes up", lambda b: b.rows[3].update(image="../../etc/passwd"), ["line 5", "`image`", "out of the drop"]),
    ("absolute path", lambda b: b.rows[0].update(image="/etc/passwd"), ["line 2", "'/etc/passwd'"]),
    ("windows path", lambda b: b.rows[0].update(image="C:\\x.jpg"), ["line 2", "out of the drop"]),
    ("shard not there", lambda b: set_all(b, "shard", "gone.parquet"), ["'gone.parquet'", "not in the drop"]),
    ("image bomb", lambda b: b.images.update({"00009.jpg": jpeg(size=(400, 251))}), ["line 4", "400 x 251", "limit"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), [r[1:] for r in REFUSED_TABLES], ids=[r[0] for r in REFUSED_TABLES])
def test_a_broken_table_is_refused(
    built: Built, tmp_path: Path, change: Callable[[Built], object], words: list[str]
) -> None:
    change(built)
    message = refusal(built.write(tmp_path / "drop"))
    assert [word for word in words if word not in message] == []
    assert "\n" not in message


def overwrite(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def add_tar(folder: Path, member: tarfile.TarInfo) -> None:
    with tarfile.open(folder / "more.tar", "w") as archive:
        archive.addfile(member, io.BytesIO(b"x" * member.size))


def tar_member(name: str, type: bytes = tarfile.REGTYPE, target: str = "") -> Callable[[Path], object]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = type, target
    return lambda folder: add_tar(folder, member)


SHARD, TABLE = "images-0.parquet", "catalog.csv"
REFUSED_FILES: list[tuple[str, str, Callable[[Path], object], list[str]]] = [
    ("shard cut off", "shards", overwrite(SHARD, lambda b: b[:-200]), [SHARD, "cut off", "copy it again"]),
    ("shard damaged", "shards", overwrite(SHARD, lambda b: b[:4] + b"\xff" * 300 + b[304:]), [SHARD, "copy it again"]),
    ("shard is text", "shards", overwrite(SHARD, lambda _: b"hello"), [SHARD, "not a readable parquet"]),
    ("table cut off", "shards", overwrite(TABLE, lambda b: b[:-20]), [TABLE, "line 13", "fields", "cut off"]),
    ("open quote", "shards", overwrite(TABLE, lambda b: b + b'"abc'), [TABLE, "not valid CSV"]),
    ("not utf-8", "shards", overwrite(TABLE, lambda b: b.replace(b"Puma", b"P\xfcma")), [TABLE, "UTF-8"]),
    ("named twice", "shards", overwrite(TABLE, lambda b: b.replace(b"season", b"gender")), [TABLE, "'gender' twice"]),
    ("empty table", "shards", overwrite(TABLE, lambda _: b""), [TABLE, "empty"]),
    ("header only", "shards", overwrite(TABLE, lambda b: b.splitlines()[0]), [TABLE, "no rows"]),
    ("two tables", "shards", lambda f: (f / "b.jsonl").write_text("{}"), ["b.jsonl", "more than one table"]),
    ("no table", "shards", lambda f: (f / TABLE).unlink(), ["no table", "csv, jsonl or parquet"]),
    ("two images", "shards", lambda f: (f / "00008.png").write_bytes(jpeg()), ["'00008'", "two pictures", "keep one"]),
    ("tar cut off", "tar", overwrite("images.tar", lambda b: b[:6000]), ["images.tar", "cut off", "again"]),
    ("tar cut between", "tar", overwrite("images.tar", lambda b: b.rstrip(b"\0")), ["images.tar", "again"]),
    ("tar goes up", "tar", tar_member("../x.jpg"), ["more.tar", "'../x.jpg'", "outside"]),
    ("tar absolute", "tar", tar_member("/x.jpg"), ["more.tar", "outside"]),
    ("tar symlink", "tar", tar_member("x.jpg", tarfile.SYMTYPE, "/etc/passwd"), ["'x.jpg'", "a link, a device"]),
    ("tar hard link", "tar", tar_member("x.jpg", tarfile.LNKTYPE, "00007.jpg"), ["'x.jpg'", "a link, a device"]),
    ("tar device", "tar", tar_member("x", tarfile.CHRTYPE), ["'x'", "a link, a device"]),
    ("tar is text", "tar", overwrite("images.tar", lambda _: b"hello" * 200), ["images.tar", "plain tar"]),
    ("link out", "folder", lambda f: (f / "x.jpg").symlink_to("/etc/hostname"), ["x.jpg", "leads out of the drop"]),
    ("folder link", "folder", lambda f: (f / "more").symlink_to("/etc"), ["more", "leads out of the drop"]),
    ("link to nothing", "folder", lambda f: (f / "x.jpg").symlink_to("y.jpg"), ["x.jpg", "a link to nothing"]),
    ("pipe", "folder", lambda f: os.mkfifo(f / "x.jpg"), ["x.jpg", "plain files"]),
    ("undecodable name", "folder", lambda f: Path(os.fsdecode(os.fsencode(f) + b"/\xff.jpg")).touch(), ["rename"]),
    ("empty folder", "folder", lambda f: [shutil.rmtree(f), f.mkdir()], ["drop is empty"]),
    ("not there", "folder", lambda f: shutil.rmtree(f), ["not found", "a drop is a folder"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("images", "change", "words"), [r[1:] for r in REFUSED_FILES], ids=[r[0] for r in REFUSED_FILES]
)
def test_a_broken_file_is_refused(
    built: Built, tmp_path: Path, images: str, change: Callable[[Path], object], words: list[str]
) -> None:
    folder = built.write(tmp_path / "drop", images=images)
    change(folder)
    message = refusal(folder)
    assert [word for word in words if word not in message] == []
    assert "\n" not in message


@pytest.mark.parametrize(("column", "values", "words"), [
    ("productDisplayName", pa.array([1.5] * 12), ["`productDisplayName`", "double", "expected text"]),
    ("id", pa.array([1.5] * 12), ["`id`", "double"]),
    ("id", pa.array([True] * 12), ["`id`", "bool"]),
    ("year", pa.array([2011.5] * 12), ["`year`", "double"]),
    ("gender", pa.array([["Men"]] * 12), ["`gender`", "list"]),
])  # fmt: skip
def test_wrong_parquet_types_are_refused(
    built: Built, tmp_path: Path, column: str, values: pa.Array, words: list[str]
) -> None:
    folder = built.write(tmp_path / "drop", "parquet")
    table = pq.read_table(folder / "catalog.parquet")
    table = table.set_column(table.schema.get_field_index(column), column, values)
    pq.write_table(table, folder / "catalog.parquet")
    message = refusal(folder)
    assert [word for word in ["catalog.parquet", *words] if word not in message] == []


@pytest.mark.parametrize(("line", "words"), [
    ("[1]", ["line 13", "JSON object"]),
    ('{"id": "1"', ["line 13", "not valid JSON"]),
    ('{"id": NaN}', ["line 13", "NaN"]),
    ('{"id": "1", "gender": 3}', ["line 13", "`gender`", "expected text, found 3"]),
    ('{"id": "1", "year": true}', ["line 13", "`year`", "expected a number, found True"]),
    ('{"id": "1", "gender": {"a": 1}}', ["line 13", "`gender`"]),
    ('{"id": "1", "gender": "\\ud800"}', ["line 13", "`gender`", "Unicode"]),
])  # fmt: skip
def test_bad_json_lines_are_refused(built: Built, tmp_path: Path, line: str, words: list[str]) -> None:
    folder = built.write(tmp_path / "drop", "jsonl")
    with (folder / "catalog.jsonl").open("a") as stream:
        stream.write(line + "\n")
    message = refusal(folder)
    assert [word for word in ["catalog.jsonl", *words] if word not in message] == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=st.sampled_from(["csv", "jsonl", "parquet"]), where=st.floats(0, 1), noise=st.binary(max_size=12))
def test_whatever_the_table_only_a_user_error(tmp_path: Path, table: str, where: float, noise: bytes) -> None:
    """A table with a stretch of it overwritten is either read or refused in words."""
    folder = tmp_path / "fuzzed"
    shutil.rmtree(folder, ignore_errors=True)
    file = build(3).write(folder, table, "shards") / f"catalog.{table}"
    content = bytearray(file.read_bytes())
    at = int(where * len(content))
    content[at : at + len(noise)] = noise
    file.write_bytes(bytes(content))
    try:
        assert len(read_drop(folder)) >= 1
    except UserError as error:
        assert "catalog" in str(error)  # noqa: PT017


def write_tars(built: Built, folder: Path, change: Callable[[dict[str, object]], object] = lambda row: None) -> Path:
    """The drop as two WebDataset tars whose keys both start at 000."""
    folder.mkdir(parents=True)
    for number, rows in enumerate((built.rows[:5], built.rows[5:])):
        with tarfile.open(folder / f"part-{number}.tar", "w") as archive:
            for key, row in enumerate(rows):
                told: dict[str, object] = {name: value for name, value in row.items() if name != "image"}
                change(told)
                members = {".json": json.dumps(told).encode(), ".JPG": built.images[row["image"]], ".cls": b"7"}
                for suffix, data in members.items():
                    member = tarfile.TarInfo(f"./shop/{key:03d}{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return folder


def test_webdataset_tars_are_a_whole_drop(built: Built, tmp_path: Path) -> None:
    plain = read_drop(built.write(tmp_path / "plain"))
    drop = read_drop(write_tars(built, tmp_path / "drop"))
    assert {n: drop.table.columns[n] for n in schema.NAMES} == {n: plain.table.columns[n] for n in schema.NAMES}
    assert pictures_of(drop) == list(built.images.values())
    assert (drop.table.lines.tolist(), drop.where(4)) == (list(range(1, 13)), "drop/part-0.tar line 5")
    assert (drop.where(5), drop.table.name) == ("drop/part-1.tar line 1", "drop/part-0.tar and 1 more")


def test_a_webdataset_sample_is_called_by_its_key(built: Built, tmp_path: Path) -> None:
    drop = read_drop(write_tars(built, tmp_path / "drop", lambda row: row.pop("id")))
    assert drop.table.columns["id"][:6] == ["000", "001", "002", "003", "004", "000"]
    assert pictures_of(drop) == list(built.images.values())


@pytest.mark.parametrize(("data", "words"), [
    (b"[1]", ["part-9.tar:shop/x.json", "not a JSON object"]), (b'{"id', ["part-9.tar:shop/x.json", "not valid JSON"]),
    (b'{"gender": 3}', ["part-9.tar:shop/x.json", "`gender`", "expected text"]),
])  # fmt: skip
def test_a_broken_sample_is_named(built: Built, tmp_path: Path, data: bytes, words: list[str]) -> None:
    folder = write_tars(built, tmp_path / "drop")
    with tarfile.open(folder / "part-9.tar", "w") as archive:
        member = tarfile.TarInfo("shop/x.json")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    message = refusal(folder)
    assert [word for word in words if word not in message] == []


def test_a_table_may_come_in_parquet_parts(built: Built, tmp_path: Path) -> None:
    """As data sets are published: `part-0.parquet`, `part-1.parquet`, each with rows and pictures."""
    (tmp_path / "drop").mkdir()
    rows = [row | {"image": built.images[row["image"]]} for row in built.rows]
    for number, part in enumerate((rows[:7], rows[7:])):
        pq.write_table(pa.Table.from_pylist(part), tmp_path / "drop" / f"part-{number}.parquet")
    drop = read_drop(tmp_path / "drop")
    assert drop.table.columns["id"] == [row["id"] for row in built.rows]
    assert pictures_of(drop) == list(built.images.values())
    assert drop.where(7) == "drop/part-1.parquet line 1"
    pq.write_table(pa.table({"id": ["1"], "title": ["A"], "image": [b"x"]}), tmp_path / "drop" / "other.parquet")
    assert "more than one table" in refusal(tmp_path / "drop")


def test_a_mapping_reads_another_catalog(tmp_path: Path) -> None:
    """What the mapping names, converts, fills and leaves out; a mapping that is given counts, not the drop's own."""
    folder = tmp_path / "drop"
    (folder / "images").mkdir(parents=True)
    (folder / "t.csv").write_text("sku,name,kind,gone\n7,Red_Apple,Fruit,\n8,Milk,Dairy,\n9,,,yes\n", encoding="utf-8")
    (folder / "images" / "7.jpg").write_bytes(jpeg(7))
    (folder / "mapping.yaml").write_text(
        "catalog: grocery\ncolumns: {title: name, article_type: kind, withdrawn: gone}\nconstants: {usage: Food}\n"
        "values: {article_type: {Fruit: Fruits}}\nspaces: {title: _}\nfilled: [title]\n"
        'caption: "{article_type} for {usage}"\n',
        encoding="utf-8",
    )
    drop = read_drop(folder)
    columns = drop.table.columns
    assert (drop.mapping.catalog, columns["id"], columns["title"]) == ("grocery", ["7", "8"], ["Red Apple", "Milk"])
    assert (columns["article_type"], columns["usage"]) == (["Fruits", "Dairy"], ["Food", "Food"])
    assert (columns["gender"], columns["derived_caption"]) == (["", ""], ["fruits for food", "dairy for food"])
    assert drop.table.withdrawn["id"].to_pylist() == ["9"]
    assert pictures_of(drop) == [jpeg(7), None]
    given = CatalogMapping(columns={"title": "kind", "withdrawn": "gone"}, filled=())
    assert read_drop(folder, given).table.columns["title"] == ["Fruit", "Dairy"]
