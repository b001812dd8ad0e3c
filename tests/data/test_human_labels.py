"""The labels file, who is asked what, and the page: what it accepts, from whom, and what is on disk afterwards."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalogs import ROOT, jpeg, product

from data.dataset import IMAGE_SCHEMA
from data.negatives.audit import AuditConfig, Verdict, key_of, table
from data.negatives.label import label, open_session
from data.negatives.label_page import BODY_BYTES, Labelling, make_server
from data.negatives.labels import append_label, labels_input, queue, read_labels, settled
from data.params import UserError

Row = dict[str, Any]
SCRIPT = "</script><script>alert(1)</script>"


def item(number: int, *, spoken: bool = False, edit: str = "colour", text: str = "") -> Row:
    row = {"row_id": f"r{number}", "caption_kind": "title", "edit_type": "attribute", "edit": edit,
           "caption": f"caption {number}", "negative": text or f"negative {number}"}  # fmt: skip
    return table([Verdict(row, {"ontology": "why"} if spoken else {})]).to_pylist()[0]


def line_of(**values: Any) -> str:
    whole = {"key": "k", "row_id": "r", "negative": "n", "label": "true", "who": "a", "when": ""}
    return json.dumps(whole | values)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels" / "negatives.jsonl"


def test_a_label_is_a_line_that_reads_back(path: Path) -> None:
    assert read_labels(path) == []
    written = [append_label(path, item(n), word, "ann") for n, word in enumerate(("true", "false", "unsure"))]
    assert read_labels(path) == written
    assert path.read_text(encoding="utf-8").count("\n") == 3
    assert settled(written) == {key_of(item(0)): True, key_of(item(1)): False}
    assert written[0].when.endswith("+00:00")


def test_the_last_word_of_a_person_and_the_majority_of_people_count(path: Path) -> None:
    row = item(0)
    for who, word, result in (
        ("ann", "true", {True}), ("ann", "false", {False}), ("bob", "true", set()), ("cid", "true", {True}),
        ("bob", "unsure", set()), ("bob", "false", {False}),
    ):  # fmt: skip
        append_label(path, row, word, who)
        assert set(settled(read_labels(path)).values()) == result, (who, word)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("{", "not a label"), ("[1]", "not a label"), ('{"key": "a"}', "not a label"), ('"text"', "not a label"),
        (line_of(label="maybe"), "one of"), (line_of(negative=7), "all fields"), (line_of(), "does not fit"),
        ("\udcff", "not a label"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(path: Path, line: str, wrong: str) -> None:
    append_label(path, item(0), "true", "ann")
    with path.open("ab") as stream:
        stream.write(line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(UserError, match=rf"line 2: .*{wrong}"):
        read_labels(path)


def test_the_queue_mixes_verdicts_evenly_over_edits_and_repeats() -> None:
    judged = [item(n, spoken=n % 20 == 0, edit=("colour", "swap", "usage")[n % 3]) for n in range(900)]
    shown = queue(judged, 240, 31)
    assert shown == queue(list(reversed(judged)), 240, 31) != queue(judged, 240, 32)
    assert len({key_of(row) for row in shown}) == 240
    spoken = [bool(row["ontology"]) for row in shown]
    assert sum(spoken) == 45  # all there are, for they are fewer than a fifth
    assert 5 < sum(spoken[:120]) < 40  # mixed among the others, not first
    silent = Counter(row["edit"] for row in shown if not row["ontology"])
    assert set(silent.values()) == {65}
    few = {key_of(row) for row in queue(judged, 60, 31)}
    assert len(few & {key_of(row) for row in shown}) == 60


def test_a_short_queue_is_all_there_is() -> None:
    assert len(queue([item(0), item(1, edit="swap")], 50, 1)) == 2
    assert queue([], 50, 1) == []


def test_the_labels_are_an_input_once_there_are_any(path: Path) -> None:
    config = AuditConfig(labels=str(path))
    assert labels_input(config) == []
    append_label(path, item(0), "true", "ann")
    assert labels_input(config) == [path]


@pytest.fixture
def session(path: Path) -> Labelling:
    items = [item(n) for n in range(3)] + [item(3, text=f"tee {SCRIPT}")]
    return Labelling(items, {f"r{n}": jpeg(n) for n in range(3)}, path, "ann <b>")


@pytest.fixture
def server(session: Labelling) -> Iterator[ThreadingHTTPServer]:
    made = make_server(session)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def ask(
    server: ThreadingHTTPServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes]:  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def said(key: str, word: str = "true") -> bytes:
    return json.dumps({"key": key, "label": word}).encode()


def test_the_page_shows_photos_and_saves_labels(server: ThreadingHTTPServer, session: Labelling) -> None:
    assert ask(server, "GET", "/")[0] == 200
    key = key_of(item(1))
    assert ask(server, "GET", f"/photo/{key}") == (200, jpeg(1))
    assert ask(server, "POST", "/label", said(key), **{"X-Token": session.token}) == (200, b"saved")
    (found,) = read_labels(session.path)
    assert (found.row_id, found.label, found.who) == ("r1", "true", "ann <b>")
    again = Labelling([item(n) for n in range(3)], {}, session.path, "ann <b>")
    assert (again.done, len(again)) == (1, 3)
    assert Labelling([item(n) for n in range(3)], {}, session.path, "bob").done == 0


def test_what_the_page_shows_is_text(server: ThreadingHTTPServer) -> None:
    page = ask(server, "GET", "/")[1].decode()
    assert "alert(1)" in page
    assert SCRIPT not in page
    assert "ann &lt;b&gt;" in page
    assert len(re.findall("</script>", page)) == 2


def test_the_page_does_not_tell_what_the_witnesses_said(server: ThreadingHTTPServer, session: Labelling) -> None:
    (text,) = re.findall(r'id="data"[^>]*>(.*?)</script>', ask(server, "GET", "/")[1].decode())
    data = json.loads(text)
    assert set(data["items"][0]) == {"key", "caption", "negative", "label"}


def test_strangers_are_turned_away(server: ThreadingHTTPServer, session: Labelling) -> None:
    """Another host name (rebinding), a form of another site (no token), nonsense, too much, no such item."""
    key, token = key_of(item(0)), {"X-Token": session.token}
    assert ask(server, "GET", "/", Host="evil.example")[0] == 403
    assert ask(server, "POST", "/label", said(key), Host=f"evil.example:{server.server_port}", **token)[0] == 403
    assert ask(server, "POST", "/label", said(key))[0] == 403
    assert ask(server, "POST", "/label", said(key), **{"X-Token": "é"})[0] == 403
    nonsense = (b"{", b"[]", b"7", b"{}", b'{"key": [], "label": "true"}', b"\xff")
    for body in (*nonsense, said("0" * 16), said(key, "maybe")):
        assert ask(server, "POST", "/label", body, **token)[0] == 400, body
    assert ask(server, "POST", "/label", b" " * (BODY_BYTES + 1), **token)[0] == 400
    assert ask(server, "POST", "/else", said(key), **token)[0] == 400
    assert ask(server, "GET", "/photo/../../etc/passwd")[0] == 404
    assert ask(server, "GET", f"/photo/{key_of(item(9))}")[0] == 404
    assert not session.path.exists()


def test_a_full_disk_is_said_and_nothing_counts_as_saved(session: Labelling, path: Path) -> None:
    path.parent.mkdir()
    path.mkdir()
    key = key_of(item(0))
    assert "directory" in str(session.save(said(key)))
    assert session.done == 0


def test_the_server_listens_on_this_machine_alone(server: ThreadingHTTPServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a dataset of five products and an audit of their negatives."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for name in ("dataset", "negatives"):
        (tmp_path / "store" / name).mkdir(parents=True)
    products = [product(row_id=f"r{n}", image_key=f"k{n}") for n in range(5)]
    pq.write_table(pa.Table.from_pylist(products), "store/dataset/products.parquet")
    photos = [{"image_key": f"k{n}", "jpeg": jpeg(n), "width": 12, "height": 16} for n in range(5)]
    pq.write_table(pa.Table.from_pylist(photos, schema=IMAGE_SCHEMA), "store/dataset/images.parquet")
    judged = table([Verdict(item(n), {}) for n in range(5)])
    pq.write_table(judged, "store/negatives/audit.parquet")
    return tmp_path / "store" / "negatives"


def test_a_session_opens_on_what_was_audited(audited: Path) -> None:
    session = open_session(audited, 3, "ann")
    assert (len(session), session.path) == (3, Path(AuditConfig().labels))
    assert sum(session.photo(key_of(item(n))) == jpeg(n) for n in range(5)) == 3


def test_what_cannot_be_labelled_is_said_in_one_sentence(audited: Path) -> None:
    with pytest.raises(UserError, match="--count"):
        label(audited, count=0)
    with pytest.raises(UserError, match="port"):
        label(audited, count=3, port=70_000)
    with pytest.raises(UserError, match="dvc repro negatives"):
        label(audited.parent, count=3)
    pq.write_table(table([Verdict(item(77), {})]), audited / "audit.parquet")
    with pytest.raises(UserError, match="r77"):
        label(audited, count=3)
