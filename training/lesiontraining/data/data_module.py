"""The lesions of one experiment for Lightning: read, checked, divided by patient, cut, and looked through for leaks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from LesionLib.errors import LesionLensError
from LesionLib.sampling.planes import KeySliceSpec
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader

from lesiontraining.data.checks import check_table, leaks_between_sets
from lesiontraining.data.crops import InputSpec, input_section, input_spec
from lesiontraining.data.dataset import as_dataset, crop_lesions, data_fingerprint
from lesiontraining.data.lesions import LesionDataset, LesionTable
from lesiontraining.data.messages import notify
from lesiontraining.data.readers.registry import read_with
from lesiontraining.data.splits import PROTOCOLS, TYPED, class_counts, divided
from lesiontraining.evaluation.leaks import LeakReport

_EXAMPLES = 6


class LeakError(LesionLensError):
    """Something of the test or validation lesions is among the training lesions."""


class LesionDataModule(LightningDataModule):
    """Lesions in three sets that share no patient.

    After ``setup()``: ``train``, ``val``, ``test`` (`LesionDataset`), ``class_names``, ``spec``, ``table`` (`LesionTable`),
    ``fold_split``, ``leaks`` (`LeakReport`). The task decides what a batch is.

    ``table``: what the ``reader`` reads (a file or folder), with ``reader_options`` of its own. ``input``: kind and fields of the
    network's input. ``label``: the label column; ``classes``: the classes in the order of the outputs. ``folds``,
    ``held_out``: see `splits.divided`. ``validation``: a share of the training patients, or "next" fold.
    ``unlabelled``: what to do with lesions without a label. ``workers``: processes that cut and load. ``cache``: a folder for
    cut lesions. ``leaks``: "fail" on a certain leak, only "report", or "off".
    """

    def __init__(  # noqa: PLR0913
        self,
        table: Path,
        *,
        input: dict[str, Any],
        reader: str = "table",
        label: str = "label",
        folds: int | str = 5,
        held_out: int = 0,
        validation: float | str = 0.15,
        classes: list[str] | None = None,
        reader_options: dict[str, Any] | None = None,
        unlabelled: Literal["refuse", "drop", "keep"] = "refuse",
        check: bool = True,
        leaks: Literal["fail", "report", "off"] = "fail",
        workers: int = 0,
        cache: Path | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        super().__init__()
        self.spec: InputSpec = input_spec(input)
        # Not save_hyperparameters(): paths would go into checkpoints, which are read with weights_only.
        self.asked = SimpleNamespace(
            table=Path(table),
            reader=reader,
            label=label,
            folds=folds,
            held_out=held_out,
            validation=validation,
            classes=classes,
            reader_options=dict(reader_options or {}),
            unlabelled=unlabelled,
            check=check,
            leaks=leaks,
            progress=progress,
        )
        self.workers, self.cache, self.seed = workers, None if cache is None else Path(cache), seed
        self.leaks: LeakReport | None = None
        self._images: LesionDataset | None = None

    def prepare_data(self) -> None:
        """Fill the cache, so that the processes of several GPUs do not cut the same lesions."""
        if self.cache is not None:
            self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Read, check, divide, cut and look for leaks; once. Raises `LesionLensError` for what is wrong with the data."""
        if self._images is not None:
            return
        asked = self.asked
        self.table = self._read()
        self._check(self.table)
        self.fold_split = divided(
            self.table, asked.folds, held_out=asked.held_out, validation=asked.validation, seed=self.seed
        )
        lesions = crop_lesions(self.table, self.spec, workers=self.workers, cache=self.cache, progress=asked.progress)
        self._images = as_dataset(self.table, lesions, self.spec, folds=self.fold_split.folds)
        split = self.fold_split.split
        self.train, self.val, self.test = (self._images.at(rows) for rows in (split.train, split.val, split.test))
        self._notify(self._counts())
        self._look_for_leaks([lesion.preview for lesion in lesions])

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the labels, after ``setup()``."""
        return self.table.class_names

    @property
    def images(self) -> LesionDataset:
        """All lesions of the table in its order, after ``setup()``."""
        self.setup()
        return self._images

    def fingerprint(self) -> str:
        """SHA-256 of the lesions, their labels and their split, after ``setup()``: for manifests."""
        splits = self.fold_split.split.names(len(self.table))
        return data_fingerprint(self.table.lesion_ids, [row.label for row in self.table.rows], splits)

    def description(self) -> dict[str, Any]:
        """For manifests and metrics: plain JSON of what was learned from, and how it was divided; names no patient."""
        split = self.fold_split.split
        return {
            "table": self.table.name,
            "reader": self.asked.reader,
            "credit": self.table.credit,
            "warnings": list(self.table.warnings),
            "label": self.asked.label,
            "classes": list(self.class_names),
            "folds": self.asked.folds,
            "held_out": self.asked.held_out,
            "split_by": "lesion (leaky)" if self.fold_split.leaky else "patient",
            "seed": self.seed,
            "counts": class_counts(split.names(len(self.table)), self.table.labels, self.class_names),
            "patients": {
                name: len(np.unique(self.table.patients[getattr(split, name)])) for name in ("train", "val", "test")
            },
            "input": input_section(self.spec),
            "organ_alone": any(getattr(row.source, "organ", None) for row in self.table.rows),
            "fingerprint": self.fingerprint(),
            "leaks": None if self.leaks is None else _without_examples(self.leaks),
        }

    def filtered_examples(self) -> dict[str, np.ndarray]:
        """Some test lesions before and after the Frangi filter: ``original`` and ``filtered``, (n, row, column), ``lesion``, rows.

        Empty where the input is not filtered.
        """
        if not isinstance(self.spec, KeySliceSpec) or self.spec.frangi is None or not len(self.test):
            return {}
        shown = np.arange(min(_EXAMPLES, len(self.test)))
        of_lesion = {row.lesion_id: row for row in self.table.rows}
        rows = tuple(of_lesion[str(self.test.lesion_ids[i])] for i in shown)
        lesions = crop_lesions(replace(self.table, rows=rows), replace(self.spec, frangi=None), progress=False)
        return {
            "original": np.stack([lesion.images[0, 0] for lesion in lesions]),
            "filtered": np.stack([self.test.images[i][0, 0] for i in shown]),
            "lesion": shown,
        }

    def train_dataloader(self) -> DataLoader:
        """What the task makes of the training lesions."""
        return self.trainer.lightning_module.train_loader(self.train, workers=self.workers, seed=self.seed)

    def val_dataloader(self) -> DataLoader:
        """What the task makes of the validation lesions."""
        return self.trainer.lightning_module.val_loader(self.val, workers=self.workers)

    def _read(self) -> LesionTable:
        asked = self.asked
        table = read_with(asked.reader, asked.table, label=asked.label, classes=asked.classes, **asked.reader_options)
        self._notify(table.credit)
        for warning in table.warnings:
            self._notify(f"note: {warning}")
        return table.where(lambda row: bool(row.label)) if asked.unlabelled == "drop" else table

    def _check(self, table: LesionTable) -> None:
        folds = self.asked.folds
        is_number = isinstance(folds, int) or folds.isdecimal()
        column = "split" if folds == TYPED else None if is_number or folds in PROTOCOLS else folds
        check_table(
            table,
            folds=int(folds) if is_number else None,
            split_column=column,
            labelled=self.asked.unlabelled != "keep",
            look_at_files=self.asked.check,
            progress=self.asked.progress,
        )

    def _look_for_leaks(self, previews: list[np.ndarray]) -> None:
        if self.asked.leaks == "off":
            return
        self.leaks = leaks_between_sets(self._images, self.fold_split.split, previews=previews)
        for finding in self.leaks.findings:
            self._notify(f"{'leak' if finding.certain else 'suspicion'}: {finding.message}")
        if self.leaks.leaks and self.asked.leaks == "fail" and not self.fold_split.leaky:
            text = "; ".join(f"{leak.message} ({', '.join(leak.examples[:3])})" for leak in self.leaks.leaks)
            msg = f"{self.table.name}: {text}. Mend the table; leaks: report goes on all the same."
            raise LeakError(msg)

    def _counts(self) -> str:
        counts = class_counts(self.fold_split.split.names(len(self.table)), self.table.labels, self.class_names)
        parts = (f"{name}: {', '.join(f'{n} {c}' for c, n in of.items())}" for name, of in counts.items() if name)
        return " | ".join(parts)

    @rank_zero_only
    def _notify(self, text: str) -> None:
        if self.asked.progress:
            notify(text)


def _without_examples(report: LeakReport) -> dict[str, Any]:
    """What is written into files that travel names no lesion and no patient."""
    text = report.as_json()
    for kind in ("leaks", "suspicions"):
        text[kind] = [{key: value for key, value in leak.items() if key != "examples"} for leak in text[kind]]
    return text
