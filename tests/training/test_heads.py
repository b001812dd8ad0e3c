"""Heads on fused models: their stack is the method's own pass, pairs of layers, saving, the pre-step, learning."""

from __future__ import annotations

import collections
import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.params import UserError
from tests.training import small_simla, sync_tiny
from tests.training.official.fixture_statements import FIXTURES, NAMES, write_nlvr, write_nlvr2, write_snli_ve
from training import trainer
from training.benchmarks import nlvr, nlvr2, snli_ve
from training.config import TrainerConfig
from training.encoder import DualEncoder
from training.fused.heads.assignment import FIRST, NEITHER, SECOND, Assignment, assign
from training.fused.heads.begin import frozen
from training.fused.heads.examples import Examples, ExampleSource, Shelf, answer
from training.fused.heads.head import Head
from training.fused.heads.recipes import RECIPES, Tuning
from training.fused.heads.stack import regrid, stack_of
from training.fused.multimodal import read_texts
from training.fused.single_stream import read_words
from training.methods.simla import Simla
from training.official.contract import Picture
from training.task import Task
from training.towers import padding_bias

SHARED = Path(os.environ.get("FITTINGROOM_SHARED", Path(__file__).parents[3] / "shared")) / "data/benchmarks"
WORDS = [*small_simla.SPECIALS, *NAMES, "there", "is", "a", "box", "both", "images", "show"]
TRAINER = {"batch": 16, "lr": 2e-3, "warmup": 5, "crop": 1.0, "precision": "fp32", "threads": 1, "weight_decay": 0.0}


def head(method: Task, pictures: Any = 1, kind: type[Head] = Head, **changes: Any) -> Head:
    encoder, stack = stack_of(method, pictures)
    classes = ("false", "true") if pictures == 1 else ("False", "True")
    settings = {"task": "nlvr", "method": "simla", "classes": classes, "shape": stack.shape} | changes
    made = kind(Head.Config(**settings), encoder, stack)
    made.begin()
    return made


def bare(layers: int) -> Simla:
    """A SIMLA whose text half has so many layers."""
    encoder: DualEncoder = small_simla.encoder()
    text = dataclasses.replace(
        encoder.config.text, shape={**encoder.config.text.shape, "num_hidden_layers": layers}
    )  # fmt: skip
    return Simla(
        Simla.Config(queue=16, codes=24), DualEncoder(dataclasses.replace(encoder.config, text=text), encoder.tokenizer)
    )


@torch.no_grad()
def test_one_picture_is_read_as_in_simla() -> None:
    method, batch = small_simla.task().eval(), small_simla.batch()
    encoder, stack = stack_of(method, 1)
    caption, seen = batch["caption"], encoder.image.trunk.tokens(batch["image"])
    words = encoder.text.trunk.look_up(caption.ids)
    expected, _ = read_words(method.student, words, caption.mask, method.fusion.project(seen))
    torch.testing.assert_close(stack(encoder.text.trunk, caption, [seen]), expected[:, 0])


@torch.no_grad()
def test_one_picture_is_read_as_in_syncmask() -> None:
    method = sync_tiny.task().eval()
    batch = sync_tiny.some(method)
    encoder, stack = stack_of(method, 1)
    tokens, seen = batch["caption"], encoder.image.trunk.tokens(batch["image"])
    text = method.encoder.text.trunk
    below = read_texts(text, text.look_up(tokens.ids), tokens.mask)
    expected, _ = method.fusion(below, padding_bias(tokens.mask, below.dtype), method.fusion.project(seen))
    torch.testing.assert_close(stack(encoder.text.trunk, tokens, [seen]), expected[:, 0])


def test_twelve_layers_become_eighteen() -> None:
    """Six layers read the pictures in turn, six pairs above them share keys and values [SIMLA's and ALBEF's code]."""
    encoder, stack = stack_of(bare(12), 2)
    assert (len(encoder.text.trunk.layers), len(stack.layers), len(stack.crosses)) == (6, 12, 18)
    readings = stack.readings()
    assert [picture for picture, _ in readings] == [0, 1] * 9
    assert [owner for _, owner in readings] == [*range(6), 6, 6, 8, 8, 10, 10, 12, 12, 14, 14, 16, 16]
    assert [cross.key_value is None for cross in stack.crosses] == [False] * 6 + [False, True] * 6


def test_syncmask_reads_pairs_above_its_text_layers() -> None:
    encoder, stack = stack_of(sync_tiny.task(), 2)
    assert (len(encoder.text.trunk.layers), len(stack.layers), len(stack.crosses)) == (2, 4, 4)
    assert stack.readings() == [(0, 0), (1, 0), (0, 2), (1, 2)]


@torch.no_grad()
def test_a_pair_starts_with_equal_halves_and_tells_left_from_right() -> None:
    encoder, stack = stack_of(small_simla.task(), 2)
    for name, value in stack.layers[0].state_dict().items():
        assert torch.equal(value, stack.layers[1].state_dict()[name])
    batch = small_simla.batch()
    seen = encoder.image.trunk.tokens(batch["image"])
    others = seen[[1, 0, 3, 2]]
    one, other = (stack(encoder.text.trunk, batch["caption"], pair) for pair in ([seen, others], [others, seen]))
    assert (one - other).abs().max() > 1e-3


def test_the_model_stays_as_it_was() -> None:
    """A head learns in copies: the method's own weights are another model's."""
    method = small_simla.task()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    made = head(method, 2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(1)
    after = method.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_method_without_fusion_takes_no_head() -> None:
    class Plain(Task):
        pass

    with pytest.raises(UserError, match="has no fused layers"):
        stack_of(Plain(None, small_simla.encoder()), 1)


@pytest.mark.parametrize("pictures", [1, 2])
@pytest.mark.parametrize("classifier", ["relu", "norm", "linear"])
def test_a_saved_head_answers_the_same(pictures: Any, classifier: Any, tmp_path: Path) -> None:
    FIXTURES["nlvr"](tmp_path)
    shown = [Picture(path[0]) for path in nlvr.load(tmp_path / "nlvr")["pictures"].to_pylist()[:6]]
    made = head(small_simla.task(WORDS), pictures, classifier=classifier).eval()
    regrid(made.encoder, (2, 6), 10)
    made.save(tmp_path / "head")
    again = Head.load(tmp_path / "head")
    rows, texts = [(picture,) * pictures for picture in shown], ["there is a red box"] * 6
    found = [answer(one, rows, texts, Shelf(tmp_path, one.encoder.config.image_size)) for one in (made, again)]
    assert again.config == made.config
    assert found[0].shape == (6, 2)
    np.testing.assert_array_equal(*found)


def test_weights_of_another_head_are_refused(tmp_path: Path) -> None:
    head(small_simla.task(), 1).save(tmp_path / "one")
    with pytest.raises(UserError, match="not of this version of the head"):
        head(small_simla.task(), 2).take_weights(tmp_path / "one")


def test_soft_targets_need_a_teacher_that_never_learns() -> None:
    made = head(small_simla.task(), alpha=0.4, momentum=0.5)
    batch = small_simla.batch()
    batch |= {"image": batch["image"][:, None], "label": torch.tensor([0, 1, 0, 1])}
    made.before_step(0, 0.5)
    assert made.alpha == pytest.approx(0.2)
    made.training_step(batch, 0)["loss"].backward()
    assert made.teacher is not None
    assert not list(made.teacher.parameters())
    bias = made.classifier[0].bias
    with torch.no_grad():
        bias.add_(1)
    old = made.teacher.parts["classifier"][0].bias.clone()
    made.before_step(1, 2.0)
    assert made.alpha == 0.4
    torch.testing.assert_close(made.teacher.parts["classifier"][0].bias, (old + bias) / 2)


def test_without_ramp_the_teacher_counts_from_the_start() -> None:
    made = head(small_simla.task(), alpha=0.4, ramp=False)
    made.before_step(0, 0.0)
    assert made.alpha == 0.4


def test_captions_are_assigned_in_thirds() -> None:
    """A third of the rows has neither picture; the caption's own stands left and right alike; never a wrong label."""
    chance, counts = torch.Generator().manual_seed(0), torch.zeros(3)
    likeness = torch.nn.functional.normalize(torch.randn(8, 4, generator=chance), dim=1)
    own = torch.arange(8)
    for _ in range(500):
        left, right, label = assign(likeness, chance)
        assert torch.equal((left == own), label == FIRST)
        assert torch.equal((right == own), label == SECOND)
        assert bool((left != right).all())
        counts += torch.bincount(label, minlength=3)
    expected = torch.full((3,), 4000 / 3)
    assert bool(((counts - expected).abs() < 4 * (4000 * 2 / 9) ** 0.5).all()), counts
    assert bool((assign(torch.ones(3, 2) / 2**0.5, chance)[2] <= NEITHER).all())


def test_assignment_sends_gradients_everywhere() -> None:
    made = head(small_simla.task(), 2, Assignment, classes=("first", "second", "neither"), classifier="linear")
    made.training_step(small_simla.batch(), 0)["loss"].backward()
    learnt = {name for name, value in made.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0}
    assert {"classifier.weight", "stack.crosses.0.key_value.weight", "stack.layers.1.up.weight"} <= learnt
    assert "encoder.image.trunk.patch_embed.proj.weight" in learnt
    assert not any("head." in name or "logit_scale" in name for name in learnt)


def test_only_the_last_blocks_learn() -> None:
    made = head(small_simla.task())
    tuning = Tuning(trainer=TrainerConfig(frozen=("text.trunk.words",)), image_blocks=1)
    trainer.freeze(made, frozen(made, tuning))
    learning = {name for name, value in made.named_parameters() if value.requires_grad}
    assert any("image.trunk.blocks.1." in name for name in learning)
    assert not any("blocks.0." in name or "patch_embed" in name or "trunk.words" in name for name in learning)


def test_paper_recipes() -> None:
    """methods/simla.md §7, and SIMLA's configs for what it leaves out."""
    snli, nlvr2_, before = (RECIPES[name].paper for name in ("snli_ve", "nlvr2", "text_assignment"))
    assert (snli.trainer.epochs, snli.trainer.lr, snli.grid, snli.ramp) == (5, 2e-5, (24, 24), False)
    assert (nlvr2_.trainer.epochs, nlvr2_.trainer.lr, nlvr2_.after, nlvr2_.alpha) == (10, 2e-5, "text_assignment", 0.4)
    assert (before.trainer.epochs, before.trainer.lr_end, before.grid) == (1, 1e-5, None)
    assert RECIPES["snli_ve"].classes == ("contradiction", "neutral", "entailment")
    assert RECIPES["fashiongen_category"].classifier == "norm"


def learn(method: Task, part: Any, root: Path, pictures: Any, grid: tuple[int, int], epochs: int) -> float:
    """Share of new scenes judged rightly after fine-tuning on others."""
    made = head(method, pictures, classes=part.CLASSES)
    regrid(made.encoder, grid, 12)
    items, name = part.fit_items(root / part.NAME), f"heads-{part.NAME}-{pictures}"
    config = TrainerConfig(epochs=epochs, **TRAINER)  # type: ignore[arg-type]
    torch.manual_seed(0)
    source = ExampleSource(Examples.of(items, part.CLASSES), made.encoder, config, root)
    trainer.fit(made, source, config, name=name, binding="0" * 64)
    asked = Examples.of(part.load(root / part.NAME), part.CLASSES)
    found = answer(made, asked.pictures, asked.texts, Shelf(root, made.encoder.config.image_size))
    return float((found.argmax(1) == asked.labels).mean())


def test_a_head_learns_statements_about_one_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is a colour in one of three boxes? The sentence alone says nothing: half its pictures have it."""
    monkeypatch.chdir(tmp_path)
    write_nlvr(tmp_path, "train", 320, 11)
    write_nlvr(tmp_path, "dev", 200, 12)
    assert learn(small_simla.task(WORDS), nlvr, tmp_path, 1, (1, 3), 12) > 0.75


@pytest.mark.slow
def test_a_head_learns_three_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no picture tells is heard from the words; whether a colour is named rightly is not: blind, two thirds."""
    monkeypatch.chdir(tmp_path)
    for split, count, seed in (("train", 300, 21), ("dev", 90, 22), ("test", 90, 23)):
        write_snli_ve(tmp_path, split, count, seed)
    assert learn(small_simla.task([*WORDS, "for", "friend"]), snli_ve, tmp_path, 1, (1, 1), 40) > 0.85


@pytest.mark.slow
def test_a_head_learns_statements_about_two_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is a colour in both pictures, or in the left one only? The right picture must be read."""
    monkeypatch.chdir(tmp_path)
    write_nlvr2(tmp_path, "train", 320, 11)
    write_nlvr2(tmp_path, "dev", 200, 12)
    assert learn(small_simla.task(WORDS), nlvr2, tmp_path, 2, (1, 1), 30) > 0.75


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED}: not on this machine (FITTINGROOM_SHARED says where it is)")
def test_real_statements_are_learnt_by_their_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 human statements of NLVR are fitted. Of one sentence's pictures some are true and some false, so that whoever
    does not look gets the commonest label of each sentence at best: that is what must be beaten."""
    monkeypatch.chdir(tmp_path)
    items = nlvr.load(SHARED / "nlvr").sort_by("item_id").slice(0, 64)
    texts, labels = items["text"].to_pylist(), items["label"].to_pylist()
    counts = collections.Counter(zip(texts, labels, strict=True))
    blind = sum(max(counts[text, label] for label in nlvr.CLASSES) for text in set(texts)) / len(texts)
    words = sorted({word for text in texts for word in text.split()})
    made = head(small_simla.task([*small_simla.SPECIALS, *words]))
    regrid(made.encoder, (4, 16), 25)
    config = TrainerConfig(**TRAINER | {"epochs": 100, "lr": 1e-3, "clip": 1.0})  # type: ignore[arg-type]
    examples = Examples.of(items, nlvr.CLASSES)
    source = ExampleSource(examples, made.encoder, config, SHARED)
    trainer.fit(made, source, config, name="heads-real", binding="0" * 64)
    found = answer(made, examples.pictures, texts, source.shelf)
    assert blind < 0.7
    assert (found.argmax(1) == examples.labels).mean() > 0.9


def test_an_absent_picture_is_grey(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, (8, 8))
    assert shelf.take([(None,), (None,)]).unique().tolist() == [127]


def test_an_unknown_label_is_named() -> None:
    import pyarrow as pa

    items = pa.table({"item_id": ["a"], "pictures": [["x.png"]], "text": ["t"], "label": ["maybe"]})
    with pytest.raises(UserError, match="a: label `maybe` is none of no, yes"):
        Examples.of(items, ("no", "yes"))


def test_texts_are_cut_at_the_limit_of_the_head() -> None:
    made = head(small_simla.task(WORDS))
    regrid(made.encoder, (4, 4), 5)
    assert made.encoder.tokenize(["there is a red box there is a blue box"])[0].shape == (1, 5)
