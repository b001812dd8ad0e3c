"""LinCIR at work: prompts and their guard, composed queries, export, and that it learns what it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from data.params import UserError, strict
from tests.training.lincir_builders import (
    SETTINGS,
    attributes,
    bert_encoder,
    captions,
    clip_encoder,
    lincir,
    source,
    train,
    with_pseudo,
    write_corpus,
)  # fmt: skip
from training import trainer
from training.composing.captions import load_captions
from training.composing.pseudo_words import prompts
from training.config import TrainerConfig
from training.encoder import DualEncoder, load_encoder
from training.features import trunk_features
from training.methods import load_task
from training.methods.lincir import LinCir

PROMPT = LinCir.Config().prompt
IMAGES = Path("store/dataset/images.parquet")


@pytest.fixture(scope="module")
def clip() -> DualEncoder:
    return clip_encoder()


@pytest.fixture
def shop(workspace: Path) -> Path:
    """A tiny workspace with a corpus, attributes, and a base model that knows `$`."""
    with_pseudo(workspace / "store/models/base/tokenizer.json")
    attributes(workspace)
    write_corpus(workspace / "store/corpus", captions(40))
    return workspace


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_a_prompt_has_exactly_one_pseudo_word(clip: DualEncoder) -> None:
    ids = prompts(clip, PROMPT, ["is red", "costs $5 or $ 6", "$", ""]).ids
    assert (ids == 259).sum(1).tolist() == [1, 1, 1, 1]
    assert ids[0, :7].tolist() == [49406, 320, 1125, 539, 259, 682, 533]
    assert ids[3].tolist() == ids[2].tolist()
    assert ids[3, :6].tolist() == [49406, 320, 1125, 539, 259, 49407]


@pytest.mark.parametrize("template", ["a photo of $, that {condition}", '"$" that {condition}', "a $. {condition}"])
def test_a_pseudo_word_glued_to_punctuation_is_refused(clip: DualEncoder, template: str) -> None:
    with pytest.raises(UserError, match="0 pseudo words in place of one"):
        prompts(clip, template, ["is red"])
    with pytest.raises(UserError, match="prompt must have one"):
        strict(LinCir.Config, {"prompt": template}, where="params.yaml: lincir")


@pytest.mark.parametrize("template", ["$ and $ {condition}", "a photo of $", "{condition} $", "a photo {condition}"])
def test_impossible_prompts_are_refused(template: str) -> None:
    with pytest.raises(UserError, match="prompt must"):
        strict(LinCir.Config, {"prompt": template}, where="params.yaml: lincir")


def test_a_long_condition_loses_its_end_and_never_the_prefix(clip: DualEncoder) -> None:
    tokens = prompts(clip, PROMPT, ["is " + "very " * 100 + "red"])
    assert tokens.ids.shape == (1, 77)
    assert tokens.ids[0, :7].tolist() == [49406, 320, 1125, 539, 259, 682, 533]
    assert tokens.ids[0, -1].item() == 49407


def test_a_vocabulary_without_a_dollar_is_refused() -> None:
    encoder = bert_encoder()
    encoder.tokenizer = Tokenizer.from_str(encoder.tokenizer.to_str().replace('"$":', '"#":'))
    with pytest.raises(UserError, match="no token of its own"):
        LinCir(LinCir.Config(), encoder)


@pytest.mark.parametrize("setting", [{"dropout": 1.0}, {"steps": 0}, {"keyword_mode": "some"}])
def test_impossible_settings_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(setting))):
        strict(LinCir.Config, setting, where="params.yaml: lincir")


# --- training in a workspace ------------------------------------------------------------------------------------------


def test_it_trains_validates_saves_and_answers(shop: Path) -> None:
    torch.manual_seed(0)
    task = LinCir(LinCir.Config(steps=12), load_encoder(Path("store/models/base")))
    config = TrainerConfig(**{**SETTINGS, "batch": 8, "precision": "bf16", "log_every": 4, "checkpoint_every": 5})
    batches = task.source(config, "unit")
    assert (batches.steps, batches.each) == (12, 4)
    history = trainer.fit(task, batches, config, name="unit", binding="c" * 64).history
    assert history[-1]["loss"] < history[0]["loss"]
    numbers = task.validate()
    assert list(numbers) == ["val_smp_cosine", "val_composed_R@1", "val_composed_R@10", "val_composed_mAP@10"]
    assert all(-1 <= number <= 1 for number in numbers.values())
    task.save(Path("model"))
    again = load_task(Path("model"))
    keys, conditions = [f"{40:032x}", f"{41:032x}"], ["in red", "for men"]
    answer = again.compose(IMAGES, keys, conditions)  # type: ignore[attr-defined]
    assert answer.shape == (2, 8)
    np.testing.assert_allclose(np.linalg.norm(answer, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(answer, task.compose(IMAGES, keys, conditions))
    np.testing.assert_allclose(answer[1:], task.compose(IMAGES, keys[1:], conditions[1:]), atol=1e-6)
    assert np.abs(answer - task.compose(IMAGES, keys[::-1], conditions)).max() > 1e-4
    assert task.compose(IMAGES, [], []).shape == (0, 8)


def test_the_image_enters_as_it_leaves_the_encoder(shop: Path) -> None:
    task = LinCir(LinCir.Config(), load_encoder(Path("store/models/base"))).eval()
    key, encoder = f"{40:032x}", task.encoder
    pixels = trunk_features(encoder.image.trunk, encoder.config.image_size, IMAGES, [key], "unit")
    with torch.no_grad():
        image = encoder.image.head(torch.from_numpy(pixels))
        tokens = prompts(encoder, PROMPT, ["in red"])
        expected = F.normalize(task.embed(tokens, task.phi(image)), dim=1)
        unit = F.normalize(task.embed(tokens, task.phi(F.normalize(image, dim=1))), dim=1)
    np.testing.assert_allclose(task.compose(IMAGES, [key], ["in red"]), expected.numpy(), atol=1e-6)
    assert (unit - expected).abs().max() > 1e-4


def test_held_out_captions_are_not_trained_on(shop: Path) -> None:
    encoder = load_encoder(Path("store/models/base"))
    sides = [load_captions(Path("store/corpus"), encoder, "offsets", held_out=side) for side in (False, True)]
    assert [len(side) for side in sides] == [32, 8]


def test_what_is_missing_is_an_error_with_a_cure(shop: Path) -> None:
    encoder = load_encoder(Path("store/models/base"))
    with pytest.raises(UserError, match="dvc repro corpus"):
        load_captions(Path("store/nowhere"), encoder, "offsets", held_out=False)
    write_corpus(Path("store/corpus"), captions(10), held_out=0)
    with pytest.raises(UserError, match=r"corpus\.held_out"):
        load_captions(Path("store/corpus"), encoder, "offsets", held_out=True)
    with pytest.raises(UserError, match=r"trainer\.batch: 16 is more than the 10 captions"):
        LinCir(LinCir.Config(), encoder).source(TrainerConfig(**SETTINGS), "unit")


def test_the_norm_of_what_phi_sees_can_be_fixed() -> None:
    task = lincir(bert_encoder(), l2_normalize=True).eval()
    x = torch.randn(3, task.embed_width)
    with torch.no_grad():
        torch.testing.assert_close(task.pseudo_word(x), task.phi(F.normalize(x, dim=1)), atol=1e-6, rtol=0)
        query = task.compose_function()
        ids, mask = query.inputs["ids"], query.inputs["mask"]
        torch.testing.assert_close(query.module(x[:2], ids, mask), query.module(7 * x[:2], ids, mask))


def test_export_gives_the_same_query(tmp_path: Path) -> None:
    encoder = bert_encoder(layers=1)
    task = lincir(encoder).eval()
    spec = task.export_spec()
    assert (spec.endpoints, spec.functions) == (("compose",), ("encode_image",))
    function = spec.modules["compose"]
    names = {name: torch.export.Dim(name, min=1) for axes in function.axes.values() for name in axes.values()}
    shapes = tuple({axis: names[name] for axis, name in function.axes[key].items()} for key in function.inputs)
    torch.onnx.export(
        function.module, tuple(function.inputs.values()), tmp_path / "compose.onnx", dynamo=True, verbose=False,
        input_names=list(function.inputs), output_names=list(function.outputs), dynamic_shapes=shapes,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(str(tmp_path / "compose.onnx"), providers=["CPUExecutionProvider"])
    tokens = prompts(encoder, PROMPT, ["is red", "is a large striped dress for a cat", ""])
    image = torch.randn(3, task.embed_width) * 3
    with torch.no_grad():
        expected = F.normalize(task.embed(tokens, task.pseudo_word(image)), dim=1)
    feed = {"image": image.numpy(), "ids": tokens.ids.numpy(), "mask": tokens.mask.numpy()}
    np.testing.assert_allclose(session.run(None, feed)[0], expected.numpy(), atol=1e-5)


# --- 10: it learns ----------------------------------------------------------------------------------------------------


class Constant(nn.Module):
    """A φ that is blind: the same learnt vector whatever it sees."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.zeros(1, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.v.expand(len(x), -1)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[LinCir, list[float]]]:
    """Three hundred steps on 500 captions: with noise, without, and with a blind φ."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("taught"))
        for name in ("noise", "plain", "constant"):
            task = lincir(bert_encoder(), noise=name == "noise", dropout=0.1)
            if name == "constant":
                task.phi = Constant(task.word_width)
            losses = train(task, source(task, captions(500), 300, batch=32), lr=3e-3)
            made[name] = (task.eval(), losses)
    return made


def found(task: LinCir, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """t̂ and t of the captions; φ sees t, or t moved by a fixed vector as image embeddings are."""
    from tests.training.lincir_builders import tokenised

    texts = tokenised(task.encoder, captions(500))
    rows = np.arange(200)
    with torch.no_grad():
        t = task.embed(texts.texts.take(rows))
        gap = torch.randn(t.shape[1], generator=torch.Generator().manual_seed(3))
        v = task.pseudo_word(t + offset * gap)
        return task.embed(texts.masked.take(rows), v), t


def test_the_loss_falls_far_below_that_of_a_blind_phi(taught: dict[str, tuple[LinCir, list[float]]]) -> None:
    blind = np.mean(taught["constant"][1][-30:])
    for name in ("noise", "plain"):
        again, t = found(taught[name][0])
        assert F.mse_loss(again, t).item() < 0.6 * blind


def test_what_comes_out_finds_what_went_in(taught: dict[str, tuple[LinCir, list[float]]]) -> None:
    again, t = found(taught["noise"][0])
    first = (F.normalize(again, dim=1) @ F.normalize(t, dim=1).T).argmax(1)
    assert (first == torch.arange(200)).float().mean() > 0.5  # chance is 0.005, a blind φ gets 0.065


def test_noise_makes_phi_robust_to_the_gap(taught: dict[str, tuple[LinCir, list[float]]]) -> None:
    errors = {}
    for name in ("noise", "plain"):
        again, t = found(taught[name][0], offset=1.0)
        errors[name] = F.mse_loss(again, t).item()
    assert errors["noise"] < errors["plain"]
