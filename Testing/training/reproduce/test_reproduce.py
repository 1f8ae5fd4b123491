"""Claims from a plan to a page: runs kept by hash, a paired comparison over seeds, one status a printed number."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from lesiontraining.cli import main
from lesiontraining.commands.recipes import recipe_file
from lesiontraining.evaluation.predictions import Predictions
from lesiontraining.reproduce.command import PAPERS
from lesiontraining.reproduce.measures import compared, measures_of, over_seeds
from lesiontraining.reproduce.outcomes import (
    NOT_SUPPORTED,
    STATUSES,
    UNLEARNED,
    Number,
    Outcome,
    outcomes,
    read_numbers,
    status_of,
)
from lesiontraining.reproduce.page import page
from lesiontraining.reproduce.plan import BUDGETS, NUMBERS, PLAN, SUITES, ReproductionError, read_plan
from lesiontraining.reproduce.runs import Reproduction, Results, claim_key
from lesiontraining.reproduce.summary import Paper
from lesiontraining.runs.folder import RunInUseError, StoppedByHandError
from lesiontraining.tasks.classical import hand_crafted, texture
from repository import ROOT

FOLDER = ROOT / "training" / "reproduction"
pytestmark = pytest.mark.filterwarnings("ignore")

SMALL_PLAN = """
seeds: [0, 1, 2]
draws: 30
tables:
  masses:
    suite: phantom
    says: two textures
    make: phantom
    small: {variant: binary-fluid, patients: 12}
    options: {data.label: class, data.folds: fold, data.validation: 0.3}
systems:
  broken: {says: it cannot be built, small: {recipe: tiny/cross-entropy, options: {model.init_args.network: none of these}}}
  plain: {says: a network, small: {recipe: tiny/cross-entropy, options: {trainer.max_epochs: 1, data.input.max_slices: 1}}}
  texture: {says: none, seeded: false, small: {recipe: tiny/orthopatch, classical: texture}}
claims:
  - {id: Test-1, paper: Test, says: what is broken does better, better: broken, than: texture, figure: auc, where: [masses]}
  - {id: Test-2, paper: Test, says: a network does better than texture, better: plain, than: texture, figure: auc, where: [masses]}
  - {id: Test-3, paper: Test, says: it knows more than size, better: plain, than: size and mean HU, figure: auc, where: [masses]}
"""


@pytest.fixture(scope="module")
def plan():
    return read_plan(FOLDER / PLAN)


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    """A small plan that was carried out, with what was said on the way."""
    folder, said = tmp_path_factory.mktemp("reproduction"), []
    (folder / PLAN).write_text(SMALL_PLAN, encoding="utf-8")
    suite = Reproduction(
        read_plan(folder / PLAN),
        "phantom",
        "small",
        Results(folder / "results"),
        folder / "work",
        None,
        None,
        said.append,
    )
    suite.carry_out()
    return suite, said


def test_a_run_that_fails_does_not_stop_the_others(carried):
    suite, said = carried
    assert len(suite.failed) == 3
    assert any("broken on masses, seed 0 failed" in text for text in said)
    found = {one.claim.id: one for one in outcomes(suite.plan, suite.results)}
    assert found["Test-1"].found is None
    for name in ("Test-2", "Test-3"):
        assert found[name].found["seeds"] == 3
        assert found[name].found["difference"]["low"] <= found[name].found["difference"]["value"]


def test_what_nothing_is_drawn_for_runs_once_and_networks_once_a_seed(carried):
    suite, _ = carried
    runs = suite.results.all_of("run")
    assert sorted((run["system"], run["seed"]) for run in runs) == [
        ("plain", 0),
        ("plain", 1),
        ("plain", 2),
        ("texture", 0),
    ]
    assert all(run["figures"]["auc"] >= 0 and run["seconds"] > 0 for run in runs)
    (levels,) = suite.results.all_of("table")  # one table, whatever ran on it
    assert 0 < levels["levels"]["MAP, all"] < 1


def test_the_time_that_is_left_is_said_and_what_is_finished_is_left(carried):
    suite, said = carried
    assert any("runs are left, about" in text for text in said)
    before = {path.name: path.read_bytes() for path in suite.results.folder.iterdir()}
    again: list[str] = []
    replace(suite, notify=again.append, failed=dict(suite.failed)).carry_out()
    assert not any("runs are left" in text for text in again)
    assert {path.name: path.read_bytes() for path in suite.results.folder.iterdir()} == before


def test_who_is_stopped_by_hand_begins_no_other_run(carried, tmp_path, monkeypatch):
    begun = []

    def stopped(suite, run):
        begun.append(run.name)
        msg = "stopped by hand. No epoch was finished yet."
        raise StoppedByHandError(msg)

    monkeypatch.setattr(Reproduction, "_carry_out", stopped)
    suite = replace(carried[0], results=Results(tmp_path / "results"), work=tmp_path / "work", failed={})
    with pytest.raises(StoppedByHandError):
        suite.carry_out()
    assert len(begun) == 1
    assert not (tmp_path / "work" / "failed").exists()


def test_a_run_that_another_program_is_at_is_left_to_it(carried, tmp_path, monkeypatch):
    def in_use(suite, run):
        msg = "fold-0 is being fitted by another program"
        raise RunInUseError(msg)

    said: list[str] = []
    monkeypatch.setattr(Reproduction, "_carry_out", in_use)
    results = Results(tmp_path / "results")
    suite = replace(carried[0], results=results, work=tmp_path / "work", failed={}, notify=said.append)
    suite.carry_out()
    assert any("is left out: fold-0 is being fitted by another program" in text for text in said)
    assert not (tmp_path / "work" / "failed").exists()
    assert results.all_of("run") == []


def test_another_option_is_another_configuration(carried):
    plan = carried[0].plan
    changed = replace(
        plan.systems["plain"], small={**plan.systems["plain"].small, "options": {"trainer.max_epochs": 2}}
    )
    other = replace(plan, systems={**plan.systems, "plain": changed})
    assert plan.run("plain", "masses", 0, "small").hash != other.run("plain", "masses", 0, "small").hash
    assert plan.run("plain", "masses", 0, "small").hash != plan.run("plain", "masses", 1, "small").hash
    assert plan.run("texture", "masses", 0, "small").hash == other.run("texture", "masses", 0, "small").hash


def test_a_run_counts_on_one_thread_and_leaves_the_others_as_they_were(carried, tmp_path, monkeypatch):
    suite, seen = carried[0], []
    monkeypatch.setattr(Reproduction, "_carry_out", lambda self, run: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        replace(suite, work=tmp_path, results=Results(tmp_path / "results"), failed={}).carry_out()
        assert set(seen) == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_results_name_no_lesion_and_no_patient(carried):
    for path in carried[0].results.folder.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "phantom 0" not in text
        assert "line " not in text
        assert str(carried[0].work) not in text


def test_the_plan_that_comes_along_names_recipes_that_there_are(plan):
    for system in plan.systems.values():
        for budget in BUDGETS:
            asked = getattr(system, budget)
            assert not asked or recipe_file(asked["recipe"]) is not None, system.name
    assert plan.wanted("phantom", "small")
    assert plan.wanted("real", "full")
    assert len(plan.seeds) >= 3


def test_every_printed_number_has_exactly_one_status(plan):
    numbers = read_numbers(FOLDER / NUMBERS, plan)
    assert len(numbers) == 400
    found = outcomes(plan, Results(FOLDER / "results"))
    assert all(status_of(number, found) in STATUSES for number in numbers)
    assert all(number.system in plan.systems for number in numbers if number.claim)


def test_the_page_is_made_of_the_results_and_says_what_held_up(plan, tmp_path):
    numbers = read_numbers(FOLDER / NUMBERS, plan)
    papers = [Paper(**of) for of in yaml.safe_load((FOLDER / PAPERS).read_text(encoding="utf-8"))]
    results = Results(tmp_path)
    assert all(paper.not_run in page(plan, papers, numbers, results) for paper in papers)
    claim = plan.claims[0]
    kept = {"value": 0.2, "low": 0.1, "high": 0.3, "lesions": 90, "patients": 40, "failed_draws": 0, "p_value": 0.002}
    values = {"difference": kept, "first": kept, "second": kept, "seeds": 3, "budget": "small", "figure": claim.figure}
    results.keep("claim", claim_key(claim, plan.sides(claim, claim.where[0], "small"), plan), values)
    text = page(plan, papers, numbers, results)
    assert papers[0].shown in text
    assert "| yes (adrenal5); not tried yet (nodule-kind, nodule-malignancy) |" in text
    assert "- On adrenal5, computed: **yes**. It reached 0.20, its control 0.20." in text
    assert "Difference +0.20, 95 % interval +0.10 to +0.30, 90 lesions of 40 patients." in text
    assert "**1 were judged: 1 held up on at least one set of lesions, 0 did not.**" in text
    assert "shown on phantom" in text
    assert text.count("| 97.34 | 97.39 (misprint") == 2


def test_the_head_of_the_page_says_where_the_control_did_better(plan, tmp_path):
    papers = [Paper(**of) for of in yaml.safe_load((FOLDER / PAPERS).read_text(encoding="utf-8"))]
    results, claim = Results(tmp_path), plan.claims[0]
    key = claim_key(claim, plan.sides(claim, claim.where[0], "small"), plan)
    for high, said in ((0.1, papers[0].not_shown), (-0.1, papers[0].opposite)):
        kept = {
            "value": -0.2,
            "low": -0.3,
            "high": high,
            "lesions": 90,
            "patients": 40,
            "failed_draws": 0,
            "p_value": 0.9,
        }
        values = {
            "difference": kept,
            "first": kept,
            "second": kept,
            "seeds": 3,
            "budget": "small",
            "figure": claim.figure,
        }
        results.keep("claim", key, values)
        text = page(plan, papers, read_numbers(FOLDER / NUMBERS, plan), results)
        assert said in text
        assert ("- On adrenal5, computed: **no, the other did better**." in text) == (high < 0)
        assert ("- On adrenal5, computed: **no**." in text) == (high > 0)


def outcome(plan, *, low: float, suite: str, p_holm: float = 0.01, **claim: object) -> Outcome:
    one = replace(plan.claims[0], **claim)
    found = {"difference": {"value": low + 0.1, "low": low, "high": low + 0.2, "p_value": p_holm}}
    return Outcome(one, one.where[0], suite, found, "", p_holm, low > 0)


def test_a_number_follows_the_outcome_of_its_claim(plan):
    number = Number("DMRN", "T2", "DMRN", "overall", "Acc", "89.52", "", "", "dmrn", "accuracy", plan.claims[0].id, "")
    assert status_of(number, [outcome(plan, low=0.1, suite="phantom")]) == "shown on phantom"
    real = outcome(plan, low=0.1, suite="real")
    assert status_of(number, [outcome(plan, low=-0.1, suite="phantom"), real]) == "shown on real data"
    assert status_of(number, [outcome(plan, low=-0.1, suite="phantom")]) == NOT_SUPPORTED
    open_one = Outcome(plan.claims[0], plan.claims[0].where[0], "phantom", None, "not run: budget")
    assert status_of(number, [open_one]) == "not run: budget"
    assert (
        status_of(replace(number, claim="", reason="not reproducible: private data"), [real])
        == "not reproducible: private data"
    )


def test_an_interval_above_zero_is_not_enough_where_many_claims_were_tried(plan, tmp_path):
    results = Results(tmp_path)
    own = [c for c in plan.claims if c.paper == "DMRN" and c.published and "adrenal5" in c.where]
    assert len(own) >= 5
    for number, claim in enumerate(own):
        d = {
            "value": 0.1,
            "low": 0.001,
            "high": 0.2,
            "lesions": 90,
            "patients": 40,
            "p_value": 0.04 if number else 0.001,
        }
        values = {"difference": d, "first": d, "second": d, "seeds": 3, "budget": "small"}
        results.keep("claim", claim_key(claim, plan.sides(claim, "adrenal5", "small"), plan), values)
    judged = {one.claim.id: one for one in outcomes(plan, results) if one.found is not None}
    assert judged[own[0].id].shown
    assert not any(judged[claim.id].shown for claim in own[1:])


def test_a_system_that_learned_nothing_says_nothing_of_its_claim_and_is_marked(plan, tmp_path):
    results, claim = Results(tmp_path), plan.claims[0]
    sides = plan.sides(claim, "adrenal5", "small")
    results.keep("run", sides[0][0].hash, {"counts": {"train": dict.fromkeys("abcde", 9)}})
    d = {"value": -0.3, "low": -0.4, "high": -0.2, "lesions": 90, "patients": 40, "p_value": 0.001}
    for low, mark, status in ((0.2, UNLEARNED, "not run: budget"), (0.25, "", NOT_SUPPORTED)):
        values = {
            "difference": d,
            "first": {"value": 0.3, "low": low, "high": 0.4},
            "second": d,
            "figure": claim.figure,
        }
        results.keep("claim", claim_key(claim, sides, plan), {**values, "seeds": 3, "budget": "small"})
        number = Number("DMRN", "T2", "DMRN", "overall", "Acc", "89.52", "", "", "dmrn", "accuracy", claim.id, "")
        found = outcomes(plan, results)
        assert status_of(number, found) == status
        assert next(one.reason for one in found if one.claim is claim and one.place == "adrenal5") == mark


def test_a_claim_that_holds_up_beside_a_control_at_chance_says_so(plan, tmp_path):
    results, claim = Results(tmp_path), plan.claims[0]
    sides = plan.sides(claim, "adrenal5", "small")
    papers = [Paper(**of) for of in yaml.safe_load((FOLDER / PAPERS).read_text(encoding="utf-8"))]
    for side in sides:
        results.keep(
            "run", side[0].hash, {"counts": {"train": dict.fromkeys("abcde", 9)}, "budget": "small", "seconds": 1}
        )
    d = {"value": 0.3, "low": 0.2, "high": 0.4, "lesions": 90, "patients": 40, "failed_draws": 0, "p_value": 0.001}
    for low in (0.2, 0.25):
        values = {"difference": d, "first": {**d, "low": 0.5}, "second": {**d, "low": low}, "figure": claim.figure}
        results.keep("claim", claim_key(claim, sides, plan), {**values, "seeds": 3, "budget": "small"})
        text = page(plan, papers, read_numbers(FOLDER / NUMBERS, plan), results)
        assert ("- On adrenal5, computed: **yes, but the other learned nothing**." in text) == (low == 0.2)
        assert ("- On adrenal5, computed: **yes**." in text) == (low == 0.25)
        assert ("shown; its control is at chance" in text) == (low == 0.2)


def predictions(labels: np.ndarray, right: np.ndarray) -> Predictions:
    n = len(labels)
    p = np.where((labels == 1) == right, 0.8, 0.2)
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(n, 4))
    return Predictions(
        ("a", "b"), np.array([f"line {i}" for i in range(n)]), np.array([f"P{i // 2}" for i in range(n)]),
        np.array([f"S{i // 2}" for i in range(n)]), np.zeros(n, dtype=int), np.full(n, "test"), labels,
        np.stack([1 - p, p], axis=1), unit / np.linalg.norm(unit, axis=1, keepdims=True), np.full((n, 3), 9.0),
        np.full(n, 99.0), np.zeros(n), np.ones((n, 3)),
    )  # fmt: skip


def test_a_comparison_is_the_mean_over_seeds_on_the_same_lesions():
    labels = np.arange(60) % 2
    good = [measures_of(predictions(labels, np.arange(60) % 10 != seed)) for seed in range(3)]
    poor = [measures_of(predictions(labels, np.arange(60) % 2 == seed % 2)) for seed in range(3)]
    found, first, second = compared(good, poor, "accuracy", draws=200, paired=True)
    assert first.value == pytest.approx(0.9)
    assert second.value == pytest.approx(0.5)
    assert found.value == pytest.approx(0.4)
    assert found.low > 0.2
    assert over_seeds(good, draws=50)["accuracy"]["value"] == pytest.approx(0.9)
    with pytest.raises(ReproductionError, match="localised"):
        compared(good, poor, "localised", draws=10, paired=True)


def test_a_system_whose_embedding_is_zero_for_a_lesion_is_still_judged_by_its_answers():
    answers = predictions(np.arange(60) % 2, np.arange(60) % 10 != 0)
    answers.embeddings[7] = 0.0
    found = measures_of(answers)
    assert found["accuracy"].statistic(np.arange(60)) == pytest.approx(0.9)
    assert not any(name.startswith("mAP") for name in found)


def test_two_tables_are_drawn_each_by_its_own_patients():
    many, few = np.arange(60) % 2, np.arange(40) % 2
    one = [measures_of(predictions(many, np.arange(60) % 10 != 0))]
    other = [measures_of(predictions(few, np.arange(40) % 4 != 0))]
    found, _, _ = compared(one, other, "accuracy", draws=200, paired=False)
    assert found.value == pytest.approx(0.9 - 0.75)
    with pytest.raises(ReproductionError, match="same lesions"):
        compared(one, other, "accuracy", draws=10, paired=True)


def test_maps_are_measured_where_they_were_looked_for():
    labels = np.arange(20) % 2
    hits = {f"line {i}": i % 4 == 0 for i in range(20)}
    found = measures_of(predictions(labels, labels >= 0), hits)
    assert found["localised"].statistic(np.arange(20)) == pytest.approx(0.25)
    assert found["localised of a"].statistic(np.arange(10)) == pytest.approx(0.5)
    assert "localised" not in measures_of(predictions(labels, labels >= 0))


def test_hand_crafted_features_are_as_long_as_published():
    picture = np.random.default_rng(0).uniform(-1, 1, (3, 48, 40)).astype(np.float32)
    found = hand_crafted(picture)
    assert len(found) == 531 + 1296
    np.testing.assert_allclose(found[:531].reshape(9, 59).sum(axis=1), 1.0)
    assert np.isfinite(found).all()


def test_texture_tells_stripes_from_noise_and_takes_a_flat_picture():
    rng = np.random.default_rng(0)
    stripes = np.tile(np.sign(np.sin(np.arange(32)))[None, None, :], (1, 32, 1))
    noise = rng.permutation(stripes.ravel()).reshape(1, 32, 32)
    assert not np.allclose(texture(stripes), texture(noise), atol=0.05)
    assert np.isfinite(texture(np.zeros((1, 32, 32)))).all()


def test_the_real_suite_says_which_folder_it_needs(tmp_path, capsys):
    options = [
        "--work",
        str(tmp_path / "work"),
        "--results",
        str(tmp_path / "results"),
        "--page",
        str(tmp_path / "page.md"),
    ]
    assert main(["reproduce", "--suite", "real", "--only", "SCNN-1", *options]) == 0
    said = capsys.readouterr().err
    assert "fundus needs the folder fundus; give the folder that holds it as --data" in said
    assert "not run: budget" in (tmp_path / "page.md").read_text(encoding="utf-8")
    assert not (tmp_path / "results").exists() or not list((tmp_path / "results").iterdir())


def test_suites_have_names_that_the_plan_uses(plan):
    assert {table.suite for table in plan.tables.values()} == set(SUITES)
    assert json.dumps(plan.seeds)
