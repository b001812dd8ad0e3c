"""What a plain dual encoder answers to the questions of the other endpoints, without having been trained for them.

Attributes: each class is a phrase, a product the mean of its photo's and its title's embedding, and the probabilities
are the softmax of their scaled cosines. Composed queries: the sum of the photo's and the wish's embedding. All three
are what CLIP does out of the box, hence the opponent of the first model of those endpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]
PROMPTS = {"base_colour": "{} product", "gender": "product for {}", "season": "{} wear", "usage": "{} wear"}


def attributes(
    photos: Vectors, titles: Sequence[str | None], embed: Embed, classes: Mapping[str, Sequence[str]], scale: float
) -> dict[str, tuple[list[str], Vectors]]:
    """Per task its class names and their probabilities (N, C).

    Args:
        photos: unit vectors (N, D); `titles` the N titles, None where a product has none: the photo speaks alone.
        embed: texts to unit vectors.
        scale: s = exp(logit_scale), the temperature that the encoder was trained with.
    """
    named = [place for place, title in enumerate(titles) if title]
    products = photos.copy()
    if named:
        products[named] += embed([titles[place] or "" for place in named])
    products = unit(products)
    return {
        task: (list(names), softmax(scale * (products @ embed([prompt(task, name) for name in names]).T)))
        for task, names in classes.items()
        if names
    }


def prompt(task: str, name: str) -> str:
    """The phrase of a class.

    >>> prompt("gender", "Women")
    'product for women'
    """
    return PROMPTS.get(task, "{}").format(name.lower())


def compose(photos: Vectors, conditions: Vectors) -> Vectors:
    """Unit vectors (N, D) between photo and wish: their normalised sum. Where they are opposite, the photo's."""
    both = photos + conditions
    gone = np.linalg.norm(both, axis=1) == 0
    return unit(np.where(gone[:, None], photos, both))


def softmax(logits: Vectors) -> Vectors:
    """Over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def unit(vectors: Vectors) -> Vectors:
    """Rows scaled to length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
