"""WebDataset tars that are a whole drop: `000001.jpg` beside `000001.json`, which holds the row itself.

A sample's files share their name up to the first point after the last slash (its key), as WebDataset has it. Keys may
repeat from tar to tar. A sample whose row gives no id is called by its key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from data import drop_images
from data.drop_images import Pictures, Place
from data.drop_sources import Columns, Part
from data.hostile import MAX_FIELD
from data.mapping import CatalogMapping
from data.params import UserError

JSON = ".json"
IMAGES = (".jpg", ".jpeg", ".png", ".webp")


class _Samples(Pictures):
    """The members of one tar by key and suffix."""

    def __init__(self) -> None:
        super().__init__()
        self.members: dict[str, dict[str, Place]] = {}

    def add_path(self, path: str, place: Place, where: str) -> None:
        stem, _, suffix = PurePosixPath(path).name.partition(".")
        members = self.members.setdefault(str(PurePosixPath(path).with_name(stem)) if stem else path, {})
        kind = f".{suffix.lower()}"
        kind = IMAGES[0] if kind in IMAGES else kind
        if kind in members:
            raise UserError(f"{where}: the sample has two such members; keep one of them.")
        members[kind] = place


def read_tars(
    tars: Sequence[Path], names: Mapping[Path, str], mapping: CatalogMapping
) -> tuple[list[Part], list[Place | None]]:
    """The samples of every tar in turn, each tar as a part of the table, and where their pictures are.

    Tars without a json member have no part. Raises `UserError` for an unsafe tar or a member that is no JSON object.
    """
    parts: list[Part] = []
    places: list[Place | None] = []
    for tar in tars:
        found = _Samples()
        drop_images.add_tar(found, tar, names[tar])
        samples = {key: members for key, members in found.members.items() if JSON in members}
        if not samples:
            continue
        columns = Columns(names[tar], mapping)
        for number, (key, members) in enumerate(samples.items(), start=1):
            where = f"{names[tar]}:{key}{JSON}"
            if members[JSON].size > MAX_FIELD:
                raise UserError(f"{where}: {members[JSON].size:,} bytes, more than {MAX_FIELD:,}; that is no row.")
            columns.add_json(number, members[JSON].read(), where, key=PurePosixPath(key).name)
            places.append(members.get(IMAGES[0]))
        parts.append(columns.part())
    return parts, places
