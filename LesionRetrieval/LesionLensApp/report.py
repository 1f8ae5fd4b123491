"""The report, one self-contained page: what was said of each lesion, why, and what similar cases turned out to be."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from LesionLib.inference.messages import ModelDescription
from LesionLib.inference.results import NO_ANSWER, LesionResult, RunInfo, color_by_class, css_color, heat_map_file
from LesionLib.io.private_files import write_private
from LesionLib.model.card import figure_sentences, heat_sentence
from LesionLib.model.folder import CARD
from LesionRetrievalLib.library.attributes import attribute_pairs
from LesionRetrievalLib.library.cases import MAY_BE_THE_LESION, Neighbour
from LesionRetrievalLib.library.store import CaseLibrary
from PIL import Image
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode

from LesionLensApp.output import NOTICE
from LesionLensApp.slice_views import SliceRenderer

PLANES = ("Axial", "Coronal", "Sagittal")
_SURROUNDINGS_MM = 30.0


@dataclass(frozen=True)
class PlaneImage:
    """One plane through the centre of a box, twice: the CT with the box, and the same under its heat map (data URIs)."""

    plane: str
    plain: str
    explained: str


def lesion_images(
    renderer: SliceRenderer,
    volumeNode: vtkMRMLScalarVolumeNode,
    roiNode: vtkMRMLMarkupsROINode,
    heatMapNode: vtkMRMLScalarVolumeNode | None,
    result: LesionResult,
) -> list[PlaneImage]:
    """Each lesion in three planes by Slicer's own slice views, without and with its heat map.

    A plane is wide enough for the box and 30 mm around it.
    """
    fieldOfViewMm = float(np.ptp(result.box.cornersRAS, axis=0).max()) + _SURROUNDINGS_MM
    images = []
    for plane in PLANES:
        plain, explained = (
            renderer.render(
                plane,
                centerRAS=result.box.centerRAS,
                fieldOfViewMm=fieldOfViewMm,
                volumeNode=volumeNode,
                heatMapNode=heatMap,
                visibleRois=[roiNode],
            )
            for heatMap in (None, heatMapNode)
        )
        images.append(PlaneImage(plane, png_data_uri(plain), png_data_uri(explained)))
    return images


def png_data_uri(pixels: np.ndarray) -> str:
    """A uint8 picture, grey (h, w) or colour (h, w, 3), as a PNG inside a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


_TEMPLATES = Path(__file__).resolve().parent / "templates"
_SHOWN_ATTRIBUTES = 6


@dataclass(frozen=True)
class CaseCard:
    """A similar case as the page shows it: ``image`` is a data URI, None where the library holds no picture."""

    case_id: str
    label: str
    similarity: float
    may_be_the_lesion: bool
    label_source: str
    attributes: list[tuple[str, str]]
    image: str | None


@cache
def _template() -> Template:
    """The page's template, compiled once."""
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html.j2")


def write_report(
    path: Path,
    run: RunInfo,
    results: Sequence[LesionResult],
    images: Sequence[Sequence[PlaneImage]],
    neighbours: Sequence[Sequence[Neighbour]],
    library: CaseLibrary | None,
    model: ModelDescription,
    *,
    note: str = "",
) -> None:
    """Write the page; nothing in it is fetched from anywhere. ``note``: what has to be said of the similar cases."""
    colors = {name: css_color(color) for name, color in color_by_class(model).items()}
    lesions = [
        {
            "result": result,
            "heat_map_file": heat_map_file(number) if result.heat_map else None,
            "pictures": images[number - 1],
            "bars": [(name, p, colors[name]) for name, p in result.shown_probabilities.items()],
            "cards": [_card(neighbour, library) for neighbour in neighbours[number - 1]],
            # Found by the same features: where the model has no answer, they have none either.
            "vote": _vote(neighbours[number - 1]) if result.usable else "",
            "reliability": result.messages,
        }
        for number, result in enumerate(results, start=1)
    ]
    page = _template().render(
        run=run,
        lesions=lesions,
        notice=NOTICE,
        description=model.manifest["description"],
        intended_use=model.manifest["intended_use"],
        library=library,
        note=note,
        may_be_the_lesion=MAY_BE_THE_LESION,
        colors=colors,
        no_answer=NO_ANSWER,
        figures=figure_sentences(model.manifest),
        heat_map_says=heat_sentence(model.manifest),
        card=_card_text(model),
    )
    write_private(path, page)


def _card_text(model: ModelDescription) -> str:
    """The model's card, for the page to hold: a link to a file would be dead wherever else the page is opened."""
    try:
        return (model.folder / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _card(neighbour: Neighbour, library: CaseLibrary | None) -> CaseCard:
    thumbnails = library.thumbnails(neighbour.case_id) if library is not None else {}
    return CaseCard(
        case_id=neighbour.case_id,
        label=neighbour.label,
        similarity=neighbour.similarity,
        may_be_the_lesion=neighbour.may_be_the_lesion,
        label_source=neighbour.label_source,
        attributes=attribute_pairs(neighbour.attributes)[:_SHOWN_ATTRIBUTES],
        image=png_data_uri(thumbnails["axial"]) if "axial" in thumbnails else None,
    )


def _vote(neighbours: Sequence[Neighbour]) -> str:
    """How the labels of the similar cases are spread, most frequent first."""
    counts = Counter(neighbour.label for neighbour in neighbours)
    return ", ".join(f"{count} of {len(neighbours)} {label}" for label, count in counts.most_common())
