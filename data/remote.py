"""Drops that lie elsewhere: list and fetch what is under a URL (`s3://bucket/drop`, or any protocol of fsspec).

Files come into a folder of their own under runs/fetch, each under its name only when it is complete, so a fetch that
was killed goes on where it stopped. What landed from a URL is remembered with the listing of that moment (sizes and the
server's own version marks): while they stand, nothing is fetched again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from data import stage
from data.drop_images import is_safe
from data.drops import is_hidden
from data.mapping import CatalogMapping
from data.params import UserError, canonical, canonical_hash, strict
from data.record import write_atomically

FETCHED, REMEMBERED = Path("runs/fetch"), Path("runs/remote")
THREADS = 8  # files fetched at a time
QUEUED = 4096  # files waiting for their turn
PART = ".part"
LISTING = "listing.json"
# How the protocols of fsspec tell one version of a file from the next, the surest first.
VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "generation", "LastModified", "last_modified", "mtime", "created")
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*(://|::)")


@dataclass(frozen=True, kw_only=True)
class RemoteLimits:
    """What is not even fetched: the bytes of one file and of a whole drop, and the number of its files."""

    max_file_bytes: int = 50_000_000_000
    max_bytes: int = 500_000_000_000
    max_files: int = 5_000_000


@dataclass(frozen=True)
class RemoteFile:
    """One file: its path below the drop, its address for the protocol, its size, and the server's version mark."""

    path: str
    address: str
    size: int
    version: str


@dataclass(frozen=True)
class Listing:
    """The files under a URL at one moment, by path."""

    url: str
    system: Any  # fsspec.AbstractFileSystem
    files: tuple[RemoteFile, ...]

    @property
    def name(self) -> str:
        """The last part of the URL: what the folder would be called."""
        return PurePosixPath(self.url.split("::")[0].split("?")[0]).name or "drop"

    @property
    def key(self) -> str:
        return canonical_hash(self.url)[:16]

    @property
    def fingerprint(self) -> str:
        return canonical_hash([[file.path, file.size, file.version] for file in self.files])

    @property
    def versioned(self) -> bool:
        """Does the server tell versions of files apart?"""
        return all(file.version for file in self.files)


def is_url(text: str) -> bool:
    """Whether `text` is an address for fsspec rather than a path."""
    return _URL.match(text) is not None


def list_drop(url: str, limits: RemoteLimits) -> Listing:
    """The files under `url`. Raises `UserError` if there are none, or they cannot or must not be fetched."""
    import fsspec

    if not is_safe_name(Listing(url, None, ()).name):
        raise UserError(f"{url}: the last part of the address names the drop; give it a plain name.")
    with _reachable(url):
        system, root = fsspec.core.url_to_fs(url)
        system.invalidate_cache()
        found = system.find(root, detail=True)
    root = root.rstrip("/")
    if root in found:
        raise UserError(f"{url}: is a file; a drop is a folder with a table and its pictures.")
    files = [_described(url, root, address, facts) for address, facts in sorted(found.items()) if address[-1] != "/"]
    kept = tuple(file for file in files if not any(map(is_hidden, PurePosixPath(file.path).parts)))
    if not kept:
        raise UserError(f"{url}: nothing is there; check the address, or land the drop when it has arrived.")
    _check(url, kept, limits)
    return Listing(url, system, kept)


def recall(listing: Listing) -> tuple[str, CatalogMapping] | None:
    """(content hash, the drop's own mapping) of these very files, if they were landed from here before."""
    path = REMEMBERED / f"{listing.key}.json"
    if not listing.versioned or not path.is_file():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    if known["listing"] != listing.fingerprint:
        return None
    return known["content"], strict(CatalogMapping, known["mapping"], where=str(path))


def remember(listing: Listing, content_hash: str, own: CatalogMapping) -> None:
    """Keep what these files were, for `recall`."""
    known = {"url": listing.url, "listing": listing.fingerprint, "content": content_hash, "mapping": canonical(own)}
    write_atomically(REMEMBERED / f"{listing.key}.json", json.dumps(known, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def fetch(listing: Listing) -> Iterator[Path]:
    """A folder with the listed files; one landing of a URL at a time.

    It is gone afterwards, unless the fetch or the landing was cut off: then the next one goes on from there. Raises
    `UserError` if a file cannot be fetched, or changed meanwhile.
    """
    home = FETCHED / listing.key
    home.mkdir(parents=True, exist_ok=True)
    with (FETCHED / f"{listing.key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = home / listing.name
        _prepare(home, listing)
        _fetch(listing, folder)
        try:
            yield folder
        except UserError:  # a refused drop has to change before it can land
            shutil.rmtree(home)
            raise
        shutil.rmtree(home)


def is_safe_name(name: str) -> bool:
    """Whether a name from elsewhere is a plain path below a folder, in printable characters."""
    parts = name.split("/")
    return is_safe(name) and name.isprintable() and not any(part in ("", ".") or len(part) > 200 for part in parts)


def _described(url: str, root: str, address: str, facts: Mapping[str, Any]) -> RemoteFile:
    path = address[len(root) :].lstrip("/") if address.startswith(root) else ""
    if facts.get("type", "file") != "file" or facts.get("islink"):
        raise UserError(f"{url}: {address!r} is not a plain file; a drop holds plain files only.")
    if not is_safe_name(path):
        raise UserError(f"{url}: a file is called {address!r}, which leads elsewhere or cannot be kept; rename it.")
    if facts.get("size") is None:
        raise UserError(f"{url}: the server does not say how large {path!r} is; land a copy of the drop.")
    version = next((str(facts[key]) for key in VERSIONS if facts.get(key) is not None), "")
    return RemoteFile(path, address, int(facts["size"]), version)


def _check(url: str, files: tuple[RemoteFile, ...], limits: RemoteLimits) -> None:
    """Raise `UserError` for a drop that is too large, or whose names cannot lie in one folder."""
    largest, total = max(files, key=lambda file: file.size), sum(file.size for file in files)
    settings = "raise land.remote in params.yaml, or land a smaller drop"
    if largest.size > limits.max_file_bytes:
        raise UserError(
            f"{url}: {largest.path!r} has {largest.size:,} bytes, more than {limits.max_file_bytes:,}; {settings}."
        )
    if total > limits.max_bytes or len(files) > limits.max_files:
        raise UserError(
            f"{url}: {len(files):,} files with {total:,} bytes, more than {limits.max_files:,} files or "
            f"{limits.max_bytes:,} bytes; {settings}."
        )
    paths = {file.path for file in files}
    for path in paths:
        for folder in map(str, PurePosixPath(path).parents):
            if folder in paths:
                raise UserError(f"{url}: {folder!r} is both a file and a folder; rename one of them.")


def _prepare(home: Path, listing: Listing) -> None:
    """Keep what an earlier fetch of the same listing left; begin anew after any other, and see that there is room."""
    stated = home / LISTING
    if not stated.is_file() or stated.read_text(encoding="utf-8") != listing.fingerprint or not listing.versioned:
        shutil.rmtree(home)
        home.mkdir()
        write_atomically(stated, listing.fingerprint)
    total, free = sum(file.size for file in listing.files), shutil.disk_usage(home).free
    if total > free:
        raise UserError(
            f"{listing.url}: {total:,} bytes, but {FETCHED} has room for {free:,}; free some, then land again."
        )


def _fetch(listing: Listing, folder: Path) -> None:
    def one(file: RemoteFile) -> int:
        target = folder / file.path
        if target.is_file() and target.stat().st_size == file.size:
            return 0
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + PART)
        with _reachable(f"{listing.url}: {file.path}"):
            listing.system.get_file(file.address, str(part))
        if part.stat().st_size != file.size:
            raise UserError(f"{listing.url}: {file.path!r} changed while it was fetched; land the drop again.")
        part.replace(target)
        return file.size

    files = listing.files
    stage.log(f"[land] {listing.url}: {len(files):,} files, {sum(file.size for file in files) / 1e6:,.1f} MB")
    fetched = sum(stage.progress(_side_by_side(one, files), total=len(files), what="files", label="fetch"))
    again = list_drop(listing.url, RemoteLimits(max_file_bytes=1 << 62, max_bytes=1 << 62, max_files=1 << 62))
    if again.fingerprint != listing.fingerprint:
        raise UserError(f"{listing.url}: changed while it was fetched; land the drop again when it has fully arrived.")
    stage.log(f"[land] {listing.url}: {fetched / 1e6:,.1f} MB fetched")


def _side_by_side(fetch_one: Callable[[RemoteFile], int], files: Sequence[RemoteFile]) -> Iterator[int]:
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(files), QUEUED):
            yield from pool.map(fetch_one, files[start : start + QUEUED])


@contextlib.contextmanager
def _reachable(what: str) -> Iterator[None]:
    """Say in one `UserError` what kept a URL from being read; each protocol's package has errors of its own."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{what}: its protocol needs a package that is not installed ({_words(error)}).") from None
    except FileNotFoundError as error:
        raise UserError(f"{what}: not found ({_words(error)}); check the address.") from None
    except Exception as error:
        name = type(error).__name__
        if isinstance(error, PermissionError) or "Credential" in name:
            cure = "no permission or no credentials; give this process those that the server knows"
        elif isinstance(error, ValueError) and "rotocol" in str(error):
            cure = "give the address of a protocol that fsspec knows, such as s3://bucket/drop"
        else:
            cure = "see that the server can be reached, then land again"
        raise UserError(f"{what}: cannot be read ({name}: {_words(error)}); {cure}.") from None


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
