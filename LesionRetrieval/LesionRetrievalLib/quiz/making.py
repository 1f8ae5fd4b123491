"""Where the cases of a quiz come from: known lesions in a folder, computed phantoms, or whatever is handed over."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from LesionLib.case_table import read_case_table
from LesionLib.geometry import CTVolume, LesionBox
from LesionLib.phantom.nodules import nodule_patch

from . import case_folder
from .case_folder import PATIENT_COLUMN
from .library_schema import Scalar
from .quiz_schema import QuizError

_PHANTOM_KINDS = {"benign": ("round", "calcified"), "malignant": ("spiculated", "lobulated")}
_PHANTOM_MM = (8.0, 20.0)
_BOX_MARGIN_MM = 1.5


@dataclass(frozen=True, eq=False)
class KnownLesion:
    """A lesion whose diagnosis is known. ``patient_hash``: as a case library has it, to leave that patient's cases out of
    the similar ones; it does not enter the quiz, nor do the names of the volume and the box.
    """

    volume: CTVolume
    box: LesionBox
    label: str
    label_source: str
    organ: str = "not stated"
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    patient_hash: str | None = None
    feedback: str = ""


class QuizCaseSource(Protocol):
    """A collection of known lesions to choose from."""

    def labels(self) -> Sequence[str]:
        """The diagnosis of each lesion, without reading its CT."""

    def patients(self) -> Sequence[str]:
        """Something that is the same for two lesions of the same patient; it stays inside this program."""

    def load(self, place: int) -> KnownLesion:
        """The lesion at ``place`` of `labels`."""


class CaseFolder:
    """The folder that ``lesionlens library build`` reads: one CSV table, ``image/`` and ``mask/``.

    A class number in the table becomes the name in ``class_names``. ``patient_hash``: from an identifier to the hash that
    the case library has, None where no library is asked. Raises `CaseTableError`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        class_names: Sequence[str],
        label_column: str | None = None,
        label_source: str | None = None,
        organ: str = "not stated",
        patient_hash: Callable[[str], str] | None = None,
    ) -> None:
        self._rows = read_case_table(folder, columns=[PATIENT_COLUMN])
        self._column = case_folder.label_column(self._rows[0], label_column)
        self._class_names = tuple(class_names)
        self._label_source = label_source or f"table of the collection, column {self._column}"
        self._organ = organ
        self._patient_hash = patient_hash

    def labels(self) -> Sequence[str]:
        return [case_folder.label_of(row, self._column, self._class_names) for row in self._rows]

    def patients(self) -> Sequence[str]:
        return [row.values[PATIENT_COLUMN] for row in self._rows]

    def load(self, place: int) -> KnownLesion:
        row = self._rows[place]
        volume, box, _ = row.load()
        return KnownLesion(
            volume=volume,
            box=box,
            label=case_folder.label_of(row, self._column, self._class_names),
            label_source=self._label_source,
            organ=self._organ,
            attributes=case_folder.attributes_of(row, self._column),
            patient_hash=self._patient_hash(row.values[PATIENT_COLUMN]) if self._patient_hash else None,
        )


class PhantomNodules:
    """Computed nodules, as many as wanted: round and calcified ones stand for benign, ragged ones for malignant."""

    def __init__(self, count: int, *, seed: int, class_names: Sequence[str]) -> None:
        if missing := sorted(set(_PHANTOM_KINDS) - set(class_names)):
            msg = f"Phantoms are benign or malignant, and the model knows no class {missing[0]!r}; take cases with --from."
            raise QuizError(msg)
        labels = sorted(_PHANTOM_KINDS)
        self._labels = [labels[place % len(labels)] for place in range(count)]
        self._seed = seed

    def labels(self) -> Sequence[str]:
        return self._labels

    def patients(self) -> Sequence[str]:
        """See `QuizCaseSource`: each is its own."""
        return [str(place) for place in range(len(self._labels))]

    def load(self, place: int) -> KnownLesion:
        label = self._labels[place]
        chance = random.Random(f"{self._seed} {place}")
        kind, diameter = chance.choice(_PHANTOM_KINDS[label]), round(chance.uniform(*_PHANTOM_MM), 1)
        volume, nodule = nodule_patch(kind=kind, diameter_mm=diameter, seed=chance.randrange(2**31))
        return KnownLesion(
            volume=volume,
            box=nodule.box.grown(_BOX_MARGIN_MM),
            label=label,
            label_source="computed phantom: its shape decides, no patient was examined",
            organ="lung",
            attributes={"shape": kind, "diameter_mm": diameter},
        )


def choose_cases(source: QuizCaseSource, count: int, *, seed: int) -> list[int]:
    """``count`` places of the source, drawn by ``seed``: the diagnoses in turn, a second lesion of a patient only when no
    other is left. The same seed gives the same choice on every machine. Raises `QuizError` where there are too few.
    """
    labels, patients = source.labels(), source.patients()
    if not 1 <= count <= len(labels):
        msg = f"{count} cases are wanted and there are {len(labels)}; give a number from 1 to {len(labels)}."
        raise QuizError(msg)

    def draw(place: int) -> bytes:
        return hashlib.sha256(f"{seed}\0{place}".encode()).digest()

    waiting = {label: sorted((p for p, of in enumerate(labels) if of == label), key=draw) for label in set(labels)}
    order = sorted(waiting, key=lambda label: hashlib.sha256(f"{seed}\0{label}".encode()).digest())
    chosen: list[int] = []
    seen: set[str] = set()
    while len(chosen) < count:
        for label in order:
            left = waiting[label]
            if left and len(chosen) < count:
                place = next((p for p in left if patients[p] not in seen), left[0])
                left.remove(place)
                seen.add(patients[place])
                chosen.append(place)
    return sorted(chosen, key=draw)


def choose_per_label(
    source: QuizCaseSource, count: int, *, seed: int, labels: Sequence[str] | None = None
) -> list[int]:
    """``count`` places of each of ``labels`` (None: all there are), drawn as `choose_cases` does, in a mixed order.

    Raises `QuizError` naming the label that has too few.
    """
    there = source.labels()
    wanted = sorted(set(there)) if labels is None else list(labels)
    for label in wanted:
        if not 1 <= count <= there.count(label):
            msg = f"{count} cases of {label!r} are wanted and there are {there.count(label)}; take fewer."
            raise QuizError(msg)
    kept = [place for place, label in enumerate(there) if label in wanted]
    chosen = choose_cases(_Part(source, kept), count * len(wanted), seed=seed)
    return [kept[place] for place in chosen]


@dataclass(frozen=True)
class _Part:
    """Some places of a source."""

    source: QuizCaseSource
    places: Sequence[int]

    def labels(self) -> Sequence[str]:
        labels = self.source.labels()
        return [labels[place] for place in self.places]

    def patients(self) -> Sequence[str]:
        patients = self.source.patients()
        return [patients[place] for place in self.places]

    def load(self, place: int) -> KnownLesion:
        return self.source.load(self.places[place])
