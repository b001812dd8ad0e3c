"""The workspace's commands as a Dagster resource: live logs through Pipes, a clean stop, one sentence on failure."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, cast

import dagster as dg
from dagster_pipes import PIPES_PROTOCOL_VERSION

from data import dvc
from data.params import UserError

TAIL = 40
RELAY_SECONDS = 5.0
BUSY = re.compile(r"is busy, it is being blocked by|Unable to acquire lock")
STAGE_ERROR = "error: "
DVC_ERROR = "ERROR: "
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a `dvc repro` did: `ran` is False where DVC found nothing to do or took the output from its run cache."""

    ran: bool
    cached: bool


class Workspace(dg.ConfigurableResource):
    """The folder that holds dvc.yaml, and its commands.

    `patience`: seconds a stage gets to save its checkpoint when a run is cancelled.
    """

    root: str
    patience: float = 45.0
    busy_interval: float = 3.0

    def repro(self, context: dg.AssetExecutionContext, stage: str, *, force: bool) -> Outcome:
        """Rebuild one stage if it is out of date. Raises `dg.Failure` with the stage's own sentence.

        While another run or a person keeps this stage, or one whose output it reads, busy, this waits and says so.
        """
        lines = self._piped(context, stage, dvc.command("repro", "--single-item", *(["--force"] * force), stage))
        return Outcome(
            ran=any(line.startswith(f"Running stage '{stage}'") for line in lines),
            cached=any("is cached - skipping run" in line for line in lines),
        )

    def python(self, context: dg.AssetExecutionContext, module: str, *arguments: str) -> None:
        """Run `python -m MODULE ARGUMENTS` in the workspace. Raises `dg.Failure` with the command's own sentence."""
        self._piped(context, module, [sys.executable, "-m", module, *arguments])

    def _piped(self, context: dg.AssetExecutionContext, name: str, arguments: list[str]) -> list[str]:
        with dg.open_pipes_session(
            context, dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()
        ) as session:
            environment = {**dvc.environment(), **session.get_bootstrap_env_vars()}
            code, lines = self._run(arguments, environment)
            while code and any(BUSY.search(line) for line in lines):
                context.log.info(f"{name} or one of its inputs is in use by another process; waiting for it to finish.")
                time.sleep(self.busy_interval)
                code, lines = self._run(arguments, environment)
            if not session.message_handler.received_opened_message:
                _say_nothing(session)
        if code:
            raise failure(name, lines)
        return lines

    def _run(self, arguments: list[str], environment: Mapping[str, str]) -> tuple[int, list[str]]:
        """Run to the end, passing lines on as they come. Returns the exit code and the last lines.

        Whatever ends this early (a cancelled run, an error here) ends the whole process group, and a process that the
        command left behind ends with it.
        """
        process = subprocess.Popen(
            arguments, cwd=self.root, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        tail: deque[str] = deque(maxlen=TAIL)
        relay = threading.Thread(target=_relay, args=(process, tail), daemon=True)
        relay.start()
        try:
            code = process.wait()
        finally:
            dvc.stop_group(process, self.patience)
        relay.join(RELAY_SECONDS)
        return code, list(tail)


def _relay(process: subprocess.Popen[str], tail: deque[str]) -> None:
    """Pass on what a process prints, and keep its last lines."""
    for line in process.stdout or ():
        print(line, end="", file=sys.stderr, flush=True)
        tail.append(ANSI.sub("", line).rstrip())


@contextlib.contextmanager
def as_failure() -> Iterator[None]:
    """A `UserError` as the one sentence of a failed step, without a traceback and without a retry."""
    try:
        yield
    except UserError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None


def _say_nothing(session: dg.PipesSession) -> None:
    """Close a session that nobody opened, because DVC found no reason to start the stage,
    or because the process died first.

    Dagster would otherwise warn, at every skip, that the external process was lost.
    """
    for method in ("opened", "closed"):
        message: dict[str, Any] = {"__dagster_pipes_version": PIPES_PROTOCOL_VERSION, "method": method, "params": {}}
        session.message_handler.handle_message(cast("Any", message))


def failure(stage: str, lines: list[str]) -> dg.Failure:
    """The failure of a stage in one sentence: its own error line, or the last line of its traceback.

    A mistake of the user is not retried; a crash is, as the asset's retry policy allows.
    """
    stated = [line.removeprefix(STAGE_ERROR) for line in lines if line.startswith(STAGE_ERROR)]
    dvc_words = [line.removeprefix(DVC_ERROR) for line in lines if line.startswith(DVC_ERROR)]
    own = [line for line in lines if line.strip() and not line.startswith(DVC_ERROR)]
    if stated:
        sentence = stated[-1]
    elif any(line.startswith("Traceback") for line in lines):
        sentence = f"{stage} crashed: {own[-1]}"
    else:
        sentence = dvc_words[-1] if dvc_words else f"{stage} ended without a message."
    return dg.Failure(
        description=sentence,
        metadata={"last lines": dg.MetadataValue.md("```\n" + "\n".join(lines) + "\n```")},
        allow_retries=not stated,
    )
