"""A library embedded again by another model, from its own HU patches: case by case, to be broken off and resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from LesionLib.errors import CaseLibraryError, LesionLensError
from LesionLib.io.boxes import with_segment_margin

from LesionRetrievalLib.library.cases import ModelIdentity, checked_code
from LesionRetrievalLib.library.patches import HuPatch, sees_beyond

if TYPE_CHECKING:
    from LesionLib.geometry import CTVolume, LesionBox
    from LesionLib.inference.messages import ModelDescription
    from LesionLib.sampling.inputs import Spec

    from LesionRetrievalLib.library.store import CaseLibrary


NO_PATCH = "the library holds no HU patch of it"
BEYOND = "the model looks further than the HU patch of it reaches"
Embedder = Callable[[HuPatch], np.ndarray]


@dataclass(frozen=True)
class ReindexReport:
    """``embedded``: now. ``kept``: by an earlier run. ``left_out``: case id to the reason why it can't be embedded."""

    model: ModelIdentity
    embedded: int
    kept: int
    left_out: dict[str, str] = field(hash=False)


def reindex(
    library: CaseLibrary,
    model: ModelDescription,
    *,
    progress: Callable[[int, int], None] | None = None,
    embed: Embedder | None = None,
    by: str = "",
) -> ReindexReport:
    """Embed every case by ``model`` that is not yet, from its HU patch, and let it be searched with when done.

    Each case is committed by itself: whatever stops this, the next call goes on there. ``progress`` is told (done, of)
    before the first and after each case; an exception that it raises stops here. Vectors of other models stay.
    Cases without a patch, or with one too small for the model, are left out and named; with none left it is an error.
    ``embed``: how the model embeds a patch (None: in this process). ``by``: the code of who reindexes, kept with the time where
    this changes anything.
    """
    checked_code(by)
    with library.transaction():  # refused now rather than after the first case, if it may not be written
        pass
    identity = ModelIdentity.of_model(model)
    embed = embed or patch_embedder(model.spec, _in_this_process(model), margin_mm=identity.segment_margin_mm)
    todo = library.ids_without_vector(model.sha256)
    kept = len(library) - len(todo)
    left_out: dict[str, str] = {}
    embedded = 0
    if progress is not None:
        progress(0, len(todo))
    for done, case_id in enumerate(todo, start=1):
        try:
            library.add_vector(case_id, embed(_patch(library, case_id)), model=identity)
            embedded += 1
        except _NotEmbedded as reason:
            left_out[case_id] = str(reason)
        if progress is not None:
            progress(done, len(todo))
    if not embedded and not kept:
        reasons = "; ".join(dict.fromkeys(left_out.values())) or "it holds no cases"
        msg = (
            f"No case of {library.path} can be embedded by {identity}: {reasons}. Build the library again from the CTs."
        )
        raise CaseLibraryError(msg)
    was_unfinished = any(m.unfinished for m in library.models() if m.identity.sha256 == model.sha256)
    library.finish_model(model.sha256, by=by if embedded or was_unfinished else None)
    return ReindexReport(identity, embedded, kept, left_out)


def patch_embedder(
    spec: Spec, embed_lesion: Callable[[CTVolume, LesionBox], np.ndarray], *, margin_mm: float | None = None
) -> Embedder:
    """How a model that looks at ``spec`` embeds a patch as it would have embedded the CT.

    ``margin_mm``: how far the boxes of segments reach beyond them for this model; None leaves all boxes as they are.
    ``embed_lesion``: how it embeds a box of a CT, as a vector (d,). For cases where it can't, a reason is raised.
    """

    def embed(patch: HuPatch) -> np.ndarray:
        try:
            if sees_beyond(patch, spec):
                raise _NotEmbedded(BEYOND)
            box = patch.box if margin_mm is None else with_segment_margin(patch.box, margin_mm)
            return embed_lesion(patch.volume, box)
        except LesionLensError as error:
            raise _NotEmbedded(str(error)) from error

    return embed


def _in_this_process(model: ModelDescription) -> Callable[[CTVolume, LesionBox], np.ndarray]:
    from LesionLib.inference.messages import EmbeddingRequest
    from LesionLib.inference.runner import InProcessRunner

    runner = InProcessRunner()
    return lambda ct, box: runner.run(EmbeddingRequest(str(model.folder), ct, box, query_only=True)).vector


class _NotEmbedded(Exception):
    """Why a case is left out."""


def _patch(library: CaseLibrary, case_id: str) -> HuPatch:
    try:
        patch = library.patch(case_id)
    except CaseLibraryError as error:
        raise _NotEmbedded(str(error)) from error
    if patch is None:
        raise _NotEmbedded(NO_PATCH)
    return patch
