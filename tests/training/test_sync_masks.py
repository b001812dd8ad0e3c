"""Mask scores and masks against numbers worked out by hand (specification, section 11, 2 to 5)."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import Tensor

from data.params import UserError
from training.fused.sync_masks import (
    Score,
    Vocabulary,
    attention_maps,
    choose_patches,
    choose_words,
    entropy,
    feature_logits,
    patch_scores,
    pool_pieces,
    word_scores,
)  # fmt: skip

# Words (red, dress, free) by image columns ([CLS], 1 … 4), two heads.
Z = torch.tensor([[
    [[0, 3, 0, 0, 0], [0, 2, 2, 0, 0], [1, 0, 0, 0, 0]],
    [[0, 2, 1, 0, 0], [0, 1, 3, 0, 0], [2, 0, 0, 0, 0]],
]], dtype=torch.float32)  # fmt: skip
C = torch.ones(1, 3, dtype=torch.bool)


def near(tensor: Tensor, expected: list) -> None:  # type: ignore[type-arg]
    torch.testing.assert_close(tensor, torch.tensor(expected), atol=6e-5, rtol=0)


def scores(kind: Score, logits: Tensor = Z, content: Tensor = C, share: float = 0.5) -> tuple[Tensor, Tensor]:
    maps = attention_maps(logits, content)
    a_v = patch_scores(kind, maps)
    chosen = choose_patches(a_v, share, torch.full_like(a_v, 0.5), 1e-6)
    return a_v, word_scores(kind, maps, a_v, chosen)


def words_of(content: Tensor) -> Tensor:
    return (content.cumsum(1) - 1).clamp_min(0)


# --- scores by hand ---------------------------------------------------------------------------------------------------


def test_maps_by_hand() -> None:
    maps = attention_maps(Z, C)
    near(maps.looks, [[[0.7402, 0.1339, 0.0630, 0.0630], [0.2750, 0.6251, 0.05, 0.05], [0.25, 0.25, 0.25, 0.25]]])
    near(maps.claims.sum(1), [[1.0, 1.0, 1.0, 1.0]])


def test_scores_by_hand() -> None:
    a_v, a_w = scores("bisoftmax")
    near(a_v, [[0.4217, 0.3363, 0.1210, 0.1210]])
    near(a_w, [[0.3656, 0.4335, 0.2009]])
    near(scores("overlap")[1], [[0.8741, 0.9001, 0.5000]])
    near(scores("weighted")[1], [[0.4068, 0.4612, 0.1320]])


def test_masks_by_hand() -> None:
    """Top-2 patches are {1, 2}, top-2 words red and dress; "free" is never chosen at T → 0."""
    a_v, a_w = scores("bisoftmax")
    draw = torch.Generator().manual_seed(0)
    for _ in range(50):
        chosen = choose_patches(a_v, 0.5, torch.rand(1, 4, generator=draw), 1e-6)
        words = choose_words(a_w, words_of(C), C, 2 / 3, torch.rand(1, 3, generator=draw), 1e-6)
        assert chosen.tolist() == [[True, True, False, False]]
        assert words.tolist() == [[True, True, False]]


def test_the_text_score_is_not_constant() -> None:
    """What summing the row softmax would give: (1, 1, 1)."""
    near(attention_maps(Z, C).looks.sum(2), [[1.0, 1.0, 1.0]])
    assert scores("bisoftmax")[1].std() > 0.05


def test_the_image_cls_column_is_left_out_before_the_softmax() -> None:
    kept = Z.softmax(3)[..., 1:].mean(1).mean(1)
    near(kept, [[0.3592, 0.2799, 0.0749, 0.0749]])
    assert not torch.allclose(scores("bisoftmax")[0], kept, atol=0.01)


def test_other_scores() -> None:
    content = torch.tensor([[False, True, True]])  # the first row is the text's [CLS]
    near(scores("cls", content=content)[0], [[0.7402, 0.1339, 0.0630, 0.0630]])
    near(scores("cls", content=content)[1], [[0.0, 0.9001, 0.5000]])
    near(scores("random")[0], [[0.25, 0.25, 0.25, 0.25]])
    near(scores("random", content=content)[1], [[0.0, 0.5, 0.5]])


def test_sums_are_one() -> None:
    logits = torch.randn(5, 4, 7, 17, generator=torch.Generator().manual_seed(1)) * 3
    content = torch.ones(5, 7, dtype=torch.bool)
    content[:, 0] = content[2:, 4:] = False
    for kind in ("bisoftmax", "weighted", "random"):
        for found in scores(kind, logits, content):
            near(found.sum(1), [1.0] * 5)


def test_several_layers_are_averaged_as_probabilities() -> None:
    both = attention_maps(torch.cat([Z, 2 * Z], 1), C).looks
    one, two = attention_maps(Z, C).looks, attention_maps(2 * Z, C).looks
    torch.testing.assert_close(both, (one + two) / 2)


def test_feature_logits_are_cosines() -> None:
    tokens, patches = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[0.0, 1.0], [3.0, 0.0], [1.0, 1.0]]])
    near(feature_logits(tokens, patches, 0.5), [[[[0.0, 2.0, 2**0.5]]]])


def test_entropy_is_one_for_uniform_and_zero_for_a_point() -> None:
    found = entropy(torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]]))
    near(found, [1.0, 0.0, 1.0])


# --- padding, specials, pieces, counts --------------------------------------------------------------------------------


def test_padding_changes_nothing() -> None:
    draw = torch.Generator().manual_seed(2)
    logits, chance = torch.randn(3, 2, 9, 17, generator=draw), torch.rand(3, 14, generator=draw)
    content = torch.zeros(3, 9, dtype=torch.bool)
    content[:, 1:8] = True
    padded = torch.cat([logits, 9 * torch.randn(3, 2, 5, 17, generator=draw)], 2)
    longer = torch.cat([content, torch.zeros(3, 5, dtype=torch.bool)], 1)
    for kind in ("bisoftmax", "overlap", "weighted", "cls"):
        (a_v, a_w), (b_v, b_w) = scores(kind, logits, content), scores(kind, padded, longer)
        torch.testing.assert_close(a_v, b_v)
        torch.testing.assert_close(a_w, b_w[:, :9])
        assert (b_w[:, 9:] == 0).all()
        one = choose_words(a_w, words_of(content), content, 0.4, chance[:, :9], 0.5)
        two = choose_words(b_w, words_of(longer), longer, 0.4, chance, 0.5)
        assert torch.equal(one, two[:, :9])
        assert not two[:, 9:].any()


def vocabulary(*skip: str) -> Vocabulary:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "faux", "##leather", "##ette", "bag", "for"]
    return Vocabulary(Tokenizer(models.WordPiece({n: i for i, n in enumerate(names)}, unk_token="[UNK]")), skip)


IDS = torch.tensor([[2, 5, 6, 7, 8, 9, 3, 0, 0], [2, 8, 9, 5, 6, 8, 9, 5, 3]])  # faux##leather##ette bag for; …


def test_specials_are_never_content_and_pieces_are_one_word() -> None:
    vocab = vocabulary()
    content = vocab.content(IDS, IDS > 0)
    assert content[0].tolist() == [False, True, True, True, True, True, False, False, False]
    words = vocab.words(IDS, content)
    assert words[0, 1:6].tolist() == [0, 0, 0, 1, 2]
    assert not vocabulary("for").content(IDS, IDS > 0)[0, 5]
    digits = Tokenizer(models.WordPiece({word: i for i, word in enumerate("0123456789")}, unk_token="0"))
    with pytest.raises(UserError, match=r"\[MASK\]"):
        Vocabulary(digits)


def test_pieces_of_a_word_are_masked_together_and_counts_are_exact() -> None:
    vocab, draw = vocabulary(), torch.Generator().manual_seed(3)
    content = vocab.content(IDS, IDS > 0)
    words = vocab.words(IDS, content)
    near(pool_pieces(torch.arange(18.0).view(2, 9), words, content)[0, :4], [3.0, 4.0, 5.0, 0.0])
    for share, expected in ((0.15, (1, 1)), (0.3, (1, 2)), (0.5, (2, 3)), (1.0, (3, 6))):
        for _ in range(30):
            chosen = choose_words(torch.rand(2, 9, generator=draw), words, content, share,
                                  torch.rand(2, 9, generator=draw), 0.5)  # fmt: skip
            assert not (chosen & ~content).any()
            assert len(set(chosen[0, 1:4].tolist())) == 1  # all pieces of the first word or none
            assert tuple(len(set(words[i][chosen[i]].tolist())) for i in (0, 1)) == expected


def test_a_text_without_content_masks_nothing() -> None:
    content = torch.zeros(1, 3, dtype=torch.bool)
    a_v, a_w = scores("bisoftmax", content=content)
    assert torch.isfinite(a_v).all()
    assert not choose_words(a_w, words_of(content), content, 0.5, torch.rand(1, 3), 0.5).any()


@pytest.mark.parametrize(("share", "patches", "expected"), [(0.3, 16, 4), (0.3, 256, 76), (0.29, 100, 29), (1, 4, 4)])
def test_patch_counts_are_exact_even_where_scores_vanish(share: float, patches: int, expected: int) -> None:
    a_v = torch.zeros(3, patches)
    a_v[:, 0] = 1
    assert choose_patches(a_v, share, torch.rand(3, patches), 0.5).sum(1).tolist() == [expected] * 3


# --- temperature ------------------------------------------------------------------------------------------------------

A = torch.tensor([[0.4217, 0.3363, 0.1210, 0.1210]])
DRAWS = 4000


def frequencies(temperature: float, share: float) -> Tensor:
    chance = torch.rand(DRAWS, 4, generator=torch.Generator().manual_seed(4))
    return choose_patches(A.expand(DRAWS, 4), share, chance, temperature).float().mean(0)


def test_cold_takes_the_best_always() -> None:
    assert frequencies(1e-6, 0.5).tolist() == [1.0, 1.0, 0.0, 0.0]


def test_hot_is_uniform() -> None:
    sigma = (0.5 * 0.5 / DRAWS) ** 0.5
    assert (frequencies(1e6, 0.5) - 0.5).abs().max() < 3 * sigma


def test_at_one_the_scores_are_sampled() -> None:
    sigma = (A[0] * (1 - A[0]) / DRAWS).sqrt()
    assert ((frequencies(1.0, 0.25) - A[0] / A.sum()).abs() < 3 * sigma).all()


# --- co-occurrence ----------------------------------------------------------------------------------------------------


def test_masks_follow_planted_attention() -> None:
    """Two visible attributes, each with its own patches, and one invisible: the visible ones are masked at T → 0."""
    draw = torch.Generator().manual_seed(5)
    logits = 0.3 * torch.randn(200, 4, 3, 17, generator=draw)
    logits[:, :, 0, 1:4] += 4
    logits[:, :, 1, 7:12] += 4
    content = torch.ones(200, 3, dtype=torch.bool)
    for kind in ("bisoftmax", "weighted"):
        a_v, a_w = scores(kind, logits, content)
        chosen = choose_words(a_w, words_of(content), content, 2 / 3, torch.rand(200, 3, generator=draw), 1e-6)
        rate = chosen.float().mean(0)
        assert (rate[:2] >= 0.95).all(), kind
        assert rate[2] <= 0.05, kind
        patches = choose_patches(a_v, 0.5, torch.rand(200, 16, generator=draw), 1e-6).float().mean(0)
        assert (patches[[0, 1, 2, 6, 7, 8, 9, 10]] > 0.95).all()
