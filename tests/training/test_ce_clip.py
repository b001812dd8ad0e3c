"""CE-CLIP against numbers worked out by hand, each beside the wrong reading that gives another number."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.fixture_a import IMAGE, NEGATIVE, NEGATIVE_B, SCALE, TEXT, TEXT_B, VALID
from training.encoder import DualEncoder, load_encoder
from training.methods.ce_clip import CeClip, cmr, imc, next_theta, split_texts
from training.task import Tokens

ZERO = torch.zeros(4, dtype=torch.float64)


def g(text: Tensor = TEXT) -> Tensor:
    return SCALE * (IMAGE * text).sum(1)


def h(negative: Tensor = NEGATIVE) -> Tensor:
    return SCALE * torch.einsum("bd,bkd->bk", IMAGE, negative)


def e(text: Tensor = TEXT, negative: Tensor = NEGATIVE) -> Tensor:
    return SCALE * torch.einsum("bd,jkd->bjk", text, negative)


def near(tensor: Tensor, expected: list, abs: float = 1e-6) -> None:  # type: ignore[type-arg]
    torch.testing.assert_close(tensor, torch.tensor(expected, dtype=tensor.dtype), atol=abs, rtol=0)


@pytest.fixture(scope="module")
def encoder(built: Path) -> DualEncoder:
    return load_encoder(built / "store/models/base")


def task(encoder: DualEncoder, **config: object) -> CeClip:
    """CE-CLIP in float64 with fixture A's scale."""
    encoder.logit_scale = torch.nn.Parameter(SCALE.log())
    made = CeClip(CeClip.Config(**config), encoder)  # type: ignore[arg-type]
    made.theta = made.theta.double()
    return made


def losses(ce: CeClip) -> dict[str, Tensor]:
    """A step on fixture A."""
    return ce.losses({"image": IMAGE, "text": TEXT, "negative": NEGATIVE, "valid": VALID}, 0)


# --- layout -----------------------------------------------------------------------------------------------------------


def test_negatives_are_sample_major() -> None:
    stacked = torch.cat([TEXT, NEGATIVE[0], NEGATIVE[1]])
    text, negative = split_texts(stacked, 2)
    near(text, TEXT.tolist())
    masked = SCALE * torch.einsum("bd,bkd->bk", IMAGE, negative) * VALID
    near(masked, [[1.92, 1.20, 0.56, 0], [1.20, 0, 2.00, 1.60]])
    type_major = stacked[2:].reshape(4, 2, -1).transpose(0, 1)
    wrong = SCALE * torch.einsum("bd,bkd->bk", IMAGE, type_major) * VALID
    near(wrong, [[1.92, 0.56, 1.6, 0], [1.6, 0, 0, 1.6]])


# --- ranking loss and its threshold -----------------------------------------------------------------------------------


def test_cmr_with_the_first_threshold() -> None:
    assert cmr(g(), h(), VALID, ZERO).item() == pytest.approx(0.09)
    assert cmr(g(), h(), VALID, ZERO, "valid").item() == pytest.approx(0.12)


def test_an_invalid_negative_costs_nothing() -> None:
    own, other = torch.tensor([1.0]), torch.tensor([[3.0]])
    assert cmr(own, other, torch.tensor([[False]]), torch.zeros(1)).item() == 0
    assert cmr(own, other, torch.tensor([[True]]), torch.zeros(1)).item() == 2


def test_cmr_gradients_and_none_into_theta() -> None:
    image = IMAGE.clone().requires_grad_()
    theta = ZERO.clone().requires_grad_()
    moved = next_theta(
        SCALE * (image * TEXT).sum(1), SCALE * torch.einsum("bd,bkd->bk", image, NEGATIVE), VALID, theta, 10
    )
    assert not moved.requires_grad
    loss = cmr(SCALE * (image * TEXT).sum(1), SCALE * torch.einsum("bd,bkd->bk", image, NEGATIVE), VALID, ZERO)
    loss.backward()
    assert image.grad is not None
    near(image.grad, [[0.04, -0.08], [-0.15, 0.05]])


def test_threshold_is_used_before_it_moves(encoder: DualEncoder) -> None:
    ce = task(encoder)
    first = losses(ce)
    assert first["cmr"].item() == pytest.approx(0.09)  # 0.135 here would mean: updated before use
    near(ce.theta, [0.04, 0.40, 0.32, 0.00])
    second = losses(ce)
    assert second["cmr"].item() == pytest.approx(0.135)


def test_threshold_is_bounded(encoder: DualEncoder) -> None:
    ce = task(encoder, upper=0.3)
    losses(ce)
    near(ce.theta, [0.04, 0.30, 0.30, 0.00])
    assert losses(ce)["cmr"].item() == pytest.approx(0.1325)


def test_threshold_counts_by_the_mask() -> None:
    """Fixture B, where a valid similarity is exactly zero and types have different samples."""
    near(g(TEXT_B), [2.0, 1.6])
    theta = next_theta(g(TEXT_B), h(NEGATIVE_B), VALID, ZERO, 10)
    near(theta, [1.0, 0.6, 2.8, 0.2])
    masked = h(NEGATIVE_B) * VALID
    by_value = (g(TEXT_B).mean() - masked.sum(0) / (masked != 0).sum(0)).clamp(0, 10)
    near(by_value, [0.2, 0.6, 3.8, 0.2])
    on_subset = (((g(TEXT_B)[:, None] * VALID).sum(0) - masked.sum(0)) / VALID.sum(0)).clamp(0, 10)
    near(on_subset, [1.0, 0.8, 2.8, 0.0])
    assert cmr(g(TEXT_B), h(NEGATIVE_B), VALID, theta).item() == pytest.approx(0.20)
    bounded = next_theta(g(TEXT_B), h(NEGATIVE_B), VALID, ZERO, 1.5)
    assert cmr(g(TEXT_B), h(NEGATIVE_B), VALID, bounded).item() == pytest.approx(0.10)


@pytest.mark.parametrize("mode", ["mean", "max"])
def test_a_type_without_valid_negatives_keeps_its_threshold(mode: str) -> None:
    valid = VALID.clone()
    valid[:, 1] = False
    before = torch.tensor([0.5, 0.7, 0.5, 0.5], dtype=torch.float64)
    after = next_theta(g(TEXT_B), h(NEGATIVE_B), valid, before, 10, mode)
    assert torch.isfinite(after).all()
    assert after[1].item() == 0.7
    assert after[0].item() != 0.5
    assert torch.isfinite(cmr(g(TEXT_B), h(NEGATIVE_B), valid, after))


def test_a_single_sample_keeps_its_axes(encoder: DualEncoder) -> None:
    """No axis is squeezed away. By hand: hinge 1.92 - 1.6 over four entries, θ = 1.6 - (1.92, 1.20, 0.56)."""
    ce = task(encoder)
    parts = ce.losses({"image": IMAGE[:1], "text": TEXT[:1], "negative": NEGATIVE[:1], "valid": VALID[:1]}, 0)
    assert parts["cmr"].item() == pytest.approx(0.08)
    near(ce.theta, [0.0, 0.40, 1.04, 0.0])


def test_threshold_modes(encoder: DualEncoder) -> None:
    """max: θ_k = max_b m (g - h) / 5, by hand (1.6 - 1.2) / 5 for types 0 and 1; fixed: never moves, no bound."""
    ce = task(encoder, threshold="max")
    losses(ce)
    near(ce.theta, [0.08, 0.08, 0.208, 0.0])
    fixed = task(encoder, threshold="fixed", fixed=12.0)
    losses(fixed)
    near(fixed.theta, [12.0] * 4)


def test_threshold_starts_anew_with_each_epoch_and_survives_a_checkpoint(encoder: DualEncoder) -> None:
    ce = task(encoder)
    losses(ce)
    other = task(encoder)
    other.load_extra_state(ce.extra_state())
    near(other.theta, [0.04, 0.40, 0.32, 0.00])
    ce.on_epoch(1)
    near(ce.theta, [0.0] * 4)


# --- intra-modal loss -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "mask", "expected"),
    [
        ("paper", False, 2.000311),
        ("released_2023", False, 1.864311),
        ("released_head", False, 1.718833),
        ("own_only", True, 1.430968),
    ],
)
def test_imc_modes(mode: str, mask: bool, expected: float) -> None:
    assert imc(mode, g(), e(), VALID, mask).item() == pytest.approx(expected, abs=1e-6)  # type: ignore[arg-type]


def test_only_the_released_form_depends_on_the_order_of_samples() -> None:
    swap = [1, 0]
    text, negative = TEXT[swap], NEGATIVE[swap]
    g_swapped = SCALE * (IMAGE[swap] * text).sum(1)
    assert imc("paper", g_swapped, e(text, negative), VALID[swap], False).item() == pytest.approx(2.000311, abs=1e-6)
    moved = imc("released_head", g_swapped, e(text, negative), VALID[swap], False).item()
    assert moved == pytest.approx(1.494833, abs=1e-6)


def test_masked_imc_ignores_what_stands_for_invalid_negatives() -> None:
    other = NEGATIVE.clone()
    other[~VALID] = torch.tensor([0.6, 0.8], dtype=torch.float64)
    for mode in ("paper", "own_only"):
        masked = [imc(mode, g(), e(TEXT, n), VALID, True).item() for n in (NEGATIVE, other)]  # type: ignore[arg-type]
        kept = [imc(mode, g(), e(TEXT, n), VALID, False).item() for n in (NEGATIVE, other)]  # type: ignore[arg-type]
        assert masked[0] == masked[1]
        assert abs(kept[0] - kept[1]) > 1e-3


def test_released_forms_stay_finite_when_their_target_is_invalid() -> None:
    valid = VALID.clone()
    valid[0, 0] = False
    for mode in ("released_2023", "released_head"):
        assert imc(mode, g(), e(), valid, True).item() < 10  # type: ignore[arg-type]


def test_totals_of_two_calls(encoder: DualEncoder) -> None:
    for mode, first, second in (("paper", 1.614462, 1.623462), ("released_head", 1.558167, 1.567167)):
        ce = task(encoder, imc=mode, imc_mask_invalid=False)
        assert losses(ce)["loss"].item() == pytest.approx(first, abs=1e-6)
        assert losses(ce)["loss"].item() == pytest.approx(second, abs=1e-6)


def test_defaults_are_the_papers() -> None:
    assert dataclasses.asdict(CeClip.Config()) == {
        "alpha": 0.2, "beta": 0.2, "threshold": "mean", "upper": 10.0, "fixed": 2.0, "cmr_reduction": "all",
        "itc_mask_invalid": False, "imc": "paper", "imc_mask_invalid": True,
    }  # fmt: skip


# --- encoding the five captions ---------------------------------------------------------------------------------------

CAPTIONS = ["red shirts for men", "brand 7 blue shoes for women , brand"]
WRONG = [
    ["red bags for men", "green shirts for men", "red shoes for men", None],
    [None, "yellow shoes", "blue bags", None],
]


def naive(encoder: DualEncoder) -> tuple[Tensor, Tensor]:
    """All 5B texts one by one, each `###` on its own, padded to the model's full length."""
    rows = CAPTIONS + [text or "###" for row in WRONG for text in row]
    made = []
    for text in rows:
        ids, mask = encoder.tokenize([text])
        pad = (0, encoder.config.max_tokens - ids.shape[1])
        made.append(encoder.encode_text(torch.nn.functional.pad(ids, pad), torch.nn.functional.pad(mask, pad)))
    return split_texts(torch.cat(made), len(CAPTIONS))


def shared(ce: CeClip) -> tuple[Tensor, Tensor]:
    valid = torch.tensor([[text is not None for text in row] for row in WRONG])
    texts = [text for row in WRONG for text in row if text]
    return ce.five_texts(Tokens(*ce.encoder.tokenize(CAPTIONS)), Tokens(*ce.encoder.tokenize(texts)), valid)


def test_trimmed_bucketed_and_shared_encoding_equals_the_naive_one(built: Path) -> None:
    """Outputs and parameter gradients of the fast path against 5B separate full-length passes."""
    gradients = []
    outputs = []
    for fast in (True, False):
        encoder = load_encoder(built / "store/models/base")
        ce = CeClip(CeClip.Config(), encoder)
        text, negative = shared(ce) if fast else naive(encoder)
        weights = torch.randn(negative.shape, generator=torch.Generator().manual_seed(1))
        (negative * weights).sum().backward()
        outputs.append(torch.cat([text, negative.flatten(0, 1)]).detach())
        gradients.append({n: p.grad for n, p in encoder.named_parameters() if p.grad is not None})
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=0)
    assert gradients[0].keys() == gradients[1].keys()
    assert len(gradients[0]) > 10
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-4, msg=name)


def test_a_batch_without_any_valid_negative(encoder: DualEncoder) -> None:
    ce = CeClip(CeClip.Config(), encoder)
    none = Tokens(torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.int64))
    valid = torch.zeros(2, 4, dtype=torch.bool)
    text, negative = ce.five_texts(Tokens(*encoder.tokenize(CAPTIONS)), none, valid)
    image = torch.nn.functional.normalize(torch.randn(2, 8), dim=1)
    parts = ce.losses({"image": image, "text": text, "negative": negative, "valid": valid}, 0)
    assert torch.isfinite(parts["loss"])
    assert parts["cmr"].item() == 0
    assert torch.all(ce.theta == 0)


# --- toy training -----------------------------------------------------------------------------------------------------


def toy(ce: CeClip, steps: int, only_itc: bool) -> tuple[float, list[Tensor]]:
    """Free features for 8 samples: mean g - h over valid negatives afterwards, and θ after each step."""
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(s, generator=generator).requires_grad_() for s in ((8, 16), (8, 16), (8, 4, 16))]
    valid = torch.ones(8, 4, dtype=torch.bool)
    valid[:, 3] = False
    scale = torch.tensor(10.0)
    ce.encoder.logit_scale = torch.nn.Parameter(scale.log(), requires_grad=False)
    optimiser = torch.optim.SGD(features, lr=0.2)
    thetas = []
    for _ in range(steps):
        image, text, negative = (torch.nn.functional.normalize(f, dim=-1) for f in features)
        parts = ce.losses({"image": image, "text": text, "negative": negative, "valid": valid}, 0)
        optimiser.zero_grad()
        parts["itc" if only_itc else "loss"].backward()
        optimiser.step()
        thetas.append(ce.theta)
    gap = scale * ((image * text).sum(1)[:, None] - torch.einsum("bd,bkd->bk", image, negative))
    return gap[valid].mean().item(), thetas


def test_ranking_widens_the_gap_more_than_itc_alone(encoder: DualEncoder) -> None:
    config = CeClip.Config(alpha=1.0, beta=0.0, upper=8.0)
    start, _ = toy(CeClip(config, encoder), 1, only_itc=True)
    control, _ = toy(CeClip(config, encoder), 200, only_itc=True)
    ranked, thetas = toy(CeClip(config, encoder), 200, only_itc=False)
    assert ranked > control > start
    bound = torch.stack(thetas)
    assert bool(((bound >= 0) & (bound <= 8)).all())
    assert bool((bound[:, 3] == 0).all())
    assert bool((bound[-1, :3] > bound[0, :3]).all())
