"""The report, one self-contained page: what was said of each lesion, why, and what similar cases turned out to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from LesionLib.geometry import CTVolume, LesionBox, lattice_corners, transformed_points
from LesionLib.inference.messages import ModelDescription
from LesionLib.inference.results import NO_ANSWER, RGB, LesionResult, RunInfo, color_by_class, css_color, heat_map_file
from LesionLib.io.private_files import write_private
from LesionLib.io.series_details import SeriesDetails
from LesionLib.model.card import figure_sentences, heat_sentence
from LesionLib.model.explanation import METHOD_NAMES
from LesionLib.model.folder import CARD
from LesionRetrievalLib.library.cases import MAY_BE_THE_LESION, CaseStore
from LesionRetrievalLib.library.patches import axial_pictures, plane_picture
from PIL import Image, ImageDraw

from LesionLensApp.display_windows import DisplayWindow, paired_window, window_around
from LesionLensApp.output import NOTICE
from LesionLensApp.plane_drawings import PLANE_EDGES, box_outline, explained_png, heat_of_plane, outlined_png
from LesionLensApp.similar_cases import SimilarCases, png_data_uri, scale_bar_mm

PLANES = ("Axial", "Coronal", "Sagittal")
_SURROUNDINGS_MM = 30.0
_MOST_SLICES, _STRIP_PX, _OVERVIEW_PX = 11, 120, 240
_FRAME_RGB = (255, 205, 0)
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
class StripSlice:
    """An axial picture on the way through a box (a data URI), and its height in RAS mm."""

    image: str
    heightMm: float


@dataclass(frozen=True)
class LesionImages:
    """The planes of one lesion, and the window that they are shown with. ``diameters``: of its segment, in words; "" of a box.

    ``overview``: where it lies in the whole slice (a data URI); ``strip``: slices through its box, from above; ``paired``: its
    axial slice in a second window, and that window, where one alone does not show all.
    """

    planes: tuple[PlaneImage, ...]
    window: DisplayWindow
    diameters: str = ""
    overview: str = ""
    strip: tuple[StripSlice, ...] = ()
    paired: tuple[str, DisplayWindow] | None = None


def lesion_images(
    result: LesionResult,
    *,
    volume: CTVolume,
    color: RGB,
    side: int,
    window: DisplayWindow | None = None,
    details: SeriesDetails | None = None,
) -> LesionImages:
    """Each lesion in three planes as a slice view shows them, without and with its heat map.

    A plane is wide enough for the box and 30 mm around it, and ``side`` pixels wide. ``color``: of the box, 0 ... 1. ``window``:
    None is one that fits what lies around the lesion. ``details``: of the DICOM series of the CT, None for other files.
    """
    shown = window or window_around(volume, result.box)
    widthMm = field_of_view_mm(result)
    center, scale_mm = result.box.centerRAS, scale_bar_mm(widthMm)
    images = []
    for plane in PLANES:
        grey = plane_picture(volume, center, plane.lower(), extent_mm=widthMm, window_hu=shown.range_hu, side=side)
        outline = box_outline(result.box, center, plane, extent_mm=widthMm, side=side)
        plain = explained = outlined_png(grey, outline, color)
        if result.heat_map is not None:
            heat = heat_of_plane(result.heat_map, center, plane, extent_mm=widthMm, side=side)
            explained = explained_png(grey, heat, outline, color)
        position = _position(plane, volume, result, details)
        percent = round(100 * scale_mm / widthMm, 2)
        images.append(PlaneImage(plane, plain, explained, PLANE_EDGES[plane], position, scale_mm, percent))
    return LesionImages(
        tuple(images),
        shown,
        _diameters_text(volume, result, details),
        _overview_png(overview_picture(volume, result.box, shown)),
        slices_through(volume, result.box, shown, widthMm=widthMm),
        _paired(volume, result.box, shown, widthMm),
    )


def _paired(volume: CTVolume, box: LesionBox, shown: DisplayWindow, widthMm: float) -> tuple[str, DisplayWindow] | None:
    second = paired_window(volume, box, shown)
    if second is None:
        return None
    grey = plane_picture(
        volume, box.centerRAS, "axial", extent_mm=widthMm, window_hu=second.range_hu, side=_OVERVIEW_PX
    )
    return png_data_uri(grey), second


def _overview_png(picture: np.ndarray) -> str:
    """Grey but for its frame: a third of the bytes of three channels to pack."""
    is_frame = (picture == _FRAME_RGB).all(axis=2)
    return outlined_png(picture[..., 0], np.where(is_frame, 255, 0), tuple(part / 255 for part in _FRAME_RGB))


def overview_picture(volume: CTVolume, box: LesionBox, window: DisplayWindow) -> np.ndarray:
    """The whole CT at the height of the box, axial, with a frame around it: uint8 (240, 240, 3), the patient's right on the left."""
    corners = transformed_points(volume.ijkToRAS, lattice_corners(volume.sizeIJK, beyond=0.5))
    low, high = corners[:, :2].min(axis=0), corners[:, :2].max(axis=0)
    widthMm = float((high - low).max())
    middle = np.array([*(low + high) / 2, box.centerRAS[2]])
    grey = plane_picture(volume, middle, "axial", extent_mm=widthMm, window_hu=window.range_hu, side=_OVERVIEW_PX)
    picture = Image.fromarray(np.repeat(grey[..., None], 3, axis=2))
    # A column further is nearer to the patient's left, a row further nearer to the back: both against RAS.
    at = (middle[:2] - box.cornersRAS[:, :2]) * (_OVERVIEW_PX / widthMm) + (_OVERVIEW_PX - 1) / 2
    frame = [*(at.min(axis=0) - 2), *(at.max(axis=0) + 2)]
    ImageDraw.Draw(picture).rectangle([float(round(edge)) for edge in frame], outline=_FRAME_RGB, width=2)
    return np.asarray(picture)


def slices_through(
    volume: CTVolume, box: LesionBox, window: DisplayWindow, *, widthMm: float
) -> tuple[StripSlice, ...]:
    """Axial pictures ``widthMm`` wide through the box, from above: at most eleven, and no more than the CT has slices there."""
    low, high = box.cornersRAS[:, 2].min(), box.cornersRAS[:, 2].max()
    count = int(np.clip(round((high - low) / volume.sliceDistanceMm), 1, _MOST_SLICES))
    stepMm = (high - low) / count
    heights = high - (np.arange(count) + 0.5) * stepMm
    highest = np.array([*box.centerRAS[:2], heights[0]])
    pictures = axial_pictures(
        volume, highest, count, stepMm, extent_mm=widthMm, window_hu=window.range_hu, side=_STRIP_PX
    )
    return tuple(StripSlice(png_data_uri(grey), float(height)) for grey, height in zip(pictures, heights, strict=True))


def field_of_view_mm(result: LesionResult) -> float:
    """How wide a lesion's pictures are: its box and 30 mm."""
    return float(np.ptp(result.box.cornersRAS, axis=0).max()) + _SURROUNDINGS_MM


def _position(plane: str, volume: CTVolume, result: LesionResult, details: SeriesDetails | None) -> str:
    """Where the plane lies, RAS mm; of slices that the CT was made of also which one, counted from the first."""
    axis = {"Sagittal": 0, "Coronal": 1, "Axial": 2}[plane]
    text = f"{'RAS'[axis]} {result.box.centerRAS[axis]:.1f} mm"
    number = _slice_number(volume, result.box.centerRAS, axis, details)
    return f"{text}, {number}" if number else text


def _slice_number(volume: CTVolume, pointRAS: Sequence[float], axis: int, details: SeriesDetails | None) -> str:
    """Which slice of the CT a point lies in, counted from the first, and of a DICOM series which image.

    "" where its slices do not lie across this RAS axis.
    """
    normal = volume.ijkToRAS[:3, 2] / np.linalg.norm(volume.ijkToRAS[:3, 2])
    if abs(normal[axis]) < _OF_SLICES:
        return ""
    number = f"slice {round(float((volume.rasToIJK @ [*pointRAS, 1.0])[2])) + 1} of {volume.sizeIJK[2]}"
    instance = None if details is None else details.instance_at(pointRAS)
    return number if instance is None else f"{number}, DICOM instance {instance}"


def _diameters_text(volume: CTVolume, result: LesionResult, details: SeriesDetails | None) -> str:
    """As a radiologist writes them; "" where there is no segment."""
    found = None if result.statistics is None else result.statistics.diameters
    if found is None:
        return ""
    number = _slice_number(volume, found.ends[0], 2, details)
    where = f", {number}" if number else ""
    return (
        f"longest axial diameter {found.longest_mm:.1f} mm, {found.perpendicular_mm:.1f} mm across it, mean "
        f"{found.mean_mm:.1f} mm{where}"
    )


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


@dataclass(frozen=True)
class Taken:
    """How the CT was taken, for the page. ``withSeries``: also what may tell whose it is, the day and the series' description."""

    volume: CTVolume
    details: SeriesDetails | None = None
    withSeries: bool = False

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What it is, and what is known of it."""
        size, spacing = self.volume.sizeIJK, self.volume.spacingMm
        text = f"{size[2]} slices of {size[0]} x {size[1]} voxels, {spacing[0]:.2f} x {spacing[1]:.2f} mm"
        text += f", {self.volume.sliceDistanceMm:.2f} mm apart"
        of = self.details or SeriesDetails()
        text += f"; slice thickness {of.thickness_mm:g} mm" if of.thickness_mm else ""
        facts = [("CT", text + (f"; kernel {of.kernel}" if of.kernel else ""))]
        if self.withSeries:
            facts.append(("Study", of.study_date or "without a date"))
            facts.append(("Series", of.description or "without a description"))
        return facts


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
    similar: Sequence[SimilarCases],
    library: CaseStore | None,
    model: ModelDescription,
    *,
    taken: Taken | None = None,
    note: str = "",
    others: Sequence[Sequence[OtherAnswer]] = (),
    heat_map_format: str = "nrrd",
) -> None:
    """Write the page; nothing in it is fetched from anywhere. ``note``: what has to be said of the similar cases.

    ``similar``: of each lesion. ``taken``: how the CT was taken, None for a page of several CTs. ``others``: for each lesion what
    other models say of its box. ``heat_map_format``: in which the maps are written beside it.
    """
    colors = {name: css_color(color) for name, color in color_by_class(model).items()}
    lesions = [
        {
            "result": result,
            "heat_map_file": heat_map_file(number, heat_map_format) if result.heat_map else None,
            "pictures": images[number - 1].planes,
            "window": str(images[number - 1].window),
            "diameters": images[number - 1].diameters,
            "overview": images[number - 1].overview,
            "strip": images[number - 1].strip,
            "paired": images[number - 1].paired,
            "bars": [(name, p, colors[name]) for name, p in result.shown_probabilities.items()],
            "similar": similar[number - 1],
            # Found by the same features: where the model has no answer, they have none either.
            "vote": similar[number - 1].vote if result.usable else "",
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
        facts=[] if taken is None else taken.facts,
        notice=NOTICE,
        description=model.manifest["description"],
        intended_use=model.manifest["intended_use"],
        library=library,
        note=note,
        may_be_the_lesion=MAY_BE_THE_LESION,
        colors=colors,
        inks={name: ink_on(color) for name, color in color_by_class(model).items()},
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


def ink_on(color: RGB) -> str:
    """Black or white, whichever is the easier to read on a colour (0 ... 1)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#fff" if (1.05 / (luminance + 0.05)) >= (luminance + 0.05) / 0.05 else "#000"


def _method(result: LesionResult) -> str:
    return "grad_cam" if result.heat_map is None else result.heat_map.method


def _card_text(model: ModelDescription) -> str:
    """The model's card, for the page to hold: a link to a file would be dead wherever else the page is opened."""
    try:
        return (model.folder / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
