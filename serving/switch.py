"""Which versions the server has loaded, and moving an endpoint from one to another without a caller noticing.

One invariant: the newest loaded version of an endpoint is its champion, because Triton answers calls without a version
by the newest. A promotion loads the new version beside the old one; the old one stays loaded as `previous`, so callers
that pinned it go on, and a rollback needs no load before it takes effect.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data import dvc, record
from data.params import UserError
from data.stage import log
from serving import golden, parity, registry, repository, server
from serving.config import CANDIDATE, GOLDEN, MODELS, REPOSITORY, PromotionConfig
from serving.model_config import CONFIG
from serving.triton import Triton, TritonError
from training import champion


@dataclass(frozen=True)
class Switch:
    """The controls of one endpoint on one running server; the caller holds the promotion lock."""

    endpoint: str
    client: Triton
    server: server.Server
    config: PromotionConfig

    @property
    def candidate(self) -> str:
        """The model name under which a version is tried."""
        return f"{self.endpoint}{CANDIDATE}"

    def load(self, model: str, versions: list[int]) -> None:
        """Bring up exactly `versions` of a model; what was loaded before stays until they are ready."""
        newest = registry.describe(self.endpoint, versions[-1])
        repository.write_config(model, versions, export_record=newest["export_record"])
        self.client.load(model, self.config.load_wait_s)
        self.client.wait_ready(model, versions[-1], self.config.load_wait_s)

    def loaded(self) -> list[int]:
        """The versions of the endpoint that take requests, oldest first."""
        return sorted(m.version for m in self.client.index() if m.name == self.endpoint and m.state == "READY")

    def check(self, model: str, version: int) -> parity.Parity:
        """Golden parity of one version under one name. Raises `UserError` naming the inputs that differ."""
        cases = golden.read(GOLDEN / self.endpoint / str(version))
        expected = registry.describe(self.endpoint, version)["model_record"]
        found = parity.compare(self.client, model, version, cases, expected, self.config)
        if found.reason:
            raise UserError(f"{model} version {version}: {found.reason}")
        return found

    def drop_candidate(self) -> None:
        """Unload and forget the candidate, whatever state it is in."""
        try:
            self.client.unload(self.candidate)
        except TritonError as error:
            log(f"[serving] the candidate could not be unloaded ({error}); a restart of the server forgets it")
        repository.remove_candidate(self.endpoint)

    def go_live(self, version: int) -> None:
        """live-pending to live for a checked candidate: load it beside the champion, prove it, make it champion."""
        old = registry.aliases(self.endpoint).champion
        facts = registry.describe(self.endpoint, version)
        with undoing(lambda reason: self._withdraw(old, version, reason)):
            repository.adopt(self.endpoint, version, facts["folder"])
            beside = [v for v in self.loaded() if v == old]
            self.load(self.endpoint, [*beside, version])
            found = self.check(self.endpoint, version)
            champion.install(self.endpoint, trained_model(facts["method"], facts["model_record"]))
            self._commit(version, action="promote", replaces=old, parity=_summary(found))
        self.settle()

    def go_back(self, version: int) -> None:
        """live-pending to live for an earlier version: prove it, make it champion, unload what it replaces."""
        old = registry.aliases(self.endpoint).champion
        with undoing(lambda reason: self._abandon(old, version, reason)):
            repository.demand_unchanged(self.endpoint, version, registry.describe(self.endpoint, version)["folder"])
            if version not in self.loaded():
                self.load(self.endpoint, [version])
            found = self.check(self.endpoint, version)
            self._commit(version, action="rollback", replaces=old, parity=_summary(found))
        self.settle()

    def settle(self) -> None:
        """Everything that follows from the history: aliases, the champion's model, what is loaded. Safe to repeat."""
        found = registry.aliases(self.endpoint)
        registry.publish()
        if found.champion is None:
            self.drop_candidate()
            return
        entry = next(e for e in reversed(registry.history(self.endpoint)) if e["to"] == "live")
        self._retire(entry)
        kept = champion.current(self.endpoint)
        if kept is None or kept.model_record != entry["model_record"]:
            champion.point(self.endpoint, entry["model_record"])
        loaded = self.loaded()
        if not loaded or loaded[-1] != found.champion:
            self.load(self.endpoint, [found.champion])
        self.drop_candidate()

    def _commit(self, version: int, *, action: str, replaces: int | None, parity: dict[str, Any]) -> None:
        """The line that makes a version live; all that follows can be derived from it again."""
        megabytes = server.resident_mb(self.server)
        registry.append(
            self.endpoint, version, "live", action=action, replaces=replaces, parity=parity, server_mb=megabytes
        )  # fmt: skip
        log(f"[serving] {self.endpoint} version {version} is live (server memory {megabytes:.0f} MB)")

    def _retire(self, entry: dict[str, Any]) -> None:
        """The closing line of the version that the live one replaced."""
        old = entry.get("replaces")
        if old is not None and registry.describe(self.endpoint, old).get("to") == "live":
            to = "superseded" if entry["action"] == "promote" else "rolled_back"
            registry.append(self.endpoint, old, to, reason=f"{entry['action']} to version {entry['version']}")

    def _withdraw(self, old: int | None, version: int, reason: str) -> None:
        """A promotion failed on the live name: the old version alone serves again, the new one is gone."""
        if old is not None:
            self.load(self.endpoint, [old])
        else:
            self.client.unload(self.endpoint)
            (REPOSITORY / self.endpoint / CONFIG).unlink(missing_ok=True)
        registry.append(self.endpoint, version, "rolled_back", reason=reason)
        self.drop_candidate()
        repository.remove_version(self.endpoint, version)

    def _abandon(self, old: int | None, version: int, reason: str) -> None:
        """A rollback failed: the present champion goes on."""
        if old is not None and old not in self.loaded():
            self.load(self.endpoint, [old])
        registry.append(self.endpoint, version, "superseded", reason=reason)


@contextlib.contextmanager
def undoing(undo: Callable[[str], None]) -> Iterator[None]:
    """Run the block; if it fails or is interrupted, call `undo` with the reason and let the error through.

    If undoing fails too, the server is left alone, and the `UserError` names both errors.
    """
    try:
        yield
    except BaseException as error:
        reason = str(error) or type(error).__name__
        try:
            undo(reason)
        except Exception as second:
            raise UserError(
                f"{reason} And what served before could not be restored: {second} The server is left as it is; "
                f"read {server.LOG}, then promote or roll back again, which finishes or undoes this first."
            ) from error
        raise


def trained_model(method: str, model_record: str) -> Path:
    """The folder of the model with record `model_record`, which challengers are judged against once it is champion.

    Raises `UserError` if store/models holds another model of `method` by now.
    """
    folder = MODELS / method
    if record.read(folder).id != model_record:
        raise UserError(f"{folder}: was trained again since its export. Run `dvc repro export@{method}`.")
    return folder


def keep_under_dvc() -> None:
    """Let DVC version the champions' models, where DVC is in use. A failure is told, never undoes a promotion."""
    if not Path(".dvc").is_dir() or not champion.CHAMPIONS.is_dir():
        return
    try:
        dvc.call("add", champion.CHAMPIONS.as_posix())
        log(f"[serving] {champion.CHAMPIONS}.dvc follows the champions; commit it with git")
    except UserError as error:
        log(f"[serving] {champion.CHAMPIONS} is not versioned yet ({error}); run `dvc add {champion.CHAMPIONS}`")


def _summary(found: parity.Parity) -> dict[str, Any]:
    return {key: value for key, value in asdict(found).items() if key != "failures"}
