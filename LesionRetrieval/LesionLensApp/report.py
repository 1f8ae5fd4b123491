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
from LesionLib.geometry import CTVolume
from LesionLib.inference.messages import ModelDescription
from LesionLib.inference.results import NO_ANSWER, LesionResult, RunInfo, color_by_class, css_color, heat_map_file
from LesionLib.io.private_files import write_private
from LesionLib.model.card import figure_sentences, heat_sentence
from LesionLib.model.explanation import METHOD_NAMES
from LesionLib.model.folder import CARD
from LesionRetrievalLib.library.attributes import attribute_pairs
from LesionRetrievalLib.library.cases import MAY_BE_THE_LESION, Neighbour
from LesionRetrievalLib.library.store import CaseLibrary
from PIL import Image
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode

from LesionLensApp.display_windows import DisplayWindow, window_around
from LesionLensApp.output import NOTICE
from LesionLensApp.slice_views import SliceRenderer

PLANES = ("Axial", "Coronal", "Sagittal")
_SURROUNDINGS_MM = 30.0
_OF_SLICES = 0.999  # cosine: the picture's plane is a slice of the CT


@dataclass(frozen=True)
class PlaneImage:
    """One plane through the centre of a box, twice: the CT with the box, and the same under its heat map (data URIs).

    ``edges``: the patient's sides at the left, right, top and bottom; ``position``: where the plane lies; ``scale_mm`` is
    ``scale_percent`` of the picture's width.
    """

    plane: str
    plain: str
    explained: str
    edges: tuple[str, str, str, str]
    position: str
    scale_mm: float
    scale_percent: float


@dataclass(frozen=True)
class LesionImages:
    """The planes of one lesion, and the window that they are shown with. ``diameters``: of its segment, in words; "" of a box."""

    planes: tuple[PlaneImage, ...]
    window: DisplayWindow
    diameters: str = ""


def lesion_images(
    renderer: SliceRenderer,
    volumeNode: vtkMRMLScalarVolumeNode,
    roiNode: vtkMRMLMarkupsROINode,
    heatMapNode: vtkMRMLScalarVolumeNode | None,
    result: LesionResult,
    *,
    volume: CTVolume,
    window: DisplayWindow | None = None,
) -> LesionImages:
    """Each lesion in three planes by Slicer's own slice views, without and with its heat map.

    A plane is wide enough for the box and 30 mm around it. ``volume``: the voxels of the node; ``window``: None is one that
    fits what lies around the lesion.
    """
    shown = window or window_around(volume, result.box)
    fieldOfViewMm = float(np.ptp(result.box.cornersRAS, axis=0).max()) + _SURROUNDINGS_MM
    scale_mm = _scale_bar_mm(fieldOfViewMm)
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
                ruler=False,
                window=(shown.width, shown.level),
            )
            for heatMap in (None, heatMapNode)
        )
        images.append(
            PlaneImage(
                plane,
                png_data_uri(plain),
                png_data_uri(explained),
                renderer.edges(plane),
                _position(plane, volume, result),
                scale_mm,
                round(100 * scale_mm / fieldOfViewMm, 2),
            )
        )
    return LesionImages(tuple(images), shown, _diameters_text(volume, result))


def _scale_bar_mm(fieldOfViewMm: float) -> float:
    """The longest of 5, 10, 20, 50, ... mm that is at most a third of the picture."""
    return max((mm for mm in (5.0, 10.0, 20.0, 50.0, 100.0, 200.0) if mm <= fieldOfViewMm / 3), default=5.0)


def _position(plane: str, volume: CTVolume, result: LesionResult) -> str:
    """Where the plane lies, RAS mm; of slices that the CT was made of also which one, counted from the first."""
    axis = {"Sagittal": 0, "Coronal": 1, "Axial": 2}[plane]
    text = f"{'RAS'[axis]} {result.box.centerRAS[axis]:.1f} mm"
    number = _slice_number(volume, result.box.centerRAS, axis)
    return f"{text}, {number}" if number else text


def _slice_number(volume: CTVolume, pointRAS: Sequence[float], axis: int) -> str:
    """Which slice of the CT a point lies in, counted from the first; "" where its slices do not lie across this RAS axis."""
    normal = volume.ijkToRAS[:3, 2] / np.linalg.norm(volume.ijkToRAS[:3, 2])
    if abs(normal[axis]) < _OF_SLICES:
        return ""
    return f"slice {round(float((volume.rasToIJK @ [*pointRAS, 1.0])[2])) + 1} of {volume.sizeIJK[2]}"


def _diameters_text(volume: CTVolume, result: LesionResult) -> str:
    """As a radiologist writes them; "" where there is no segment."""
    found = None if result.statistics is None else result.statistics.diameters
    if found is None:
        return ""
    number = _slice_number(volume, found.ends[0], 2)
    where = f", {number}" if number else ""
    return (
        f"longest axial diameter {found.longest_mm:.1f} mm, {found.perpendicular_mm:.1f} mm across it, mean "
        f"{found.mean_mm:.1f} mm{where}"
    )


def png_data_uri(pixels: np.ndarray) -> str:
    """A uint8 picture, grey (h, w) or colour (h, w, 3), as a PNG inside a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


@dataclass(frozen=True, eq=False)
class OtherAnswer:
    """What another model says of the same box."""

    model: ModelDescription
    result: LesionResult

    @property
    def sentence(self) -> str:
        return self.result.sentence(self.model.scores)

    @property
    def text(self) -> str:
        """In a few words: the sentence of a model that describes, else the answer with its probability."""
        if self.sentence or not self.result.label:
            return self.sentence or NO_ANSWER
        return f"{self.result.label} {self.result.probabilities[self.result.label]:.2f}"

    def to_json(self) -> dict[str, object]:
        """For ``results.json``: who says what, and why there may be no answer."""
        who, result = self.model, self.result
        described = {"scores": result.shown_scores, "sentence": self.sentence} if who.scores else {}
        return {
            "model": {"name": who.name, "version": who.version, "sha256": who.sha256},
            "label": result.label,
            "probabilities": {name: round(p, 6) for name, p in result.shown_probabilities.items()},
            **described,
            "usable": result.usable,
            "noAnswer": [str(code) for code in result.abstention],
        }


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


def write_report(  # noqa: PLR0913 - the last three by name and optional
    path: Path,
    run: RunInfo,
    results: Sequence[LesionResult],
    images: Sequence[LesionImages],
    neighbours: Sequence[Sequence[Neighbour]],
    library: CaseLibrary | None,
    model: ModelDescription,
    *,
    note: str = "",
    others: Sequence[Sequence[OtherAnswer]] = (),
    heat_map_format: str = "nrrd",
) -> None:
    """Write the page; nothing in it is fetched from anywhere. ``note``: what has to be said of the similar cases.

    ``others``: for each lesion what other models say of its box. ``heat_map_format``: in which the maps are written beside it.
    """
    colors = {name: css_color(color) for name, color in color_by_class(model).items()}
    lesions = [
        {
            "result": result,
            "heat_map_file": heat_map_file(number, heat_map_format) if result.heat_map else None,
            "pictures": images[number - 1].planes,
            "window": str(images[number - 1].window),
            "diameters": images[number - 1].diameters,
            "bars": [(name, p, colors[name]) for name, p in result.shown_probabilities.items()],
            "cards": [_card(neighbour, library) for neighbour in neighbours[number - 1]],
            # Found by the same features: where the model has no answer, they have none either.
            "vote": _vote(neighbours[number - 1]) if result.usable else "",
            "reliability": (*result.messages, *result.score_notes(run.scores)),
            "sentence": result.sentence(run.scores),
            "scores": result.score_rows(run.scores),
            "map_method": METHOD_NAMES[_method(result)],
            "heat_map_says": heat_sentence(model.manifest, method=_method(result)),
            "others": [_beside(other) for other in others[number - 1]] if others else [],
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
        card=_card_text(model),
    )
    write_private(path, page)


def _beside(other: OtherAnswer) -> dict[str, object]:
    """Another model's answer as the page shows it."""
    result, colors = other.result, color_by_class(other.model)
    return {
        "model": other.model,
        "description": other.model.manifest["description"],
        "figures": figure_sentences(other.model.manifest),
        "result": result,
        "text": other.text,
        "color": css_color(colors[result.label]) if result.label else None,
        "bars": [(name, p, css_color(colors[name])) for name, p in result.shown_probabilities.items()],
        "scores": result.score_rows(other.model.scores),
        "sentence": other.sentence,
        "reliability": (*result.messages, *result.score_notes(other.model.scores)),
    }


def _method(result: LesionResult) -> str:
    return "grad_cam" if result.heat_map is None else result.heat_map.method


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
