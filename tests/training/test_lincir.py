"""LinCIR against its specification's numbers, each beside the wrong reading that gives another number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.keywords import Keyword
from tests.training.lincir_builders import (
    MeanToy,
    bert_encoder,
    captions,
    clip_encoder,
    lincir,
    source,
    tokenised,
    train,
)  # fmt: skip
from training.composing.captions import cached_targets, fingerprint
from training.composing.pseudo_words import MarkedTexts, features, pseudo_id
from training.composing.questions import average_precision, hits, merged
from training.encoder import DualEncoder
from training.methods.lincir import LinCir, Phi, noise, smp
from training.ranking import ranks_without_own as ranks
from training.steps import backward
from training.task import Tokens
from training.trainer import make_optimiser

CAT = "gray cat sleeps on a pillow"


@pytest.fixture(scope="module")
def clip() -> DualEncoder:
    return clip_encoder()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the test's own for the target cache."""
    monkeypatch.chdir(tmp_path)


def near(tensor: Tensor, expected: Any, atol: float = 1e-6) -> None:
    torch.testing.assert_close(tensor, torch.as_tensor(expected, dtype=tensor.dtype), atol=atol, rtol=0)


# --- 1: ids of masked captions ----------------------------------------------------------------------------------------


def test_golden_ids(clip: DualEncoder) -> None:
    assert pseudo_id(clip.tokenizer) == 259
    assert clip.tokenize([CAT])[0].tolist() == [[49406, 7048, 2368, 16610, 525, 320, 12182, 49407]]
    marked = MarkedTexts(clip)
    assert marked.encode(["[$] sleeps on [$]"]) == [[49406, 259, 16610, 525, 259, 49407]]
    official, offsets = marked.encode(["[$] very nice c[$]t", "[$] very [$]"])
    assert official.count(259) == 2
    assert offsets == [49406, 259, 1070, 259, 49407]
    assert max(official + offsets) == 49407  # the mark's own id, 49408, would lie above the end-of-text id


def test_a_pseudo_word_that_is_cut_off_gives_way_to_a_photo(clip: DualEncoder) -> None:
    long = " ".join(["very"] * 80)
    assert MarkedTexts(clip).encode([f"{long} [$]"]) == [[49406, 320, 1125, 539, 259, 49407]]
    assert MarkedTexts(clip).encode([f"[$] {long}"])[0][:2] == [49406, 259]


def test_an_over_long_caption_is_cut_before_it_is_masked(clip: DualEncoder) -> None:
    long = " ".join(["very"] * 80) + " cat"
    found = tokenised(clip, [(long, [Keyword(len(long) - 3, len(long), "cat")]), (CAT, [Keyword(0, 8, "gray cat")])])
    assert found.texts.take(np.array([0])).ids.shape == (1, 77)
    assert found.random.tolist() == [0]
    ids = found.masked.take(np.array([0])).ids
    assert int((ids == 259).sum()) == 1
    assert ids.shape == (1, 77)


def test_random_words_are_drawn_anew_with_every_epoch() -> None:
    encoder = bert_encoder()
    rows = [("red blue green grey old new small large", []), *captions(15)]
    batches = source(lincir(encoder), rows, 40, batch=16)
    seen = []
    for step in range(batches.steps):
        (batch,) = batches.batches(step)
        row = batches.row_ids(step).index("0")
        seen.append(tuple(batch["masked"].ids[row].tolist()))
        assert batch["masked"].ids[row].tolist().count(pseudo_id(encoder.tokenizer)) == 1
    assert len(set(seen)) == 8
    again = source(lincir(encoder), rows, 40, batch=16)
    row = again.row_ids(23).index("0")
    assert tuple(again.batches(23)[0]["masked"].ids[row].tolist()) == seen[23]


# --- 2: the toy encoder -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("masked", "found", "loss", "gradient"),
    [
        ([0, 4, 2, 3], (0.25, 1.25), 0.3125, (-0.1875, 0.0625)),
        ([0, 4, 4, 3], (0.5, 0.5), 0.25, (-0.25, -0.25)),
    ],
)
def test_toy_encoder(masked: list[int], found: tuple[float, float], loss: float, gradient: tuple[float, float]) -> None:
    toy, mask = MeanToy(), torch.ones(1, 4, dtype=torch.int64)
    t = features(toy, 4, torch.tensor([[0, 1, 2, 3]]), mask, None)
    near(t, [[1.0, 1.0]])
    v = t.clone().requires_grad_()
    again = features(toy, 4, torch.tensor([masked]), mask, v)
    near(again, [found])
    value = smp(again, t)
    value.backward()
    assert value.item() == pytest.approx(loss)
    near(v.grad, [gradient])


# --- 3, 4: loss and noise ---------------------------------------------------------------------------------------------


def test_loss_is_the_mean_over_samples_and_coordinates() -> None:
    t = torch.tensor([[1.0, 2, 2, 0], [0, 3, 0, 4]])
    found = torch.tensor([[1.0, 1, 2, 1], [1, 3, 0, 2]])
    assert smp(found, t).item() == pytest.approx(0.875)
    assert ((found - t) ** 2).sum().item() / 2 == pytest.approx(3.5)
    assert smp(F.normalize(found, dim=1), F.normalize(t, dim=1)).item() == pytest.approx(0.052349, abs=1e-6)


def test_noise_has_one_scale_per_sample() -> None:
    drawn = noise(200_000, 8, torch.Generator().manual_seed(1))
    assert drawn.var().item() == pytest.approx(0.333, abs=0.005)
    assert ((drawn**4).mean() / (drawn**2).mean() ** 2).item() == pytest.approx(5.4, abs=0.2)
    assert (drawn[:, 0] ** 2 * drawn[:, 1] ** 2).mean().item() == pytest.approx(0.20, abs=0.01)
    near(noise(5, 8, torch.Generator().manual_seed(1)), noise(5, 8, torch.Generator().manual_seed(1)), 0)


def test_noise_reaches_phi_alone_and_falls_alike_however_the_batch_is_divided() -> None:
    task = lincir(bert_encoder(), dropout=0.0)
    (whole,) = source(task, captions(40), 1).batches(0)
    before = whole["target"].clone()
    outputs = task.encode(whole, 3)
    near(outputs["target"], before, 0)
    plain = lincir(task.encoder, dropout=0.0, noise=False)
    plain.phi = task.phi
    assert (plain.encode(whole, 3)["found"] - outputs["found"]).abs().max() > 0.01
    pieces = source(task, captions(40), 1, accumulate=4).batches(0)
    found = torch.cat([task.encode(piece, 3)["found"] for piece in pieces])
    near(found, outputs["found"].detach(), 1e-5)
    assert (task.encode(whole, 4)["found"] - outputs["found"]).abs().max() > 0.01


def test_micro_batches_give_the_gradient_of_the_batch() -> None:
    task = lincir(bert_encoder(), dropout=0.0)
    gradients = []
    for accumulate in (1, 4):
        task.zero_grad()
        backward(task, source(task, captions(40), 1, accumulate=accumulate).batches(0), 0)
        gradients.append([p.grad.clone() for p in task.phi.parameters()])
    for one, four in zip(*gradients, strict=True):
        near(four, one, 1e-6)


# --- 5: what learns ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recompute", [False, True])
def test_phi_alone_learns(recompute: bool) -> None:
    encoder = bert_encoder()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    task = lincir(encoder, recompute=recompute)
    start = {name: p.detach().clone() for name, p in task.phi.named_parameters()}
    batches = source(task, captions(40), 1, cached=not recompute)
    (batch,) = batches.batches(0)
    assert ("target" in batch, "caption" in batch) == (not recompute, recompute)
    outputs = task.encode(batch, 0)
    assert outputs["target"].grad_fn is None
    assert not outputs["target"].requires_grad
    optimiser = make_optimiser(task, batches.config)
    task.losses(outputs, 0)["loss"].backward()
    assert all(p.grad is None for p in encoder.parameters())
    optimiser.step()
    task.after_step()
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(bool((p != start[name]).any()) for name, p in task.phi.named_parameters())
    assert {id(p) for group in optimiser.param_groups for p in group["params"]} == set(map(id, task.phi.parameters()))
    assert not encoder.training
    assert task.phi.training


# --- 6: nothing behind a text's end counts ----------------------------------------------------------------------------


def embedded(task: LinCir, tokens: Tokens, v: Tensor, how: Callable[[LinCir, Tokens, Tensor], Tensor]) -> list[Tensor]:
    """Output and gradient of φ's vectors, by a random weighting of the coordinates."""
    leaf = v.clone().requires_grad_()
    found = how(task, tokens, leaf)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    (found * weights).sum().backward()
    assert leaf.grad is not None
    return [found.detach(), leaf.grad]


def padded(task: LinCir, tokens: Tokens, v: Tensor) -> Tensor:
    """The plain way: every text at full length, every position of every layer."""
    short = task.encoder.config.max_tokens - tokens.ids.shape[1]
    ids, mask = (F.pad(x, (0, short)) for x in (tokens.ids, tokens.mask))
    trunk = task.encoder.text.trunk
    words = trunk.look_up(ids)
    words = torch.where((ids == task.pseudo)[..., None], v[:, None], words)
    return task.encoder.text.head(trunk.pool(trunk.contextual(words, mask), mask))


def masked_texts(task: LinCir) -> Tokens:
    texts = ["[$] sleeps on [$]", "[$]", "a photo of [$] that is red", "a [$] and a cat and a dog and a [$] in a bag"]
    rows = MarkedTexts(task.encoder).encode(texts * 2)
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return Tokens(ids, mask)


@pytest.fixture(params=["clip", "bert"])
def any_task(request: pytest.FixtureRequest, clip: DualEncoder) -> LinCir:
    return lincir(clip if request.param == "clip" else bert_encoder())


def test_cut_and_bucketed_texts_equal_padded_ones(any_task: LinCir) -> None:
    tokens = masked_texts(any_task)
    v = torch.randn(8, any_task.word_width, generator=torch.Generator().manual_seed(1))
    plain = embedded(any_task, tokens, v, padded)
    fast = embedded(any_task, tokens, v, lambda task, t, x: task.embed(t, x))
    for expected, found in zip(plain, fast, strict=True):
        near(found, expected, 1e-5)
    noisy = Tokens(torch.where(tokens.mask > 0, tokens.ids, 5), tokens.mask)
    for expected, found in zip(fast, embedded(any_task, noisy, v, lambda task, t, x: task.embed(t, x)), strict=True):
        near(found, expected, 1e-6)


def test_texts_without_a_pseudo_word_are_the_encoders_own(any_task: LinCir) -> None:
    encoder = any_task.encoder
    ids, mask = encoder.tokenize(["a photo of a cat", "red shoe", "a cat in a bag that is old and grey"])
    v = torch.randn(3, any_task.word_width)
    with torch.no_grad():
        expected = encoder.encode_text(ids, mask)
        near(F.normalize(any_task.embed(Tokens(ids, mask), v), dim=1), expected, 1e-6)
        near(F.normalize(any_task.embed(Tokens(ids, mask)), dim=1), expected, 1e-6)


def test_every_text_gets_its_own_vector(any_task: LinCir) -> None:
    tokens = masked_texts(any_task)
    v = torch.randn(8, any_task.word_width)
    first = any_task.embed(tokens, v)
    for row in range(8):
        other = v.clone()
        other[row] = torch.randn(any_task.word_width)
        changed = (any_task.embed(tokens, other) - first).abs().amax(1) > 1e-6
        assert changed.tolist() == [place == row for place in range(8)]


def test_matrices_cast_once_give_the_same_bits(any_task: LinCir) -> None:
    tokens = masked_texts(any_task)
    v = torch.randn(8, any_task.word_width)
    any_task.precision = torch.bfloat16
    names = set(any_task.state_dict())
    fast = any_task.embed(tokens, v)
    assert set(any_task.state_dict()) == names
    any_task.trunk = lambda: any_task.encoder.text.trunk  # type: ignore[method-assign]
    assert torch.equal(fast, any_task.embed(tokens, v))
    any_task.precision = torch.float32
    assert not torch.equal(fast, any_task.embed(tokens, v))


# --- 7: φ -------------------------------------------------------------------------------------------------------------


def test_shape_of_phi() -> None:
    phi = Phi(768, 768, 0.5)
    assert sum(p.numel() for p in phi.parameters()) == 14_162_688
    assert [type(layer) for layer in phi] == [
        nn.Linear, nn.GELU, nn.Dropout, nn.Linear, nn.GELU, nn.Dropout, nn.Linear
    ]  # fmt: skip
    assert [layer.p for layer in phi if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    assert all(layer.approximate == "none" for layer in phi if isinstance(layer, nn.GELU))
    x = torch.randn(2, 768)
    assert torch.equal(phi.eval()(x), phi(x))
    assert not torch.equal(phi.train()(x), phi(x))


@pytest.mark.parametrize(("width", "size"), [(1024, 25_175_040), (1280, 39_333_120)])
def test_size_of_phi_for_the_larger_encoders(width: int, size: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in Phi(width, width, 0.5).parameters()) == size


# --- 8: metrics of composed retrieval ---------------------------------------------------------------------------------


def test_average_precision() -> None:
    assert average_precision([6, 1, 3], 5, 3) == pytest.approx(0.555556, abs=1e-6)
    assert average_precision([1, 3, 6], 10, 3) == pytest.approx(0.722222, abs=1e-6)
    assert average_precision([1, 3], 5, 7) == pytest.approx(1 / 3)
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], np.float32)
    assert hits(scores, 1, [0, 3, 6]) == [1, 3, 6]


def test_two_captions_are_merged_as_unit_vectors() -> None:
    near(torch.from_numpy(merged(np.array([[3.0, 4]]), np.array([[0.0, 2]]))), [[0.316228, 0.948683]])


def test_the_reference_is_taken_out_of_the_ranking() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)  # of reference, x, target, y
    photos = np.stack([scores, np.sqrt(1 - scores**2)], 1)
    query = np.array([[1.0, 0.0]], np.float32)
    assert ranks(query, photos, np.array([0]), [[2]]).tolist() == [2]
    group = photos[[0, 2, 3]]  # R_s: the members of the query's group alone
    assert ranks(query, group, np.array([0]), [[1]]).tolist() == [1]


# --- 9: the target cache ----------------------------------------------------------------------------------------------


def test_cached_and_recomputed_targets_train_the_same_phi() -> None:
    encoder, rows = bert_encoder(), captions(60)
    learnt = []
    for recompute in (False, True):
        task = lincir(encoder, recompute=recompute)
        train(task, source(task, rows, 20, cached=not recompute))
        learnt.append(torch.cat([p.detach().flatten() for p in task.phi.parameters()]))
    near(learnt[1], learnt[0], 1e-6)


def test_what_changes_a_target_changes_its_cache() -> None:
    encoder, rows = bert_encoder(), captions(20)
    found = tokenised(encoder, rows)
    first = fingerprint(encoder, found, "fp32")
    assert fingerprint(bert_encoder(), tokenised(bert_encoder(), rows), "fp32") == first
    assert fingerprint(encoder, found, "bf16") != first
    assert fingerprint(encoder, tokenised(encoder, rows[1:]), "fp32") != first
    with torch.no_grad():
        encoder.text.trunk.layers[1].down.bias[3] += 1e-3
    assert fingerprint(encoder, found, "fp32") != first


def test_targets_are_made_once() -> None:
    task, rows = lincir(bert_encoder()), captions(20)
    found = tokenised(task.encoder, rows)
    made = np.array(cached_targets(task, found, "fp32", "unit"))
    with torch.no_grad():
        near(torch.from_numpy(made), task.embed(found.texts.take(np.arange(20))), 1e-5)
    (file,) = Path("runs/cache/targets").iterdir()
    stamp = file.stat().st_mtime_ns
    assert np.array_equal(cached_targets(task, found, "fp32", "unit"), made)
    assert cached_targets(task, found, "bf16", "unit").dtype == np.float16
    assert file.stat().st_mtime_ns == stamp
