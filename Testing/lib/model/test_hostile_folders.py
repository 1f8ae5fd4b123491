"""A model that calls itself like another one, or asks for more than its files hold, is refused; its golden case holds all of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from LesionLib.errors import BundleError
from LesionLib.inference.runner import InProcessRunner
from LesionLib.model import bundle as bundle_module
from LesionLib.model.bundle import TEMPERATURE, golden_probabilities, load_bundle, manifest_sha256, read_manifest
from LesionLib.model.folder import (
    CARD,
    LICENSE,
    MANIFEST,
    WEIGHTS,
    find_bundle,
    installed_bundles,
    shipped_bundles,
    unchecked_manifest,
)
from LesionLib.model.install import install_bundle
from LesionLib.networks import ARCHITECTURES, build_network
from repository import FILES_OF_0_1
from safetensors.torch import load_file, save_file

NAME = "lung-nodule-malignancy"
SMALL = FILES_OF_0_1 / "model"


@pytest.fixture
def model(tmp_path) -> Path:
    """A small model of two classes."""
    return Path(shutil.copytree(SMALL, tmp_path / "small"))


def rewrite(model: Path, change=lambda _manifest: None, *, tensors=None) -> None:
    """The manifest changed and sealed again; with ``tensors``, a function on the tensors, the weights too."""
    manifest = json.loads((model / MANIFEST).read_text())
    if tensors is not None:
        held = load_file(model / WEIGHTS)
        tensors(held)
        save_file(held, model / WEIGHTS)
        manifest["lesionlens"]["files"][WEIGHTS] = hashlib.sha256((model / WEIGHTS).read_bytes()).hexdigest()
    change(manifest)
    manifest["sha256"] = manifest_sha256(manifest)
    (model / MANIFEST).write_text(json.dumps(manifest))


def zipped(model: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in (MANIFEST, WEIGHTS, CARD, LICENSE):
            archive.write(model / name, name)
    return path


# Names.


def test_a_zip_that_calls_itself_like_a_shipped_model_is_not_installed(model, tmp_path):
    rewrite(model, lambda manifest: manifest.update(name=NAME))
    root = tmp_path / "models"
    for overwrite in (False, True):
        with pytest.raises(BundleError, match=f"calls itself '{NAME}'.*another one; it is not installed"):
            install_bundle(zipped(model, tmp_path / "evil.zip"), root=root, overwrite=overwrite)
    assert list(root.iterdir()) == []


def test_a_folder_named_like_a_shipped_model_does_not_answer_in_its_place(model, tmp_path, monkeypatch):
    root = tmp_path / "models"
    shutil.copytree(model, root / NAME)
    shutil.copytree(model, root / "mine")
    monkeypatch.setenv("LESIONLENS_MODELS", str(root))
    shipped = shipped_bundles()[NAME]
    assert installed_bundles()[NAME] == shipped
    assert installed_bundles()["mine"] == root / "mine"
    assert find_bundle(NAME) == shipped
    assert load_bundle(NAME).sha256 == read_manifest(shipped)["sha256"]


def test_a_folder_in_the_working_folder_is_no_name(model, tmp_path, monkeypatch):
    monkeypatch.setenv("LESIONLENS_MODELS", "")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    shutil.copytree(model, tmp_path / NAME)
    shutil.copytree(model, tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert find_bundle(NAME) == shipped_bundles()[NAME]
    assert InProcessRunner().describe(NAME).version != load_bundle(model).version
    with pytest.raises(BundleError, match=r"unknown model 'mine'.*\(for the folder of that name here, \./mine\)"):
        find_bundle("mine")
    with pytest.raises(BundleError, match="unknown model 'mine'"):
        InProcessRunner().describe("mine")
    for path in ("./mine", str(tmp_path / "mine"), tmp_path / "mine"):
        assert find_bundle(path).samefile(tmp_path / "mine")


def test_the_schema_of_manifests_is_one():
    jsonschema.Draft202012Validator.check_schema(bundle_module.MANIFEST_SCHEMA)


# The golden case.


def test_a_model_without_stored_probabilities_is_read_as_before(model):
    assert "golden_probabilities" not in json.loads((model / MANIFEST).read_text())["lesionlens"]
    assert load_bundle(model).class_names == ("bright", "hollow")


def with_probabilities(model: Path) -> list[float]:
    loaded = load_bundle(model)
    values = golden_probabilities(loaded.network, loaded.spec, loaded.temperature).round(5).tolist()
    rewrite(model, lambda manifest: manifest["lesionlens"].update(golden_probabilities=values))
    return values


def test_another_temperature_is_caught_by_the_golden_case(model):
    with_probabilities(model)
    load_bundle(model)
    rewrite(model, tensors=lambda held: held.update({TEMPERATURE: held[TEMPERATURE] / 5}))
    with pytest.raises(BundleError, match="answers its own test case differently"):
        load_bundle(model)


def test_other_probabilities_of_the_same_logits_are_caught(model, monkeypatch):
    with_probabilities(model)
    from LesionLib.networks.base import LesionNet

    monkeypatch.setattr(LesionNet, "probabilities", lambda self, logits, temperature=1.0: (logits * 3).softmax(dim=1))
    with pytest.raises(BundleError, match="answers its own test case differently"):
        load_bundle(model)


def test_votes_near_a_tie_are_not_stored_as_golden_probabilities():
    """A support vector machine of several classes votes: a rounding error would turn a vote, and the answer with it."""
    torch.manual_seed(0)
    network = build_network("dmrn", {"depth": 18, "width": "tiny", "classes": 3})
    spec = load_bundle(SMALL).spec
    assert golden_probabilities(network, spec, 1.0) is not None
    network.svm.weight[0].zero_()
    assert golden_probabilities(network, spec, 1.0) is None


@pytest.mark.parametrize(
    "stored",
    [
        torch.tensor([float("nan")]), torch.tensor([float("inf")]), torch.tensor([0.0]), torch.tensor([-1.0]),
        torch.tensor([1e-9]), torch.tensor([1e9]), torch.zeros(0), torch.ones(2), torch.ones(1, 1000),
        torch.ones(1, dtype=torch.complex64),
    ],
    ids=str,
)  # fmt: skip
def test_a_temperature_is_one_finite_positive_number(model, stored):
    rewrite(model, tensors=lambda held: held.update({TEMPERATURE: stored}))
    with pytest.raises(BundleError, match="its temperature is .*expected one number from 0.01 to 100"):
        load_bundle(model)


def test_a_model_names_as_many_classes_as_its_network_answers(model):
    def add(manifest: dict) -> None:
        manifest["lesionlens"]["classes"].append({"name": "third", "description": "", "colorRGB": [0, 0, 0]})

    rewrite(model, add)
    with pytest.raises(BundleError, match="it names 3 classes"):
        load_bundle(model)


def test_a_network_that_only_compares_names_no_classes(tmp_path):
    model = Path(shutil.copytree(SMALL.with_name("model-without-classes"), tmp_path / "compares"))
    classes = [{"name": name, "description": "", "colorRGB": [0, 0, 0]} for name in "ab"]
    rewrite(model, lambda manifest: manifest["lesionlens"].update(classes=classes))
    with pytest.raises(BundleError, match="it has no classes"):
        load_bundle(model)


# The manifest.


@pytest.mark.parametrize("name", ["bright\n", "bright\r\n", "a\x1b[2J", "", " a", "a\x00", "a" * 65, "ä", "a\u202eb"])
def test_a_class_has_a_plain_name(model, name):
    rewrite(model, lambda manifest: manifest["lesionlens"]["classes"][0].update(name=name))
    with pytest.raises(BundleError, match=r"not as it should be at \$\.lesionlens\.classes\[0\]\.name"):
        load_bundle(model)


def test_two_classes_have_two_names(model):
    rewrite(model, lambda manifest: manifest["lesionlens"]["classes"][0].update(name="hollow"))
    with pytest.raises(BundleError, match="two classes are named 'hollow'"):
        load_bundle(model)


@pytest.mark.parametrize("key", ["name", "version", "sha256"])
def test_a_line_break_at_the_end_is_no_name(model, key):
    manifest = json.loads((model / MANIFEST).read_text())
    manifest[key] += "\n"
    (model / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=f"not as it should be at \\$.{key}"):
        load_bundle(model)


@pytest.mark.parametrize("key", ["description", "intended_use"])
def test_what_a_model_says_of_itself_moves_no_cursor(model, key):
    rewrite(model, lambda manifest: manifest.update({key: "two\nlines\tare well"}))
    load_bundle(model)
    rewrite(model, lambda manifest: manifest.update({key: "a \x1b]0;title\x07 is not"}))
    with pytest.raises(BundleError, match=f"not as it should be at \\$.{key}"):
        load_bundle(model)


HUGE = [float("nan"), float("inf"), float("-inf"), 1e300, -1e300, 10**400]


def leaves(value, path: tuple = ()):
    """Places of all numbers of a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from leaves(inner, (*path, place))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path


def numbers_of(manifest: dict) -> list[tuple]:
    ours = {key: value for key, value in manifest["lesionlens"].items() if key != "training"}
    found = {}
    for path in leaves(ours):
        found.setdefault(tuple("#" if isinstance(part, int) else part for part in path), path)
    return list(found.values())


@pytest.mark.parametrize("number", HUGE, ids=lambda number: f"{number:.3g}" if isinstance(number, float) else "huge")
def test_every_number_of_a_manifest_is_bounded(model, number):
    with_probabilities(model)
    manifest = json.loads((model / MANIFEST).read_text())
    places = numbers_of(manifest)
    assert len(places) >= 12
    for path in places:
        changed = json.loads(json.dumps(manifest))
        place = changed["lesionlens"]
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = number
        changed["sha256"] = manifest_sha256(changed)
        (model / MANIFEST).write_text(json.dumps(changed))
        with pytest.raises(BundleError):
            read_manifest(model)


def test_facts_of_a_training_may_hold_what_is_no_number(model):
    rewrite(model, lambda manifest: manifest["lesionlens"]["training"].update(auc=float("nan")))
    assert load_bundle(model).name


def test_rows_of_different_lengths_are_no_golden_case(model):
    rewrite(model, lambda manifest: manifest["lesionlens"]["golden_logits"][0].append(1.0))
    with pytest.raises(BundleError, match="answers its own test case differently"):
        load_bundle(model)


# Sizes.


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize(
    "argument", ["classes", "channels", "latent_size", "descriptor_size", "reduction", "rpu_width", "reduce", "width"]
)
def test_layers_that_the_weights_do_not_fill_are_never_made(model, architecture, argument, monkeypatch):
    """A hundred thousand classes would be half a gigabyte; what is compared are shapes, which cost nothing."""
    made = []

    def watched(*arguments):
        network = build_network(*arguments)
        made.append(all(parameter.is_meta for parameter in network.parameters()))
        return network

    monkeypatch.setattr(bundle_module, "build_network", watched)
    rewrite(
        model,
        lambda manifest: manifest["lesionlens"].update(architecture=architecture, arguments={argument: 100_000}),
    )
    with pytest.raises(BundleError, match="does not fit the architecture|does not take the arguments"):
        load_bundle(model)
    assert all(made)


def test_a_misfit_is_named(model):
    rewrite(model, lambda manifest: manifest["lesionlens"]["arguments"].update(classes=3))
    with pytest.raises(BundleError, match=r"has the shape \(2, .*the network takes \(3, "):
        load_bundle(model)


@pytest.mark.parametrize("name", [CARD, LICENSE])
def test_a_file_has_a_size_limit(model, name):
    with (model / name).open("r+b") as handle:
        handle.truncate(17 * 1024**2)
    with pytest.raises(BundleError, match="is larger than 16 MiB"):
        load_bundle(model)


def test_weights_have_a_size_limit(model):
    with (model / WEIGHTS).open("r+b") as handle:
        handle.truncate(3 * 1024**3)  # a hole: no disk, and no memory before the refusal
    with pytest.raises(BundleError, match="is larger than 2048 MiB"):
        load_bundle(model)


def test_a_manifest_has_a_size_limit(model):
    with (model / MANIFEST).open("r+b") as handle:
        handle.truncate(1024**3)
    for read in (load_bundle, read_manifest, unchecked_manifest):
        with pytest.raises(BundleError, match="is larger than 16 MiB"):
            read(model)


@pytest.mark.parametrize("name", ["a\x00b", "x" * 5000, "", ".", "..", "a/" * 3000, "\ud800"])
def test_a_name_that_no_file_can_have_is_refused(model, name):
    rewrite(model, lambda manifest: manifest["lesionlens"]["files"].update({name: "0" * 64}))
    with pytest.raises(BundleError, match="is missing or not a plain file"):
        load_bundle(model)


def test_a_card_of_a_zip_has_a_size_limit(model, tmp_path):
    with zipfile.ZipFile(tmp_path / "big.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (MANIFEST, WEIGHTS, LICENSE):
            archive.write(model / name, name)
        archive.writestr(CARD, b"\0" * (17 * 1024**2))
    with pytest.raises(BundleError, match="unpacks to more than 16 MiB"):
        install_bundle(tmp_path / "big.zip", root=tmp_path / "models")


def test_probabilities_are_those_of_the_shipped_model_s_answer():
    from LesionLib.inference.classifier import Classifier
    from LesionLib.model.folder import golden_case

    loaded = load_bundle(NAME)
    volume, box = golden_case()
    answered = Classifier(loaded, volume).probabilities(box)
    stored = golden_probabilities(loaded.network, loaded.spec, loaded.temperature)
    np.testing.assert_allclose(answered, stored, atol=1e-5)
