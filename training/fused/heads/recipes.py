"""What each head is fine-tuned on and how: the papers' recipes, and small ones for the starter catalog's models.

Paper values: SIMLA's configs/{VE,NLVR,NLVR_Pretrain,VQA}.yaml and scripts on eight GPUs, ALBEF's for grounding,
FashionSAP's for categories. Left out of them: RandAugment, flips and crops of the pictures, and the cleaning of the
text before the tokenizer, but for VQA. NLVR is no benchmark of these papers; its recipe is NLVR2's with one picture.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from data.params import PARAMS, UserError, canonical, load, strict
from training.config import TrainerConfig
from training.fused.heads.head import Classifier

ASSIGNMENT = "text_assignment"  # the pre-step of NLVR2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuning:
    """Settings of one fine-tuning. A preset's `finetune.TASK` in params.yaml changes single values.

    Attributes:
        grid: rows and columns of patches of the pictures; none for the model's own.
        max_tokens: of a text; longer ones are cut.
        image_blocks: of the vision transformer's blocks the last so many learn; none for all of it and its patches.
        alpha, ramp: weight of the momentum teacher, and whether it rises over the first epoch.
        after: a head whose towers and stack this one starts from, in place of the model's.
    """

    trainer: TrainerConfig
    grid: tuple[int, int] | None = None
    max_tokens: int = 64
    image_blocks: int | None = None
    alpha: float = 0.0
    ramp: bool = True
    after: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One head.

    Attributes:
        benchmark: the official benchmark that scores it and whose module gives its examples; none for a pre-step.
        classes: in the order of the outputs; empty where the training part's labels are the classes.
        own_split: whether a fifth of the scored items may be held out and the rest fitted on, where no training part
            is installed.
        way: what trains and scores it in place of the classifier: a module of `training.fused` with a function `tune`.
    """

    pictures: Literal[1, 2]
    classifier: Classifier
    paper: Tuning
    starter: Tuning
    benchmark: str | None = None
    classes: tuple[str, ...] = ()
    own_split: bool = False
    way: str | None = None

    def fit_items(self, root: Path) -> pa.Table | None:
        """The installed training part of its benchmark, or None."""
        found: Callable[[Path], pa.Table | None] = self._module().fit_items
        return found(root / str(self.benchmark))

    def _module(self) -> Any:
        from training.official import MODULES

        return importlib.import_module(f"training.benchmarks.{MODULES[str(self.benchmark)]}")


def _paper(**changes: Any) -> TrainerConfig:
    common: dict[str, Any] = {
        "lr": 2e-5, "lr_start": 1e-5, "lr_end": 1e-6, "schedule": "epochs", "warmup": 100, "warmup_unit": 100,
        "weight_decay": 0.02, "betas": (0.9, 0.999), "eps": 1e-8, "crop": 1.0, "precision": "fp32",
    }  # fmt: skip
    return TrainerConfig(**(common | changes))


def _starter(**changes: Any) -> TrainerConfig:
    common: dict[str, Any] = {
        "epochs": 8, "batch": 32, "lr": 1e-4, "head_lr": 3e-4, "warmup": 20, "weight_decay": 0.02,
        "betas": (0.9, 0.999), "eps": 1e-8, "crop": 1.0, "clip": 1.0,
    }  # fmt: skip
    return TrainerConfig(**(common | changes))


LARGE = (24, 24)  # 384 px in patches of 16
RECIPES: dict[str, Recipe] = {
    ASSIGNMENT: Recipe(
        pictures=2, classifier="linear", classes=("first", "second", "neither"),
        paper=Tuning(trainer=_paper(epochs=1, batch=512, lr_end=1e-5), max_tokens=25),
        starter=Tuning(trainer=_starter(epochs=1, batch=48), max_tokens=25, image_blocks=2),
    ),
    "nlvr2": Recipe(
        benchmark="nlvr2", pictures=2, classifier="relu", classes=("False", "True"),
        paper=Tuning(trainer=_paper(epochs=10, batch=64), grid=LARGE, alpha=0.4, after=ASSIGNMENT),
        starter=Tuning(trainer=_starter(), image_blocks=2),
    ),
    "nlvr": Recipe(
        benchmark="nlvr", pictures=1, classifier="relu", classes=("false", "true"), own_split=True,
        paper=Tuning(trainer=_paper(epochs=10, batch=64), grid=(8, 32), alpha=0.4),
        starter=Tuning(trainer=_starter(epochs=20), grid=(4, 16), image_blocks=2),
    ),
    "snli_ve": Recipe(
        benchmark="snli_ve", pictures=1, classifier="relu", classes=("contradiction", "neutral", "entailment"),
        paper=Tuning(trainer=_paper(epochs=5, batch=256), grid=LARGE, alpha=0.4, ramp=False),
        starter=Tuning(trainer=_starter(), image_blocks=2),
    ),
    **{
        f"fashiongen_{level}": Recipe(
            benchmark=f"fashiongen_{level}", pictures=1, classifier="norm",
            paper=Tuning(trainer=_paper(epochs=30, batch=64), max_tokens=75),
            starter=Tuning(trainer=_starter(), image_blocks=2),
        )
        for level in ("category", "subcategory")
    },
    "vqa": Recipe(
        benchmark="vqa", pictures=1, classifier="linear", way="questions",
        paper=Tuning(trainer=_paper(epochs=8, batch=256, warmup=400), grid=LARGE, alpha=0.4),
        starter=Tuning(trainer=_starter(), image_blocks=2),
    ),
    "refcoco": Recipe(
        benchmark="refcoco", pictures=1, classifier="linear", way="pairs",
        paper=Tuning(trainer=_paper(epochs=5, batch=256, lr=1e-5), grid=LARGE, max_tokens=30),
        starter=Tuning(trainer=_starter(), max_tokens=30, image_blocks=2),
    ),
}  # fmt: skip


def read_tuning(task: str) -> Tuning:
    """The recipe's values in the present preset, with the changes that params.yaml makes to them."""
    content = load()
    preset = content.get("preset", "starter")
    recipe = RECIPES[task]
    default = canonical(recipe.paper if preset == "paper" else recipe.starter)
    section = content.get(preset)
    over = (section.get("finetune") or {}).get(task) or {} if isinstance(section, dict) else {}
    where = f"{PARAMS}: {preset}.finetune.{task}"
    if not isinstance(over, dict) or not isinstance(over.get("trainer", {}), dict):
        raise UserError(f"{where}: expected a mapping of settings.")
    return strict(Tuning, {**default, **over, "trainer": {**default["trainer"], **over.get("trainer", {})}}, where)
