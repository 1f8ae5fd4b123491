"""Where in the body a model's lesions lie: its manifest says it by a DICOM code, and every answer carries it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from LesionLib.errors import BundleError
from LesionLib.inference.messages import RunRequest
from LesionLib.inference.results import RunInfo
from LesionLib.inference.runner import InProcessRunner
from LesionLib.model.bundle import load_bundle, manifest_sha256
from LesionLib.model.codes import DicomCode
from LesionLib.model.folder import MANIFEST, find_bundle, golden_case

LUNG = {"scheme": "SCT", "value": "39607008", "meaning": "Lung"}
RUN = RunInfo("CT", "m", "1.0.0", "ab" * 32, "cpu")


@pytest.fixture
def with_site(tmp_path):
    """A shipped model whose manifest names this site, None for none."""

    def made(site: object) -> Path:
        folder = Path(shutil.copytree(find_bundle("lung-nodule-malignancy"), tmp_path / "m"))
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["lesionlens"].pop("finding_site", None)
        if site is not None:
            manifest["lesionlens"]["finding_site"] = site
        manifest["sha256"] = manifest_sha256(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest))
        return folder

    return made


def test_the_site_of_the_manifest_stands_in_every_answer(with_site):
    folder = with_site(LUNG)
    assert load_bundle(folder).finding_site == DicomCode("SCT", "39607008", "Lung")
    volume, box = golden_case()
    info = InProcessRunner().run(RunRequest(str(folder), volume, [box])).info
    assert info.finding_site == DicomCode("SCT", "39607008", "Lung")


def test_a_model_of_before_has_none(with_site):
    assert load_bundle(with_site(None)).finding_site is None


@pytest.mark.parametrize(
    "site",
    [
        "lung",
        {"scheme": "SCT", "value": "39607008"},
        {**LUNG, "side": "left"},
        {**LUNG, "value": "39607008 left lung"},
        {**LUNG, "meaning": ""},
        {**LUNG, "meaning": "x" * 65},
        {**LUNG, "meaning": "Lung\x1b[2J"},
        {**LUNG, "scheme": 3},
    ],
)
def test_what_is_no_dicom_code_is_refused(with_site, site):
    with pytest.raises(BundleError, match="finding_site"):
        load_bundle(with_site(site))


def test_a_run_is_the_same_after_json_and_says_nothing_of_a_site_that_is_not_known():
    there = RunInfo("CT", "m", "1.0.0", "ab" * 32, "cpu", finding_site=DicomCode(**LUNG))
    assert RunInfo.from_json(json.loads(json.dumps(there.to_json()))) == there
    assert "finding_site" not in RUN.to_json()
    assert RunInfo.from_json(RUN.to_json()) == RUN
