"""The runs of a suite, one after the other: what is finished is left, what fails does not stop the rest, and results are kept.

Predictions, networks and crops stay in the working folder; results are small JSON files without a lesion or a patient in them, by the
hash of their configuration: ``run-…`` (one seed), ``system-…`` (all seeds, with intervals), ``claim-…`` (a paired comparison) and
``table-…`` (what knowing nothing reaches in a search among its test lesions).
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from LesionLib.inference.classifier import software_versions

from lesiontraining.commands.fit import classical_predictions, fit, recipe_cli
from lesiontraining.evaluation.baselines import baseline_runs
from lesiontraining.evaluation.predictions import Predictions
from lesiontraining.reproduce.chance import search_levels, table_key
from lesiontraining.reproduce.measures import Measure, compared, measures_of, over_seeds, tested
from lesiontraining.reproduce.plan import WITHOUT_IMAGE, Claim, Plan, ReproductionError, Run, short_hash
from lesiontraining.reproduce.tables import written_table
from lesiontraining.runs.folder import WEIGHTS, FittedModel, FoldFolder, RunFolder, RunInUseError, StoppedByHandError
from lesiontraining.runs.localising import Localiser, classes_without_lesion

Notify = Callable[[str], None]
_GUESS_S = 120.0  # of a run before any was finished
_HITS = "hits.json"
_WITHOUT_LESION = "model.init_args.without_lesion"
# Of every run here, over what its recipe says: no screen, and crops kept between runs.
_ALWAYS = {"data.progress": False, "trainer.enable_progress_bar": False, "trainer.enable_model_summary": False}


@dataclass(frozen=True)
class Results:
    """The folder of JSON files."""

    folder: Path

    def read(self, kind: str, key: str) -> dict[str, Any] | None:
        """What is kept; None where there is nothing."""
        path = self._path(kind, key)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def keep(self, kind: str, key: str, values: Mapping[str, Any]) -> None:
        """Whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(kind, key)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        unfinished.replace(path)

    def all_of(self, kind: str) -> list[dict[str, Any]]:
        """Everything of a kind, by the name of its file."""
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.folder.glob(f"{kind}-*.json"))]

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / f"{kind}-{key}.json"


def system_key(runs: Sequence[Run], plan: Plan) -> str:
    """Under which the figures of a system over its seeds are kept."""
    return short_hash([[run.hash for run in runs], plan.draws])


def claim_key(claim: Claim, sides: tuple[Sequence[Run], Sequence[Run]], plan: Plan) -> str:
    """Under which a comparison is kept."""
    systems = [claim.better, claim.than]
    return short_hash([[[run.hash for run in side] for side in sides], systems, claim.figure, plan.draws])


@dataclass(eq=False)
class Reproduction:
    """A suite within a budget. ``work``: folder of everything large; ``data``: that of the real sets; ``weights``: published weights.

    ``only``: parts of names of claims, to carry out those alone; empty for all. ``concluded`` is called after every comparison.
    """

    plan: Plan
    suite: str
    budget: str
    results: Results
    work: Path
    data: Path | None
    weights: Path | None
    notify: Notify
    only: Sequence[str] = ()
    failed: dict[str, str] = field(default_factory=dict)
    concluded: Callable[[], None] = lambda: None

    def carry_out(self, *, until: float | None = None) -> None:
        """All claims in the plan's order. ``until``: a time of `time.monotonic` after which no run is begun."""
        for claim, place in self._places():
            sides = self.plan.sides(claim, place, self.budget)
            if sides is None:
                continue
            if self.results.read("claim", claim_key(claim, sides, self.plan)) is not None:
                self._keep_levels(sides)
                continue
            for run in _in_order(sides):
                if run.hash in self.failed or self._is_done(run):
                    continue
                if until is not None and time.monotonic() > until:
                    self.notify("the time that was given is over; the same command goes on.")
                    return
                self._tell(run)
                self._try(run)
            self._conclude(claim, place, sides)

    def pending(self) -> list[Run]:
        """What is still to be fitted."""
        found: dict[str, Run] = {}
        for claim, place in self._places():
            sides = self.plan.sides(claim, place, self.budget)
            if sides is not None and self.results.read("claim", claim_key(claim, sides, self.plan)) is None:
                for run in _in_order(sides):
                    if run.hash not in self.failed and not self._is_done(run):
                        found.setdefault(run.hash, run)
        return list(found.values())

    def seconds_left(self) -> float:
        """Of CPU, by what runs of the same system and table took, else of the same table, else all."""
        done = self.results.all_of("run")

        def guess(run: Run) -> float:
            alike = [
                [one["seconds"] for one in done if one["table"] == run.table.name and one["system"] == run.system.name],
                [one["seconds"] for one in done if one["table"] == run.table.name],
                [one["seconds"] for one in done],
            ]
            return next((float(np.mean(times)) for times in alike if times), _GUESS_S)

        return sum(map(guess, self.pending()))

    def _places(self) -> Iterable[tuple[Claim, str]]:
        for claim, place in self.plan.places(self.suite):
            if not self.only or any(part in claim.id for part in self.only):
                yield claim, place

    def _tell(self, run: Run) -> None:
        left, seconds = len(self.pending()), self.seconds_left()
        self.notify(f"{run.name}: {left} runs are left, about {seconds / 60:.0f} minutes")

    def _try(self, run: Run) -> None:
        """A run that fails is said, and the others go on."""
        try:
            with _one_thread():
                self._carry_out(run)
        except StoppedByHandError:
            raise
        except RunInUseError as error:  # by the same command with another suite; its results come of themselves
            self.failed[run.hash] = str(error)
            self.notify(f"{run.name} is left out: {error}")
        except Exception as error:  # whatever it is, tomorrow's other runs are worth more
            self.failed[run.hash] = f"{type(error).__name__}: {error}"
            self.notify(f"{run.name} failed: {' '.join(str(error).split())[:300]}")
            (self.work / "failed").mkdir(parents=True, exist_ok=True)
            (self.work / "failed" / f"{run.hash}.txt").write_text(traceback.format_exc(), encoding="utf-8")

    def _carry_out(self, run: Run) -> None:
        start = time.process_time()
        arguments = self._arguments(run)
        fold = self._fold(run)
        if "classical" in run.asked:
            _fit_classical(run, arguments, fold)
        else:
            fit(fold.path.parent, arguments, folds="0", notify=lambda text: None)
        test = self._tested(run)
        hits = self._hits(run, arguments, fold) if run.table.localises else {}
        facts = fold.facts
        everyone = {name: m.statistic(np.arange(len(m.patients))) for name, m in measures_of(test, hits).items()}
        self.results.keep(
            "run",
            run.hash,
            {
                "system": run.system.name, "table": run.table.name, "suite": run.table.suite, "budget": run.budget,
                "seed": run.seed, "recipe": run.asked["recipe"], "classical": run.asked.get("classical"),
                "options": dict(run.asked.get("options", {})),
                "lesions": len(test), "patients": len(np.unique(test.patients)), "counts": facts["data"]["counts"],
                "epochs": facts["epochs"], "fingerprint": facts["data"]["fingerprint"], "software": software_versions(),
                "device": facts["device"], "seconds": round(time.process_time() - start, 1),
                "figures": {name: round(value, 4) for name, value in everyone.items() if np.isfinite(value)},
            },
        )  # fmt: skip
        (fold.path / _HITS).write_text(json.dumps(hits), encoding="utf-8")  # last: by it a run is finished

    def _arguments(self, run: Run) -> list[str]:
        if run.system.weights and self.weights is None:
            msg = f"{run.system.name} starts from published weights; give their file as --weights."
            raise ReproductionError(msg)
        table = written_table(run.table, run.budget, work=self.work, data=self.data)
        options = {**_ALWAYS, **run.table.options, **run.asked.get("options", {})}
        options |= {"data.table": table, "data.cache": self.work / "crops", "seed_everything": run.seed}
        options.setdefault("data.seed", run.seed)
        if run.first is not None:
            options["model.init_args.weights"] = self._fold(run.first).path / WEIGHTS
        elif run.system.weights:
            options["model.init_args.weights"] = self.weights
        given = [f"--{name}={_text(value)}" for name, value in options.items()]
        return [f"--config={run.asked['recipe']}", *given]

    def _hits(self, run: Run, arguments: Sequence[str], fold: FoldFolder) -> dict[str, bool]:
        """By the name that a lesion has in the predictions, whether the map lies on it; empty where that was not measured."""
        found = fold.facts["figures"].get("localisation")
        if not isinstance(found, Mapping):
            return {}
        data = recipe_cli(arguments, fold).datamodule
        _, network = FittedModel.load(fold.path)
        names = data.class_names
        without = classes_without_lesion(names, run.table.options.get(_WITHOUT_LESION))
        localiser = Localiser(network, names, without)
        lines = {row.lesion_id: f"line {row.line}" for row in data.table.rows}
        hits = localiser.hits(data.test, threshold=found["threshold"])
        return {lines[str(data.test.lesion_ids[row])]: hit for row, hit in hits.items()}

    def _conclude(self, claim: Claim, place: str, sides: tuple[Sequence[Run], Sequence[Run]]) -> None:
        """Keep the comparison, and what either side has over its seeds; nothing where a run failed."""
        if any(not self._is_done(run) for side in sides for run in side):
            return
        self._keep_levels(sides)
        measured = [self._measures(side) for side in sides]
        better, than = (
            self._measures_of_baseline(system, sides[0]) if system in WITHOUT_IMAGE else of
            for system, of in zip((claim.better, claim.than), measured, strict=True)
        )
        one, other = claim.tables(place)
        try:
            found = compared(better, than, claim.figure, draws=self.plan.draws, paired=one == other)
        except ReproductionError as error:
            self.notify(f"claim {claim.id} on {place}: {error}")
            return
        difference, first, second = found
        for side, of in zip(sides, measured, strict=True):
            if side and self.results.read("system", system_key(side, self.plan)) is None:
                kept = over_seeds(of, draws=self.plan.draws)
                about = {"system": side[0].system.name, "table": side[0].table.name, "budget": self.budget}
                self.results.keep("system", system_key(side, self.plan), {**about, "figures": kept})
        self.results.keep(
            "claim",
            claim_key(claim, sides, self.plan),
            {
                "id": claim.id, "on": place, "budget": self.budget, "figure": claim.figure, "better": claim.better,
                "than": claim.than, "seeds": len(self.plan.seeds), "difference": difference.as_json(),
                "first": first.as_json(), "second": second.as_json(),
            },
        )  # fmt: skip
        self.notify(f"claim {claim.id} on {place}: {claim.better} minus {claim.than}, {claim.figure} {difference}")
        self.concluded()

    def _keep_levels(self, sides: tuple[Sequence[Run], Sequence[Run]]) -> None:
        """Of the tables of either side, once each, from any run whose predictions are still there."""
        for run in (run for side in sides for run in side):
            if self.results.read("table", table_key(run)) is None and self._is_done(run):
                about = {"table": run.table.name, "suite": run.table.suite, "budget": run.budget}
                levels = search_levels(self._tested(run))
                self.results.keep("table", table_key(run), {**about, "levels": levels})

    def _measures(self, side: Sequence[Run]) -> list[Mapping[str, Measure]]:
        return [
            measures_of(self._tested(run), json.loads((self._fold(run).path / _HITS).read_text(encoding="utf-8")))
            for run in side
        ]

    def _measures_of_baseline(self, name: str, beside: Sequence[Run]) -> list[Mapping[str, Measure]]:
        found = []
        for run in beside:
            baselines, notes = baseline_runs(self._fold(run).predictions())
            if name not in baselines:
                raise ReproductionError("; ".join(notes))
            found.append(measures_of(tested(baselines[name])))
        return found

    def _tested(self, run: Run) -> Predictions:
        return tested(self._fold(run).predictions())

    def _is_done(self, run: Run) -> bool:
        return (self._fold(run).path / _HITS).is_file()

    def _fold(self, run: Run) -> FoldFolder:
        return RunFolder(self.work / "runs" / run.hash).fold(0)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The order of sums depends on how many threads share them, and a small training on its last digits: with one, the same
    configuration gives the same figures. Networks of this size also take a quarter of the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit_classical(run: Run, arguments: Sequence[str], fold: FoldFolder) -> None:
    """A comparator without a network, in the folder of a fold that `fit` could have left."""
    data = recipe_cli(arguments, fold).datamodule
    predictions = classical_predictions(run.asked["classical"], data, seed=run.seed)
    predictions.save(fold.path / "predictions.npz")
    description = {**data.description(), "leaks": None}
    fold.finish({"epochs": 0, "device": "CPU", "network": False, "figures": {}, "data": description})


def _in_order(sides: tuple[Sequence[Run], Sequence[Run]]) -> list[Run]:
    """Each run once, after the one it starts from; seed by seed, so that both sides grow together."""
    found: dict[str, Run] = {}
    longest = max(map(len, sides))
    for number in range(longest):
        for side in sides:
            for run in side[number : number + 1]:
                for one in (run.first, run):
                    if one is not None:
                        found.setdefault(one.hash, one)
    return list(found.values())


def _text(value: Any) -> str:
    """A value as an option of the command line."""
    return json.dumps(value) if isinstance(value, bool | list | dict) or value is None else str(value)
