"""The studies: does each method do what its paper claims, at small scale, on the same data, budget and towers?

One file each; `python -m training.studies` runs them all and takes up what is already done.
"""

from __future__ import annotations

import importlib

from training.studies.study import Study

STUDIES = ("ce_clip", "syncmask", "simla", "cma_clip", "lincir")


def load(name: str) -> Study:
    """The study of that name."""
    study: Study = importlib.import_module(f"training.studies.{name}").STUDY
    return study
