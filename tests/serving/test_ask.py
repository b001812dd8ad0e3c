"""Asking the live endpoint: the champion answers, the picture shows it, and mistakes get one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageFont

from data.params import UserError
from serving import ask, grid, registry
from serving.triton import Triton, TritonError
from tests.serving import tiny


def test_an_answer_with_its_picture(loaded: Triton) -> None:
    found = ask.ask("red shirt", k=7)
    assert (found.version, found.record, found.match) == (1, tiny.model_of("clip"), None)
    assert len(found.hits) == 7
    assert [h.score for h in found.hits] == sorted((h.score for h in found.hits), reverse=True)
    with Image.open(found.picture) as picture:
        assert picture.width == 2 * grid.MARGIN + 5 * grid.CARD[0] + 4 * grid.GAP
        assert picture.height > 2 * grid.CARD[1]
        row = picture.convert("RGB").getpixel((grid.MARGIN + grid.CARD[0] // 2, 104 + grid.CARD[1] // 2))
    first = next(colour for name, colour in tiny.COLOURS.items() if name in found.hits[0].title)
    assert isinstance(row, tuple)
    assert all(abs(a - b) < 60 for a, b in zip(row, first, strict=True)), (
        "the first card does not show the first product"
    )
    assert ask.ask("red shirt", k=7).picture == found.picture


def test_asking_with_a_picture_file_and_with_both(loaded: Triton, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(tiny.picture(tiny.COLOURS["Blue"], 6))
    alone, both = ask.ask(image=path, k=3), ask.ask("blue dress", image=path, k=3)
    assert alone.match is None
    assert both.match is not None
    assert -1 <= both.match <= 1
    assert alone.picture != both.picture


def test_a_product_that_left_the_dataset_is_named_without_its_photo(loaded: Triton) -> None:
    images = Path("store/dataset/images.parquet")
    images.rename(images.with_suffix(".away"))
    try:
        assert len(ask.ask("green bag", k=2).hits) == 2
    finally:
        images.with_suffix(".away").rename(images)


def test_a_version_that_was_just_unloaded_is_looked_up_again(loaded: Triton, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = iter([9, 9, 1])
    monkeypatch.setattr(registry, "champion", lambda _: next(versions))
    assert ask.ask("red shirt", k=1).version == 1


def test_a_version_that_stays_away_is_an_error(loaded: Triton, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "champion", lambda _: 9)
    with pytest.raises(TritonError, match="version 9"):
        ask.ask("red shirt", k=1)


def test_mistakes_are_told(loaded: Triton, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"nowhere.jpg: cannot be read"):
        ask.ask(image=Path("nowhere.jpg"))
    with pytest.raises(UserError, match="neither"):
        ask.ask()
    monkeypatch.setattr(registry, "champion", lambda _: None)
    with pytest.raises(UserError, match=r"nothing is live at search.*promote"):
        ask.ask("red shirt")


def test_long_words_fit_their_card() -> None:
    font = grid._font(15)
    assert isinstance(font, ImageFont.FreeTypeFont)
    for text in ("short", "a title that needs two lines to fit", "word " * 40, "x" * 200, ""):
        lines = grid._wrapped(text, font, 210, lines=2)
        assert len(lines) <= 2
        assert all(font.getlength(line) <= 210 for line in lines)
    assert grid._wrapped("a b", font, 210, lines=2) == ["a b"]
    assert grid._wrapped("word " * 40, font, 210, lines=2)[-1].endswith("…")
