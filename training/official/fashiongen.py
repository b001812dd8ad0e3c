"""FashionGen's products: photos, text, category and sub-category, from FashionViL's JSON or the data set's own files.

Text is title and description, joined by a full stop. Classes have numbers in the JSON and names in the other files.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from data.params import UserError
from training.official.contract import File
from training.official.fashiongen_h5 import rows
from training.official.files import field, find, read_json

VALIDATION = "val_info.json", "fashiongen_256_256_validation.h5"
TRAIN = "train_info.json", "fashiongen_256_256_train.h5"
PICTURES = "fashiongen/images"
FILES = File(VALIDATION[0], instead=VALIDATION[1]), File(VALIDATION[1], needed=False)
TRAIN_FILES = tuple(File(path, needed=False) for path in TRAIN)
SOURCE = (
    f"{VALIDATION[0]} (and {TRAIN[0]}, to fit heads on) of FashionViL, github.com/BrandonHanx/mmf, or the data set's "
    f"own {VALIDATION[1]} (and {TRAIN[1]}), from its authors, for research that is not commercial."
)


@dataclasses.dataclass(frozen=True)
class Product:
    """`photos` are paths below the benchmarks folder."""

    name: str
    photos: tuple[str, ...]
    text: str
    category: str
    subcategory: str


def products(folder: Path, files: tuple[str, str] = VALIDATION) -> list[Product]:
    """The products of the JSON, else of the HDF5 file, in its order. Raises `UserError` that names the entry."""
    path, own = files
    if find(folder, path) is None and find(folder, own):
        return _of_rows(folder, own)
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
    return products(folder, TRAIN) if any(find(folder, path) for path in TRAIN) else None


def _of_rows(folder: Path, path: str) -> list[Product]:
    """A product's photos are its rows; of its text and classes the first row tells."""
    found: dict[str, Product] = {}
    for row in rows(folder / path):
        shown = f"{folder.name}/{path}#{row.place}"
        if known := found.get(row.product):
            found[row.product] = dataclasses.replace(known, photos=(*known.photos, shown))
        else:
            text = f"{row.name}.{row.description}"
            found[row.product] = Product(row.product, (shown,), text, row.category, row.subcategory)
    return list(found.values())


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
