"""STAGE: pack a trained model for Triton, with golden inputs and their offline answers.

store/exports/<method>/model/search/        a Triton model, servable as it is
    config.pbtxt                            without version policy; promotion adds it
    1/                                      model.py, pixels.py, text.onnx, image.onnx, tokenizer.json, settings.json,
                                            embeddings.npy and products.json (the product index)
store/exports/<method>/golden/              inputs from the test split, answered offline by PyTorch
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data import record, stage
from data.images import DEFAULT_LIMITS
from data.params import section
from serving import golden, index
from serving.config import DATASET, EXPORTS, MODELS, ExportConfig
from serving.model_config import CONFIG, search_config
from training.champion import endpoint_of

if TYPE_CHECKING:
    from serving.towers import Agreement
    from training.encoder import DualEncoder

BACKENDS = Path(__file__).parent / "backends"
DEFAULT_K = 10  # products of a request that does not say how many


def main(argv: list[str] | None = None) -> int:
    return stage.main(build, description=__doc__, argv=argv, arguments=_arguments)


def build(args: argparse.Namespace) -> None:
    """Export `args.method` from store/models to store/exports."""
    config = section(ExportConfig, "export")
    endpoint = endpoint_of(args.method)
    source = MODELS / args.method
    with stage.run(
        f"export@{args.method}", kind="export", command=f"python -m serving.export {args.method}",
        out=EXPORTS / args.method, inputs=[DATASET, source], parameters=config, force=args.force,
    ) as run:  # fmt: skip
        if run.up_to_date:
            return
        made = record.verify(source)
        from training.encoder import load_encoder

        encoder = load_encoder(source)
        version = run.out / "model" / endpoint / "1"
        version.mkdir(parents=True)
        rows, embeddings = _write_index(run, version, encoder)
        _write_backend(version, encoder, made.id, config)
        (version.parent / CONFIG).write_text(
            search_config(
                max_batch=config.max_batch, queue_delay_us=config.queue_delay_us,
                parameters={"method": args.method, "model_record": made.id},
            ), encoding="utf-8",
        )  # fmt: skip
        cases = _write_golden(run, encoder, rows, embeddings, config)
        _check_towers(run, version, encoder, cases, config)
        run.summary(
            endpoint=endpoint, model_record=made.id, products=len(rows), embed_dim=embeddings.shape[1],
            golden=len(cases), megabytes=_sizes(version),
        )  # fmt: skip


def _write_index(run: stage.Run, version: Path, encoder: DualEncoder) -> tuple[list[index.Product], np.ndarray]:
    from training.encoder import embed_images

    rows = index.products(DATASET)
    run.log(f"embedding the pictures of {len(rows)} products")
    embeddings = embed_images(encoder, DATASET / "images.parquet", [p.image_key for p in rows], run.stage)
    index.write(version, rows, embeddings)
    return rows, embeddings


def _write_backend(version: Path, encoder: DualEncoder, model_record: str, config: ExportConfig) -> None:
    """Everything the served version needs besides the index: towers, tokenizer, code and settings."""
    from serving import towers

    towers.write(version, encoder)
    encoder.tokenizer.save(str(version / "tokenizer.json"))
    shutil.copyfile(BACKENDS / "search.py", version / "model.py")
    shutil.copyfile(BACKENDS / "pixels.py", version / "pixels.py")
    settings = {
        "model_record": model_record, "image_size": list(encoder.config.image_size),
        "image_limits": asdict(DEFAULT_LIMITS), "max_text": config.max_text, "max_k": config.max_k,
        "default_k": DEFAULT_K, "threads": config.threads,
    }  # fmt: skip
    (version / "settings.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _write_golden(
    run: stage.Run, encoder: DualEncoder, rows: Sequence[index.Product], embeddings: np.ndarray, config: ExportConfig
) -> list[golden.Case]:
    cases = [
        golden.answer(encoder, rows, embeddings, config.golden_k, *given)
        for given in run.progress(golden.inputs(DATASET, config), what="golden inputs")
    ]
    golden.write(run.out / "golden", cases)
    run.table("What people type, answered offline", [_shown(case) for case in cases if case.case.startswith("phrase")])
    return cases


def _check_towers(
    run: stage.Run, version: Path, encoder: DualEncoder, cases: Sequence[golden.Case], config: ExportConfig
) -> None:
    from serving import towers

    for name, found in towers.compare(version, encoder, cases).items():
        run.log(f"{name} tower: least cosine {found.cosine:.7f}, greatest difference {found.difference:.1e}")
        run.check(
            f"onnx_{name}_tower", _agrees(found, config), severity="critical", count=found.items,
            description=f"ONNX Runtime gives the PyTorch {name} embeddings (least cosine {config.cosine}).",
            cosine=round(found.cosine, 7), difference=float(f"{found.difference:.2g}"),
        )  # fmt: skip


def _agrees(found: Agreement, config: ExportConfig) -> bool:
    return found.cosine >= config.cosine


def _shown(case: golden.Case) -> dict[str, Any]:
    return {"query": case.text, **{f"hit {i}": title for i, title in enumerate(case.titles[:3], start=1)}}


def _sizes(version: Path) -> dict[str, float]:
    return {p.name: round(p.stat().st_size / 1e6, 2) for p in sorted(version.iterdir()) if p.stat().st_size > 50_000}


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", help="which trained model to export (a folder of store/models)")


if __name__ == "__main__":
    raise SystemExit(main())
