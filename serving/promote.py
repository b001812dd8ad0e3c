"""Promote a model to a live endpoint, or roll the endpoint back: one state machine, every transition one line.

    exported -> staged -> checked -> live-pending -> live -> superseded
    (before live-pending a failure is `rejected`; from live-pending on, `rolled_back`)

The candidate is loaded under a name of its own, so until it has agreed with its offline answers and met its latency
budget nothing that callers use is touched. A command that dies half-way is finished or undone by the next one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data import record
from data.params import UserError, section
from data.record import Record
from data.stage import log
from serving import golden, lineage, lock, parity, registry, repository, server, verdicts
from serving.config import EXPORTS, GOLDEN, SERVING, PromotionConfig
from serving.switch import Switch, keep_under_dvc, trained_model, undoing
from serving.triton import Triton
from training.champion import endpoint_of

LOCK = SERVING / "promotion.lock"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a promotion or rollback came to. `changed` is False if the endpoint was as asked for already."""

    endpoint: str
    method: str
    version: int
    model_record: str
    export_record: str
    changed: bool


def promote(method: str, *, endpoint: str | None = None, override_reason: str | None = None) -> Outcome:
    """Take the export of `method` live at its endpoint.

    Args:
        method: a folder of store/exports.
        endpoint: if given, must be the endpoint the method competes for.
        override_reason: goes live without a passing verdict; the reason is recorded. Parity and latency still count.

    Raises `UserError` with the reason and the cure; callers of the endpoint notice nothing.
    """
    export, made = EXPORTS / method, _read_export(method)
    if endpoint not in (None, made.summary["endpoint"]):
        raise UserError(f"{method} competes for endpoint {made.summary['endpoint']}, not for {endpoint}.")
    if override_reason is not None and not override_reason.strip():
        raise UserError("The override has no reason. Say in a sentence why this model may go live without a verdict.")
    with _at(made.summary["endpoint"], f"promoting {method}") as switch:
        live = _present(switch.endpoint)
        if live.get("export_record") == made.id and live["version"] in switch.loaded():
            log(f"[serving] {method} is live at {switch.endpoint} already, as version {live['version']}; nothing to do")
            return _outcome(live, changed=False)
        version = _announce(switch, method, made)
        with undoing(lambda reason: _reject(switch, version, reason)):
            trained_model(method, made.summary["model_record"])
            verdict = _verdict(method, switch.endpoint, made.summary["model_record"], override_reason)
            _stage(switch, version, export, made, lineage.keep(switch.endpoint, version, made.id, verdict))
            measured = _check(switch, version)
            registry.append(
                switch.endpoint, version, "checked", verdict_record=verdict, override=override_reason, **measured
            )  # fmt: skip
        registry.append(switch.endpoint, version, "live-pending")
        switch.go_live(version)
        keep_under_dvc()
        return _outcome(_present(switch.endpoint), changed=True)


def rollback(endpoint: str, *, reason: str = "asked for") -> Outcome:
    """Make the previous version of `endpoint` live again, after it has proven parity; the present one is unloaded.

    Raises `UserError` if there is no previous version, or if it does not agree with its offline answers any more; then
    the present version goes on.
    """
    with _at(endpoint, f"rolling {endpoint} back") as switch:
        version = registry.aliases(endpoint).previous
        if version is None:
            raise UserError(f"{endpoint} has no previous version to roll back to. Promote another model instead.")
        log(f"[serving] rolling {endpoint} back to version {version}")
        registry.append(endpoint, version, "live-pending", reason=reason)
        switch.go_back(version)
        keep_under_dvc()
        return _outcome(_present(endpoint), changed=True)


def status() -> dict[str, Any]:
    """{"endpoints": {name: ...}, "server": {...}}: what is live, since when, and whether something is under way."""
    config = section(PromotionConfig, "promotion")
    found = server.running()
    names = sorted({*config.endpoints, *(entry["endpoint"] for entry in registry.history())})
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Triton(found)) if found else None
        endpoints = {name: _endpoint_status(name, client) for name in names}
    owner = lock.owner(LOCK)
    running = {**asdict(found), "resident_mb": server.resident_mb(found)} if found else {}
    return {
        "endpoints": endpoints,
        "server": {"running": found is not None, **running, "busy": str(owner) if owner else None},
    }


def _endpoint_status(endpoint: str, client: Triton | None) -> dict[str, Any]:
    entries, found, live = registry.history(endpoint), registry.aliases(endpoint), _present(endpoint)
    last = entries[-1] if entries else {}
    unfinished = last.get("to") in registry.UNFINISHED
    return {
        "live_version": found.champion,
        "previous_version": found.previous,
        "method": live.get("method"),
        "model_record": live.get("model_record"),
        "export_record": live.get("export_record"),
        "state": last["to"] if unfinished or (last and not live) else ("live" if live else None),
        "ready": bool(client and found.champion is not None and client.ready(endpoint, found.champion)),
        "last": {key: last.get(key) for key in ("time", "who", "version", "from", "to", "reason")} if last else None,
    }


@contextlib.contextmanager
def _at(endpoint: str, purpose: str) -> Iterator[Switch]:
    """The controls of an endpoint, alone, on a running server, after what a killed command left was dealt with."""
    config = section(PromotionConfig, "promotion")
    with lock.hold(LOCK, purpose, config.lock_wait_s):
        running = server.ensure_running()
        with Triton(running) as client:
            switch = Switch(endpoint, client, running, config)
            _recover(switch)
            yield switch


def _recover(switch: Switch) -> None:
    """Finish or undo what a killed command left, from the last line of the history and what the server has loaded."""
    entries = registry.history(switch.endpoint)
    last = entries[-1] if entries else {}
    if last.get("to") in registry.UNFINISHED:
        version = last["version"]
        log(f"[serving] {switch.endpoint} version {version} was left {last['to']} by {last['who']}; that comes first")
        try:
            if last["to"] != "live-pending":
                _reject(switch, version, f"interrupted while {last['to']}")
            elif last["from"] == "superseded":
                switch.go_back(version)
            else:
                switch.go_live(version)
        except UserError as error:
            log(f"[serving] it was undone: {error}")
    try:
        switch.settle()
    except UserError as error:  # a live version that does not load must not keep another one from replacing it
        log(f"[serving] {switch.endpoint} is not as its history says: {error}")


def _read_export(method: str) -> Record:
    """The verified record of an export. Raises `UserError` if it is incomplete or failed a critical check."""
    endpoint_of(method)
    made = record.verify(EXPORTS / method)
    failed = [check["name"] for check in made.checks if check["severity"] == "critical" and not check["passed"]]
    if failed:
        raise UserError(
            f"{EXPORTS / method}: the export failed {', '.join(failed)}, so what it serves is not the model that was "
            f"judged. Export it again (`dvc repro -f export@{method}`)."
        )
    return made


def _announce(switch: Switch, method: str, made: Record) -> int:
    version = repository.next_version(switch.endpoint)
    registry.append(
        switch.endpoint, version, "exported", method=method, model_record=made.summary["model_record"],
        export_record=made.id,
    )  # fmt: skip
    model = made.summary["model_record"][:12]
    log(f"[serving] {method} (model {model}) is candidate version {version} for {switch.endpoint}")
    return version


def _verdict(method: str, endpoint: str, model_record: str, override_reason: str | None) -> str | None:
    """The verdict's record id; None where an override stands in for it."""
    try:
        return verdicts.demand(method, endpoint, model_record)
    except UserError as error:
        if override_reason is None:
            raise
        log(f"[serving] OVERRIDE ({override_reason}): {error}")
        return None


def _stage(switch: Switch, version: int, export: Path, made: Record, kept: dict[str, Any]) -> None:
    """Load the version under the candidate name. `kept` says which part of its lineage is kept beside it."""
    switch.drop_candidate()
    folder = repository.install(export, made, switch.candidate, version)
    repository.install_golden(export, switch.endpoint, version)
    switch.load(switch.candidate, [version])
    registry.append(switch.endpoint, version, "staged", folder=folder, lineage=kept)
    log(f"[serving] version {version} is loaded as {switch.candidate}")


def _check(switch: Switch, version: int) -> dict[str, Any]:
    """Parity and latency of the candidate. Raises `UserError` if either fails."""
    config, cases = switch.config, golden.read(GOLDEN / switch.endpoint / str(version))
    found = switch.check(switch.candidate, version)
    log(
        f"[serving] parity: {found.cases} golden inputs agree "
        f"(least cosine text {found.text_cosine:.6f}, image {found.image_cosine:.6f})"
    )
    timed = parity.latency(switch.client, switch.candidate, version, cases, config.latency_requests)
    log(f"[serving] latency: p50 {timed.p50_ms} ms, p99 {timed.p99_ms} ms (budget {config.p99_ms} ms)")
    if timed.p99_ms > config.p99_ms:
        raise UserError(
            f"{switch.candidate} version {version}: p99 latency {timed.p99_ms} ms is over the budget of "
            f"{config.p99_ms} ms (params.yaml: promotion.p99_ms)."
        )
    return {
        "parity": {key: value for key, value in asdict(found).items() if key != "failures"},
        "latency": asdict(timed),
    }


def _reject(switch: Switch, version: int, reason: str) -> None:
    switch.drop_candidate()
    registry.append(switch.endpoint, version, "rejected", reason=reason)
    repository.remove_version(switch.endpoint, version)
    log(f"[serving] version {version} is rejected; {switch.endpoint} is untouched")


def _present(endpoint: str) -> dict[str, Any]:
    """The facts of the live version; empty if there is none."""
    version = registry.aliases(endpoint).champion
    return {} if version is None else registry.describe(endpoint, version)


def _outcome(entry: dict[str, Any], *, changed: bool) -> Outcome:
    return Outcome(
        changed=changed, **{k: entry[k] for k in ("endpoint", "method", "version", "model_record", "export_record")}
    )  # fmt: skip
