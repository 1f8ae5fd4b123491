"""A stranger's encoder beside a model of ours and beside size, on one table; files that lie about themselves are refused."""

from __future__ import annotations

import json
from hashlib import sha256

import numpy as np
import onnx
import pytest
from lesion_tables import write_lesion_table
from lesiontraining.cli import main
from lesiontraining.runs.encoders import EncoderError, open_encoder
from onnx import TensorProto, helper, numpy_helper
from scored_model import write_scored_model

INPUT = {
    "kind": "axial_stack", "size": 16, "spacing_mm": 1.5, "margin_mm": 2.0, "max_slices": 64, "fill_hu": -1000,
    "windows_hu": [[-1000, 400]],
}  # fmt: skip


def an_encoder(folder, *, name="moments", input_section=None, channels=1, **changed):
    """A graph whose embedding is each channel's mean and its mean square: (patch, channel, row, column) to (patch, 2 channels)."""
    squares = helper.make_node("Mul", ["x", "x"], ["squares"])
    both = helper.make_node("Concat", ["x", "squares"], ["both"], axis=1)
    mean = helper.make_node("ReduceMean", ["both", "axes"], ["y"], keepdims=0)
    axes = numpy_helper.from_array(np.array([2, 3], dtype=np.int64), "axes")
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, 16, 16])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2 * channels])
    graph = helper.make_graph([squares, both, mean], "moments", [given], [answer], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    content = model.SerializeToString()
    (folder / "moments.onnx").write_bytes(content)
    described = {
        "name": name, "version": "1", "file": "moments.onnx", "sha256": sha256(content).hexdigest(),
        "input": input_section or INPUT,
    } | changed  # fmt: skip
    path = folder / "moments.json"
    path.write_text(json.dumps(described))
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_lesion_table(tmp_path_factory.mktemp("table"))


def test_an_encoder_of_others_stands_beside_ours_and_beside_size(table, tmp_path, capsys):
    models = [str(an_encoder(tmp_path)), str(write_scored_model(tmp_path / "ours"))]
    options = [
        "--label",
        "kind",
        "--folds",
        "3",
        "--draws",
        "10",
        "--drawings",
        "1",
        "--out",
        str(tmp_path / "b.json"),
    ]
    assert main(["embed-bench", str(table), "--model", *models, *options]) == 0
    rows = {row["method"]: row for row in json.loads((tmp_path / "b.json").read_text())}
    assert [name.split()[0] for name in rows] == ["moments", "tiny-description", "size", "size"]
    moments, size = rows["moments 1"], rows["size alone"]
    # Full and hollow spheres differ in their mean; their size says nothing.
    assert moments["auc"]["linear probe"]["value"] > 0.85
    assert size["auc"]["linear probe"]["value"] < 0.8
    assert all(row["auc"]["1-shot"]["lesions"] == 24 for row in rows.values())
    assert 0.9 < moments["stability"]["cosine when the box is drawn otherwise"]["value"] <= 1.0
    assert size["stability"] == {}
    printed = capsys.readouterr().out
    assert "24 lesions of 12 patients (12 bright, 12 hollow)" in printed
    assert "moments 1 does not say what it learned from" in printed
    assert "minus size and mean HU" in printed


def test_an_embedding_is_the_mean_over_patches_and_has_length_one(tmp_path, patch_of_ct):
    volume, box = patch_of_ct
    vector = open_encoder(str(an_encoder(tmp_path))).embed(volume, box)
    assert vector.shape == (2,)
    assert np.linalg.norm(vector) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def patch_of_ct():
    from LesionLib.model.folder import golden_case

    return golden_case()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sha256": "0" * 64}, "is not the file that was described"),
        ({"sha256": "abc"}, "64 hexadecimal digits"),
        ({"file": "../moments.onnx"}, "a file beside it"),
        ({"file": "gone.onnx"}, "cannot be read"),
        ({"extra": "x"}, "must hold exactly"),
        ({"name": 3}, "must hold exactly"),
    ],
)
def test_a_description_that_does_not_fit_its_file_is_refused(tmp_path, changed, message):
    with pytest.raises(EncoderError, match=message):
        open_encoder(str(an_encoder(tmp_path, **changed)))


def test_what_is_no_network_or_takes_other_patches_is_refused_in_plain_words(tmp_path, patch_of_ct):
    path = an_encoder(tmp_path)
    (tmp_path / "moments.onnx").write_bytes(b"no graph")
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"sha256": sha256(b"no graph").hexdigest()}))
    with pytest.raises(EncoderError, match="no ONNX network"):
        open_encoder(str(path))
    wider = an_encoder(tmp_path, channels=3)
    with pytest.raises(EncoderError, match="does not take patches of shape"):
        open_encoder(str(wider)).embed(*patch_of_ct)


def test_a_graph_that_wants_another_file_s_numbers_is_refused(tmp_path):
    path = an_encoder(tmp_path)
    model = onnx.load(tmp_path / "moments.onnx")
    axes = model.graph.initializer[0]
    axes.ClearField("raw_data")
    axes.data_location = TensorProto.EXTERNAL
    axes.external_data.add(key="location", value="secret.bin")
    (tmp_path / "secret.bin").write_bytes(np.array([2, 3], dtype=np.int64).tobytes())
    content = model.SerializeToString()
    (tmp_path / "moments.onnx").write_bytes(content)
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"sha256": sha256(content).hexdigest()}))
    with pytest.raises(EncoderError, match="no ONNX network"):
        open_encoder(str(path))
