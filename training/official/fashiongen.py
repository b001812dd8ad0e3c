"""FashionGen's products from FashionViL's `{train,val}_info.json`: photos, text, category and sub-category."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from data.params import UserError
from training.official.contract import File
from training.official.files import field, find, read_json

VALIDATION, TRAIN = "val_info.json", "train_info.json"
PICTURES = "fashiongen/images"
FILES = File(VALIDATION), File(TRAIN, needed=False)
SOURCE = (
    f"{VALIDATION} (and {TRAIN}, to fit heads on) of FashionViL, github.com/BrandonHanx/mmf; the data set itself is "
    "given by its authors, for research that is not commercial."
)


@dataclasses.dataclass(frozen=True)
class Product:
    """`photos` are paths below the benchmarks folder; `text` is title and description; classes go by their number."""

    name: str
    photos: tuple[str, ...]
    text: str
    category: str
    subcategory: str


def products(folder: Path, path: str = VALIDATION) -> list[Product]:
    """The products of a file, in its order. Raises `UserError` that names the entry."""
    entries = read_json(folder, path)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{folder / path}: is no list of products. Fetch the official file again.")
    found = [_product(entry, f"{folder / path}: entry {number}") for number, entry in enumerate(entries)]
    names: set[str] = set()
    photos: set[str] = set()
    for number, product in enumerate(found):
        if product.name in names or not photos.isdisjoint(product.photos):
            what = "product" if product.name in names else "photo"
            raise UserError(
                f"{folder / path}: entry {number}: {what} of {product.name} occurs twice. Fetch the file again."
            )
        names.add(product.name)
        photos.update(product.photos)
    return found


def training_products(folder: Path) -> list[Product] | None:
    """Those of the training part, None where it is not installed."""
    return products(folder, TRAIN) if find(folder, TRAIN) else None


def _product(entry: object, where: str) -> Product:
    photos = field(entry, "images", list, where)
    if not photos or not all(isinstance(photo, str) and photo for photo in photos):
        raise UserError(f"{where}: field `images` names no photo, or one by nothing. Fetch the official file again.")
    title, description = field(entry, "title", str, where), field(entry, "description", str, where)
    return Product(
        str(field(entry, "id", (int, str), where)),
        tuple(f"{PICTURES}/{photo}" for photo in photos),
        f"{title}.{description}",
        str(field(entry, "category_id", int, where)),
        str(field(entry, "subcategory_id", int, where)),
    )
