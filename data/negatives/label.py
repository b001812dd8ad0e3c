"""`fittingroom label`: open the labelling page on what the last audit judged."""

from __future__ import annotations

import getpass
from pathlib import Path

import pyarrow.parquet as pq

from data.negatives.audit import AuditConfig
from data.negatives.label_page import Labelling, make_server
from data.negatives.labels import queue
from data.params import UserError, section
from data.pictures import load_photos
from data.stage import log

DATASET = Path("store/dataset")


def label(folder: Path, *, count: int, who: str | None = None, port: int = 0) -> int:
    """Serve the page until Ctrl-C. Raises `UserError` where there is nothing to label.

    Args:
        folder: an output with an `audit.parquet` (the negatives, or the suites).
        count: how many negatives to show.
        who: the name to save labels under; the user's if None.
        port: of 127.0.0.1; 0 takes a free one.
    """
    if count < 1:
        raise UserError("--count must be at least 1.")
    session = open_session(folder, count, who or getpass.getuser())
    try:
        server = make_server(session, port)
    except (OSError, OverflowError) as error:
        raise UserError(f"port {port}: {error}. Choose another, or leave --port out.") from None
    log(f"label {len(session)} negatives as {session.who}, {session.done} done: http://127.0.0.1:{server.server_port}")
    log("keys: t true, f false, u unsure, left arrow back; Ctrl-C ends")
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            log(f"{session.done} of {len(session)} labelled, in {session.path}")
    return 0


def open_session(folder: Path, count: int, who: str) -> Labelling:
    """The negatives to show and their photos, from an output and the dataset that it was made of."""
    config = section(AuditConfig, "negatives.audit")
    audit = folder / "audit.parquet"
    for path in (audit, DATASET / "products.parquet"):
        if not path.is_file():
            raise UserError(f"{path}: not found. Run `dvc repro negatives` first.")
    items = queue(pq.read_table(audit).to_pylist(), count, config.seed)
    products = pq.read_table(DATASET / "products.parquet", columns=["row_id", "image_key"]).to_pylist()
    keys = {row["row_id"]: row["image_key"] for row in products}
    missing = [row["row_id"] for row in items if row["row_id"] not in keys]
    if missing:
        raise UserError(f"{audit}: row {missing[0]} is not in {DATASET}. Run `dvc repro negatives` again.")
    photos = load_photos(DATASET / "images.parquet", {keys[row["row_id"]] for row in items})
    return Labelling(items, {row["row_id"]: photos[keys[row["row_id"]]] for row in items}, Path(config.labels), who)
