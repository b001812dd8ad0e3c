"""Caption templates: a missing value takes its words along, wherever it stands."""

from __future__ import annotations

import itertools

import pytest

from data import caption

FASHION = "{colour} {article} for {wearer}, {usage} wear"
BRACKETS = "{a} ({b}) from {c}, made by {d}; {e} years old."


@pytest.mark.parametrize(("template", "values", "said"), [
    (FASHION, "colour article wearer usage", "COLOUR ARTICLE for WEARER, USAGE wear"),
    (FASHION, "article wearer usage", "ARTICLE for WEARER, USAGE wear"),
    (FASHION, "colour wearer usage", "COLOUR for WEARER, USAGE wear"),
    (FASHION, "colour article usage", "COLOUR ARTICLE, USAGE wear"),
    (FASHION, "colour article wearer", "COLOUR ARTICLE for WEARER"),
    (FASHION, "usage", "USAGE wear"),
    (FASHION, "", ""),
    (BRACKETS, "a b c d e", "A (B) from C, made by D; E years old."),
    (BRACKETS, "a c", "A from C"),
    (BRACKETS, "a d", "A, made by D"),
    (BRACKETS, "b e", "(B); E years old."),
    ("{a}{b}", "b", "B"),
    ("a photo of {a}", "a", "a photo of A"),
    ("{a}, {a}", "a", "A, A"),
])  # fmt: skip
def test_what_is_missing_takes_its_words_along(template: str, values: str, said: str) -> None:
    assert caption.render(template, {name: name.upper() for name in values.split()}.get) == said


@pytest.mark.parametrize("template", [FASHION, BRACKETS])
def test_every_choice_of_values_reads_cleanly(template: str) -> None:
    names = [part.name for part in caption.parts(template)]
    for given in itertools.product([None, "x"], repeat=len(names)):
        said = caption.render(template, dict(zip(names, given, strict=True)).get)
        assert said.count("x") == sum(value is not None for value in given)
        assert said == said.strip(" ,;:")
        assert not {"  ", " ,"} & {said[i : i + 2] for i in range(len(said))}
        assert said.count("(") == said.count(")")


@pytest.mark.parametrize("template", ["", "words", "{", "}", "{}", "{a.b}", "{a!r}", "{a:>3}", "{0}", "{{a}}", "{a b}"])
def test_what_is_no_template_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"column|brace|[Ss]ingle|expected"):
        caption.parts(template)
