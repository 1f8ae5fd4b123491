"""The map of each lesion of a batch: for which class, by which method, laid over the CT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from LesionLib.explain.heat_map import HeatMap, resample_to_ct
from LesionLib.explain.occlusion import occlusion_map
from LesionLib.explain.saliency import grad_cam
from LesionLib.geometry import CTVolume
from LesionLib.inference.messages import MapChoice
from LesionLib.model.bundle import Bundle
from LesionLib.sampling.batches import Lesion, stacked
from LesionLib.sampling.inputs import box_channels

Watch = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class MapPlan:
    """For which class (None: the answer) a map is, how it is made, whether also where the model abstains, who watches a slow one."""

    class_name: str | None
    method: MapChoice
    also_abstained: bool
    watch: Watch | None

    @property
    def is_slow(self) -> bool:
        """Whether a map takes long."""
        return self.method == "occlusion"


class Prediction(Protocol):
    """What is known of a lesion: ``features`` of its patches, ``probabilities`` (class,)."""

    @property
    def features(self) -> Tensor: ...

    @property
    def probabilities(self) -> np.ndarray: ...


def lesion_maps(
    bundle: Bundle,
    volume: CTVolume,
    pairs: Sequence[tuple[Lesion, Prediction]],
    plan: MapPlan,
    *,
    skipped: Sequence[bool],
) -> list[HeatMap | None]:
    """A map for each lesion, None where the plan wants none or it is ``skipped``. What ``plan.watch`` raises goes through."""
    if plan.method == "none":
        return [None] * len(pairs)
    names = bundle.class_names
    shown = [names.index(plan.class_name) if plan.class_name else int(a.probabilities.argmax()) for _, a in pairs]
    if plan.method == "grad_cam":
        return _grad_cams(bundle, volume, pairs, shown)
    return [
        None if is_skipped else _occlusion_map(bundle, volume, lesion, c, plan.watch)
        for (lesion, _), c, is_skipped in zip(pairs, shown, skipped, strict=True)
    ]


def _grad_cams(
    bundle: Bundle, volume: CTVolume, pairs: Sequence[tuple[Lesion, Prediction]], shown: Sequence[int]
) -> list[HeatMap | None]:
    # Lesions that the network cannot tell apart have one prediction, and one map of a class.
    wanted = [(id(prediction), c) for (_, prediction), c in zip(pairs, shown, strict=True)]
    distinct = {key: prediction.features for key, (_, prediction) in zip(wanted, pairs, strict=True)}
    counts = [len(features) for features in distinct.values()]
    classes = torch.tensor([c for (_, c), count in zip(distinct, counts, strict=True) for _ in range(count)])
    centres = bundle.network.cell_centres
    cams = grad_cam(bundle.network, torch.cat(list(distinct.values())), classes).cpu().split(counts)
    of = dict(zip(distinct, cams, strict=True))
    return [
        resample_to_ct(
            of[key].numpy(), lesion.sample, lesion.box, volume, bundle.class_names[key[1]], cell_centres=centres
        )
        for key, (lesion, _) in zip(wanted, pairs, strict=True)
    ]


def _occlusion_map(bundle: Bundle, volume: CTVolume, lesion: Lesion, class_index: int, watch: Watch | None) -> HeatMap:
    found = occlusion_map(
        bundle.network, stacked([lesion], torch.device("cpu")), class_index,
        temperature=bundle.temperature, scores=len(bundle.scores), uncovered=box_channels(bundle.spec),
        watch=None if watch is None else partial(watch, lesion.box.name),
    )  # fmt: skip
    painted = resample_to_ct(found.numpy(), lesion.sample, lesion.box, volume, bundle.class_names[class_index])
    return replace(painted, method="occlusion")
