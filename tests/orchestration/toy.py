"""The stages of the toy workspace: real stages, run by real DVC, small enough to run in a tenth of a second."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from judge import verdict

from data import stage
from data.params import UserError, load

INPUTS = {
    "dataset": ["store/drops"],
    "base": ["store/dataset"],
    "clip": ["store/dataset", "store/models/base"],
    "ce_clip": ["store/dataset", "store/models/base"],
    "gate-clip": ["store/models/clip"],
    "gate-ce_clip": ["store/models/ce_clip"],
}
OUTS = {"dataset": "store/dataset", "gate-clip": "store/verdicts/clip", "gate-ce_clip": "store/verdicts/ce_clip"}


def build(args: argparse.Namespace) -> None:
    name = args.name
    settings = load()["starter"].get(name, {})
    if settings.get("mistake"):
        raise UserError(f"params.yaml: starter.{name}.mistake: not allowed. Remove it.")
    if settings.get("crash") and not Path("crashed").exists():
        Path("crashed").touch()
        raise MemoryError("8 GiB")
    with stage.run(
        name,
        kind="toy",
        command=f"python toy.py {name}",
        out=Path(OUTS.get(name, f"store/models/{name}")),
        inputs=[Path(path) for path in INPUTS[name]],
        parameters=settings,
        force=args.force,
    ) as run:
        if run.up_to_date:
            return
        if settings.get("seconds"):
            train(run, name, settings["seconds"])
        (run.out / "output.txt").write_text(f"{name} {settings}" if name != "base" else str(settings["lr"]))
        tell(run, name)


def train(run: stage.Run, name: str, seconds: float) -> None:
    """Sleep as a training would work: with a child process, a progress file, and a checkpoint when interrupted."""
    folder = Path("runs/train") / name
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint"
    if checkpoint.exists():
        run.log("resuming from the checkpoint")
        return
    child = subprocess.Popen(["sleep", "300"])
    (folder / "pids.json").write_text(json.dumps([os.getpid(), os.getppid(), child.pid]))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for step in run.progress(range(int(seconds * 10)), what="steps"):
            run.log(f"step {step}")
            time.sleep(0.1)
        child.kill()
    except KeyboardInterrupt:
        time.sleep(0.5)  # saving takes a moment, longer than dvc needs to die
        checkpoint.write_text("saved")
        raise


def tell(run: stage.Run, name: str) -> None:
    from PIL import Image

    Image.linear_gradient("L").resize((320, 120)).save(run.out / "plot.png")
    run.picture("loss", run.out / "plot.png")
    run.summary(rows=1234, share=0.25, best="first")
    run.table("splits", [{"split": "train", "rows": 1000, "share": 0.8}, {"split": "test", "rows": 234, "share": 0.2}])
    run.check("complete", True, severity="critical", description="Every row is there.")
    run.check(
        "rare", False, severity="warning", description="Article types with few products.", count=25,
        examples=[f"row-{i}" for i in range(25)], share=0.02,
    )  # fmt: skip
    for split in ("train", "test"):
        run.check(f"{split}_share", True, severity="info", description=f"The share of {split} is as asked for.")
    if name.startswith("gate"):
        passed = verdict(load()["starter"]["gate"]["margin"])
        run.check("verdict", passed, severity="critical", description="The challenger is better than the champion.")


if __name__ == "__main__":
    sys.exit(stage.main(build, description=__doc__, arguments=lambda parser: parser.add_argument("name")))
