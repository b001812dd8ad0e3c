"""The labelling page in a real browser: keys, buttons, going back, going on later, and what is on disk then."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from data.negatives.audit import key_of
from data.negatives.label_page import Labelling, make_server
from data.negatives.labels import read_labels

MARKUP = "Acme <img src=x onerror=alert(1)> Tee"
ITEMS = [
    {"row_id": f"r{n}", "caption": f"Acme Men Tee {n}", "negative": text, "edit": "colour"}
    for n, text in enumerate(("Acme Men Red Tee", MARKUP, "Acme Women Tee", "Acme Top"))
]


def photo(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (60, 80), colour).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.jsonl"


@pytest.fixture
def address(path: Path) -> Iterator[str]:
    photos = {row["row_id"]: photo(colour) for row, colour in zip(ITEMS, ("red", "green", "blue", "grey"), strict=True)}
    server = make_server(Labelling(ITEMS, photos, path, "ann"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_labels_by_keys_and_buttons_are_on_disk_and_can_be_taken_back(browser: Page, address: str, path: Path) -> None:
    trouble: list[str] = []
    browser.on("pageerror", lambda error: trouble.append(str(error)))
    browser.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
    browser.goto(address)
    expect(browser.locator("#negative")).to_have_text("Acme Men Red Tee")
    expect(browser.locator("#count")).to_have_text("0 of 4")
    assert browser.locator("#photo").evaluate("image => image.decode().then(() => image.naturalWidth)") == 60
    browser.keyboard.press("f")
    expect(browser.locator("#negative")).to_have_text(MARKUP)  # text, not markup
    browser.get_by_role("button", name="unsure").click()
    expect(browser.locator("#count")).to_have_text("2 of 4")
    browser.keyboard.press("ArrowLeft")
    expect(browser.locator("#unsure")).to_have_attribute("aria-pressed", "true")
    browser.keyboard.press("t")
    expect(browser.locator("#negative")).to_have_text("Acme Women Tee")
    assert [(label.key, label.label) for label in read_labels(path)] == [
        (key_of(ITEMS[0]), "false"), (key_of(ITEMS[1]), "unsure"), (key_of(ITEMS[1]), "true"),
    ]  # fmt: skip
    browser.reload()
    expect(browser.locator("#negative")).to_have_text("Acme Women Tee")  # goes on where it was left
    browser.keyboard.press("f")
    expect(browser.locator("#negative")).to_have_text("Acme Top")
    browser.keyboard.press("u")
    expect(browser.locator("#end")).to_be_visible()
    expect(browser.locator("#work")).to_be_hidden()
    assert not trouble


def test_a_label_that_was_not_saved_is_asked_for_again(browser: Page, address: str, path: Path) -> None:
    browser.goto(address)
    path.mkdir()
    browser.keyboard.press("t")
    expect(browser.get_by_role("alert")).to_contain_text("Not saved")
    expect(browser.locator("#negative")).to_have_text("Acme Men Red Tee")
    path.rmdir()
    browser.keyboard.press("t")
    expect(browser.locator("#count")).to_have_text("1 of 4")
    assert [label.label for label in read_labels(path)] == ["true"]
