"""`lesionlens demo`: the whole way in a process of its own, as `make demo` runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

_DEMO = """
import sys
from LesionLensApp.cli import main
code = main()
print("modules of the whole of VTK" if "vtk" in sys.modules else "only some modules of VTK")
sys.exit(code)
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo-out"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", _DEMO, "demo", "--out", str(out)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    return out, ran


ANSWERED = (1, 2, 3, 4)  # the ground-glass phantom is unlike real nodules
KINDS = {"granuloma": "calcified", "round": "solid", "spiculated": "solid", "part-solid": "subsolid"}


def test_it_ends_well_and_shows_progress_and_a_table(demo):
    _out, ran = demo
    assert ran.returncode == 0, ran.stderr
    assert "Computing a chest CT phantom" in ran.stderr
    for kind in (*KINDS, "ground-glass"):
        assert kind in ran.stdout
    assert "report.html" in ran.stdout
    assert "vtk" not in ran.stderr.lower()


def test_it_starts_without_the_whole_of_vtk_which_takes_a_third_of_a_second(demo):
    assert "only some modules of VTK" in demo[1].stdout


def test_it_leaves_exactly_what_is_promised(demo):
    out, _ = demo
    maps = (f"gradcam_{n}.nrrd" for n in ANSWERED)
    expected = {"report.html", "scene.mrb", "results.json", "results.csv", "similar.csv", *maps}
    assert {path.name for path in out.iterdir()} == expected
    assert not [path for path in out.parent.iterdir() if path != out]


def test_the_report_stands_alone(demo):
    page = (demo[0] / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", page)
    assert "Content-Security-Policy" in page
    assert page.count('class="card"') == 5 * 9
    assert len(re.findall("<figcaption>(?:Axial|Coronal|Sagittal),", page)) == 5 * 3 + len(ANSWERED) * 3
    assert page.count("<figcaption>in the whole slice") == page.count('class="strip"') == 5
    assert page.count("Research use only, not for diagnosis") >= 2


def test_the_most_similar_phantom_is_mostly_of_the_same_kind(demo):
    results = json.loads((demo[0] / "results.json").read_text())["results"]
    kinds = {**KINDS, "ground-glass": "subsolid"}
    same = [result["similarCases"][0]["label"] == kinds[result["name"].split()[1]] for result in results]
    assert len(same) == 5
    assert sum(same) >= 4


def test_each_phantom_that_is_answered_is_what_it_was_painted_as(demo):
    results = json.loads((demo[0] / "results.json").read_text())["results"]
    assert {result["name"].split()[1]: result["label"] for result in results if result["usable"]} == KINDS


def test_beside_the_kind_stand_a_description_and_the_malignancy_of_the_same_boxes(demo):
    content = json.loads((demo[0] / "results.json").read_text())
    assert content["model"]["name"] == "lung-nodule-kind"
    for result in content["results"]:
        described, malignancy = result["otherModels"]
        assert [other["model"]["name"] for other in result["otherModels"]] == [
            "lung-nodule-description", "lung-nodule-malignancy"
        ]  # fmt: skip
        assert described["sentence"].split(",")[0] == result["label"]
        assert (malignancy["label"] in ("benign", "malignant")) == malignancy["usable"] == result["usable"]
    page = (demo[0] / "report.html").read_text()
    assert page.count("lung-nodule-description, on the same box") == 5

    assert content["results"][2]["otherModels"][0]["sentence"] in page


def test_phantoms_unlike_what_the_model_learned_from_have_no_answer(demo):
    results = json.loads((demo[0] / "results.json").read_text())["results"]
    assert tuple(number for number, result in enumerate(results, start=1) if result["usable"]) == ANSWERED
    assert {code for result in results for code in result["noAnswer"]} == {"out-of-distribution"}
    assert [bool(result["label"]) for result in results] == [result["usable"] for result in results]


def test_every_answer_says_that_it_is_a_phantom(demo):
    results = json.loads((demo[0] / "results.json").read_text())["results"]
    assert all(any("computed phantom" in str(w) for w in result["warnings"]) for result in results)
