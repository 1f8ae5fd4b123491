"""What knowing nothing reaches: computed of the test lesions, and a claim whose system reaches no more is marked so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml
from lesiontraining.evaluation.predictions import Predictions
from lesiontraining.reproduce.chance import level, search_levels, search_levels_of_counts, table_key
from lesiontraining.reproduce.command import PAPERS
from lesiontraining.reproduce.measures import measures_of
from lesiontraining.reproduce.outcomes import (
    BUDGET,
    NEEDS_GPU,
    NOT_SUPPORTED,
    SAME,
    UNLEARNED,
    Number,
    outcomes,
    read_numbers,
    status_of,
    why_status,
)
from lesiontraining.reproduce.page import page
from lesiontraining.reproduce.plan import NUMBERS, PLAN, read_plan
from lesiontraining.reproduce.runs import Results, claim_key, system_key
from lesiontraining.reproduce.summary import Paper
from repository import ROOT

FOLDER = ROOT / "training" / "reproduction"
COUNTS = {"0": 34, "1": 5, "2": 32, "3": 19, "4": 12}


@pytest.fixture(scope="module")
def plan():
    return read_plan(FOLDER / PLAN)


@pytest.fixture(scope="module")
def papers():
    return [Paper(**of) for of in yaml.safe_load((FOLDER / PAPERS).read_text(encoding="utf-8"))]


def random_answers(counts: dict[str, int], *, seed: int = 0) -> Predictions:
    """Lesions of these classes, two a patient, whose embeddings say nothing."""
    names = tuple(counts)
    labels = np.repeat(np.arange(len(names)), list(counts.values()))
    rng, n = np.random.default_rng(seed), len(labels)
    labels = rng.permutation(labels)
    unit = rng.normal(size=(n, 16))
    return Predictions(
        names, np.array([f"line {i}" for i in range(n)]), np.array([f"P{i // 2}" for i in range(n)]),
        np.array([f"S{i // 2}" for i in range(n)]), np.zeros(n, dtype=int), np.full(n, "test"), labels,
        np.full((n, len(names)), 1 / len(names)), unit / np.linalg.norm(unit, axis=1, keepdims=True),
        np.full((n, 3), 9.0), np.full(n, 99.0), np.zeros(n), np.ones((n, 3)),
    )  # fmt: skip


def test_random_embeddings_score_the_computed_level_in_every_search():
    levels = search_levels(random_answers(COUNTS))
    assert {"MAP, all", "mAP@10, cross", "P@1, same", "MRR, all"} <= levels.keys()
    scored = []
    for seed in range(40):
        answers = random_answers(COUNTS, seed=seed)
        scored.append({n: m.statistic(np.arange(len(m.patients))) for n, m in measures_of(answers).items()})
    for name in ("MAP, all", "mAP@10, all", "P@10, all", "MAP, cross", "mAP@10, cross"):
        assert np.mean([of[name] for of in scored]) == pytest.approx(levels[name], abs=0.01), name


def test_where_all_may_answer_the_counts_of_the_classes_are_enough():
    by_lesions, by_counts = search_levels(random_answers(COUNTS)), search_levels_of_counts(COUNTS)
    assert by_counts == {name: pytest.approx(by_lesions[name], abs=1e-6) for name in by_counts}
    assert all(name.endswith(", all") for name in by_counts)
    assert search_levels_of_counts({"a": 1, "b": 1}) == {}  # nobody has an answer
    assert by_counts["MAP, all"] > 1 / len(COUNTS)  # the classes are unequal: guessing finds the large ones


def test_a_level_is_that_of_the_test_lesions_and_of_no_others():
    counts = {"train": {"a": 900, "b": 100}, "test": {"a": 10, "b": 10, "not known": 5}}
    assert level("balanced_accuracy", counts, None) == 0.5
    assert level("MAP, all", counts, None) == pytest.approx(search_levels_of_counts({"a": 10, "b": 10})["MAP, all"])
    assert level("MAP, cross", counts, None) is None
    assert level("MAP, cross", counts, {"levels": {"MAP, cross": 0.4}}) == 0.4
    assert level("macro_f1", counts, None) is None


def of_value(value: float, low: float, high: float) -> dict[str, object]:
    return {"value": value, "low": low, "high": high, "lesions": 102, "patients": 51, "failed_draws": 0, "p_value": 0.5}


def keep_claim(plan, results: Results, claim, place: str, first: dict, second: dict) -> None:
    sides = plan.sides(claim, place, "small")
    values = {"difference": of_value(-0.2, -0.3, -0.1), "first": first, "second": second, "figure": claim.figure}
    results.keep("claim", claim_key(claim, sides, plan), {**values, "seeds": 3, "budget": "small"})
    for side in sides:
        run = {"counts": {"test": COUNTS}, "budget": "small", "seconds": 1.0}
        results.keep("run", side[0].hash, run)


@pytest.mark.parametrize("low", [0.24, 0.30])
def test_a_search_that_ranks_by_chance_says_nothing_of_its_claim(plan, papers, tmp_path, low):
    claim = next(one for one in plan.claims if one.id == "SCNN-1")
    results = Results(tmp_path)
    keep_claim(plan, results, claim, "retina5", of_value(0.33, low, 0.4), of_value(0.5, 0.4, 0.6))
    by_chance = search_levels_of_counts(COUNTS)["MAP, all"]
    assert 0.24 < by_chance < 0.30
    found = next(one for one in outcomes(plan, results) if one.claim is claim and one.place == "retina5")
    assert found.chance == (pytest.approx(by_chance), pytest.approx(by_chance))
    assert found.reason == (UNLEARNED if low < by_chance else "")
    number = Number("SCNN", "T1", "SCNN", "", "MAP", "0.6", "", "", "siamese", claim.figure, claim.id, "")
    assert status_of(number, [found]) == (BUDGET if low < by_chance else NOT_SUPPORTED)
    assert why_status(number, status_of(number, [found]), [found]) == (UNLEARNED if low < by_chance else "")
    text = page(plan, papers, read_numbers(FOLDER / NUMBERS, plan), results)
    assert ("**cannot be said, it learned too little**" in text) == (low < by_chance)
    assert f"guessing reaches {by_chance:.2f}" in text


def test_a_search_among_other_patients_is_judged_by_what_its_table_keeps(plan, tmp_path):
    claim = next(one for one in plan.claims if one.figure == "mAP@10, cross")
    results = Results(tmp_path)
    keep_claim(plan, results, claim, "search8", of_value(0.3, 0.2, 0.4), of_value(0.5, 0.4, 0.6))
    run = plan.sides(claim, "search8", "small")[0][0]
    for kept, reason in ((0.1, ""), (0.25, UNLEARNED)):
        results.keep("table", table_key(run), {"levels": {claim.figure: kept}})
        found = next(one for one in outcomes(plan, results) if one.claim is claim and one.place == "search8")
        assert found.reason == reason
    other = next(one for one in plan.runs_of(claim.better, "search8", "small") if one.seed != run.seed)
    assert table_key(other) == table_key(run)
    assert table_key(other) != table_key(plan.runs_of(claim.better, "nodule-kind", "small")[0])


def test_a_share_of_right_answers_is_judged_by_the_classes_alike(plan, tmp_path):
    """Always the largest class is right more often than chance, and knows nothing."""
    claim = next(one for one in plan.claims if one.id == "LesionSearch-1")
    results = Results(tmp_path)
    keep_claim(plan, results, claim, "search8", of_value(0.7, 0.6, 0.8), of_value(0.9, 0.8, 1.0))
    runs = plan.sides(claim, "search8", "small")[0]
    for low, reason in ((0.19, UNLEARNED), (0.3, "")):
        kept = {"balanced_accuracy": of_value(0.4, low, 0.5)}
        results.keep("system", system_key(runs, plan), {"figures": kept})
        found = next(one for one in outcomes(plan, results) if one.claim is claim and one.place == "search8")
        assert found.reason == reason


def test_systems_that_are_the_same_run_are_no_difference(plan, papers, tmp_path):
    results = Results(tmp_path)
    one, again = (next(c for c in plan.claims if c.id == name) for name in ("DMRN-1", "DMRN-A"))
    assert plan.sides(one, "nodule-kind", "small")[1] != plan.sides(again, "nodule-kind", "small")[1]
    for claim in (one, again):
        keep_claim(plan, results, claim, "nodule-kind", of_value(0.8, 0.7, 0.9), of_value(0.9, 0.8, 1.0))
    for system in ("resnet", "resnet-balanced"):
        runs = plan.runs_of(system, "nodule-kind", "small")
        figures = {"balanced_accuracy": of_value(0.9, 0.8, 1.0)}
        results.keep("system", system_key(runs, plan), {"figures": figures})
    found = {c.claim.id: c for c in outcomes(plan, results) if c.place == "nodule-kind"}
    assert (found["DMRN-1"].reason, found["DMRN-A"].reason) == ("", SAME)
    assert found["DMRN-A"].same_as == "DMRN-1"
    assert found["DMRN-A"].shown is None
    text = page(plan, papers, read_numbers(FOLDER / NUMBERS, plan), results)
    row = next(line for line in text.splitlines() if line.startswith("| DMRN-A |") and "nodule-kind" in line)
    assert "the same at this budget as DMRN-1" in row
    assert "-0.200" not in row
    assert "the same at this budget as resnet" in text

    weighted = replace(plan.systems["resnet"], small={**plan.systems["resnet"].small, "options": {"x": 1}})
    other = replace(plan, systems={**plan.systems, "resnet": weighted})
    assert all(c.reason != SAME for c in outcomes(other, results) if c.claim.id == "DMRN-A")


def test_two_sides_of_one_setting_are_no_claim_at_all(plan, tmp_path):
    both = replace(plan.systems["resnet"], name="twin")
    claim = replace(plan.claims[0], better="twin", than="resnet")
    twins = replace(plan, systems={**plan.systems, "twin": both}, claims=[claim])
    for one in outcomes(twins, Results(tmp_path)):
        assert (one.reason, one.same_as) == (SAME, claim.id)


def test_where_weights_are_missing_it_is_said_beside_the_status(plan, papers, tmp_path):
    found = outcomes(plan, Results(tmp_path))
    numbers = read_numbers(FOLDER / NUMBERS, plan)
    lacking = [n for n in numbers if status_of(n, found) == NEEDS_GPU]
    assert lacking
    assert {why_status(n, NEEDS_GPU, found) for n in lacking} == {"needs published weights and a GPU"}
    text = page(plan, papers, numbers, Results(tmp_path))
    assert "not run: needs GPU (published weights and a GPU)" in text
    assert "| not run: needs GPU | needs published weights and a GPU |" in text
