"""The LinCIR study: its peer's loss and φ, one budget for all arms, and answers of every arm."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.training.lincir_builders import attributes, bert_encoder, captions, with_pseudo, write_corpus
from training.composing.pseudo_words import Composer
from training.studies import lincir as study
from training.studies.pic2word import PHOTO, Pic2Word
from training.task import Tokens

KEYS, WISHES = [f"{40:032x}", f"{41:032x}"], ["in red", "for men"]


@pytest.fixture
def shop(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny workspace with a corpus, and a study of three steps of eight rows."""
    with_pseudo(workspace / "store/models/base/tokenizer.json")
    attributes(workspace)
    write_corpus(workspace / "store/corpus", captions(40))
    for name, value in (("STEPS", 3), ("ROWS", 8), ("EPOCHS", 2)):
        monkeypatch.setattr(study, name, value)
    settings = study.settings
    monkeypatch.setattr(study, "settings", lambda seed: dataclasses.replace(settings(seed), threads=1))
    return workspace


def test_pic2word_contrasts_the_image_with_its_own_prompt() -> None:
    task = Pic2Word(Pic2Word.Config(steps=1), bert_encoder()).eval()
    kinds = [type(layer) for layer in task.phi]
    assert kinds == [nn.Linear, nn.Dropout, nn.ReLU, nn.Linear, nn.Dropout, nn.ReLU, nn.Linear]
    assert [layer.p for layer in task.phi if isinstance(layer, nn.Dropout)] == [0.1, 0.1]
    image = torch.randn(5, task.embed_width) * 7
    outputs = task.encode({"image": image}, 0)
    torch.testing.assert_close(outputs["image"], F.normalize(image, dim=1))
    ids, mask = task.encoder.tokenize([PHOTO] * 5)
    assert (ids == task.pseudo).sum(1).tolist() == [1] * 5
    expected = F.normalize(task.embed(Tokens(ids, mask), task.phi(image)), dim=1)
    torch.testing.assert_close(outputs["text"], expected)
    logits = task.encoder.logit_scale.exp() * outputs["image"] @ outputs["text"].T
    own = logits.diagonal()
    by_hand = -((own - logits.logsumexp(1)).mean() + (own - logits.logsumexp(0)).mean()) / 2
    loss = task.losses(outputs, 0)["loss"]
    torch.testing.assert_close(loss, by_hand)
    loss.backward()
    assert all(p.grad is not None for p in task.phi.parameters())
    assert all(p.grad is None for p in task.encoder.parameters())


def test_arms_that_learn_take_as_many_steps_and_rows(shop: Path) -> None:
    for arm in ("LinCIR", "LinCIR, no noise", "Pic2Word"):
        task: Composer = study.method(arm)
        source = task.source(study.settings(0), "unit")
        assert source.steps == 3
        assert len(source.batches(0)[0]["place"]) == 8
        assert task.config.prompt == study.PROMPT
        source.close()
    assert not study.method("LinCIR, no noise").config.noise


@pytest.mark.parametrize("arm", study.ARMS)
def test_every_arm_answers_with_unit_vectors(shop: Path, arm: str) -> None:
    study.examiner.cache_clear()
    base = study.examiner()
    answer = (study.untrained(arm, base) or study.trained(arm, 0))(KEYS, WISHES)
    assert answer.shape == (2, 8)
    np.testing.assert_allclose(np.linalg.norm(answer, axis=1), 1, atol=1e-5)
    assert study.Answers(base, lambda keys, conditions: answer).gallery() == base.gallery()
    study.examiner.cache_clear()
