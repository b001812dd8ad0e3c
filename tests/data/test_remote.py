"""Drops under a URL: a real S3 server (moto's) on this machine, and fsspec's memory for what a server will not do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from small_drops import Built, build, jpeg, tree

from data import remote
from data.drops import hash_drop
from data.land import land
from data.mapping import FASHION
from data.params import UserError
from data.remote import FETCHED, RemoteLimits

LIMITS = RemoteLimits()
DROP = "s3://shop/2026/spring"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """moto's S3 server on a free port of the loopback interface."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The file system behind s3:// as land finds it: by the environment alone. The bucket `shop` is empty."""
    import s3fs

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {
        "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "DEFAULT_REGION": "us-east-1", "ENDPOINT_URL": server,
        "MAX_ATTEMPTS": "4", "EC2_METADATA_DISABLED": "true", "CONFIG_FILE": os.devnull,
        "SHARED_CREDENTIALS_FILE": os.devnull,
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = fsspec.filesystem("s3")
    system.mkdir("shop")
    yield system
    system.rm("shop", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def upload(system: Any, folder: Path, url: str = DROP) -> None:
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        system.pipe_file(f"{url}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def refusal(url: str, limits: RemoteLimits = LIMITS) -> str:
    with pytest.raises(UserError) as caught:
        remote.list_drop(url, limits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("table", "images"), [("csv", "folder"), ("parquet", "shards"), ("jsonl", "tar")])
def test_the_same_files_have_the_same_hash_there_and_here(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, images: str
) -> None:
    local = build().write(tmp_path / "drop", table, images)
    upload(s3, local)
    s3.pipe_file(f"{DROP}/.hidden/x.jpg", b"no part of the drop")
    monkeypatch.chdir(tmp_path)
    with remote.fetch(remote.list_drop(f"{DROP}/", LIMITS)) as folder:
        assert folder.name == "spring"
        assert hash_drop(folder) == hash_drop(local)
        assert tree(folder) == tree(local)
    assert not list(FETCHED.glob("*/"))


def test_an_unchanged_url_lands_once_and_is_not_fetched_again(
    s3: Any, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    local = build().write(tmp_path / "spring")
    upload(s3, local)
    (first,) = land([DROP])
    (here,) = land([local])
    assert (first.new, here.new, here.record_id) == (True, False, first.record_id)
    fetched: list[str] = []
    fetch = remote.fetch
    monkeypatch.setattr(remote, "fetch", lambda listing: fetched.append(listing.url) or fetch(listing))
    (again,) = land([DROP])
    assert (again.new, again.record_id, fetched) == (False, first.record_id, [])
    assert f"{DROP}: already landed as {first.drop_id}" in capsys.readouterr().err
    s3.pipe_file(f"{DROP}/images/00007.jpg", jpeg(99))
    (changed,) = land([DROP])
    assert (changed.new, fetched) == (True, [DROP])
    assert (changed.report["changed"], changed.report["unchanged"], changed.report["new"]) == (1, 11, 0)


def test_a_refused_remote_drop_leaves_no_trace(s3: Any, repository: Path, tmp_path: Path) -> None:
    built = build()
    for row in built.rows:
        del row["gender"]
    upload(s3, built.write(tmp_path / "spring"))
    with pytest.raises(UserError, match=r"spring/catalog\.csv: column `gender`"):
        land([DROP])
    assert not Path("store/drops").exists()
    assert [path.name for path in FETCHED.iterdir() if path.is_dir()] == []


REFUSED: list[tuple[str, str, dict[str, bytes], list[str]]] = [
    ("empty", DROP, {}, [DROP, "nothing is there"]),
    ("no bucket", "s3://elsewhere/drop", {}, ["s3://elsewhere/drop", "check the address"]),
    ("a file", f"{DROP}/catalog.csv", {"catalog.csv": b"id\n"}, ["is a file", "a drop is a folder"]),
    ("goes up", DROP, {"../secret.jpg": b"x"}, ["secret.jpg", "leads elsewhere"]),
    ("empty part", DROP, {"images//1.jpg": b"x"}, ["images//1.jpg", "rename"]),
    ("backslash", DROP, {"images\\1.jpg": b"x"}, ["1.jpg", "rename"]),
    ("hidden order", DROP, {"images/1\u202e2.jpg": b"x"}, ["rename"]),
    ("both", DROP, {"a": b"x", "a/1.jpg": b"x"}, ["'a' is both a file and a folder"]),
]  # fmt: skip


@pytest.mark.parametrize(("url", "files", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_cannot_be_fetched_is_refused(s3: Any, url: str, files: dict[str, bytes], words: list[str]) -> None:
    for name, data in files.items():
        s3.pipe_file(f"{DROP}/{name}", data)
    message = refusal(url)
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(("limits", "words"), [
    (RemoteLimits(max_file_bytes=100), ["'images/00007.jpg'", "more than 100", "land.remote"]),
    (RemoteLimits(max_bytes=1000), ["3 files", "land.remote"]), (RemoteLimits(max_files=2), ["3 files", "2 files"]),
])  # fmt: skip
def test_a_drop_that_is_too_large_is_not_fetched(s3: Any, limits: RemoteLimits, words: list[str]) -> None:
    for name in ("catalog.csv", "images/00007.jpg", "images/00008.jpg"):
        s3.pipe_file(f"{DROP}/{name}", b"x" * (10 if name == "catalog.csv" else 10_000))
    message = refusal(DROP, limits)
    assert [word for word in [DROP, *words] if word not in message] == []


def test_what_keeps_a_server_from_answering_is_said(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.pipe_file(f"{DROP}/catalog.csv", b"id\n")
    type(s3).clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "credentials" in refusal(DROP)
    type(s3).clear_instance_cache()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert "can be reached" in refusal(DROP)
    assert "gcsfs" in refusal("gs://shop/drop")  # its package is not among ours
    assert "s3://bucket/drop" in refusal("no-such-protocol://shop/drop")


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.chdir(tmp_path)
    system = fsspec.filesystem("memory")
    upload(system, build().write(tmp_path / "drop"), "memory://shop/drop")
    yield system
    system.rm("/shop", recursive=True)


def counting(system: Any, monkeypatch: pytest.MonkeyPatch, fail_at: int = 0) -> list[str]:
    """The addresses fetched from now on; from the `fail_at`th on they break off half way."""
    fetched: list[str] = []
    get = system.get_file

    def get_file(address: str, target: str) -> None:
        fetched.append(address)
        if fail_at and len(fetched) >= fail_at:
            Path(target).write_bytes(system.cat_file(address)[:10])
            raise ConnectionResetError("the line went dead")
        get(address, target)

    monkeypatch.setattr(system, "get_file", get_file)
    return fetched


def test_a_fetch_that_was_cut_off_goes_on(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "THREADS", 1)
    listing = remote.list_drop("memory://shop/drop", LIMITS)
    with monkeypatch.context() as patch:
        counting(memory, patch, fail_at=6)
        with pytest.raises(UserError, match=r"images/00011\.jpg: cannot be read .*the line went dead"), remote.fetch(
            listing
        ):  # fmt: skip
            pass
    fetched = counting(memory, monkeypatch)
    with remote.fetch(listing) as folder:
        assert hash_drop(folder) == hash_drop(tmp_path / "drop")
    assert len(fetched) == 13 - 5


def test_a_drop_that_changes_while_it_is_fetched_is_refused(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = remote.list_drop("memory://shop/drop", LIMITS)
    get = memory.get_file

    def get_file(address: str, target: str) -> None:
        get(address, target)
        memory.pipe_file("/shop/drop/images/more.jpg", b"x")

    monkeypatch.setattr(memory, "get_file", get_file)
    with pytest.raises(UserError, match="changed while it was fetched"), remote.fetch(listing):
        pass


def test_only_the_very_same_files_are_recalled(memory: Any) -> None:
    listing = remote.list_drop("memory://shop/drop", LIMITS)
    assert remote.recall(listing) is None
    remote.remember(listing, "c" * 64, FASHION)
    assert remote.recall(listing) == ("c" * 64, FASHION)
    memory.pipe_file("/shop/drop/images/00007.jpg", memory.cat_file("/shop/drop/images/00007.jpg"))  # written anew
    assert remote.recall(remote.list_drop("memory://shop/drop", LIMITS)) is None
    (kept,) = remote.REMEMBERED.iterdir()
    assert json.loads(kept.read_text())["url"] == "memory://shop/drop"


def test_urls_are_told_from_paths(built: Built) -> None:
    assert all(map(remote.is_url, ("s3://b/x", "gs://b", "file:///x", "zip://x::s3://b/a.zip")))
    assert not any(map(remote.is_url, ("drop", "/a/b:c", "./a", "C-3/po", "a://"[:1])))
