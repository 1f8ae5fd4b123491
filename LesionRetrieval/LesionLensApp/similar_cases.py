"""The similar cases of a run: as a table with one value a cell, and as pictures at one physical scale."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from LesionClassifierLib.scene.results import FOLDER_NAME
from LesionClassifierLib.scene.tree import addResultsTableNode, placeResults
from LesionLib.errors import CaseLibraryError
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.inference.results import LesionResult, RunInfo
from LesionLib.io.tables import csv_text
from LesionRetrievalLib.library.attributes import attribute_pairs
from LesionRetrievalLib.library.cases import CaseStore, Neighbour, Scalar
from LesionRetrievalLib.library.patches import HuPatch, plane_picture, room_for
from PIL import Image
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLTableNode

from LesionLensApp.display_windows import DisplayWindow

SIMILAR_CSV, TABLE_NAME = "similar.csv", "LesionLens similar cases"
_COLUMNS = (
    "lesion", "lesion_usable", "rank", "case_id", "label", "similarity", "may_be_the_lesion", "label_source", "organ",
    "model", "model_version", "model_sha256",
)  # fmt: skip
_SHOWN_ATTRIBUTES = 6
_SIDE_PX = 200
_MIN_EXTENT_MM, _MAX_TIMES = 45.0, 1.5


# --- as a table


def similar_columns(
    results: Sequence[LesionResult], neighbours: Sequence[Sequence[Neighbour]], run: RunInfo
) -> dict[str, list[Scalar]]:
    """A row for each lesion and case, most similar first; ``attribute_...`` for each attribute that one of the cases has."""
    rows = [
        (result, rank, case)
        for result, found in zip(results, neighbours, strict=True)
        for rank, case in enumerate(found, start=1)
    ]
    names = dict.fromkeys(name for _, _, case in rows for name in case.attributes)
    of_run = (run.model_name, run.model_version, run.model_sha256)
    values = [
        (
            result.name, _yes(result.usable), rank, case.case_id, case.label, round(float(case.similarity), 6),
            _yes(case.may_be_the_lesion), case.label_source, case.organ, *of_run, *(case.attributes.get(name) for name in names),
        )
        for result, rank, case in rows
    ]  # fmt: skip
    columns = (*_COLUMNS, *(f"attribute_{name}" for name in names))
    return {column: [row[place] for row in values] for place, column in enumerate(columns)}


def similar_csv(columns: Mapping[str, Sequence[Scalar]]) -> str:
    """The content of ``similar.csv``; what a case does not have is an empty cell."""
    rows = zip(*columns.values(), strict=True)
    return csv_text([list(columns), *(["" if value is None else value for value in row] for row in rows)])


def addSimilarTable(volumeNode: vtkMRMLScalarVolumeNode, columns: Mapping[str, Sequence[Scalar]]) -> vtkMRMLTableNode:
    """The same as a table of the scene, in the folder of the answers beside ``volumeNode``."""
    scene = volumeNode.GetScene()
    shown = {name: [_yes(v) if isinstance(v, bool) else v for v in values] for name, values in columns.items()}
    node = addResultsTableNode(scene, shown, name=TABLE_NAME)
    placeResults(scene, volumeNode, [node], folderName=FOLDER_NAME)
    return node


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def vote_text(neighbours: Sequence[Neighbour]) -> str:
    """How the labels of the similar cases are spread, most frequent first."""
    counts = Counter(neighbour.label for neighbour in neighbours)
    return ", ".join(f"{count} of {len(neighbours)} {label}" for label, count in counts.most_common())


# --- as pictures


@dataclass(frozen=True)
class CaseCard:
    """A similar case as the page shows it.

    ``image``: a data URI, None where the library holds no picture. ``to_scale``: whether it has the scale of the others.
    """

    case_id: str
    label: str
    similarity: float
    may_be_the_lesion: bool
    label_source: str
    attributes: list[tuple[str, str]]
    image: str | None
    to_scale: bool


@dataclass(frozen=True)
class SimilarCases:
    """The similar cases of one lesion, and the lesion itself at their scale: ``scale_mm`` is ``scale_percent`` of a picture."""

    cards: tuple[CaseCard, ...] = ()
    lesion: str = ""
    scale_mm: float = 0.0
    scale_percent: float = 0.0
    vote: str = ""

    @property
    def has_scale(self) -> bool:
        """Whether one of the cases can be held against the lesion."""
        return any(card.to_scale for card in self.cards)

    @property
    def has_own_scales(self) -> bool:
        """Whether one of the pictures has another scale, which nobody knows."""
        return any(card.image and not card.to_scale for card in self.cards)


def similar_cases(
    result: LesionResult,
    neighbours: Sequence[Neighbour],
    library: CaseStore,
    volume: CTVolume,
    *,
    window: DisplayWindow,
) -> SimilarCases:
    """Axial pictures of the cases and of the lesion, all as wide and with the same ``window``.

    Of a case with its CT in the library; of others the small picture that it was stored with, whatever its scale and window.
    """
    patches = [_patch_of(library, neighbour.case_id) for neighbour in neighbours]
    extent_mm = _extent_mm(result.box, [patch for patch in patches if patch is not None])
    hu = window.range_hu
    scale_mm = scale_bar_mm(extent_mm)
    own = plane_picture(volume, result.box.centerRAS, "axial", extent_mm=extent_mm, window_hu=hu, side=_SIDE_PX)
    return SimilarCases(
        tuple(
            _card(neighbour, library, patch, extent_mm, hu)
            for neighbour, patch in zip(neighbours, patches, strict=True)
        ),
        png_data_uri(own) if neighbours else "",
        scale_mm,
        round(100 * scale_mm / extent_mm, 2),
        vote_text(neighbours),
    )


def _patch_of(library: CaseStore, case_id: str) -> HuPatch | None:
    """None also where it is damaged: that takes no answer away, and ``library verify`` says it."""
    try:
        return library.patch(case_id)
    except CaseLibraryError:
        return None


def _extent_mm(box: LesionBox, patches: Sequence[HuPatch]) -> float:
    """Room for all, unless that made the lesion, or every case, small: then the larger are shown in part."""
    own, others = room_for(box), [room_for(patch.box) for patch in patches]
    smaller = min(own, max(others, default=own))
    return min(max(own, *others), max(_MAX_TIMES * smaller, _MIN_EXTENT_MM)) if others else own


def _card(
    neighbour: Neighbour, library: CaseStore, patch: HuPatch | None, extent_mm: float, hu: tuple[float, float]
) -> CaseCard:
    if patch is not None:
        image = plane_picture(
            patch.volume, patch.box.centerRAS, "axial", extent_mm=extent_mm, window_hu=hu, side=_SIDE_PX
        )
    else:
        image = library.thumbnails(neighbour.case_id).get("axial")
    return CaseCard(
        case_id=neighbour.case_id,
        label=neighbour.label,
        similarity=neighbour.similarity,
        may_be_the_lesion=neighbour.may_be_the_lesion,
        label_source=neighbour.label_source,
        attributes=attribute_pairs(neighbour.attributes)[:_SHOWN_ATTRIBUTES],
        image=None if image is None else png_data_uri(image),
        to_scale=patch is not None,
    )


def scale_bar_mm(width_mm: float) -> float:
    """The longest of 5, 10, 20, 50, ... mm that is at most a third of a picture."""
    return max((mm for mm in (5.0, 10.0, 20.0, 50.0, 100.0, 200.0) if mm <= width_mm / 3), default=5.0)


def png_data_uri(pixels: np.ndarray) -> str:
    """A uint8 picture, grey (h, w) or colour (h, w, 3), as a PNG inside a data URI."""
    buffer = io.BytesIO()
    # Level 2 of 9: a fifth larger than 6 on the noise of a CT, in a third of the time.
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=2)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
