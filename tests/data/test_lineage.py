"""The chain of records: followed by id wherever an output lies, every hash computed again, each break named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from data import record
from data.archive import Archive
from data.lineage import Break, Chain, verify, walk
from tests.data import chains


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        chains.finish()
    return root


@pytest.fixture(autouse=True)
def _here(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(finished, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")


def traced(folder: str = "store/exports/ce_clip", record_id: str = "") -> Chain:
    return verify(walk(Archive(), record_id or record.read(Path(folder)).id, folder))


def only_break(chain: Chain) -> Break:
    (found,) = chain.all_breaks
    return found


def test_a_whole_chain_reaches_the_drop_and_reads_every_file() -> None:
    chain = traced("store/verdicts/ce_clip")
    assert chain.whole
    kinds = [node.kind for node in chain.nodes.values()]
    assert sorted(kinds) == [
        "dataset", "drop", "evaluation", "evaluation", "model", "model", "negatives", "suites", "verdict",
    ]  # fmt: skip
    files = [f for node in chain.nodes.values() for p in node.places for f in record.files_below(Path(p.name))]
    assert chain.files == len(files) - len(kinds), "every file but the records themselves, which are read too"


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: path.write_bytes(b"other"), "was changed"),
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.with_name("new.bin").write_bytes(b""), "is not listed in record.json"),
    ],
)
def test_a_file_that_differs_is_named_with_its_link_and_the_cure(damage: object, problem: str) -> None:
    damage(Path("store/models/base/weights.safetensors"))  # type: ignore[operator]
    found = only_break(traced())
    assert problem in found.problem
    assert found.link == f"model {record.read(Path('store/models/base')).id[:12]}"
    assert found.file.startswith("store/models/base/")
    assert "`dvc checkout --force store/models/base`" in found.cure
    assert "`dvc repro -f -s base`" in found.cure


def test_both_hashes_are_told() -> None:
    path = Path("store/negatives/negatives.parquet")
    before = record.hash_file(path)
    path.write_bytes(path.read_bytes()[:-1])
    found = only_break(traced())
    assert (found.expected, found.found) == (before, record.hash_file(path))
    assert before[:12] in str(found)


def test_a_record_edited_with_a_matching_id_breaks_the_link_to_it() -> None:
    """Who edits a dataset and its record, id and all, is found out by those that were made from it."""
    folder = Path("store/dataset")
    (folder / "products.parquet").write_bytes((folder / "products.parquet").read_bytes() + b" ")
    forged = dataclasses.replace(record.read(folder), outputs=record.describe_outputs(folder))
    (folder / "record.json").write_text(forged.to_json())
    assert traced("store/dataset").whole
    chain = traced()
    assert not chain.whole
    (absent,) = chain.absent
    assert absent.id != forged.id
    assert "neither in the workspace nor in DVC's cache" in str(absent.absent)


def test_an_input_hash_that_is_not_the_records_is_a_break_of_the_link() -> None:
    folder = Path("store/models/ce_clip")
    found = record.read(folder)
    inputs = [{**found.inputs[0], "hash": "0" * 64}, *found.inputs[1:]]
    forged = dataclasses.replace(found, inputs=inputs)
    (folder / "record.json").write_text(forged.to_json())
    broken = only_break(traced("store/models/ce_clip"))
    assert broken.link == f"model {forged.id[:12]} <- store/dataset"
    assert broken.problem == "is not the content that was used"


def test_drops_that_landed_later_are_told_and_break_nothing() -> None:
    chains.drop(2, ["8"])
    chain = traced("store/dataset")
    assert chain.whole
    (dataset,) = chain.of_kind("dataset")
    (item,) = dataset.inputs
    assert (len(item.records), item.note) == (1, "1 landed since")


def test_a_drop_that_was_replaced_breaks_the_dataset() -> None:
    (folder,) = chains.DROPS.iterdir()
    (folder / "report.json").write_text(json.dumps({"landed": 1, "again": True}))
    relanded = dataclasses.replace(record.read(folder), outputs=record.describe_outputs(folder))
    (folder / "record.json").write_text(relanded.to_json())
    found = only_break(traced("store/dataset"))
    assert (found.file, found.problem) == ("store/drops", "is not what was used, and DVC's cache has no such state")
    assert found.expected != found.found


def test_a_plain_file_may_gain_lines_but_not_change() -> None:
    labels = Path("labels.csv")
    labels.write_text("item,true\na,yes\n")
    chains.train("base", [labels])
    labels.write_text("item,true\na,yes\nb,no\n")
    chain = traced("store/models/base")
    assert chain.whole
    assert [item.note for item in next(iter(chain.nodes.values())).inputs] == ["lines added since: 1"]
    labels.write_text("item,true\na,no\nb,no\n")
    assert only_break(traced("store/models/base")).file == "labels.csv"
    labels.unlink()
    assert only_break(traced("store/models/base")).problem == "is missing"


def test_an_output_that_moved_is_found_by_its_id() -> None:
    old = record.read(Path("store/models/base")).id
    shutil.move("store/models/base", "store/champions/search/elsewhere")
    chain = traced()
    assert chain.whole
    (item,) = [i for node in chain.nodes.values() for i in node.inputs if i.records == (old,)]
    assert item.note == "now in store/champions/search/elsewhere"


def test_a_record_that_is_not_at_hand_says_how_to_get_it() -> None:
    shutil.rmtree("store/negatives")
    chain = traced()
    assert not chain.all_breaks
    (absent,) = chain.absent
    assert "`dvc fetch --all-commits store/negatives`" in str(absent.absent)


def test_kept_records_carry_the_chain_on_without_their_files() -> None:
    kept = Path("kept")
    for folder in ("store/models/base", "store/dataset"):
        found = record.read(Path(folder))
        record.write_atomically(kept / f"{found.id}.json", found.to_json())
    shutil.rmtree("store/dataset")
    chain = verify(walk(Archive([kept]), record.read(Path("store/exports/ce_clip")).id))
    assert not chain.all_breaks
    (dataset,) = chain.absent
    assert dataset.kind == "dataset"
    assert chain.of_kind("drop"), "the dataset's kept record leads on to the drops"


def test_a_file_with_two_names_is_read_once() -> None:
    shutil.rmtree("store/models/ce_clip")
    before = traced("store/models/base")
    shutil.copytree(
        "store/models/base", "store/champions/search/copy", copy_function=lambda a, b: Path(b).hardlink_to(a)
    )
    after = traced("store/models/base")
    assert after.whole
    assert after.files > before.files
    assert after.bytes == before.bytes
