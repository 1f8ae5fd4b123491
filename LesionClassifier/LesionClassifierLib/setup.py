"""What the module needs before it can answer, and one step that brings it: never torch, numpy or SimpleITK behind Slicer's back."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from LesionLib.errors import LesionLensError

from LesionClassifierLib.translation import tr as _

# What must not move: other extensions and Slicer itself rely on the versions that are there.
FIXED = ("torch", "numpy", "SimpleITK")
_TORCH_REQUIREMENT = ">=2.6"
_DECLINED = "User declined package installation"
_WHEELS = ("safetensors", "jsonschema", "monai")


class SetupError(LesionLensError):
    """What is missing could not be installed."""


@dataclass(frozen=True)
class Missing:
    """A package that is not there: its name, what it is needed for, and how much is downloaded."""

    name: str
    purpose: str
    size: str


_NEEDED = (
    Missing("torch", "runs the models", "200 MB without a GPU, up to 3 GB with one"),
    Missing("safetensors", "reads model files", "1 MB"),
    Missing("jsonschema", "checks model files", "1 MB"),
    Missing("monai", "networks of some models", "3 MB"),
)


_OPTIONAL = Missing("openvino", "answers sooner on the processor", "60 MB")
_OPTIONAL_REQUIREMENT = "openvino>=2025.0"


def missingPackages(isThere: Callable[[str], bool] | None = None) -> list[Missing]:
    """What is not installed; finds out without importing anything."""
    isThere = isThere or (lambda name: importlib.util.find_spec(name) is not None)
    return [package for package in _NEEDED if not isThere(package.name)]


def explain(missing: list[Missing], modelFolder: Path) -> str:
    """What is missing, how large it is, and where things go, in plain words."""
    rows = "".join(f"<li><b>{p.name}</b>: {p.purpose} ({p.size})</li>" for p in missing)
    return _(
        "<b>One step is missing before lesions can be answered.</b><ul>{rows}</ul>"
        "They go into this Slicer's own Python; torch, numpy and SimpleITK that are there are left as they are. "
        "Models lie in {folder}. Nothing about your images is ever sent."
    ).format(rows=rows, folder=modelFolder)


def install(missing: list[Missing], *, requirements: Path, wheelFolder: Path | None = None) -> None:
    """Install what is missing: torch through the PyTorch extension, the rest by Slicer's own packaging.

    ``requirements``: the module's requirements.txt. ``wheelFolder``: take everything from there, without a network.
    Raises `SetupError` in plain words; what is there is never replaced.
    """
    names = [package.name for package in missing]
    try:
        if "torch" in names and wheelFolder is None:
            _installTorch()
        _installWheels(requirements, wheelFolder, withTorch="torch" in names and wheelFolder is not None)
    except SetupError:
        raise
    except RuntimeError as error:  # what `slicer.packaging.pip_ensure` raises for a question answered with no
        if str(error) != _DECLINED:
            raise SetupError(_notInstalled(error)) from error
        msg = _("nothing was installed: the question was answered with no. Press Set up to be asked again.")
        raise SetupError(msg) from error
    except Exception as error:  # whatever pip or the extension raise must reach the user as a sentence
        raise SetupError(_notInstalled(error)) from error
    importlib.invalidate_caches()
    still = [package.name for package in missingPackages()]
    if still:
        msg = f"still missing after the installation: {', '.join(still)}. Restart Slicer and open this module again."
        raise SetupError(msg)


def offerAccelerator(isThere: Callable[[str], bool] | None = None) -> str:
    """Offer what makes answers faster and is needed for none; what became of it in one line, "" where there is nothing to offer.

    Slicer's packaging asks before it installs. torch, numpy and SimpleITK stay as they are; nothing that goes wrong is raised.
    """
    isThere = isThere or (lambda name: importlib.util.find_spec(name) is not None)
    if isThere(_OPTIONAL.name) or not isThere("torch"):
        return ""
    try:
        import slicer.packaging

        slicer.packaging.pip_ensure([_OPTIONAL_REQUIREMENT], constraints=_constraints(), requester="LesionClassifier")
    except Exception as error:  # it is a matter of speed only
        return _("{name} was not installed ({error}); lesions are answered without it.").format(
            name=_OPTIONAL.name, error=str(error).strip().split("\n")[0]
        )
    importlib.invalidate_caches()
    return _("{name} is installed: {purpose}, from the second answer of a model on.").format(
        name=_OPTIONAL.name, purpose=_OPTIONAL.purpose
    )


def _notInstalled(error: Exception) -> str:
    return _("the installation did not succeed: {0}. Check the network, or install from a folder of wheels.").format(
        error
    )


def _installTorch() -> None:
    try:
        import PyTorchUtils
    except ImportError as error:
        msg = (
            "torch comes through the PyTorch extension, which is not installed: open the Extensions Manager, install "
            "'PyTorch', restart Slicer, and press Set up again."
        )
        raise SetupError(msg) from error
    if (
        PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=_TORCH_REQUIREMENT)
        is None
    ):
        msg = "torch was not installed: the question was answered with no, or the download failed."
        raise SetupError(msg)


def _installWheels(requirements: Path, wheelFolder: Path | None, *, withTorch: bool) -> None:
    import slicer.util

    constraints = _constraints()
    if wheelFolder is None:
        import slicer.packaging

        slicer.packaging.pip_ensure(
            slicer.packaging.load_requirements(str(requirements)),
            constraints=constraints,
            requester="LesionClassifier",
        )
        return
    if not any(wheelFolder.glob("*.whl")):
        msg = f"{wheelFolder} holds no .whl file; on a machine with internet: pip download --dest FOLDER {' '.join(_WHEELS)}"
        raise SetupError(msg)
    wanted = [*_WHEELS, *(["torch"] if withTorch else [])]
    slicer.util.pip_install(["--no-index", "--find-links", str(wheelFolder), "--constraint", str(constraints), *wanted])


def _constraints() -> Path:
    """A file that holds what is installed of `FIXED` at its very version."""
    import tempfile
    from importlib.metadata import PackageNotFoundError, version

    lines = []
    for name in FIXED:
        try:
            lines.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    path = Path(tempfile.mkdtemp(prefix="lesionlens-")) / "constraints.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
