"""Looks at a lesion with a model: what the worker process and the process itself share. Imports torch."""

from __future__ import annotations

import torch
from LesionLib.classify import Classifier, device_name
from LesionLib.errors import BoxError
from LesionLib.geometry import require_overlap
from LesionLib.runner_models import LoadedModel, ModelCache, chosen_device
from LesionLib.runner_types import RunOptions

from .library_schema import ModelIdentity
from .retrieval_types import LesionLook, LookRequest


class RetrievalEngine:
    """Keeps models warm. In float32 always: a library's vectors were made so, and the last bits order close cases."""

    def __init__(self) -> None:
        self._models = ModelCache()

    def warm(self, model: str, options: RunOptions) -> None:
        """Load a model now."""
        self._models.get(model, chosen_device(options.device), "float32")

    def look(self, request: LookRequest) -> LesionLook:
        """Embed the box, on the CPU where the GPU's memory does not suffice. Raises what `load_bundle` raises, or `BoxError`."""
        if len(request.boxes) != 1:
            msg = f"{len(request.boxes)} boxes were given; one lesion is compared at a time."
            raise BoxError(msg)
        require_overlap(request.volume, request.boxes[0])
        device = chosen_device(request.options.device)
        try:
            return _look(self._models.get(request.model, device, "float32"), request)
        except torch.OutOfMemoryError:
            if device.type == "cpu":
                raise
        # Out of the except block: a traceback would keep the GPU's tensors alive.
        self._models.clear()
        return _look(self._models.get(request.model, torch.device("cpu"), "float32"), request)

    def close(self) -> None:
        """Forget the models."""
        self._models.clear()


def _look(model: LoadedModel, request: LookRequest) -> LesionLook:
    bundle, (box,) = model.bundle, request.boxes
    classifier = Classifier(bundle, request.volume)
    if bundle.class_names:  # one pass through the network for both
        result = classifier.classify(box)
        embedding, probabilities = result.embedding, result.probabilities
    else:
        embedding, probabilities = classifier.embed(box), {}
    heat_map = None if request.similar_to is None else classifier.similarity_to(box, request.similar_to)
    return LesionLook(
        embedding=embedding,
        probabilities=probabilities,
        class_colors=dict(zip(bundle.class_names, bundle.class_colors, strict=True)),
        heat_map=heat_map,
        model=ModelIdentity(bundle.name, bundle.version, bundle.sha256),
        device=device_name(model.device),
    )
