"""A model is data: verified when loaded, refused with a reason, never executed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from LesionLib.errors import BundleError
from LesionLib.model.bundle import golden_logits, load_bundle, manifest_sha256
from LesionLib.model.folder import CARD, LICENSE, MANIFEST, WEIGHTS, find_bundle
from repository import FILES_OF_0_1
from safetensors.torch import load_file, save_file

NAME = "lung-nodule-malignancy"
SMALL = FILES_OF_0_1 / "model"


@pytest.fixture
def model(tmp_path) -> Path:
    return Path(shutil.copytree(find_bundle(NAME), tmp_path / NAME))


@pytest.fixture
def small_model(tmp_path) -> Path:
    """One that is read and asked in milliseconds."""
    return Path(shutil.copytree(SMALL, tmp_path / "small"))


def rewrite(model: Path, change, *, seal: bool) -> None:
    manifest = json.loads((model / MANIFEST).read_text())
    change(manifest)
    if seal:
        manifest["sha256"] = manifest_sha256(manifest)
    (model / MANIFEST).write_text(json.dumps(manifest))


def test_the_shipped_model_loads_by_name_and_answers_its_golden_case():
    bundle = load_bundle(NAME)
    stored = np.array(bundle.manifest["lesionlens"]["golden_logits"])
    np.testing.assert_allclose(golden_logits(bundle.network, bundle.spec), stored, atol=1e-3)
    assert not bundle.network.training


def test_the_shipped_model_is_small_and_whole():
    folder = find_bundle(NAME)
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 25e6
    assert all((folder / name).is_file() for name in (MANIFEST, WEIGHTS, CARD, LICENSE))


def test_an_unknown_model_is_refused_with_the_names_of_those_there_are():
    with pytest.raises(BundleError, match=r"unknown model 'liver'.*lung-nodule-malignancy"):
        load_bundle("liver")


@pytest.mark.parametrize("name", [WEIGHTS, CARD, LICENSE])
def test_a_changed_file_is_refused(model, name):
    content = bytearray((model / name).read_bytes())
    content[len(content) // 2] ^= 1
    (model / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} was changed"):
        load_bundle(model)


@pytest.mark.parametrize("name", [WEIGHTS, CARD, LICENSE])
def test_a_missing_file_is_refused(model, name):
    (model / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        load_bundle(model)


def test_a_link_in_place_of_a_file_is_refused(model, tmp_path):
    outside = tmp_path / "outside"
    shutil.move(model / CARD, outside)
    os.symlink(outside, model / CARD)
    with pytest.raises(BundleError, match="not a plain file"):
        load_bundle(model)


def test_a_manifest_changed_afterwards_is_refused(model):
    rewrite(model, lambda m: m["lesionlens"]["classes"].reverse(), seal=False)
    with pytest.raises(BundleError, match="was changed after it was made"):
        load_bundle(model)


def test_a_path_that_leaves_the_folder_is_refused(model):
    (model.parent / "secret").write_text("x")
    rewrite(model, lambda m: m["lesionlens"]["files"].update({"../secret": "0" * 64}), seal=True)
    with pytest.raises(BundleError, match=r"\.\./secret is missing or not a plain file"):
        load_bundle(model)


def test_an_architecture_that_is_not_registered_is_refused(model):
    rewrite(model, lambda m: m["lesionlens"].update(architecture="os_system"), seal=True)
    with pytest.raises(BundleError, match="unknown architecture 'os_system'"):
        load_bundle(model)


def test_other_preprocessing_is_caught_by_the_golden_case(model):
    rewrite(model, lambda m: m["lesionlens"]["input"].update(edge_mm=50.0), seal=True)
    with pytest.raises(BundleError, match="answers its own test case differently"):
        load_bundle(model)


def test_weights_of_another_shape_are_refused(model):
    import hashlib

    tensors = load_file(model / WEIGHTS)
    tensors["network.classifier.weight"] = torch.zeros(3, 2857)
    save_file(tensors, model / WEIGHTS)
    digest = hashlib.sha256((model / WEIGHTS).read_bytes()).hexdigest()
    rewrite(model, lambda m: m["lesionlens"]["files"].update({WEIGHTS: digest}), seal=True)
    with pytest.raises(BundleError, match="does not fit the architecture"):
        load_bundle(model)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = sorted(json.loads((find_bundle(NAME) / MANIFEST).read_text())["lesionlens"])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(KEYS), value=JSON, raw=st.none() | st.binary(max_size=200))
def test_no_manifest_raises_anything_but_a_bundle_error(small_model, key, value, raw):
    model, original = small_model, (SMALL / MANIFEST).read_text()
    if raw is not None:
        (model / MANIFEST).write_bytes(raw)
    else:
        manifest = json.loads(original)
        manifest["lesionlens"][key] = value
        manifest["sha256"] = manifest_sha256(manifest)
        (model / MANIFEST).write_text(json.dumps(manifest))
    try:
        load_bundle(model)
    except BundleError as error:
        assert "\n" not in str(error)
