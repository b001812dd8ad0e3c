"""The answer decoder: likelihoods against a plain loop, what it may not see, weights, and its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from data.params import UserError
from tests.training import small_simla, sync_tiny
from training.fused.answering import Answering, clean_question
from training.fused.heads.stack import stack_of
from training.fused.reading import read
from training.task import Tokens
from training.towers import padding_bias

LISTED = ["w1", "w2 w3", "w2", "w4 w5 w6", "w2 w7"]


def made(kind: str = "simla", **changes) -> Answering:  # type: ignore[no-untyped-def]
    method = (small_simla.task() if kind == "simla" else sync_tiny.task()).eval()
    encoder, stack = stack_of(method, 1)
    settings = {"task": "vqa", "method": kind, "shape": stack.shape, "layers": 2, "keep": 8} | changes
    config = Answering.Config(**settings)
    torch.manual_seed(0)
    task = Answering(config, encoder, stack)
    task.decoder.begin(encoder.text.trunk, stack, method.mlm)
    task.begin()
    task.rows = 3
    return task.eval()


def asked(task: Answering) -> tuple[Tensor, Tokens]:
    pixels = torch.randint(0, 256, (3, 1, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return pixels, Tokens(*task.encoder.tokenize(["w1 w2 w3 w4 w5", "w6", "w7 w8"]))


def listed(task: Answering) -> Tokens:
    return Tokens(*task.encoder.tokenize(LISTED))


def fused(task: Answering) -> tuple[Tensor, Tensor]:
    pixels, questions = asked(task)
    v = task.encoder.image.trunk.tokens(pixels[:, 0])
    return read(task.stack, task.encoder.text.trunk, questions, v), questions.mask


def token_by_token(task: Answering, x: Tensor, mask: Tensor, answer: list[int]) -> Tensor:
    """log p(a) (B,), the answer written one token after the other, each with what came before it alone."""
    decoder, total = task.decoder, torch.zeros(len(x))
    for place in range(1, len(answer)):
        before = torch.tensor([answer[:place]]).expand(len(x), -1)
        words = decoder.text.embed(decoder.text.look_up(before))
        causal = torch.full((place, place), -1e9).triu(1)
        question = decoder.fusion.project(x)
        out = decoder.fusion(decoder.text.layers, words, causal, question, padding_bias(mask, x.dtype)).tokens[:, -1]
        total = total + decoder.words(out, decoder.text.words.weight).log_softmax(1)[:, answer[place]]
    return total


@pytest.mark.parametrize("kind", ["simla", "syncmask"])
def test_answers_are_ranked_by_their_whole_likelihood(kind: str) -> None:
    task = made(kind)
    with torch.no_grad():
        x, mask = fused(task)
        rows = [[token for token, real in zip(ids, keep, strict=True) if real]
                for ids, keep in zip(listed(task).ids.tolist(), listed(task).mask.tolist(), strict=True)]  # fmt: skip
        expected = torch.stack([token_by_token(task, x, mask, row) for row in rows], 1).softmax(1)
    found = task.answer(*asked(task), listed(task))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_only_the_likeliest_first_tokens_are_looked_at() -> None:
    """Of five candidates two are kept; those have the first tokens that come first, and share all probability."""
    task = made(keep=2)
    with torch.no_grad():
        x, mask = fused(task)
        start = torch.tensor([[2, 3]]).expand(3, 2)
        first = task.decoder(Tokens(start, torch.ones_like(start)), task.decoder.fusion.project(x), mask)[0]
    likely = first.log_softmax(1)[:, listed(task).ids[:, 1]]
    kept = likely.argsort(dim=1, descending=True, stable=True)[:, :2]
    found = task.answer(*asked(task), listed(task))
    assert (found > 0).sum(1).tolist() == [2, 2, 2]
    torch.testing.assert_close(found.gather(1, kept).sum(1), torch.ones(3))
    everything = made(keep=5).answer(*asked(task), listed(task)).gather(1, kept)
    torch.testing.assert_close(found.gather(1, kept), everything / everything.sum(1, keepdim=True))


def test_the_rest_of_the_list_changes_no_order() -> None:
    """Longer candidates beside it pad an answer, and change nothing of its likelihood."""
    task = made()
    alone = task.answer(*asked(task), Tokens(*task.encoder.tokenize(["w1", "w2"])))
    beside = task.answer(*asked(task), Tokens(*task.encoder.tokenize(["w1", "w2", "w4 w5 w6 w7 w8"])))[:, :2]
    torch.testing.assert_close(alone, beside / beside.sum(1, keepdim=True), atol=1e-5, rtol=1e-4)


def batch(task: Answering) -> dict:  # type: ignore[type-arg]
    pixels, questions = asked(task)
    return {
        "image": pixels, "caption": questions, "place": torch.arange(3), "of": torch.tensor([0, 0, 1, 2, 2]),
        "answers": listed(task), "weights": torch.tensor([0.7, 0.3, 1.0, 0.2, 0.8]),
    }  # fmt: skip


def test_loss_is_the_weighted_mean_over_questions() -> None:
    task = made()
    with torch.no_grad():
        x, mask = fused(task)
        each = []
        for row, ids, keep in zip([0, 0, 1, 2, 2], listed(task).ids, listed(task).mask, strict=True):
            each.append(-token_by_token(task, x[row : row + 1], mask[row : row + 1], ids[keep.bool()].tolist()))
        expected = (torch.cat(each) * batch(task)["weights"]).sum() / 3
    found = task.training_step(batch(task), 0)["loss"]
    torch.testing.assert_close(found.detach(), expected, atol=1e-5, rtol=1e-5)


def test_gradient_reaches_picture_question_and_decoder() -> None:
    task = made().train()
    task.training_step(batch(task), 0)["loss"].backward()
    reached = {name for name, p in task.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    for name in (
        "encoder.image.trunk.patch_embed.proj.weight", "encoder.text.trunk.words.weight",
        "stack.crosses.0.query.weight",
        "decoder.text.words.weight", "decoder.fusion.crosses.0.key_value.weight", "decoder.words.dense.weight",
    ):  # fmt: skip
        assert name in reached
    learning = {name for name, p in task.named_parameters() if p.requires_grad}
    assert {name for name in learning - reached if "positions" not in name} == set()


def test_decoder_starts_from_the_last_layers() -> None:
    task = made("syncmask", layers=3)  # two of its layers read the picture, one does not
    text, stack, decoder = task.encoder.text.trunk, task.stack, task.decoder
    sources = [text.layers[-1], *stack.layers]
    for layer, source in zip(decoder.text.layers, sources, strict=True):
        assert torch.equal(layer.qkv.weight, source.qkv.weight)
        assert layer.qkv.weight.data_ptr() != source.qkv.weight.data_ptr()
    assert torch.equal(decoder.fusion.crosses[1].query.weight, stack.crosses[0].query.weight)
    assert torch.equal(decoder.fusion.crosses[2].key_value.weight, stack.crosses[1].key_value.weight)
    assert torch.equal(decoder.text.words.weight, text.words.weight)


def test_teacher_gives_soft_targets_and_moves_before_the_step() -> None:
    task, plain = made(alpha=0.5, ramp=False), made()
    task.before_step(0, 0.0)
    assert task.teacher is not None
    soft = task.training_step(batch(task), 0)["loss"]
    assert not torch.isclose(soft, plain.training_step(batch(plain), 0)["loss"])
    soft.backward()
    assert all(p.grad is None for p in task.teacher.parameters())
    state = {key: value.clone() for key, value in task.extra_state().items()}
    with torch.no_grad():
        task.decoder.words.bias.add_(1.0)
    task.before_step(1, 0.5)
    moved = task.extra_state()["decoder.words.bias"] - state["decoder.words.bias"]
    torch.testing.assert_close(moved, torch.full_like(moved, 0.005))
    task.load_extra_state(state)
    assert torch.equal(task.extra_state()["decoder.words.bias"], state["decoder.words.bias"])


def test_files_go_round(tmp_path: Path) -> None:
    task = made(alpha=0.4)
    task.save(tmp_path)
    again = Answering.load(tmp_path)
    assert torch.equal(again.answer(*asked(task), listed(task)), task.answer(*asked(task), listed(task)))
    (tmp_path / "head.json").write_text('{"task": "nlvr2"}')
    with pytest.raises(UserError, match=r"head\.json"):
        Answering.load(tmp_path)


def test_questions_are_cleaned() -> None:
    assert clean_question("What's the t-shirt's colour, (red/blue)?  ") == "whats the t shirts colour red blue"
