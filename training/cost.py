"""What a model cost: seconds of its training and scoring, as the runs noted them, times the price of the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from data import record
from training.card_page import Block


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostConfig:
    """Section `cost` of params.yaml: what an hour of this machine costs without, and with, its GPU in use."""

    cpu_hour: float = 0.0
    gpu_hour: float = 0.0
    currency: str = "USD"

    def __post_init__(self) -> None:
        for name in ("cpu_hour", "gpu_hour"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a price, 0 or more")


@dataclasses.dataclass(frozen=True)
class Spent:
    """Seconds of one stage on one kind of device; None where the run was elsewhere and its notes are not here."""

    stage: str
    seconds: float | None
    device: str

    def price(self, prices: CostConfig) -> float | None:
        if self.seconds is None:
            return None
        return self.seconds / 3600 * (prices.cpu_hour if self.device == "cpu" else prices.gpu_hour)


def of_record(found: record.Record, key: str = "training_seconds") -> Spent:
    """What the run that made a record took: the seconds it noted under `key`, else all of them."""
    facts = record.run_facts(found.id)
    device = str(facts.get("device", "cpu")).split(":")[0] if facts else "not known here"
    return Spent(found.stage, facts.get(key, facts.get("seconds")), device)


def chain(model: record.Record, models: Path) -> list[Spent]:
    """The training of a model, and of those below `models` that it started from, the first one first."""
    earlier = []
    for item in model.inputs:
        folder = Path(item["path"])
        if folder.parent == models and (folder / record.RECORD).is_file():
            earlier += chain(record.read(folder), models)
    return [*earlier, of_record(model)]


def blocks(spent: Sequence[Spent], prices: CostConfig | None) -> Iterator[Block]:
    """The table of a card and its sum."""
    if not spent:
        yield "The model's record is not at hand, so its cost is not known."
        return
    rows = []
    for part in spent:
        price = part.price(prices) if prices else None
        rows.append({
            "stage": part.stage, "device": part.device,
            "seconds": "not known here" if part.seconds is None else f"{part.seconds:,.1f}",
            "cost": "" if price is None or prices is None else f"{price:.4g} {prices.currency}",
        })  # fmt: skip
    yield rows
    if prices is None:
        yield "No prices are set: section `cost` of params.yaml gives those of an hour."
        return
    known = [price for part in spent if (price := part.price(prices)) is not None]
    yield (
        f"In all {sum(known):.4g} {prices.currency}, at {prices.cpu_hour:g} an hour of the machine and "
        f"{prices.gpu_hour:g} with its GPU"
        + ("." if len(known) == len(spent) else "; stages that were run elsewhere are not in it.")
    )
