"""The folder of landed drops, `store/drops`: who may write to it, what a killed landing left, and what stands in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data import dvc, record
from data.params import UserError, canonical

DROPS = Path("store/drops")
LOCK = Path("runs/land.lock")
PRODUCTS, WITHDRAWN, REPORT = "products.parquet", "withdrawn.parquet", "report.json"


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the landing lock (the system lets go of it if this process dies), and clear what a killed landing left."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _recover(DROPS)
        yield


def track() -> None:
    """Put the drops under DVC."""
    with alone():
        dvc.call("add", DROPS.as_posix())


def check_complete() -> None:
    """Every drop that DVC knows must be here: `dvc add` would else forget the ones that are not."""
    tracked = DROPS.with_name(f"{DROPS.name}.dvc")
    if not tracked.exists():
        return
    cure = f"run `dvc pull {tracked}` first, or delete {tracked} to begin anew."
    try:
        listed = dvc.call("list", ".", DROPS.as_posix(), "--dvc-only").split()
    except UserError as error:
        raise UserError(f"{tracked}: the drops that it lists are not here ({error}); {cure}") from None
    with alone():
        missing = [name for name in listed if not (DROPS / name).is_dir()]
    if missing:
        raise UserError(f"{DROPS}: {', '.join(missing)} missing, though {tracked} lists it; {cure}")


def landed_before(out: Path, parameters: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """(record id, report) of a landing of the same content under the same rules, if all its files are whole."""
    try:
        found = record.verify(out)
    except UserError:
        return None
    if found.parameters != canonical(parameters):
        return None
    return found.id, json.loads((out / REPORT).read_text(encoding="utf-8"))


def place(out: Path) -> int:
    """The number of a drop in the order of landing, from 1; one that lands again keeps its own."""
    found = _places()
    return found.get(out) or max(found.values(), default=0) + 1


def standing(catalog: str, ids: set[str], before: int) -> dict[str, str]:
    """{id: row id} of the products among `ids` that the drops which landed before number `before` leave standing."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found: dict[str, str] = {}
    here = (pc.field("catalog") == catalog) & pc.field("id").isin(pa.array(sorted(ids), pa.string()))
    for folder, number in sorted(_places().items(), key=lambda item: item[1]):
        if number >= before or not (folder / WITHDRAWN).is_file():  # without: landed by an older version
            continue
        kept = pq.read_table(folder / PRODUCTS, columns=["catalog", "id", "row_id"]).filter(here)
        found.update(zip(kept["id"].to_pylist(), kept["row_id"].to_pylist(), strict=True))
        for product in pq.read_table(folder / WITHDRAWN, columns=["catalog", "id"]).filter(here)["id"].to_pylist():
            found.pop(product, None)
    return found


def _places() -> dict[Path, int]:
    """{folder: number in the order of landing}"""
    reports = DROPS.glob(f"[!.]*/{REPORT}")
    return {path.parent: int(json.loads(path.read_text(encoding="utf-8"))["landed"]) for path in reports}


def _recover(drops: Path) -> None:
    for left in drops.glob(".*.partial"):
        shutil.rmtree(left)
    for left in drops.glob(".*.old"):
        kept = left.with_name(left.name[1:].removesuffix(".old"))
        if kept.exists():
            shutil.rmtree(left)
        else:  # killed between the two renames of `replace_folder`
            left.rename(kept)
