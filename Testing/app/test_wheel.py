"""The wheel: built, unpacked where nothing of this folder is on the path, and asked a question."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from repository import ROOT

# The wheel's folder comes first; an editable install's own folders would come after it.
ASK = """
import json, sys
from pathlib import Path
import LesionLib, lesiontraining
from LesionLensApp.cli import main
homes = [str(Path(module.__file__).parent.parent) for module in (LesionLib, lesiontraining)]
code = main(["models", "list", "--json"])
from lesiontraining.commands.plans import PLANS
from lesiontraining.commands.recipes import recipes
named = {"plans": sorted(p.stem for p in PLANS.glob("*.yaml")), "recipes": [recipe.name for recipe in recipes()]}
print("\\n" + json.dumps({"homes": homes, "code": code, **named}))
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        folder,
    ]
    subprocess.run([*command, ROOT], check=True, timeout=300)
    (wheel,) = folder.glob("lesionlens-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_it_holds_the_models_and_answers_from_them(unpacked, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "XDG_CONFIG_HOME": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    listed, _, found = ran.stdout.rstrip().rpartition("\n")
    found = json.loads(found)
    assert (found["homes"], found["code"]) == ([str(unpacked)] * 2, 0)
    assert found["plans"] == sorted(path.stem for path in (ROOT / "training" / "models").glob("*.yaml"))
    assert {"dmrn", "cross-entropy-table"} <= set(found["recipes"])
    shipped = {path.name for path in (ROOT / "Resources" / "Models").iterdir()}
    assert {model["name"] for model in json.loads(listed)} == shipped


def test_it_holds_pages_plans_and_licence(unpacked):
    wanted = ["LesionLensApp/templates/report.html.j2", "LesionLib/Models/lung-nodule-kind/docs/README.md"]
    assert not [name for name in wanted if not (unpacked / name).is_file()]
    (about,) = unpacked.glob("lesionlens-*.dist-info")
    assert (about / "licenses" / "LICENSE").is_file()
    assert "Requires-Python: <3.14,>=3.11" in (about / "METADATA").read_text(encoding="utf-8")


def test_it_holds_the_viewer_of_the_pages_with_its_licences_where_npm_has_brought_it(unpacked):
    web = unpacked / "LesionLensApp" / "web"
    assert {"slices.js", "viewer.js", "viewer.css", "quiz.js", "quiz.css", "templates", "NIIVUE_LICENSE"} <= {
        path.name for path in web.iterdir()
    }
    fetched = ROOT / "node_modules" / "@niivue" / "niivue" / "dist" / "niivue.umd.js"
    if not fetched.is_file():
        pytest.skip("NiiVue is not there: run npm ci.")
    assert (web / "vendor" / fetched.name).read_bytes() == fetched.read_bytes()
    assert {"gl-matrix-LICENSE", "nifti-reader-js-LICENSE"} <= {path.name for path in (web / "vendor").iterdir()}
