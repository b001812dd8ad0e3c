"""The two ends of the graph, which act on the outside world and so are no DVC stages: landing a drop, and promotion.

Each asset runs the same command that a person types, and tells Dagster what `store/drops` and the endpoint then hold.
"""

# No `from __future__ import annotations` here: Dagster reads the types of config and resources from the signature.
import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import CODE_VERSION_TAG
from pydantic import Field

from data import dvc, record
from data.params import PARAMS, UserError, load, read_yaml, strict
from orchestration import checks, render, reports, stages
from orchestration.resources import Workspace, as_failure
from serving.config import LINEAGE
from training.champion import ENDPOINTS

INBOX = Path("runs/inbox")
STARTER = Path("data/starter/drop-1")
LANDING = stages.LANDING_ASSET
PRODUCTION = "production"
OVERRIDE = "override"  # the check of a production asset
ACTS = "acts on the outside world"  # their code version: DVC does not judge whether such an act is out of date
DROP_COLUMNS = ("drop_id", "name", "catalog", "rows", "accepted", "quarantined", "withdrawn")
Reporter = Callable[[], reports.Report]
Content = tuple[str, Mapping[str, str], Reporter]


class LandConfig(dg.Config):
    """The form of the launch pad."""

    paths: list[str] = Field(
        default=[],
        description=f"Drop folders or URLs. Empty: every folder in {INBOX}, or the starter's first drop if none.",
    )
    force: bool = Field(default=False, description="Validate and land again even what has landed before.")


class PromoteConfig(dg.Config):
    """The form of the launch pad."""

    method: str = Field(default="", description=f"The method to promote. Empty: the endpoint's method in {PARAMS}.")
    override_reason: str = Field(
        default="",
        description="Why to promote without a passing verdict. Recorded, and expires. Empty: the verdict decides.",
    )


def build(graph: stages.Graph) -> list[dg.AssetsDefinition]:
    """The landing asset, and one production asset per endpoint where the graph exports models."""
    return [_landing(graph), *(_production(graph, endpoint) for endpoint in endpoints(graph.root))]


def endpoints(root: Path) -> list[str]:
    """The endpoints of params.yaml; none where it has no section `promotion`."""
    return list(load(root / PARAMS).get("promotion", {}).get("endpoints", {}))


def endpoint_assets(root: Path) -> list[str]:
    return [f"{PRODUCTION}/{endpoint}" for endpoint in endpoints(root)]


def waiting(root: Path) -> list[Path]:
    """The drop folders in the inbox, by name; hidden ones are still being written."""
    inbox = root / INBOX
    return sorted(p for p in inbox.iterdir() if p.is_dir() and p.name[0] != ".") if inbox.is_dir() else []


def contents(graph: stages.Graph, declared: Mapping[str, Sequence[str]]) -> Iterator[Content]:
    """(asset, provenance tags, how to get its report) of what the two ends hold now."""
    if _landed_version(graph.root):
        yield LANDING, _landing_tags(graph.root), lambda: _landing_report(graph, declared.get(LANDING, ()))
    for endpoint in endpoints(graph.root):
        live = live_version(graph.root, endpoint)
        if live:
            yield f"{PRODUCTION}/{endpoint}", _live_tags(graph, live), functools.partial(_live_report, graph, live)


def _landing(graph: stages.Graph) -> dg.AssetsDefinition:
    # Not blocking: the rows that break a critical rule are in quarantine, and the accepted ones may go on.
    specs = checks.specs(LANDING, _rules(graph), blocking=False)

    @dg.asset(
        key=LANDING.split("/"), group_name="catalog", kinds={"great_expectations", "parquet"}, owners=["team:catalog"],
        description="Catalog drops, validated row by row with Great Expectations; bad rows lie in quarantine.",
        check_specs=specs, pool="landing", metadata={"command": "fittingroom land", "output": stages.DROPS},
    )  # fmt: skip
    def materialize(context: dg.AssetExecutionContext, config: LandConfig, here: Workspace) -> dg.MaterializeResult:
        paths = config.paths or [str(path) for path in waiting(graph.root) or [STARTER]]
        here.python(context, "data.land", *paths, *(["--force"] if config.force else []))
        with as_failure():
            report = _landing_report(graph, [spec.name for spec in specs])
        return reports.result(report)

    return materialize


def _production(graph: stages.Graph, endpoint: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=[PRODUCTION, endpoint], deps=[dg.AssetKey(stage.asset.split("/")) for stage in _ready(graph, endpoint)],
        group_name=PRODUCTION, kinds={"triton"}, owners=["team:serving"], pool="triton",
        description=f"The model that answers endpoint `{endpoint}` on Triton; promoted only with a passing verdict.",
        metadata={"command": "fittingroom promote"}, check_specs=[_override_spec(endpoint)],
    )  # fmt: skip
    def materialize(context: dg.AssetExecutionContext, config: PromoteConfig, here: Workspace) -> dg.MaterializeResult:
        method = config.method or load(graph.root / PARAMS)["promotion"]["endpoints"][endpoint]
        reason = ["--reason", config.override_reason] if config.override_reason else []
        here.python(context, "orchestration", "promote", method, "--endpoint", endpoint, *reason)
        with as_failure():
            live = live_version(graph.root, endpoint)
            if live is None:
                raise UserError(f"{endpoint}: nothing is live after the promotion. Look at `fittingroom status`.")
            report = _live_report(graph, live)
        return reports.result(report)

    return materialize


def _override_spec(endpoint: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        OVERRIDE, asset=[PRODUCTION, endpoint],
        description="A verdict lets the live model serve, or an override that has not expired.",
    )  # fmt: skip


def override_check(live: Mapping[str, Any]) -> dg.AssetCheckResult:
    """By what right the live version serves: an override is a warning, and an error once it has expired."""
    from serving import overrides

    found = overrides.of(live)
    severity = dg.AssetCheckSeverity.ERROR if found and found.expired else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        check_name=OVERRIDE, passed=found is None, severity=severity,
        description=found.sentence if found else "Its verdict lets it serve.",
        metadata={key: str(value) for key, value in found.facts.items() if value} if found else {},
    )  # fmt: skip


def _rules(graph: stages.Graph) -> dict[str, str | None]:
    """{name: what is wrong} of the validation rules and of drift, as params.yaml sets them."""
    from data import drift
    from data.expectations import Thresholds, rules

    settings = graph.values.get("land", {})
    thresholds = strict(Thresholds, settings.get("rules", {}), f"{PARAMS}: land.rules")
    limits = strict(drift.Limits, settings.get("drift", {}), f"{PARAMS}: land.drift")
    return {rule.name: rule.description for rule in [*rules(thresholds), *drift.rules(limits)]}


def _landed_version(root: Path) -> str | None:
    """DVC's hash of the landed drops; None before the first landing."""
    path = root / f"{stages.DROPS}.dvc"
    return read_yaml(path.read_text(encoding="utf-8"))["outs"][0]["md5"] if path.is_file() else None


def _landing_tags(root: Path) -> dict[str, str]:
    return {**reports.data_version_tags(str(_landed_version(root))), CODE_VERSION_TAG: ACTS}


def _landing_report(graph: stages.Graph, declared: Sequence[str]) -> reports.Report:
    """The drop that landed last in full, and every drop in one table."""
    drops = graph.root / stages.DROPS
    found = [json.loads(path.read_text(encoding="utf-8")) for path in drops.glob("*/report.json")]
    if not found:
        raise UserError(f"{stages.DROPS}: no drop has landed. Land one: `fittingroom land {STARTER}`.")
    found.sort(key=lambda report: (report.get("landed") or 0, _begun(graph.root, drops / report["drop_id"])))
    folder = drops / found[-1]["drop_id"]
    last = record.read(folder)
    rows = [{key: report.get(key) for key in DROP_COLUMNS} for report in found]
    metadata = {
        "drops": len(found), "accepted rows": sum(report["accepted"] for report in found),
        "landed": render.table(rows), **render.metadata(folder, last, record.run_facts(last.id, graph.root)),
    }  # fmt: skip
    return reports.Report(metadata, checks.results(last, declared), _landing_tags(graph.root))


def _begun(root: Path, folder: Path) -> str:
    """When a drop was landed here; empty if it was landed elsewhere."""
    record_id = _record_id(folder)
    return str(record.run_facts(record_id, root).get("begun", "")) if record_id else ""


def live_version(root: Path, endpoint: str) -> dict[str, Any] | None:
    """What the registry says of the version that answers an endpoint; None if nothing does."""
    from serving import registry

    with contextlib.chdir(root):
        version = registry.aliases(endpoint).champion
        return registry.describe(endpoint, version) if version is not None else None


def _live_report(graph: stages.Graph, live: Mapping[str, Any]) -> reports.Report:
    told = (key for key, item in live.items() if item is not None and key not in ("id", "after"))
    shown = {key: render.value(live[key]) for key in told}
    card = graph.root / LINEAGE / live["endpoint"] / str(live["version"]) / "card.html"
    if card.is_file():
        shown["model card"] = dg.MetadataValue.path(str(card))
    shown["trace"] = f"fittingroom trace {live['endpoint']}@{live['version']}"
    return reports.Report(shown, (override_check(live),), _live_tags(graph, live))


def _live_tags(graph: stages.Graph, live: Mapping[str, Any]) -> dict[str, str]:
    """The live version, made from the exports and verdicts as they are now.

    Except its own export, if that was rebuilt since: then the endpoint is stale until the new one is promoted.
    """
    lock = dvc.lock(graph.root)
    versions = {}
    for stage in _ready(graph, live["endpoint"]):
        if stage.name in lock:
            versions[stage.asset] = stages.output(lock[stage.name])["md5"]
        if stage.asset == f"exports/{live['method']}" and _record_id(graph.root / stage.out) != live["export_record"]:
            versions[stage.asset] = live["export_record"]
    version = f"version {live['version']}, export {live['export_record']}"
    if live.get("override"):  # given again, it is news
        version += f", override until {live.get('override_until')}"
    return {**reports.data_version_tags(version), CODE_VERSION_TAG: ACTS, **reports.input_tags(versions)}


def _ready(graph: stages.Graph, endpoint: str) -> list[stages.Stage]:
    """The stages that a promotion builds on: exports and verdicts of the methods that compete for the endpoint."""
    groups = ("exports", "verdicts")
    methods = ENDPOINTS.get(endpoint, ())
    return [s for s in graph.stages.values() if s.group in groups and s.asset.split("/")[-1] in methods]


def _record_id(folder: Path) -> str | None:
    try:
        return record.read(folder).id
    except UserError:
        return None
