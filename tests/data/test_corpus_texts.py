"""Texts without pictures in the corpus, and benchmarks kept out of it: readers, likeness, the proof and its failure."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from data import corpus, record
from data.corpus_exclusion import RUN, Exam, overlaps
from data.corpus_texts import TextSource, benchmark_texts, read_texts
from data.keywords import clean_caption
from data.params import UserError

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("FITTINGROOM_SHARED", ROOT.parent / "shared")) / "data"
LONG = "a brown dog and a black cat sleep on one small red sofa"


# --- reading ----------------------------------------------------------------------------------------------------------


def put(path: Path, text: str) -> str:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_every_format_gives_its_texts(tmp_path: Path, end: str) -> None:
    files = {
        "t.csv": 'id,title,more\n1,"Red, warm\nshoes",x\n2,Blue bag,y\n',
        "t.tsv": "id\ttitle\tmore\n1\tRed, warm\nshoes\t\t\n2\tBlue bag\ty\n",
        "t.jsonl": '{"title": "Red, warm\\nshoes", "n": 1}\n\n{"title": "Blue bag"}\n',
        "t.txt": "Red, warm shoes\nBlue bag\n",
    }
    del files["t.tsv"]
    for name, text in files.items():
        columns = () if name == "t.txt" else ("title",)
        found = read_texts(TextSource(path=put(tmp_path / (name + end), text), columns=columns))
        assert [" ".join(text.split()) for text in found] == ["Red, warm shoes", "Blue bag"], name
    tabbed = put(tmp_path / f"t.tsv{end}", "\ttitle\tmore\n0\tA cat.\tx\n")
    assert list(read_texts(TextSource(path=tabbed, columns=("title", "more")))) == ["A cat.", "x"]


def test_descriptions_can_be_taken_sentence_by_sentence(tmp_path: Path) -> None:
    path = put(tmp_path / "d.jsonl", json.dumps({"d": "Light as air. It has 1.5 l of room! Yours?"}))
    found = read_texts(TextSource(path=path, columns=("d",), sentences=True))
    assert list(found) == ["Light as air.", "It has 1.5 l of room!", "Yours?"]


@pytest.mark.parametrize(("name", "text", "columns", "said"), [
    ("a.csv", "id,title\n1,x\n", ("name",), "a.csv:2: no column `name`. It has: id, title"),
    ("a.csv", "id,title\n1,x,y\n", ("title",), "a.csv:2: more fields"),
    ("a.csv", 'id,title\n1,"x" y\n', ("title",), "a.csv:2:"),
    ("a.jsonl", '{"t": "x"}\n{"t": \n', ("t",), "a.jsonl:2: not valid JSON"),
    ("a.jsonl", '["x"]\n', ("t",), "a.jsonl:1: expected an object"),
    ("a.jsonl", '{"t": 5}\n', ("t",), "a.jsonl:1: `t` is no text but 5"),
    ("a.csv", "id,title\n1,x\n", (), "say which `columns`"),
    ("a.txt", "x\n", ("title",), "leave `columns` out"),
    ("a.pdf", "x\n", (), "convert it"),
    ("a.txt.gz", None, (), "cannot be read"),
])  # fmt: skip
def test_mistakes_name_file_line_and_cure(
    tmp_path: Path, name: str, text: str | None, columns: tuple[str, ...], said: str
) -> None:
    path = tmp_path / name
    if text is None:
        path.write_bytes(gzip.compress(b"many words " * 500)[:-12])  # cut off
    else:
        put(path, text)
    with pytest.raises(UserError) as error:
        list(read_texts(TextSource(path=str(path), columns=columns)))
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_other_encodings_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Schürze\n".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        list(read_texts(TextSource(path=str(tmp_path / "a.txt"))))
    with pytest.raises(UserError, match="not found"):
        list(read_texts(TextSource(path=str(tmp_path / "b.txt"))))
    with pytest.raises(UserError, match="not found"):
        list(benchmark_texts(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="nothing to leave out"):
        list(benchmark_texts(tmp_path / "empty"))


def test_every_string_of_a_benchmark_counts(tmp_path: Path) -> None:
    put(tmp_path / "a.json.gz", json.dumps({"7": {"caption": "a red cat", "file": "x/y.jpg", "foils": [["a blue cat"]]},
                                            "8": {"n": 1.5, "one": "cat"}}))  # fmt: skip
    put(tmp_path / "b.jsonl", '{"sentence": "there is a box", "label": "true"}\n')
    put(tmp_path / "LICENSE", "all rights and more")
    assert list(benchmark_texts(tmp_path)) == ["a red cat", "a blue cat", "there is a box"]
    assert list(benchmark_texts(tmp_path / "b.jsonl")) == ["there is a box"]


# --- likeness ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("caption", "likeness"), [
    ("A brown dog, and a BLACK cat sleep on one small red sofa!", "same_words"),
    (LONG.upper(), "same_text"),
    ("one brown cat and a black dog on a small red sofa sleep", "same_words"),
    ("today a brown dog and a black cat sleep quietly", "shared_run"),  # nine words in a row
    ("a brown dog and a black cat rest", None),  # seven
    ("", None), ("a dog", None),
])  # fmt: skip
def test_what_counts_as_alike(caption: str, likeness: str | None) -> None:
    assert Exam([LONG]).likeness(clean_caption(caption)) == likeness
    assert bool(overlaps([clean_caption(caption)], [LONG])) == bool(likeness)


words = st.lists(st.sampled_from(["a", "red", "cat", "on", "b", "c"]), max_size=RUN + 3).map(" ".join)


@given(st.lists(words, max_size=8), st.lists(words, max_size=8))
def test_the_proof_agrees_with_the_exclusion_on_any_texts(captions: list[str], texts: list[str]) -> None:
    exam = Exam(texts)
    assert overlaps(captions, texts) == sorted({caption for caption in captions if exam.likeness(caption)})


# --- the stage --------------------------------------------------------------------------------------------------------


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the stage over products of one title each, {title: split}, with the given settings."""
    monkeypatch.chdir(tmp_path)

    def run(titles: dict[str, str], **settings: Any) -> int:
        Path("params.yaml").write_text(yaml.safe_dump({"corpus": {"held_out": 0.1, **settings}}), encoding="utf-8")
        Path("store/dataset").mkdir(parents=True, exist_ok=True)
        rows = [
            {"row_id": str(n), "split": split, "title": title, "derived_caption": None}
            for n, (title, split) in enumerate(titles.items())
        ]
        schema = pa.schema([(name, pa.string()) for name in corpus.COLUMNS])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), "store/dataset/products.parquet")
        return corpus.main(["--force"])

    return run


def test_planted_overlaps_are_left_out_counted_and_proven(stage: Callable[..., int], tmp_path: Path) -> None:
    lines = ["Blue shoes ", "BLUE  SHOES", "a lamp of glass", "glass: a lamp of", "long gone test title", "-- 5 %",
             "--", f"we saw {LONG} again", "a new caption", "test, title long gone", "word " * 65]  # fmt: skip
    put(tmp_path / "t.txt", "\n".join(lines) + "\n")
    put(tmp_path / "exam.json", json.dumps([{"caption": LONG, "foil": "A lamp of glass."}]))
    texts = [{"path": "t.txt"}]
    assert stage({"Blue Shoes": "train", "Long Gone Test Title": "test"}, texts=texts, exclude=["exam.json"]) == 0
    rows = pq.read_table("store/corpus/corpus.parquet").to_pylist()
    assert {row["caption"]: (row["kind"], row["products"]) for row in rows} == {
        "-- 5 %": ("text", 0), "a new caption": ("text", 0), "blue shoes": ("title", 1)
    }  # fmt: skip
    made = record.verify(Path("store/corpus"))
    tally = {row["source"]: row for row in made.tables["where captions come from"]}
    assert tally["t.txt"] == {
        "source": "t.txt", "texts": 11, "new": 2, "repeated": 2, "empty": 1, "too_long": 1, "same_text": 1,
        "same_words": 3, "shared_run": 1,
    }  # fmt: skip
    assert (made.summary["excluded"], made.summary["exam_texts"], made.summary["of_text"]) == (5, 3, 2)
    assert all(check["passed"] for check in made.checks)
    assert {item["path"] for item in made.inputs} == {"store/dataset", "t.txt", "exam.json"}


def test_the_proof_fails_where_the_exclusion_does(
    stage: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the exclusion switched off, the check that re-reads the written corpus names what should not be in it."""
    put(tmp_path / "exam.txt", f"{LONG}\na lamp of glass\n")
    monkeypatch.setattr(Exam, "likeness", lambda self, caption: None)
    titles = {"Glass: a lamp of": "train", "Shoe": "train", "Blue bag": "train", "Bag, blue": "test"}
    assert stage(titles, exclude=["exam.txt"]) == 0
    checks = {check["name"]: check for check in record.read(Path("store/corpus")).checks}
    assert checks["no_text_of_a_benchmark"]["examples"] == ["glass: a lamp of"]
    assert checks["no_title_of_val_or_test"]["examples"] == ["blue bag"]
    assert not any(checks[name]["passed"] for name in ("no_text_of_a_benchmark", "no_title_of_val_or_test"))


def test_a_missing_file_stops_the_stage(stage: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert stage({"Shoe": "train"}, texts=[{"path": "gone.txt"}]) == 2
    assert "gone.txt" in capsys.readouterr().err
    assert not Path("store/corpus").exists()


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED}: not on this machine (FITTINGROOM_SHARED says where it is)")
@pytest.mark.slow
def test_the_official_files_are_read_and_kept_out() -> None:
    benchmarks = {path.name: list(benchmark_texts(path)) for path in sorted((SHARED / "benchmarks").iterdir())}
    assert {name: len(set(texts)) > 200 for name, texts in benchmarks.items()} == dict.fromkeys(benchmarks, True)
    exam = Exam(text for texts in benchmarks.values() for text in texts)
    found: dict[str, corpus.Row] = {}
    source = TextSource(path=str(SHARED / "text/coco_captions_with_negatives.tsv.gz"), columns=("title",))
    counts = corpus.gather(found, read_texts(source), corpus.TEXT, exam)
    assert counts["texts"] == 4839
    assert counts["same_text"] > 0
    assert not overlaps(found, (text for texts in benchmarks.values() for text in texts))
