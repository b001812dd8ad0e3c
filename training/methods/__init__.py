"""The methods, by the name that commands, params.yaml and dvc.yaml use. One file and one line each."""

from training.methods.ce_clip import CeClip
from training.methods.clip import Clip
from training.task import Task

METHODS: dict[str, type[Task]] = {
    "clip": Clip,
    "ce_clip": CeClip,
}
