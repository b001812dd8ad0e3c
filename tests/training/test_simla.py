"""SIMLA against the specification's hand-computed numbers, and what its single stream must and must not do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from data.params import UserError
from tests.training import small_simla as small
from tests.training.small_simla import gradients, step
from training.config import TrainerConfig
from training.fused.alignment import contrast, distilled, hard_negatives, match, per_row
from training.fused.keywords import vote, words_at
from training.fused.momentum import Queue
from training.fused.single_stream import read_words
from training.methods import simla
from training.methods.simla import Simla
from training.schedule import learning_rate

# 1. Teacher isolation and EMA


def test_no_gradient_reaches_the_teacher_or_the_queue() -> None:
    task = small.task()
    task.before_step(5, 2.0)
    parts = step(task)
    found = gradients(parts["loss"], task)
    assert all(buffer.grad is None for buffer in task.buffers())
    assert not any(name.startswith(("teacher", "queue")) for name in found)
    silent = {"encoder.logit_scale"} - {name for name, size in found.items() if size > 0}
    assert silent == set()
    assert all(size > 0 for name, size in found.items() if name.endswith("weight")), found


def test_teacher_moves_once_per_step_and_before_it_is_used() -> None:
    task = small.task(momentum=0.9)
    teacher, student = task.teacher.parts["image"].trunk.blocks[0].mlp.fc1, task.encoder.image.trunk.blocks[0].mlp.fc1
    with torch.no_grad():
        student.weight.add_(1.0)
    gap = (student.weight - teacher.weight).detach().clone()
    task.before_step(0, 0.0)
    torch.testing.assert_close(student.weight - teacher.weight, 0.9 * gap)
    moved = teacher.weight.clone()
    step(task)["loss"].backward()
    task.after_step()
    assert torch.equal(teacher.weight, moved)


def test_alpha_rises_over_the_first_epoch_and_is_a_function_of_progress() -> None:
    task = small.task(alpha=0.4)
    seen = []
    for progress in (0.0, 0.25, 1.0, 3.5):
        task.before_step(0, progress)
        seen.append(task.alpha)
    assert seen == pytest.approx([0.0, 0.1, 0.4, 0.4])


def test_temperature_is_clamped_before_the_step() -> None:
    task = small.task()
    for tau, expected in ((0.7, 0.5), (0.0001, 0.001), (0.07, 0.07)):
        task.encoder.logit_scale.data.fill_(1 / tau).log_()
        task.before_step(0, 0.0)
        assert 1 / task.scale().item() == pytest.approx(expected, rel=1e-5)


def test_queue_takes_the_teachers_features_after_the_step() -> None:
    task = small.task()
    task.before_step(0, 0.0)
    outputs = task.encode(small.batch(), 0)
    noise = task.queue.image.clone()
    task.losses(outputs, 0)
    assert torch.equal(task.queue.image, noise)
    task.after_step()
    assert torch.equal(task.queue.image[:4], outputs["f_teacher"])
    assert torch.equal(task.queue.text[:4], outputs["t_teacher"])
    assert torch.equal(task.queue.image[4:], noise[4:])


def test_state_goes_round() -> None:
    one, other = small.task(), small.task()
    with torch.no_grad():
        one.encoder.image.head.linear.weight.add_(1)
    one.before_step(0, 0.0)
    step(one)
    one.after_step()
    other.load_extra_state({name: value.clone() for name, value in one.extra_state().items()})
    for mine, theirs in zip(one.extra_state().values(), other.extra_state().values(), strict=True):
        assert torch.equal(mine, theirs)
    assert int(other.queue.pointer) == 4


# 4. ITC by hand


def itc_by_hand(alpha: float) -> tuple[float, Tensor]:
    f, t = torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([[0.8, 0.6], [0.6, 0.8]])
    f_teacher, t_teacher = torch.tensor([[1.0, 0], [0.6, 0.8]]), torch.tensor([[0.8, 0.6], [0, 1.0]])
    queue = Queue(2, 2, torch.Generator())
    queue.push(torch.tensor([[-1.0, 0], [0, -1]]), torch.tensor([[0, -1.0], [-1, 0]]), torch.zeros(2, dtype=torch.long))
    scale = torch.tensor(1 / 0.5, requires_grad=True)
    leaves = [x.requires_grad_() for x in (f, t, f_teacher, t_teacher)]
    loss, s, _ = contrast(*leaves, queue, scale, alpha)
    loss.backward()
    assert f_teacher.grad is None
    assert t_teacher.grad is None
    assert scale.grad is not None
    return loss.item(), s


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, 0.538765), (0.4, 0.704371), (1.0, 0.952780)])
def test_itc_by_hand(alpha: float, expected: float) -> None:
    loss, s = itc_by_hand(alpha)
    assert loss == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(s, torch.tensor([[1.6, 0.0], [1.2, 2.0]]))


# 5. ITM by hand


def test_itm_by_hand() -> None:
    logits = torch.tensor([[0, 2.0], [0, 1], [1, 0], [0, 1], [2, 0], [0, 0]])
    assert match(logits).mean().item() == pytest.approx(0.481131, abs=1e-5)


def test_negatives_are_drawn_by_the_softmax_off_the_diagonal() -> None:
    logits = torch.tensor([[5.0, 1, 0, -1], [0, 3, 2, 1], [1, 1, 9, 1], [2, 0, 1, 0]])
    draws = torch.stack([hard_negatives(logits, torch.Generator().manual_seed(seed)) for seed in range(1000)])
    assert not (draws == torch.arange(4)).any()
    weights = logits.softmax(1) + 1e-4
    weights.fill_diagonal_(0)
    expected = weights / weights.sum(1, keepdim=True)
    for row in range(4):
        share = torch.bincount(draws[:, row], minlength=4) / 1000
        sigma = (expected[row] * (1 - expected[row]) / 1000).sqrt()
        assert ((share - expected[row]).abs() <= 3 * sigma + 1e-9).all()


def test_one_hot_similarities_still_have_negatives() -> None:
    logits = torch.eye(3) * 1e4
    assert not (hard_negatives(logits, torch.Generator().manual_seed(0)) == torch.arange(3)).any()


def test_itm_pairs_are_in_the_papers_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """(T_b, I_b), (T_b, I_neg), (T_neg, I_b): the picture is drawn for the text, the text for the picture."""
    task = small.task(levels=("itm",))
    task.before_step(0, 1.0)
    seen = {}

    def reader(
        parts: object, words: Tensor, mask: Tensor, projected: object, rows: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        seen.update(words=words, mask=mask, rows=rows)
        return read_words(parts, words, mask, projected, rows, wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(simla, "read_words", reader)
    draws = iter([torch.tensor([1, 2, 3, 0]), torch.tensor([3, 0, 1, 2])])
    monkeypatch.setattr(simla, "hard_negatives", lambda logits, generator: next(draws))
    batch = small.batch()
    task.training_step(batch, 0)
    ids = batch["caption"].ids
    words = task.encoder.text.trunk.look_up(torch.cat([ids, ids, ids[[3, 0, 1, 2]]]))
    assert torch.equal(seen["words"], words)
    assert torch.equal(seen["mask"], torch.cat([batch["caption"].mask] * 2 + [batch["caption"].mask[[3, 0, 1, 2]]]))
    assert seen["rows"].tolist() == [0, 1, 2, 3, 1, 2, 3, 0, 0, 1, 2, 3]


# 6. Distillation axis


def test_distillation_by_hand() -> None:
    student = torch.tensor([[2.0, 0, 0], [0, 1, 0], [0, 0, 3]])
    teacher = torch.tensor([[1.0, 1, 0], [0, 2, 0], [0, 0, 1]])
    chosen = torch.tensor([[False, True, True]])  # labels -100, 1, 2
    arguments = student[chosen[0]], torch.tensor([1, 2]), teacher[chosen[0]]
    for alpha, expected in ((0.0, 0.323184), (1.0, 1.065515), (0.4, 0.620116)):
        each = distilled(*arguments, alpha)
        assert each.mean().item() == pytest.approx(expected, abs=1e-5)
        assert (per_row(each, chosen) / chosen.sum(1)).item() == pytest.approx(expected, abs=1e-5)


# The keywords' loss and where they come from


def test_concept_loss_is_a_mean_over_samples_and_words() -> None:
    task = small.task(levels=("psl",))
    task.before_step(0, 0.0)
    with torch.no_grad():
        task.concept.weight.zero_()
    assert step(task)["psl"].item() == pytest.approx(0.693147, abs=1e-5)


def test_keywords_come_from_the_teachers_self_attention_and_picture() -> None:
    """Of its last layer in the fused role: another teacher or another picture gives other [CLS] rows."""
    batch = small.batch()
    rows = []
    for images in ("teacher", "student"):
        task = small.task(levels=("psl",), keyword_images=images)
        with torch.no_grad():
            task.encoder.image.trunk.blocks[0].mlp.fc2.weight.add_(torch.randn(32, 64))
        seen: list[Tensor] = []
        task.teacher.parts["fusion"].crosses[0].key_value.register_forward_hook(
            lambda _, args, __, seen=seen: seen.append(args[0])
        )
        outputs = task.encode(batch, 0)
        (v, _), (v_teacher, _) = task._pictures(batch["image"], None)
        torch.testing.assert_close(seen[0], v_teacher if images == "teacher" else v)
        rows.append(outputs["keywords"])
        _, attention = read_words(
            task.teacher.parts,
            task.teacher.parts["text"].trunk.look_up(batch["caption"].ids),
            batch["caption"].mask,
            task.teacher.parts["fusion"].project(seen[0]),
        )
        expected = words_at(batch["caption"].ids, vote(attention, batch["caption"].mask, 2, 2))
        assert torch.equal(outputs["keywords"], expected)


# Exactness of what is shared, and errors


def test_masked_words_leave_cls_and_padding_alone_but_not_sep() -> None:
    task = small.task(mask_words=1.0, levels=("mlm",))
    task.before_step(0, 0.0)
    batch = small.batch()
    outputs = task.encode(batch, 0)
    expected = batch["caption"].mask.bool() & (batch["caption"].ids != 2)
    assert torch.equal(outputs["chosen"].bool(), expected)
    assert (batch["caption"].ids[expected] == 3).any()


@pytest.mark.parametrize("learns", [("mlm", "itm"), ("itm", "mlm", "mim", "psl")])
def test_frozen_lower_blocks_are_computed_once_for_both_models(learns: tuple[str, ...]) -> None:
    """Loss and gradients are those of two whole passes."""
    results = []
    for shared in (False, True):
        task = small.task(levels=learns)
        trunk = task.encoder.image.trunk
        for module in (trunk.patch_embed, trunk.blocks[0]):
            module.requires_grad_(False)
        for parameter in (trunk.cls_token, trunk.pos_embed, trunk.mask_token):
            parameter.requires_grad_(False)
        if not shared:
            trunk.fixed = lambda: None  # type: ignore[method-assign]
        task.before_step(0, 1.0)
        calls: list[int] = []
        trunk.blocks[0].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        task.teacher.parts["image"].trunk.blocks[0].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        parts = step(task)
        results.append((parts["loss"].item(), gradients(parts["loss"], task), len(calls)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    for name, size in results[0][1].items():
        assert results[1][1][name] == pytest.approx(size, rel=1e-4, abs=1e-7), name
    assert [calls for *_, calls in results] == [2, 1]


def test_keys_and_values_of_a_picture_are_made_once_per_step() -> None:
    """Student: one projection per layer for the 4B fused pairs, one of the captions for the patches."""
    task = small.task()
    task.before_step(0, 0.0)
    sizes = {"student": [], "teacher": []}  # type: dict[str, list[int]]
    for name, parts in (("student", task.student), ("teacher", task.teacher.parts)):
        parts["fusion"].crosses[0].key_value.register_forward_hook(
            lambda _, args, __, seen=sizes[name]: seen.append(len(args[0]))
        )
    step(task)
    assert sizes == {"student": [4, 4], "teacher": [4, 4]}


def test_levels_that_are_off_cost_and_learn_nothing() -> None:
    names = {"itm": "itm.weight", "mlm": "mlm.dense.weight", "mim": "mim.weight", "psl": "concept.weight"}
    for level in names:
        task = small.task(levels=(level,))
        task.before_step(0, 1.0)
        parts = step(task)
        assert set(parts) - {"mim_accuracy", "psl_recall"} == {"loss", "itc", level}
        torch.testing.assert_close(parts["loss"], parts["itc"] + parts[level])
        found = gradients(parts["loss"], task)
        learning = {name for name, p in task.named_parameters() if p.requires_grad}
        assert {names[other] for other in names if other != level}.isdisjoint(learning)
        assert all(found[name] > 0 for name in learning if name.endswith("weight") and "norm" not in name)


def test_warm_up_goes_in_stairs_of_100_steps_and_then_by_epochs() -> None:
    """The specification's check values for 30 epochs [C Pretrain.py, scheduler/cosine_lr.py]."""
    config = TrainerConfig(
        epochs=30, batch=512, lr=1e-4, lr_start=1e-5, lr_end=1e-5, warmup=2000, warmup_unit=100, schedule="epochs"
    )
    first = {0: 1.0e-5, 1000: 5.5e-5, 2000: 1.0e-4, 5000: 1.0e-4}
    later = {1: 9.97535e-5, 10: 7.75e-5, 15: 5.5e-5, 29: 1.02465e-5}
    for number, rate in first.items():
        assert learning_rate(number, 200_000, config, 0) == pytest.approx(rate, rel=1e-5)
    for epoch, rate in later.items():
        assert learning_rate(7000 * epoch, 200_000, config, epoch) == pytest.approx(rate, rel=1e-5)


def test_towers_of_different_width_are_refused() -> None:
    made = small.encoder()
    made.image.trunk.width = 48
    with pytest.raises(UserError, match="48 wide and the text's 32"):
        Simla(Simla.Config(), made)


def test_a_vocabulary_without_a_mask_is_refused() -> None:
    words = [word for word in small.WORDS if word != "[MASK]"]
    with pytest.raises(UserError, match=r"no \[MASK\]"):
        small.task(words)


def test_a_copied_task_teaches_from_its_own_student() -> None:
    task = small.task()
    twin = copy.deepcopy(task)
    assert twin.student["image"] is twin.encoder.image
