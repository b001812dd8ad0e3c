"""Whether the gate lets a model go live: a verdict on exactly this model, against the champion of today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data import record
from data.params import UserError
from serving import overrides
from serving.config import VERDICTS
from training import champion


def demand(method: str, endpoint: str, model_record: str) -> str:
    """The id of the verdict record that lets `model_record` go live at `endpoint`.

    Raises `UserError` saying why there is none, and the cure: no verdict, a verdict of another model, not a pass, or
    a pass against a champion that has been replaced since.
    """
    folder = VERDICTS / method
    again = f"Run `dvc repro gate@{method}`"
    if not (folder / record.RECORD).is_file():
        raise UserError(f"{folder}: there is no verdict on {method}, so it cannot go live. {again}.")
    found, verdict = record.verify(folder), _read(folder / "verdict.json")
    if verdict["model_record"] != model_record:
        raise UserError(
            f"{folder}: the verdict is on model {verdict['model_record'][:12]}, not on the exported model "
            f"{model_record[:12]}. {again}."
        )
    if verdict["endpoint"] != endpoint:
        raise UserError(f"{folder}: the verdict is for endpoint {verdict['endpoint']}, not for {endpoint}. {again}.")
    if verdict["verdict"] != "pass":
        raise UserError(f"{folder}: the verdict is {_words(verdict)} Train a better model, or override with a reason.")
    _same_champion(verdict, endpoint, folder)
    return found.id


def on(method: str, model_record: str) -> str | None:
    """The id of the verdict record on exactly this model, whatever it says; None if there is none that holds."""
    folder = VERDICTS / method
    try:
        found, verdict = record.verify(folder), _read(folder / "verdict.json")
    except UserError:
        return None
    return found.id if verdict["model_record"] == model_record else None


def _same_champion(verdict: dict[str, Any], endpoint: str, folder: Path) -> None:
    now = champion.current(endpoint)
    if now is not None and now.model_record == verdict["model_record"]:
        if overrides.standing(endpoint) is None:
            return  # the champion itself, exported anew: this is the verdict that made it champion
        raise UserError(
            f"{folder}: the model is champion of {endpoint} by an override, not by this verdict. Promote another "
            "model, roll back, or override again with a reason."
        )
    judged = verdict["champion"]["model_record"] if verdict["champion"]["kind"] == "champion" else None
    present = now.model_record if now else None
    if judged != present:
        raise UserError(
            f"{folder}: judged against {_named(judged)}, but the champion of {endpoint} is {_named(present)} now. "
            f"Run `dvc repro -f -s gate@{folder.name}` to have it judged against that one."
        )


def _named(model_record: str | None) -> str:
    return f"model {model_record[:12]}" if model_record else "the base model"


def _words(verdict: dict[str, Any]) -> str:
    if verdict["verdict"] == "inconclusive" and verdict.get("needs_more_items"):
        return f"inconclusive (needs {verdict['needs_more_items']} more items): {_sentence(verdict)}"
    return f"{verdict['verdict']}: {_sentence(verdict)}"


def _sentence(verdict: dict[str, Any]) -> str:
    return str(verdict.get("reason") or "no reason given").rstrip(".") + "."


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for key in ("model_record", "endpoint", "verdict", "champion"):
            content[key]
        content["champion"]["kind"], content["champion"]["model_record"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a verdict ({error}). Run the gate again (`dvc repro -f`).") from None
    return dict(content)
