"""How often a method has tried to beat its champion: every try is a chance to be promoted by luck.

    runs/gate/attempts.jsonl    one line per attempt, append-only (`data.ledger`)

An attempt is one model, judged on one set of suites, against one champion; judging it again changes nothing. A new
champion starts every method's count anew, and a method's count does not depend on the other methods', so that verdicts
are the same in whatever order the gates run. The gate's stage writes the line before its verdict appears. The file is
no output of a stage, because DVC removes those before it runs one; like the history of promotions it is worth a backup.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from data import ledger
from data.params import UserError

ATTEMPTS = Path("runs/gate/attempts.jsonl")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attempt:
    """Who tries what: record ids of the challenger's model, of its opponent's, and of the suites both sat."""

    endpoint: str
    method: str
    champion: str
    model: str
    suites: str

    @property
    def number(self) -> int:
        """This attempt's place, from 1, among those of its method against its champion; the next one if it is new.

        Raises `UserError` naming the line of the file that was changed, removed or put in.
        """
        known = [entry["model"] + entry["suites"] for entry in _lines() if self._same_contest(entry)]
        mine = self.model + self.suites
        return known.index(mine) + 1 if mine in known else len(known) + 1

    def note(self) -> None:
        """Count this attempt, unless it is counted already."""
        mine = dataclasses.asdict(self)
        if not any(mine.items() <= entry.items() for entry in _lines()):
            ledger.append(ATTEMPTS, {**mine, "attempt": self.number})

    def _same_contest(self, entry: dict[str, Any]) -> bool:
        return all(entry[key] == getattr(self, key) for key in ("endpoint", "method", "champion"))


def _lines() -> list[dict[str, Any]]:
    for number, problem in ledger.damage(ATTEMPTS):
        raise UserError(f"{ATTEMPTS}: line {number} {problem}. Restore the file from a backup: it limits lucky passes.")
    return ledger.entries(ATTEMPTS, [field.name for field in dataclasses.fields(Attempt)], "an attempt")
