"""Fills by a masked language model: a tiny BERT with random weights, made here."""

from __future__ import annotations

from pathlib import Path

import pytest
from catalogs import product

from data.negatives.captions import Product
from data.negatives.generate import Generator
from data.negatives.judges import Judges
from data.negatives.masked import MaskedFills
from data.params import UserError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "navy", "black", "blue", "green", "men", "women", "xyz"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("bert")
    (place / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    transformers.BertForMaskedLM(config).save_pretrained(place)
    transformers.BertTokenizer(str(place / "vocab.txt")).save_pretrained(place)
    return place


def made(folder: Path | None) -> tuple[set[str], Generator]:
    row = product(title="Puma Men Navy Shirt", base_colour="Navy Blue", article_type="Shirts", derived_caption=None)
    masked = MaskedFills(folder) if folder else None
    generator = Generator([Product.of(row)], ["r0"], seed=1, candidates=4, judges=Judges(masked=masked))
    ((_, _, found),) = generator.negatives(Product.of(row))
    return {made.replacement for edits in found.values() for made in edits}, generator


def test_fills_are_known_words_that_exclude_the_captions_own(folder: Path) -> None:
    """One caption teaches no other word, so whatever is made comes from the model: never blue beside navy, nor xyz."""
    assert made(None)[0] == set()
    words, generator = made(folder)
    assert words == {"Red", "Black", "Green", "Women"}
    assert generator.tally["title", "colour"]["kept"] == 3
    assert made(folder)[0] == words


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no masked language model"):
        MaskedFills(tmp_path)
