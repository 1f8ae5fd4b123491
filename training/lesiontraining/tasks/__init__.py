"""The recipes, one file each; a YAML names them by their class."""

from __future__ import annotations

from lesiontraining.tasks.classical import ClassicalTask
from lesiontraining.tasks.comparators import LabelMapTask, SDLTask, SupConTask
from lesiontraining.tasks.cross_entropy import CrossEntropyTask
from lesiontraining.tasks.dadrn import DADRNTask
from lesiontraining.tasks.dmrn import DMRNTask
from lesiontraining.tasks.lesionsearch import LesionSearchTask, SimCLRTask
from lesiontraining.tasks.linear_probe import LinearProbeTask
from lesiontraining.tasks.orthopatch import OrthoPatchTask
from lesiontraining.tasks.siamese import SiameseTask
from lesiontraining.tasks.vae import VAETask

__all__ = [
    "ClassicalTask",
    "CrossEntropyTask",
    "DADRNTask",
    "DMRNTask",
    "LabelMapTask",
    "LesionSearchTask",
    "LinearProbeTask",
    "OrthoPatchTask",
    "SDLTask",
    "SiameseTask",
    "SimCLRTask",
    "SupConTask",
    "VAETask",
]
