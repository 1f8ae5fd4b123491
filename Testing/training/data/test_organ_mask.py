"""Whole slices of an organ alone: what lies outside its mask is air, in every kind of input, and such a model does not travel."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from lesion_tables import read_table, write_lesion_table, write_rows
from LesionLib.errors import LesionLensError, VolumeError
from lesiontraining.commands.export import ExportError, ExportPlan, export
from lesiontraining.data.checks import check_table
from lesiontraining.data.crops import input_spec
from lesiontraining.data.dataset import lesion_dataset
from lesiontraining.data.messages import TableError
from lesiontraining.runs.folder import FittedModel

WHOLE = {"kind": "slice_with_neighbours", "view": "slice", "size": 48, "windows_hu": [[-1000.0, 400.0]]}


@pytest.fixture
def table(tmp_path):
    """One CT whose organ is its left half, on a coarser lattice."""
    path = write_lesion_table(tmp_path, patients=1)
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    organ = np.zeros((12, 20, 40), np.uint8)
    organ[:, :, :20] = 3
    image = sitk.GetImageFromArray(organ)
    image.SetSpacing((2.0, 2.0, 2.0))
    image.SetOrigin((0.5, 0.5, 0.5))
    sitk.WriteImage(image, str(tmp_path / "liver.nii.gz"))
    write_rows(path, [{**dict(zip(header, row, strict=True)), "organ_mask": "liver.nii.gz"} for row in rows])
    return path


def test_outside_the_organ_a_whole_slice_is_air(table):
    given = read_table("table", table, label="kind")
    (row, _) = given.rows
    volume = row.source.read()
    kept = volume.array > -1000
    assert kept[:, :, :38].any()
    assert not kept[:, :, 42:].any()
    images = lesion_dataset(given, input_spec(WHOLE), progress=False).images[0][0, 1]
    assert (images == -1.0).mean() > 0.5
    assert "organ_mask" not in row.attributes


def test_an_organ_that_is_missing_or_of_another_ct_is_named(table, tmp_path):
    (tmp_path / "liver.nii.gz").unlink()
    with pytest.raises(TableError, match=r"line 2: the organ's mask .*liver.nii.gz is missing"):
        check_table(read_table("table", table, label="kind"), labelled=False, progress=False)
    image = sitk.GetImageFromArray(np.ones((4, 4, 4), np.uint8))
    image.SetOrigin((900.0, 0.0, 0.0))
    sitk.WriteImage(image, str(tmp_path / "liver.nii.gz"))
    with pytest.raises(VolumeError, match="shows nothing of"):
        read_table("table", table, label="kind").rows[0].source.read()


def test_a_model_of_organs_alone_does_not_become_a_model_folder(tmp_path, monkeypatch):
    run = tmp_path / "run" / "fold-0"
    run.mkdir(parents=True)
    (run / "done.json").write_text("{}")
    (tmp_path / "run" / "report").mkdir()
    (tmp_path / "run" / "report" / "metrics.json").write_text(json.dumps({}))
    input_section = {"kind": "slice_with_neighbours"}
    model = FittedModel("dadrn", {}, input_section, (), 1.0, (1.0, 2.0), (1.0, 2.0), {"data": {"organ_alone": True}})
    monkeypatch.setattr(FittedModel, "load", classmethod(lambda cls, folder: (model, None)))
    plan = ExportPlan("liver", "0.1.0", "", "", "free")
    with pytest.raises(ExportError, match="of which the organ alone was left") as caught:
        export(tmp_path / "run", tmp_path / "model", plan)
    assert isinstance(caught.value, LesionLensError)
