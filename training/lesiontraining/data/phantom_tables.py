"""Tables of computed lesions on disk, as a user would bring one: what phantom models learn from, and the phantom benchmark.

The benchmark's variants (`BENCHMARK`) stand for the tasks of the five published systems, whose data are private: on them a claim
can be tested with a truth that is known.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from LesionLib.geometry import CTVolume
from LesionLib.phantom.masses import MassKnobs, PhantomMass, Place, mass_ct
from LesionLib.phantom.retina import GRADES, retina_photo
from PIL import Image

from lesiontraining.data.messages import one_problem

CREDIT = "Computed by LesionLens (LesionLib.phantom); no patient, no scanner."
TABLE, PHOTO_TABLE = "lesions.csv", "labels.csv"
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class PhantomTable:
    """``classes``: the kind of `LesionLib.phantom.masses` by the class's name, or several kinds, of which one is drawn.

    ``place``: where the masses lie, for all classes or by class. ``lesions``: of each patient, one a CT, whose kinds are drawn by
    themselves; CTs of a patient share their style. ``follow_ups``: later CTs of each lesion. ``imbalance``: how many times as often
    the first class comes as the last one. ``size_confound``: in what share of the lesions the size tells the class.
    """

    classes: dict[str, str | list[str]]
    place: Place | dict[str, Place]
    patients: int = 150
    lesions: int = 2
    seed: int = 0
    knobs: MassKnobs = field(default_factory=MassKnobs)
    follow_ups: int = 0
    imbalance: float = 1.0
    size_confound: float = 0.0


@dataclass(frozen=True)
class RetinaTable:
    """Two eyes a patient, whose grades differ by at most one."""

    patients: int = 150
    seed: int = 0


_TEXTURES = ["homogeneous", "fine", "coarse", "rim", "scar"]
_MODES_HU = (-55.0, 0.0, 45.0)
BENCHMARK: Mapping[str, PhantomTable | RetinaTable] = {
    # Adrenal masses: five textures, whose mean HU varies more than between classes; as unequal as the paper's slices are.
    "adrenal5": PhantomTable(
        {name: name for name in ("coarse", "scar", "fine", "rim", "homogeneous")}, "fat",
        patients=200, lesions=4, knobs=MassKnobs(modes_hu=_MODES_HU), imbalance=7.0,
    ),
    # Whole liver slices with or without a lesion.
    "liver5": PhantomTable(
        {"nothing": "nothing", "rim": "rim", "halo": "halo", "scar": "scar", "nidus": "nidus"}, "abdomen", patients=200,
        knobs=MassKnobs(contrast_hu=130.0, variation_hu=15.0, mean_hu=105.0, diameter_mm=(40.0, 62.0)),
    ),
    # Metastasis or cyst, of one mean HU.
    "binary-fluid": PhantomTable({"cyst": "cyst", "metastasis": "metastasis"}, "liver"),
    # Which of eight regions a lesion lies in, several a patient, each on two CTs.
    "search8": PhantomTable(
        {"bone": _TEXTURES, "abdomen": _TEXTURES, "mediastinum": _TEXTURES, "liver": _TEXTURES, "lung": _TEXTURES,
         "kidney": _TEXTURES, "soft tissue": _TEXTURES, "pelvis": _TEXTURES},
        {"bone": "bone", "abdomen": "bowel", "mediastinum": "mediastinum", "liver": "liver", "lung": "lung", "kidney": "kidney",
         "soft tissue": "muscle", "pelvis": "pelvis"},
        patients=100, lesions=4, follow_ups=1,
    ),
    # Photographs with five ordered grades.
    "retina5": RetinaTable(),
}  # fmt: skip


def write_phantom_table(folder: Path, asked: PhantomTable | RetinaTable) -> Path:
    """The table in ``folder`` (`TABLE`, of photographs `PHOTO_TABLE`), and beside it the images. The same ``asked``, the same bytes.

    Raises `TableError` for what cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(asked, RetinaTable):
        return _write_table(
            folder / PHOTO_TABLE, [_photo(folder, asked, number) for number in range(2 * asked.patients)]
        )
    rows = []
    for lesion in phantom_lesions(asked):
        file = f"ct{lesion.number:04d}{f'-{lesion.visit}' if lesion.visit else ''}.mha"
        _write(lesion.mass.volume, folder / file)
        rows.append(lesion.row(file, with_study=asked.follow_ups > 0))
    return _write_table(folder / TABLE, rows)


@dataclass(frozen=True, eq=False)
class PhantomLesion:
    """One CT of the table, with its truth: ``mass``, its class ``name``, and whose it is."""

    number: int
    visit: int
    patient: int
    name: str
    mass: PhantomMass

    def row(self, file: str, *, with_study: bool) -> dict[str, object]:
        """As the table has it."""
        box, patient = self.mass.box, f"phantom {self.patient:04d}"
        return {
            "volume": file, "frame": "RAS",
            **{f"center_{a}": f"{v:.4f}" for a, v in zip("xyz", box.centerRAS, strict=True)},
            **{f"size_{a}": f"{v:.4f}" for a, v in zip("xyz", box.sizeMm, strict=True)},
            "class": self.name, "patient": patient,
            **({"study": f"{patient} visit {self.visit}"} if with_study else {}),
        }  # fmt: skip


def phantom_lesions(asked: PhantomTable) -> Iterator[PhantomLesion]:
    """The lesions of the table, one after the other. Raises `TableError` for what cannot be made."""
    _require_sensible(asked)
    names = list(asked.classes)
    for number, index in enumerate(_drawn_classes(asked)):
        patient = number // asked.lesions
        for visit in range(1 + asked.follow_ups):
            mass = _mass_of(asked, number, patient, names[index], visit)
            yield PhantomLesion(number, visit, patient, names[index], mass)


def harder(
    asked: PhantomTable | RetinaTable,
    *,
    patients: int | None = None,
    seed: int | None = None,
    imbalance: float | None = None,
    variation: int | None = None,
    alike: float | None = None,
    size_confound: float | None = None,
) -> PhantomTable | RetinaTable:
    """The variant with other knobs; None leaves one as it is. ``variation``: modes of mean HU within a class, 100 HU wide together.

    Raises `TableError` for a number that is out of range.
    """
    if isinstance(asked, RetinaTable):
        if not all(knob is None for knob in (imbalance, variation, alike, size_confound)):
            raise one_problem("the phantom", "photographs have no knobs but patients and seed; leave the others out")
        return RetinaTable(asked.patients if patients is None else patients, asked.seed if seed is None else seed)
    modes = None if variation is None else tuple(np.linspace(-50.0, 50.0, variation)) if variation > 1 else ()
    knobs = {name: value for name, value in {"modes_hu": modes, "alike": alike}.items() if value is not None}
    given = {"patients": patients, "seed": seed, "imbalance": imbalance, "size_confound": size_confound}
    changed = {name: value for name, value in given.items() if value is not None}
    found = replace(asked, knobs=replace(asked.knobs, **knobs), **changed)
    _require_sensible(found)
    return found


def _require_sensible(asked: PhantomTable) -> None:
    for name, value, low, high in (
        ("patients", asked.patients, 1, 100_000), ("lesions of a patient", asked.lesions, 1, 100),
        ("follow-ups", asked.follow_ups, 0, 20), ("imbalance", asked.imbalance, 1, 1000),
        ("share of masses that are alike", asked.knobs.alike, 0, 1), ("share of sizes that tell", asked.size_confound, 0, 1),
    ):  # fmt: skip
        if not low <= value <= high:
            raise one_problem("the phantom", f"{name} is {value}; {low} to {high} is expected")


def _drawn_classes(asked: PhantomTable) -> np.ndarray:
    """The class of each lesion, by number: as often as ``imbalance`` says, to one, in an order that is drawn."""
    count, classes = asked.patients * asked.lesions, len(asked.classes)
    if asked.imbalance == 1:
        numbers = np.arange(count) % classes
    else:
        shares = asked.imbalance ** -(np.arange(classes) / max(classes - 1, 1))
        ends = np.round(np.cumsum(shares / shares.sum()) * count).astype(int)
        numbers = np.searchsorted(ends, np.arange(count), side="right")
    return np.random.default_rng((asked.seed, 3)).permutation(numbers)


def _mass_of(asked: PhantomTable, number: int, patient: int, name: str, visit: int) -> PhantomMass:
    seed, kinds = asked.seed * 1_000_003 + number, asked.classes[name]
    rng = np.random.default_rng((seed, 5))
    return mass_ct(
        kind=kinds if isinstance(kinds, str) else kinds[rng.integers(len(kinds))],
        place=asked.place if isinstance(asked.place, str) else asked.place[name],
        seed=seed,
        style_seed=asked.seed * 1_000_003 + patient,
        knobs=_sized(asked, name) if rng.uniform() < asked.size_confound else asked.knobs,
        visit=visit,
    )


def _sized(asked: PhantomTable, name: str) -> MassKnobs:
    """The knobs with the class's own part of the diameters."""
    low, high = asked.knobs.diameter_mm
    part = (high - low) / len(asked.classes)
    first = low + part * list(asked.classes).index(name)
    return replace(asked.knobs, diameter_mm=(first, first + part))


def _photo(folder: Path, asked: RetinaTable, number: int) -> dict[str, object]:
    """Write one photograph; its row. The second eye of a patient has the first one's grade or the next to it."""
    patient, eye = divmod(number, 2)
    rng = np.random.default_rng((asked.seed, patient, 13))
    first = patient % GRADES
    grade = first if eye == 0 else int(np.clip(first + rng.integers(-1, 2), 0, GRADES - 1))
    seed, style = asked.seed * 1_000_003 + number, asked.seed * 1_000_003 + patient
    file = f"eye{number:04d}.png"
    Image.fromarray(retina_photo(grade, seed=seed, style_seed=style, left=bool(eye))).save(folder / file)
    return {"image": file, "grade": grade, "patient": f"phantom {patient:04d}"}


def _write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _write(volume: CTVolume, path: Path) -> None:
    to_lps = _TO_LPS @ volume.ijkToRAS
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(to_lps[:3, 3].tolist())
    image.SetDirection((to_lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path))
