"""``lesiontrain evaluate``: one run, beside others on the same lesions, as figures and a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from LesionLib.metric import EUCLIDEAN

from lesiontraining.data.splits import TWO_RANDOM
from lesiontraining.evaluation.baselines import SIZE, baseline_runs
from lesiontraining.evaluation.leaks import Leak, LeakReport, check_leaks
from lesiontraining.evaluation.predictions import Predictions, has_labelled_training, joined
from lesiontraining.reporting.charts import Chart
from lesiontraining.reporting.claim import ClaimRun
from lesiontraining.reporting.examples import frangi_chart, maps_chart
from lesiontraining.reporting.report import ReportInput, write_report
from lesiontraining.reporting.two_splits import as_markdown, as_page, mean_of_splits
from lesiontraining.reporting.where_maps_lie import Counts, added
from lesiontraining.runs.folder import FittedModel, FoldFolder, RunError, RunFolder
from lesiontraining.runs.reliability import fold_reliability
from lesiontraining.runs.settings import kept_settings

REPORT_FOLDER = "report"
MEAN = "mean_of_splits"
_SPLITS = 2


def evaluate(
    runs: Sequence[Path],
    out: Path | None,
    *,
    draws: int = 2000,
    positive: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Report on the test lesions of all finished folds of ``runs[0]``, the others beside it; returns the report's folder.

    Folds whose test lesions are each other's (two random splits) are reported one by one, in folders of their own, and never
    pooled; of both splits together there is the mean, as a paper prints it, in ``mean_of_splits.html``, ``.md`` and ``.json``.
    ``positive``: of two classes the one that is looked for (default: the second).
    Raises `RunError` where the runs did not answer the same lesions.
    """
    folder = out or runs[0] / REPORT_FOLDER
    folds_of = {path.name: RunFolder(path).finished_folds() for path in runs}
    if len(folds_of) != len(runs):
        msg = "two of the runs have the same name; give runs in folders of different names."
        raise RunError(msg)
    main = folds_of[runs[0].name]
    overlap = _are_splits(main) or _overlap(main)
    for folds in [[fold] for fold in main] if overlap else [main]:
        numbers = {fold.number for fold in folds}
        chosen = {name: [fold for fold in of if fold.number in numbers] for name, of in folds_of.items()}
        lacking = [name for name, of in chosen.items() if len(of) < len(folds)]
        if lacking:
            msg = (
                f"{lacking[0]} has not finished the folds {sorted(numbers)} of {runs[0].name}; fit it on the same ones."
            )
            raise RunError(msg)
        where = folder / f"split-{folds[0].number}" if overlap else folder
        _report(chosen, where, draws=draws, positive=positive, progress=progress)
    if _are_splits(main):
        _write_mean(folds_of, folder)
    return folder


def _are_splits(folds: Sequence[FoldFolder]) -> bool:
    """Whether the protocol is two random splits, whose test lesions may be in both and are pooled in no case."""
    return folds[0].facts["data"].get("folds") == TWO_RANDOM


def _write_mean(folds_of: dict[str, list[FoldFolder]], folder: Path) -> None:
    """The mean over the two splits; of one split alone there is none."""
    whole = {name: folds for name, folds in folds_of.items() if len(folds) == _SPLITS}
    if not whole:
        return
    maps = {name: _localisations(folds) for name, folds in whole.items()}
    found = mean_of_splits({name: [_tested([fold]) for fold in folds] for name, folds in whole.items()}, maps)
    (folder / f"{MEAN}.json").write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (folder / f"{MEAN}.md").write_text(as_markdown(found), encoding="utf-8")
    parts = [f"split-{fold.number}" for fold in next(iter(whole.values()))]
    (folder / f"{MEAN}.html").write_text(as_page(found, next(iter(folds_of)), parts), encoding="utf-8")


def _localisations(folds: Sequence[FoldFolder]) -> list[dict[str, Any]]:
    """What each fold measured of where its maps lie."""
    return [found for fold in folds if isinstance(found := fold.facts.get("figures", {}).get("localisation"), dict)]


def _localised(folds_of: dict[str, list[FoldFolder]]) -> dict[str, Counts]:
    """Of each method whose maps were looked at in all its folds, the counts by class."""
    measured = {name: _localisations(folds) for name, folds in folds_of.items()}
    return {name: added([one.get("classes", {}) for one in of]) for name, of in measured.items() if of}


def _report(
    folds_of: dict[str, list[FoldFolder]],
    out: Path,
    *,
    draws: int,
    positive: str | None,
    progress: Callable[[str], None] | None,
) -> None:
    methods = {name: _tested(folds) for name, folds in folds_of.items()}
    first, *others = methods.items()
    for name, predictions in others:
        if not np.array_equal(np.sort(predictions.lesion_ids), np.sort(first[1].lesion_ids)):
            msg = f"{name} and {first[0]} did not answer the same test lesions; fit both on the same data and folds."
            raise RunError(msg)
    # All methods in the order of the first, so that rows can be compared.
    order = np.argsort(first[1].lesion_ids)
    index = np.argsort(order)
    aligned = {name: p.at(np.argsort(p.lesion_ids)[index]) for name, p in methods.items()}
    main = folds_of[first[0]]
    baselines, notes = _baselines(main)
    given = ReportInput(
        title=first[0],
        methods=aligned | baselines,
        baselines=tuple(baselines),
        size_baseline=SIZE if SIZE in baselines else None,
        leaks=_leaks(main),
        run=_run(main),
        curves={f"fold {fold.number}": fold.curves() for fold in main},
        extra=tuple(_extra(main)),
        notes=notes,
        claim=_claim(main, tuple(baselines), draws),
        localised=_localised(folds_of),
        examples=tuple(_examples(folds_of)),
    )
    write_report(given, out, draws=draws, positive=positive, progress=progress)


def _examples(folds_of: dict[str, list[FoldFolder]]) -> list[Chart]:
    """Of the first fold: maps of every method that has some, and what the model's filter makes of a picture."""
    kept = {name: folds[0].examples() for name, folds in folds_of.items() if folds}
    model = next(iter(kept.values()))
    maps = {name: of["maps"] for name, of in kept.items() if "maps" in of} if "maps" in model else {}
    return [chart for chart in (maps_chart(maps), frangi_chart(model.get("frangi", {}))) if chart is not None]


def _claim(folds: Sequence[FoldFolder], baselines: Sequence[str], draws: int) -> ClaimRun | None:
    """What is known of the folds beside their figures; None for a comparator without a network, which nobody publishes as a model."""
    if not folds[0].has_network:
        return None
    model, network = FittedModel.load(folds[0].path)
    return ClaimRun(
        facts=[fold.facts for fold in folds],
        settings=kept_settings(folds[0]) or {},
        architecture=model.architecture,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        box_size_mm=model.box_size_mm,
        slice_distance_mm=model.slice_distance_mm,
        baselines=baselines,
        draws=draws,
    )


def _baselines(folds: Sequence[FoldFolder]) -> tuple[dict[str, Predictions], tuple[str, ...]]:
    """Fitted fold by fold on the very lesions that the model learned from."""
    found = [baseline_runs(fold.predictions()) for fold in folds]
    everywhere = [name for name in found[0][0] if all(name in runs for runs, _ in found)]
    notes = tuple(dict.fromkeys(note for _, of_fold in found for note in of_fold))
    return {name: joined([runs[name] for runs, _ in found]) for name in everywhere}, notes


def _extra(folds: Sequence[FoldFolder]) -> list[str]:
    """What the recipe and the fold's reliability say beside the figures."""
    lines = []
    if not has_labelled_training(folds[0].predictions()):
        lines.append(
            "No training lesion has a label: the probabilities are equal shares, and the figures made of them say nothing. "
            "What is measured is the search."
        )
    elif not folds[0].facts["classifies"]:
        lines.append(
            "This network knows no classes: its probabilities are the shares of the classes among the nine training lesions "
            "most similar to the one asked about, weighted by similarity."
        )
    if folds[0].predictions().metric == EUCLIDEAN:
        lines.append(
            "Lesions are compared by Euclidean distance, not by cosine; similarity is 1 / (1 + distance squared)."
        )
    for fold in folds:
        for name, measured in fold.facts.get("figures", {}).items():
            value = measured
            if name == "localisation" and isinstance(measured, dict):
                value = {figure: of for figure, of in measured.items() if figure != "classes"}  # those have a table
            lines.append(f"Fold {fold.number}, {name}: {value if isinstance(value, str) else json.dumps(value)}")
        reliability = fold_reliability(fold.predictions(), classifies=fold.facts["classifies"])
        lines += [f"Fold {fold.number}, {name}: {value}" for name, value in reliability.figures.items()]
        lines += [f"Fold {fold.number}: {note}" for note in reliability.notes]
    return lines


def _tested(folds: Sequence[FoldFolder]) -> Predictions:
    parts = [fold.predictions() for fold in folds]
    return joined([part.at(part.split == "test") for part in parts])


def _overlap(folds: Sequence[FoldFolder]) -> bool:
    parts = [fold.predictions() for fold in folds]
    ids = np.concatenate([part.lesion_ids[part.split == "test"] for part in parts])
    return len(np.unique(ids)) < len(ids)


def _leaks(folds: Sequence[FoldFolder]) -> LeakReport:
    """Patients and studies across the splits of each fold, by the predictions themselves, and what the fit had found."""
    findings: list[Leak] = []
    checked: dict[str, None] = {}
    for fold in folds:
        predictions = fold.predictions()
        report = check_leaks(
            predictions.split, identifiers={"patient": predictions.patients, "study": predictions.studies}
        )
        findings += report.findings
        stored = fold.facts["leaks"]
        for name, certain in (("leaks", True), ("suspicions", False)):
            findings += [
                Leak(one["check"], f"fold {fold.number}: {one['message']}", certain=certain) for one in stored[name]
            ]
        checked |= dict.fromkeys([*report.checked, *stored["checked"]])
    return LeakReport(tuple(findings), tuple(checked))


def _run(folds: Sequence[FoldFolder]) -> dict[str, str]:
    facts = folds[0].facts
    seconds = sum(fold.facts["seconds"] for fold in folds)
    return {
        "Recipe": f"{facts['task']}, {facts['epochs']} epochs",
        "Command": "lesiontrain fit " + " ".join(facts["options"]),
        "Folds": ", ".join(str(fold.number) for fold in folds),
        "Seed": str(facts["seed"]),
        "Training time": f"{seconds / 60:.1f} min on {facts['device']}",
        "Software": facts["software"],
        "Data": facts["data"]["credit"],
        "Data fingerprint": facts["data"]["fingerprint"],
        "Date": datetime.now(UTC).date().isoformat(),
    }
