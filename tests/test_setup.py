"""The set-up script: done costs nothing, interrupted repairs itself, a changed pin is noticed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def setup_script(tmp_path: Path) -> ModuleType:
    """env/setup.py loaded from a copy of the repository's skeleton whose three environments need no package."""
    (tmp_path / "env").mkdir()
    shutil.copy(ROOT / "env" / "setup.py", tmp_path / "env" / "setup.py")
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    for name in ("dvc", "triton"):
        (tmp_path / "env" / f"{name}.txt").write_text("# nothing\n# nothing\n")
    spec = importlib.util.spec_from_file_location("fittingroom_setup", tmp_path / "env" / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ENVIRONMENTS = {name: tmp_path / ".tools" / name for name in ("dvc", "triton")}
    module.wrap_dvc = lambda: None  # type: ignore[attr-defined]  # there is no main environment to put it in
    (tmp_path / ".tools").mkdir()
    return module


def test_done_setup_starts_no_process(setup_script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert setup_script.set_up() == 0

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a finished set-up started a process")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert setup_script.set_up() == 0


def test_interrupted_setup_is_made_again_from_nothing(setup_script: ModuleType) -> None:
    folder: Path = setup_script.ENVIRONMENTS["triton"]
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "half-installed").write_text("left by a killed pip")

    assert setup_script.set_up() == 0

    assert not (folder / "half-installed").exists()
    assert setup_script.read_stamp(folder) == setup_script.wanted_stamp("triton")


def test_changed_pin_is_noticed_and_failure_names_its_log(
    setup_script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert setup_script.set_up() == 0
    setup_script.requirements("dvc").write_text("this is not a requirement\n")

    assert setup_script.set_up() == 1

    told = capsys.readouterr().out
    assert "environment `dvc` failed" in told
    assert "this is not a requirement" in told
    assert setup_script.read_stamp(setup_script.ENVIRONMENTS["dvc"]) is None
    assert setup_script.read_stamp(setup_script.ENVIRONMENTS["triton"]) is not None
