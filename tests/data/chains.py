"""A finished chain in small, in the current folder: a drop, what was made from it, and a version that went live.

The files have the columns that the real stages write, and the records are written by `data.stage`; what a model's
weights say does not matter to lineage.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data import record, stage
from data.keywords import clean_caption
from serving import lineage, registry, repository
from training import champion

SPLITS = {"1": "train", "2": "train", "3": "train", "4": "val", "5": "test", "6": "test"}
REFUSED = "7"  # the product in quarantine
TWINS = ("5", "6")  # they show the same picture
DATASET, DROPS = Path("store/dataset"), Path("store/drops")


def finish(method: str = "ce_clip") -> None:
    """Everything up to a verdict and an export of `method`."""
    drop(1, list(SPLITS))
    dataset()
    train("base", [DATASET])
    examine("base")
    train(method, [DATASET, Path("store/negatives"), Path("store/models/base")])
    examine(method)
    judge(method)
    export(method)


def drop(number: int, ids: list[str]) -> Path:
    """A drop of `ids` with one row in quarantine, the `number`-th to land."""
    content = f"{number:x}" * 64
    out = DROPS / content[:12]
    with stage.run("land", kind="drop", command=f"python -m data.land drop-{number}", out=out, inputs=[],
                   parameters={"content": content}) as run:  # fmt: skip
        rows = [{**_row(i, content[:12]), "row": line, "image": b"jpeg"} for line, i in enumerate(ids, start=2)]
        refused = {**_row(REFUSED, content[:12]), "row": 99, "reasons": ["image_present"]}
        pq.write_table(pa.Table.from_pylist(rows), run.out / "products.parquet")
        pq.write_table(pa.Table.from_pylist([refused]), run.out / "quarantine.parquet")
        (run.out / "docs").mkdir()
        (run.out / "docs/index.html").write_text("<p>Data Docs</p>\n")
        (run.out / "report.json").write_text(json.dumps({"landed": number}))
        run.summary(name=f"drop-{number}", drop_id=content[:12], rows=len(ids) + 1, accepted=len(ids))
    return out


def dataset(without: tuple[str, ...] = ()) -> None:
    """The dataset of every landed drop, and the data that is made from it."""
    tables = [pq.read_table(path) for path in sorted(DROPS.glob("*/products.parquet"))]
    rows = {row["id"]: row for table in tables for row in table.to_pylist() if row["id"] not in without}
    with stage.run("dataset", kind="dataset", command="python -m data.dataset", out=DATASET, inputs=[DROPS],
                   parameters={"without": without}) as run:  # fmt: skip
        kept = [{k: v for k, v in r.items() if k not in ("image", "row")} for r in rows.values()]
        products = [{**row, "split": SPLITS.get(row["id"], "train")} for row in kept]
        pq.write_table(pa.Table.from_pylist(products), run.out / "products.parquet")
        run.summary(products=len(products))
    learnt = [row for row in products if row["split"] == "train"]
    asked = [row for row in products if row["split"] == "test"]
    _table("negatives", "negatives.parquet", [{"row_id": r["row_id"], "negative": f"no {r['title']}"} for r in learnt])
    _table("corpus", "corpus.parquet", [{"caption": clean_caption(row["title"])} for row in learnt])
    _table("suites", "retrieval.parquet", [{"row_id": r["row_id"], "item_id": f"item {r['id']}"} for r in asked])


def train(name: str, inputs: list[Path], seed: int = 1) -> None:
    called = name if name == "base" else f"train@{name}"
    with stage.run(called, kind="model", command=f"python -m training.train {name}",
                   out=Path("store/models") / name, inputs=inputs, parameters={"seed": seed}) as run:  # fmt: skip
        (run.out / "weights.safetensors").write_bytes(bytes(range(256)) * 4 + name.encode() + bytes([seed]))
        (run.out / "model.json").write_text("{}\n")


def examine(name: str) -> None:
    inputs = [DATASET, Path("store/suites"), Path("store/models") / name]
    with stage.run(f"evaluate@{name}", kind="evaluation", command=f"python -m training.evaluate {name}",
                   out=Path("store/evaluations") / name, inputs=inputs, parameters={}) as run:  # fmt: skip
        pq.write_table(pa.table({"item_id": ["item 5"], "outcome": [1.0]}), run.out / "outcomes.parquet")


def judge(method: str) -> None:
    inputs = [Path("store/suites"), *(Path("store/evaluations") / name for name in ("base", method)), DATASET]
    with stage.run(f"gate@{method}", kind="verdict", command=f"python -m training.gate {method}",
                   out=Path("store/verdicts") / method, inputs=inputs, parameters={}) as run:  # fmt: skip
        verdict = {"model_record": model_of(method), "verdict": "pass"}
        (run.out / "verdict.json").write_text(json.dumps(verdict))
        run.summary(verdict="pass")


def export(method: str) -> None:
    with stage.run(f"export@{method}", kind="export", command=f"python -m serving.export {method}",
                   out=Path("store/exports") / method, inputs=[DATASET, Path("store/models") / method],
                   parameters={}) as run:  # fmt: skip
        version = run.out / "model/search/1"
        version.mkdir(parents=True)
        rows = pq.read_table(DATASET / "products.parquet").to_pylist()
        first = {row["image_key"]: row["id"] for row in sorted(rows, key=lambda row: row["id"], reverse=True)}
        (version / "products.json").write_text(json.dumps({"id": sorted(first.values())}) + "\n")
        (version / "image.onnx").write_bytes(method.encode() * 300)
        (version / "settings.json").write_text(json.dumps({"model_record": model_of(method)}))
        (version.parent / "config.pbtxt").write_text('backend: "python"\n')
        (run.out / "golden").mkdir()
        (run.out / "golden/cases.parquet").write_bytes(b"golden answers")
        run.summary(endpoint="search", model_record=model_of(method))


def go_live(method: str = "ce_clip") -> int:
    """Promote the export of `method` as `serving.promote` does, but for the server: files, history, aliases."""
    made = record.read(Path("store/exports") / method)
    verdict = record.read(Path("store/verdicts") / method).id
    old = registry.aliases("search").champion
    version = repository.next_version("search")
    facts = {"method": method, "model_record": model_of(method), "export_record": made.id}
    registry.append("search", version, "exported", **facts)
    kept = lineage.keep("search", version, made.id, verdict)
    folder = repository.install(Path("store/exports") / method, made, "search", version)
    repository.install_golden(Path("store/exports") / method, "search", version)
    registry.append("search", version, "staged", folder=folder, lineage=kept)
    registry.append("search", version, "checked", verdict_record=verdict, override=None)
    registry.append("search", version, "live-pending")
    champion.install("search", Path("store/models") / method)
    registry.append("search", version, "live", action="promote", replaces=old)
    if old is not None:
        registry.append("search", old, "superseded")
    champion.point("search", model_of(method))
    registry.publish()
    repository.write_config("search", [v for v in (old, version) if v is not None], export_record=made.id)
    return version


def model_of(method: str) -> str:
    return record.read(Path("store/models") / method).id


def _table(name: str, file: str, rows: list[dict[str, Any]]) -> None:
    with stage.run(name, kind=name, command=f"python -m data.{name}", out=Path("store") / name, inputs=[DATASET],
                   parameters={}) as run:  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), run.out / file)


def _row(product: str, drop_id: str) -> dict[str, Any]:
    picture = TWINS[0] if product in TWINS else product
    return {
        "row_id": f"{int(product):012x}{drop_id[:4]}", "drop_id": drop_id, "catalog": "fashion", "id": product,
        "title": f"Red Shirt {product}", "derived_caption": None, "image_key": f"{int(picture):032x}",
    }  # fmt: skip
