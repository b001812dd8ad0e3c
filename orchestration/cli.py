"""`fittingroom`: the commands of an operator. Every mistake is answered by one sentence and exit code 2."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data import stage
from data.params import UserError
from orchestration import lineage_cli

DESCRIPTION = """From a raw catalog drop to a promoted vision-language model.

  fittingroom demo                        the whole way once, on the starter catalog
  fittingroom up                          the Dagster UI
  fittingroom land data/starter/drop-1    validate a catalog drop
  dvc repro                               rebuild what changed
  fittingroom stale                       what would be rebuilt, and why
  fittingroom promote ce_clip             take a model to production
  fittingroom ask "red running shoes"     ask the model in production
  fittingroom trace search                the chain behind its answers, down to the rows, verified
  fittingroom impact 1163                 what contains a product
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, 1 for a command that did not succeed, 2 for a mistake in what it was
    given."""
    args = _parser().parse_args(argv)
    with stage.pipes_session():
        try:
            return int(args.run(args))
        except UserError as error:
            stage.log(f"error: {error}")
            return 2
        except KeyboardInterrupt:
            stage.log("interrupted")
            return 130
        except BrokenPipeError:  # `fittingroom ... | head`
            sys.stderr.close()
            return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fittingroom", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _pipeline_commands(commands)
    _serving_commands(commands)
    lineage_cli.register(_command, commands)
    return parser


def _pipeline_commands(commands: Any) -> None:
    demo = _command(commands, "demo", _demo, "the whole pipeline once, from a real drop to answers")
    demo.add_argument("drops", nargs="*", type=Path, metavar="DROP", help="drop folders (default: the starter's first)")

    up = _command(commands, "up", _up, "the Dagster UI and its daemon on 127.0.0.1, until Ctrl-C")
    up.add_argument("--port", type=int, help="default: 3000, or a free one if that is taken")

    land = _command(commands, "land", _land, "validate catalog drops and add what is good to store/drops")
    land.add_argument("paths", nargs="+", metavar="PATH", help="a drop: a folder with table and pictures, or its URL")
    land.add_argument("--mapping", type=Path, metavar="FILE", help="how to read the tables (default: each drop's own)")
    land.add_argument("--force", action="store_true", help="land again what has landed before")

    label = _command(commands, "label", _label, "judge hard negatives by eye; the labels enter the next audit")
    label.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", default=Path("store/negatives"),
                       help="an audited output (default: store/negatives)")  # fmt: skip
    label.add_argument("--count", type=int, default=240, help="how many negatives to show (default: 240)")
    label.add_argument("--who", help="the name to save labels under (default: the user's)")
    label.add_argument("--port", type=int, default=0, help="of 127.0.0.1 (default: a free one)")

    diff = _command(commands, "diff", _diff, "what moved between two versions of the dataset, beyond chance")
    diff.add_argument("a", metavar="A", help="a dataset's folder, a landed drop's folder, or a git revision")
    diff.add_argument("b", metavar="B", nargs="?", default="store/dataset", help="the other one (store/dataset)")
    diff.add_argument("--out", type=Path, help="where diff.md, diff.json and diff.png go (default: runs/diff)")

    docs = _command(commands, "docs", _docs, "what validation found in landed drops, in a browser, until Ctrl-C")
    docs.add_argument("drop", nargs="?", metavar="DROP", help="the beginning of a drop's id (default: the list)")
    docs.add_argument("--port", type=int, help="of 127.0.0.1 (default: 3001, or a free one if that is taken)")

    stale = _command(commands, "stale", _stale, "the stages that are out of date, and why")
    _json(stale)

    status = _command(commands, "status", _status, "what is live, whether it is well, and what is out of date")
    _json(status)


def _serving_commands(commands: Any) -> None:
    promote = _command(commands, "promote", _promote, "take a method's model to production if its verdict allows it")
    promote.add_argument("method", metavar="METHOD", help="for example ce_clip")
    promote.add_argument("--endpoint", help="default: the endpoint that the method competes for")
    promote.add_argument("--reason", help="promote without a passing verdict, for promotion.override_days; recorded")

    rollback = _command(commands, "rollback", _rollback, "bring the previous model of an endpoint back")
    rollback.add_argument("endpoint", nargs="?", default="search", help="default: search")

    ask = _command(commands, "ask", _ask, "ask the model in production for products")
    ask.add_argument("text", nargs="?", metavar="TEXT", help='for example "red running shoes for women"')
    ask.add_argument("--image", type=Path, metavar="FILE", help="a picture to search with, instead of or with TEXT")
    ask.add_argument("--k", type=int, default=5, help="how many products (default: 5)")
    _json(ask)

    _command(commands, "serve", _serve, "start Triton with the live models, if it is not running")
    _command(commands, "stop", _stop, "stop Triton")


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:  # fmt: skip
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(run=run)
    return parser


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def _demo(args: argparse.Namespace) -> int:
    from orchestration.demo import demo

    return demo(args.drops) if args.drops else demo()


def _up(args: argparse.Namespace) -> int:
    from orchestration.up import up

    return up(args.port)


def _land(args: argparse.Namespace) -> int:
    from data.land import land, summary

    for landing in land(args.paths, force=args.force, mapping=args.mapping):
        print(summary(landing))
    return 0


def _label(args: argparse.Namespace) -> int:
    from data.negatives.label import label

    return label(args.folder, count=args.count, who=args.who, port=args.port)


def _diff(args: argparse.Namespace) -> int:
    from data.diff import OUT, diff

    print(diff(args.a, args.b, args.out or OUT))
    return 0


def _docs(args: argparse.Namespace) -> int:
    from orchestration import docs, stages

    return docs.docs(args.drop, args.port, stages.workspace())


def _stale(args: argparse.Namespace) -> int:
    from orchestration import stages
    from orchestration.staleness import stale

    found = stale(stages.workspace())
    if args.json:
        _print_json(dataclasses.asdict(found))
        return 0
    from orchestration.screens import show_stages

    show_stages(found)
    return 0


def _status(args: argparse.Namespace) -> int:
    from orchestration import stages
    from orchestration.staleness import stale
    from serving import promote

    serving = promote.status()
    try:
        found, busy = stale(stages.workspace()), None
    except UserError as error:
        found, busy = None, str(error)
    if args.json:
        _print_json({**serving, "stages": dataclasses.asdict(found) if found else {"unknown": busy}})
        return 0
    from orchestration.screens import show_serving, show_stages

    show_serving(serving)
    if found:
        show_stages(found)
    else:
        print(f"stages unknown: {busy}")
    return 0


def _promote(args: argparse.Namespace) -> int:
    from serving import promote

    promote.promote(args.method, endpoint=args.endpoint, override_reason=args.reason)
    return 0


def _rollback(args: argparse.Namespace) -> int:
    from serving import promote

    promote.rollback(args.endpoint)
    return 0


def _ask(args: argparse.Namespace) -> int:
    if args.text is None and args.image is None:
        raise UserError('nothing to ask: give a TEXT, or --image FILE, or both; `fittingroom ask "red shoes"`.')
    from serving.ask import ask

    answer = ask(args.text, image=args.image, k=args.k)
    if args.json:
        _print_json({**dataclasses.asdict(answer), "picture": str(answer.picture)})
        return 0
    from orchestration.screens import show_answer

    show_answer(answer)
    return 0


def _serve(_: argparse.Namespace) -> int:
    from serving import server

    print(server.ensure_running())
    return 0


def _stop(_: argparse.Namespace) -> int:
    from serving import server

    print("Triton stopped" if server.stop() else "Triton was not running")
    return 0


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
