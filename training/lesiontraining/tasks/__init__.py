"""The recipes, one file each; a YAML names them by their class."""

from .cross_entropy import CrossEntropyTask
from .dadrn import DADRNTask
from .dmrn import DMRNTask
from .lesionsearch import LesionSearchTask, SimCLRTask
from .orthopatch import OrthoPatchTask
from .siamese import SiameseTask
from .vae import VAETask

__all__ = [
    "CrossEntropyTask",
    "DADRNTask",
    "DMRNTask",
    "LesionSearchTask",
    "OrthoPatchTask",
    "SiameseTask",
    "SimCLRTask",
    "VAETask",
]
