"""Published weights into our networks: the forms they come in, and a report of what matched.

Only to start a training from; finished models travel as bundles.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from LesionLib.networks.base import LesionNet

_WRAPPERS = ("state_dict", "model_state_dict", "model")
# Parameters under these names are the published part; in a network without them it is all but the classifier.
_TRUNKS = ("trunk.", "features_.")
_HEADS = ("classifier.", "svm.", "units.", "attention.", "projection.", "head.", "fc.")
_HEADS += ("convs.", "pool.", "reduction.", "mean.", "log_variance.", "hidden.", "auxiliary.")


@dataclass(frozen=True)
class WeightReport:
    """What became of every tensor. ``source`` is the form that was recognised.

    ``taken`` and ``left`` are names in the network (left: kept as it was, usually random), ``unused`` names in the file,
    ``mismatched`` maps a name in the network to (shape in the file, shape here), ``adapted`` says in words what was changed
    to fit.
    """

    source: str
    taken: tuple[str, ...]
    left: tuple[str, ...]
    unused: tuple[str, ...]
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    adapted: tuple[str, ...] = ()


def load_pretrained(
    network: LesionNet, path_or_state_dict: str | Path | Mapping[str, Any], *, source: str = "auto"
) -> WeightReport:
    """Copy published weights into ``network`` where name and shape fit.

    ``path_or_state_dict``: a ``.safetensors`` file, a file of ``torch.save`` (read with ``weights_only=True``), or their
    content. ``source``: "own" (names as in the network or in a bundle), "resnet" (torchvision, timm), "mobilenet_v2"
    (torchvision), "se_resnet" (Cadene), "inception_v3" (torchvision, timm), "inception_resnet_v2" (Cadene, timm), or
    "auto", the form with most tensors that fit. A first convolution for another number of input channels is adapted: it
    answers a grey patch as before. Raises ValueError when the trunk would not be whole.
    """
    if source != "auto" and source not in _RENAMERS:
        msg = f"source must be 'auto' or one of {', '.join(map(repr, _RENAMERS))}, not {source!r}"
        raise ValueError(msg)
    published = _unwrapped(path_or_state_dict)
    own = network.state_dict()
    plans = [_plan(name, published, own) for name in ([source] if source != "auto" else _RENAMERS)]
    best = max(plans, key=lambda plan: len(plan.fitting))
    _refuse_a_broken_trunk(best, own)
    network.load_state_dict({**own, **best.fitting})
    return WeightReport(
        source=best.source,
        taken=tuple(best.fitting),
        left=tuple(name for name in own if name not in best.fitting),
        unused=tuple(name for name, ours in best.names.items() if ours not in best.fitting),
        mismatched=best.mismatched,
        adapted=best.adapted,
    )


@dataclass(frozen=True)
class _Plan:
    """What one reading of the file's names would give."""

    source: str
    names: Mapping[str, str]  # in the file -> in the network
    fitting: Mapping[str, Tensor]
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    adapted: tuple[str, ...]


def _plan(source: str, published: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> _Plan:
    names = {name: _RENAMERS[source](name) for name in published}
    fitting: dict[str, Tensor] = {}
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    adapted: list[str] = []
    first_conv = next((name for name, tensor in own.items() if tensor.ndim >= 4), None)
    for name, ours in names.items():
        tensor = published[name]
        if ours not in own:
            continue
        if source == "se_resnet" and ".se_layer." in ours:
            tensor = tensor.flatten(1) if tensor.ndim == 4 else tensor  # there 1 x 1 convolutions, here linear layers
        if ours == first_conv and _differs_in_channels_only(tensor, own[ours]):
            channels = own[ours].shape[1]
            adapted.append(
                f"{ours}: {tensor.shape[1]} input channels made {channels} "
                f"({'summed' if channels == 1 else 'averaged and rescaled'})"
            )
            tensor = tensor.sum(dim=1, keepdim=True).expand_as(own[ours]) / channels
        if tensor.shape == own[ours].shape:
            fitting[ours] = tensor
        else:
            mismatched[ours] = (tuple(tensor.shape), tuple(own[ours].shape))
    return _Plan(source, names, fitting, mismatched, tuple(adapted))


def _differs_in_channels_only(tensor: Tensor, own: Tensor) -> bool:
    kernels_match = tensor.ndim == own.ndim and tensor.shape[2:] == own.shape[2:]
    return kernels_match and tensor.shape[0] == own.shape[0] and tensor.shape[1] != own.shape[1]


def _refuse_a_broken_trunk(plan: _Plan, own: Mapping[str, Tensor]) -> None:
    trunk = [name for name in own if name.startswith(_TRUNKS)] or [n for n in own if not n.startswith(_HEADS)]
    # Files from before torch 0.4.1 do not count batches; nothing reads the counter in evaluation.
    missing = [n for n in trunk if n not in plan.fitting and not n.endswith("num_batches_tracked")]
    if missing:
        named = [f"{name} ({_shapes(plan, name)})" for name in missing[:5]]
        msg = (
            f"the weights do not fill the trunk: {len(missing)} of {len(trunk)} tensors are missing, "
            f"the first {', '.join(named)}. Give the published weights of this architecture."
        )
        raise ValueError(msg)


def _shapes(plan: _Plan, name: str) -> str:
    if name not in plan.mismatched:
        return "not in the file"
    there, here = plan.mismatched[name]
    return f"{there} there, {here} here"


def _unwrapped(given: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    content: Any = given if isinstance(given, Mapping) else _read(Path(given))
    while (inner := next((content[w] for w in _WRAPPERS if isinstance(content.get(w), Mapping)), None)) is not None:
        content = inner
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        msg = "no tensors by name found; expected a state dict, alone or under 'state_dict' or 'model'"
        raise ValueError(msg)
    return {name.removeprefix("module."): value for name, value in tensors.items()}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # torch, pickle and zip raise many kinds for damaged bytes
        reason = " ".join(str(error).split())[:160]
        msg = (
            f"{path.name} cannot be read as weights ({type(error).__name__}: {reason}); give the published file, whole"
        )
        raise ValueError(msg) from error
    if not isinstance(content, Mapping):
        msg = f"{path.name} holds a {type(content).__name__}; expected tensors by name"
        raise ValueError(msg)
    return content


def _own_name(name: str) -> str:
    return name.removeprefix("network.")  # as bundles write them


def _inception_v3_name(name: str) -> str:
    """Only what is Inception-V3's gets a place here; its classifier has none, for the head is another one."""
    if name.startswith("AuxLogits."):
        return "auxiliary." + name.removeprefix("AuxLogits.")
    return "trunk." + name if name.startswith(("Conv2d_", "Mixed_")) else name


def _inception_resnet_v2_name(name: str) -> str:
    """Cadene's trunk and timm's have the same names; their classifiers, last_linear and classif, have no place here."""
    return "trunk." + name if name.startswith(("conv2d_", "mixed_", "repeat", "block8.")) else name


def _resnet_name(name: str) -> str:
    return "classifier.1." + name.removeprefix("fc.") if name.startswith("fc.") else "trunk." + name


def _mobilenet_v2_name(name: str) -> str:
    return "features_." + name.removeprefix("features.") if name.startswith("features.") else name


def _se_resnet_name(name: str) -> str:
    """Cadene's names, whose blocks MONAI builds of its own Convolution (conv, adn.N)."""
    if name.startswith("last_linear."):
        return "classifier.1." + name.removeprefix("last_linear.")
    for pattern, ours in _SE_RESNET:
        name, found = re.subn(pattern, ours, name)
        if found:
            break
    return "trunk." + name


_SE_RESNET = (
    (r"^(layer[1-4]\.\d+)\.conv(\d)\.", r"\1.conv\2.conv."),
    (r"^(layer[1-4]\.\d+)\.bn(\d)\.", r"\1.conv\2.adn.N."),
    (r"^(layer[1-4]\.\d+)\.se_module\.fc1\.", r"\1.se_layer.fc.0."),
    (r"^(layer[1-4]\.\d+)\.se_module\.fc2\.", r"\1.se_layer.fc.2."),
    (r"^(layer[1-4]\.\d+)\.downsample\.0\.", r"\1.project.conv."),
    (r"^(layer[1-4]\.\d+)\.downsample\.1\.", r"\1.project.adn.N."),
)

_RENAMERS: Mapping[str, Callable[[str], str]] = {
    "own": _own_name,
    "inception_v3": _inception_v3_name,  # before "resnet", which takes any name: of equals the first is chosen
    "inception_resnet_v2": _inception_resnet_v2_name,
    "resnet": _resnet_name,
    "mobilenet_v2": _mobilenet_v2_name,
    "se_resnet": _se_resnet_name,
}
