"""One margin for all boxes that are made of segments: the model says it, and another one is said or refused."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from LesionLib.errors import CaseLibraryError, WarningName
from LesionLib.geometry import LesionBox
from LesionLib.inference.classifier import Classifier
from LesionLib.io.boxes import boxes_from_label_array, segment_margins_mm, with_segment_margin
from LesionLib.model.bundle import load_bundle
from LesionLib.model.folder import segment_margin_mm, segment_margin_of
from LesionLib.phantom.nodules import nodule_patch
from LesionLib.sampling.resample import AxialStackSpec
from LesionRetrievalLib.library.cases import ModelIdentity
from LesionRetrievalLib.library.intake import require_margin
from LesionRetrievalLib.library.patches import lesion_patch
from LesionRetrievalLib.library.reindex import patch_embedder
from LesionRetrievalLib.library.store import CaseLibrary

MODEL = "lung-nodule-malignancy"


@pytest.fixture(scope="module")
def nodule():
    """A CT and the nodule on it as a mask on the CT's lattice."""
    volume, found = nodule_patch(kind="round", diameter_mm=14.0, seed=1)
    place = np.indices(volume.array.shape)[::-1].reshape(3, -1).T
    points = place @ volume.ijkToRAS[:3, :3].T + volume.ijkToRAS[:3, 3]
    inside = np.linalg.norm(points - found.box.centerRAS, axis=1) < 7.0
    return volume, inside.reshape(volume.array.shape).astype(np.int32)


def box_of(nodule, margin_mm: float) -> LesionBox:
    return boxes_from_label_array(nodule[1], nodule[0].ijkToRAS, {1: "nodule"}, margin_mm=margin_mm)[0]


def test_the_shipped_model_is_made_for_tight_boxes():
    assert load_bundle(MODEL).segment_margin_mm == segment_margin_mm(MODEL) == 0.0


def test_a_manifest_of_before_means_the_tight_boxes_that_such_models_learned_from():
    assert segment_margin_of({"lesionlens": {}}) == 0.0
    assert segment_margin_of({"lesionlens": {"segment_margin_mm": 3}}) == 3.0


@pytest.mark.parametrize("margin", [0.0, 1.5, 4.0])
def test_the_margin_of_a_box_is_measured_on_its_segment(nodule, margin):
    np.testing.assert_allclose(segment_margins_mm(box_of(nodule, margin)), margin, atol=1e-6)


def test_a_turned_box_and_one_without_a_segment_have_no_margin(nodule):
    box = box_of(nodule, 2.0)
    angle = np.deg2rad(20)
    turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    assert segment_margins_mm(replace(box, axesRAS=turned)) is None
    assert segment_margins_mm(replace(box, segment=None)) is None


def test_a_box_made_of_a_segment_gets_another_margin_and_one_drawn_by_hand_stays(nodule):
    np.testing.assert_allclose(with_segment_margin(box_of(nodule, 2.0), 0.0).sizeMm, box_of(nodule, 0.0).sizeMm)
    moved = replace(box_of(nodule, 2.0), centerRAS=box_of(nodule, 2.0).centerRAS + 1.0)
    assert with_segment_margin(moved, 0.0) is moved


def test_a_margin_that_is_not_the_model_s_is_said(nodule):
    bundle = load_bundle(MODEL)
    named = {
        mm: {w.name for w in Classifier(bundle, nodule[0]).classify(box_of(nodule, mm)).warnings} for mm in (0.0, 2.0)
    }
    assert WarningName.SEGMENT_MARGIN not in named[0.0]
    assert WarningName.SEGMENT_MARGIN in named[2.0]
    other = replace(bundle, segment_margin_mm=2.0)
    warnings = Classifier(other, nodule[0]).classify(box_of(nodule, 0.0)).warnings
    assert any("reaches 0.0 mm beyond its segment" in warning for warning in warnings)


def a_model(margin_mm: float) -> SimpleNamespace:
    manifest = {"lesionlens": {"segment_margin_mm": margin_mm}}
    return SimpleNamespace(name="m", version="1", sha256="a" * 64, manifest=manifest)


def test_a_library_keeps_the_margin_of_the_model_that_made_it(tmp_path):
    identity = ModelIdentity.of_model(a_model(1.5))
    CaseLibrary.create(tmp_path / "l.lesionlib", model=identity, dimension=4).close()
    with CaseLibrary.open(tmp_path / "l.lesionlib") as library:
        assert library.model.segment_margin_mm == 1.5
        assert library.require_model("a" * 64).segment_margin_mm == 1.5
        assert library.models()[0].identity == ModelIdentity("m", "1", "a" * 64)
        library.export(tmp_path / "copy.lesionlib")
    with CaseLibrary.open(tmp_path / "copy.lesionlib") as copy:
        assert copy.model.segment_margin_mm == 1.5


def test_a_library_of_before_is_read_as_it_lies_and_gets_the_column_when_it_is_opened_to_write(tmp_path):
    path = tmp_path / "l.lesionlib"
    CaseLibrary.create(path, model=ModelIdentity("m", "1", "a" * 64), dimension=4).close()
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE models DROP COLUMN segment_margin_mm")
    connection.close()
    before = path.read_bytes()
    with CaseLibrary.open(path) as library:
        assert library.model.segment_margin_mm is None
    assert path.read_bytes() == before
    with CaseLibrary.open(path, read_only=False) as library:
        assert library.model.segment_margin_mm is None
        library.add_vectors({}, model=library.model)
    with CaseLibrary.open(path) as library:
        assert library.require_model("a" * 64).segment_margin_mm is None


def test_boxes_other_than_those_of_a_library_are_refused_with_both_margins(tmp_path):
    model = a_model(1.5)
    path = tmp_path / "l.lesionlib"
    with CaseLibrary.create(path, model=ModelIdentity.of_model(model), dimension=4) as library:
        require_margin(library, model, 1.5)
        with pytest.raises(CaseLibraryError, match=r"--margin-mm is 2, .* reach 1\.5 mm beyond"):
            require_margin(library, model, 2.0)


def test_a_reindex_draws_the_boxes_of_segments_as_the_new_model_was_made_for(nodule):
    asked = []
    patch = lesion_patch(nodule[0], box_of(nodule, 0.0))
    embed = patch_embedder(AxialStackSpec(), lambda _ct, box: asked.append(box) or np.ones(4), margin_mm=1.5)
    embed(patch)
    np.testing.assert_allclose(segment_margins_mm(asked[0]), 1.5, atol=1e-3)
