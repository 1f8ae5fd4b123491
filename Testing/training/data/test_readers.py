"""Each reader on a small set of its own form: what it gives, what it says, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from lesion_tables import read_table, write_rows
from LesionLib.errors import LesionLensError
from lesiontraining.data.crops import input_spec
from lesiontraining.data.dataset import lesion_dataset
from lesiontraining.data.messages import TableError
from lesiontraining.data.readers.registry import READERS
from phantom_cases import write_cases, write_volume
from PIL import Image

# MedMNIST-3D ----------------------------------------------------------------------------------------------------------


def cubes(count, seed):
    return (np.random.default_rng(seed).random((count, 6, 6, 6)) > 0.5).astype(np.uint8) * 255


def test_medmnist_keeps_the_official_split_and_says_that_patients_are_not_known(tmp_path):
    path = tmp_path / "adrenalmnist3d.npz"
    np.savez(
        path,
        train_images=cubes(3, 0),
        train_labels=np.array([[0], [1], [0]]),
        test_images=cubes(1, 1),
        test_labels=np.array([[1]]),
    )
    table = read_table("medmnist3d", path, label="label")
    assert table.column("split").tolist() == ["train"] * 3 + ["test"]
    assert table.class_names == ("normal", "mass or hyperplasia")
    assert table.labels.tolist() == [0, 1, 0, 1]
    assert table.rows[0].source.is_mask
    assert table.rows[0].source.edge_mm == 64
    assert "which cubes are of one patient" in table.warnings[0]
    assert np.array_equal(table.rows[3].source.read()[0], cubes(1, 1)[0])


def test_medmnist_grey_cubes_are_no_shapes(tmp_path):
    grey = np.random.default_rng(0).integers(0, 255, (2, 6, 6, 6)).astype(np.uint8)
    np.savez(tmp_path / "other.npz", train_images=grey, train_labels=np.array([0, 2]))
    table = read_table("medmnist3d", tmp_path / "other.npz", label="label")
    assert not table.rows[0].source.is_mask
    assert table.class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"train_images": np.array([{"a": 1}], dtype=object), "train_labels": np.zeros(1, int)}, "pickled"),
        ({"train_images": np.zeros((2, 6, 6), np.uint8), "train_labels": np.zeros(2, int)}, "cubes"),
        ({"train_images": np.zeros((2, 6, 6, 6), np.uint8), "train_labels": np.zeros(3, int)}, "one class each"),
        ({"val_images": np.zeros((2, 6, 6, 6), np.uint8), "val_labels": np.zeros(2, int)}, "lacks train_images"),
    ],
)
def test_medmnist_archives_that_are_none_are_refused_and_nothing_is_unpickled(tmp_path, content, says):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(TableError, match=says):
        read_table("medmnist3d", tmp_path / "a.npz", label="label")
    (tmp_path / "b.npz").write_bytes(b"PK no archive")
    with pytest.raises(TableError):
        read_table("medmnist3d", tmp_path / "b.npz", label="label")


# nodules --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def nodules(tmp_path):
    cases = write_cases(tmp_path, patients=3, of_each=2)
    ratings = (1, 3, 5, 4, 2, 3)
    rows = [
        {"file": c.volume_path.name, "patient_id": c.patient, "luna16_subset": (2, 0, 1, 1, 0, 0)[n], "malignant": int(n > 2),
         "malignancy_1to5": ratings[n], "texture_1to5": (5, 5, 4, 3, 2, 1)[n], "calcification": ("Absent", "Solid")[n % 2]}
        for n, c in enumerate(cases)
    ]  # fmt: skip
    write_rows(tmp_path / "nodules.csv", rows)
    return tmp_path


def test_nodules_keep_patients_in_one_fold_and_say_who_was_moved(nodules):
    table = read_table("nodule_set", nodules, label="malignant")
    assert table.column("fold").tolist() == ["0", "0", "1", "1", "0", "0"]
    assert "moved whole into one (lines 2, 3)" in table.warnings[0]
    assert "P0" not in table.warnings[0]
    assert table.class_names == ("benign", "malignant")
    assert table.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert "CC BY 3.0" in table.credit


@pytest.mark.parametrize(
    ("label", "classes", "labels"),
    [
        ("malignant_decided", ("benign", "malignant"), [0, -1, 1, 1, 0, -1]),
        ("texture_class", ("ground glass", "part-solid", "solid"), [2, 2, 1, 1, 0, 0]),
        ("calcified", ("calcified", "not calcified"), [1, 0, 1, 0, 1, 0]),
        ("malignancy_rating", ("1", "2", "3", "4", "5"), [0, 2, 4, 3, 1, 2]),
    ],
)
def test_nodules_have_a_choice_of_labels(nodules, label, classes, labels):
    table = read_table("nodule_set", nodules, label=label)
    assert table.class_names == classes
    assert table.labels.tolist() == labels


def test_nodules_say_what_is_wrong(nodules):
    with pytest.raises(TableError, match="choose one of malignant"):
        read_table("nodule_set", nodules, label="colour")
    (nodules / "mask" / "case1.nii.gz").unlink()
    with pytest.raises(TableError, match=r"line 3: .*case1.nii.gz is missing"):
        read_table("nodule_set", nodules, label="malignant")


# masks ----------------------------------------------------------------------------------------------------------------


def test_a_folder_of_masks_gives_a_lesion_for_each_value(tmp_path):
    cases = write_cases(tmp_path, patients=2)
    two = cases[1].mask.copy()
    two[:3, :3, :3] = 4
    write_volume(two, cases[1].volume.ijkToRAS, cases[1].mask_path)
    table = read_table("mask_folder", tmp_path, label="value", names={"1": "nodule", "4": "corner"}, progress=False)
    assert [(r.lesion_id, r.label, r.patient) for r in table.rows] == [
        ("case0:1", "nodule", "case0"), ("case1:1", "nodule", "case1"), ("case1:4", "corner", "case1"),
    ]  # fmt: skip
    assert "every CT counts as a patient" in table.warnings[0]
    sizes = lesion_dataset(table, input_spec({"kind": "shape_mask"}), progress=False).volume_mm3
    assert sizes[2] == pytest.approx(27 * 2)


def test_a_table_beside_the_masks_gives_label_and_patient(tmp_path):
    write_cases(tmp_path, patients=2)
    write_rows(
        tmp_path / "cases.csv",
        [{"file": f"case{n}.nii.gz", "patient": "P", "what": w} for n, w in ((0, "cyst"), (1, "solid"))],
    )
    table = read_table("mask_folder", tmp_path, label="what", table="cases.csv", progress=False)
    assert [(r.label, r.patient, r.line) for r in table.rows] == [("cyst", "P", 2), ("solid", "P", 3)]
    with pytest.raises(TableError, match="give the table"):
        read_table("mask_folder", tmp_path, label="what", progress=False)


def test_masks_that_are_missing_or_empty_are_named(tmp_path):
    cases = write_cases(tmp_path, patients=2)
    write_volume(np.zeros_like(cases[1].mask), cases[1].volume.ijkToRAS, cases[1].mask_path)
    with pytest.raises(TableError, match=r"case1.nii.gz holds no lesion \(values none\)"):
        read_table("mask_folder", tmp_path, label="value", progress=False)
    cases[0].mask_path.unlink()
    with pytest.raises(TableError, match="case0.nii.gz has no mask in mask"):
        read_table("mask_folder", tmp_path, label="value", progress=False)


# boxes beside DICOM folders -------------------------------------------------------------------------------------------


def test_boxes_by_voxels_and_by_lps_corners_are_the_same_place(tmp_path):
    case = write_cases(tmp_path, patients=1)[0]
    first, last = np.array([3, 4, 5]), np.array([8, 9, 7])
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ case.volume.ijkToRAS
    low = (lps @ [*(first - 0.5), 1])[:3]
    high = (lps @ [*(last + 0.5), 1])[:3]
    base = {"volume": "image/case0.nii.gz", "patient_id": "P", "kind": "a"}
    voxels = dict(zip(("i0", "j0", "k0", "i1", "j1", "k1"), [*first, *last], strict=True))
    corners = {"lps_min": str(low.tolist()), "lps_max": str(high.tolist())}
    boxes = []
    for name, place in (("v", voxels), ("c", corners)):
        (row,) = read_table("dicom_boxes", write_rows(tmp_path / f"{name}.csv", [{**base, **place}]), label="kind").rows
        boxes.append(row.source.lesion(case.volume, name="a"))
    assert boxes[0].centerRAS == pytest.approx(boxes[1].centerRAS)
    assert boxes[0].sizeMm == pytest.approx(boxes[1].sizeMm)


def test_boxes_without_a_volume_take_the_folder_of_the_patient(tmp_path):
    row = {
        "patient": "P7",
        "label": "a",
        "i_min": 1,
        "j_min": 1,
        "k_min": 1,
        "i_max": 2,
        "j_max": 2,
        "k_max": 2,
        "series_uid": "1.2",
    }
    path = write_rows(tmp_path / "boxes.csv", [row])
    (found,) = read_table("dicom_boxes", path, label="label", folder="ct/{patient}").rows
    assert found.source.volume == tmp_path / "ct/P7"
    assert found.source.series == "1.2"
    with pytest.raises(TableError, match="no row says where its CT is"):
        read_table("dicom_boxes", path, label="label")


# images -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def eyes(tmp_path):
    (tmp_path / "train").mkdir()
    for name, value in (("a", 50), ("b", 100), ("c", 50)):
        Image.new("RGB", (20, 16), (value, 10, 10)).save(tmp_path / "train" / f"{name}.png")
    return tmp_path


def test_pictures_are_found_with_or_without_their_ending_and_copies_are_one_patient(eyes):
    write_rows(
        eyes / "labels.csv", [{"split": "train", "image": n, "grade": g} for n, g in (("a", 0), ("b.png", 1), ("c", 2))]
    )
    table = read_table("image_folder", eyes, label="grade")
    assert [row.source.path.name for row in table.rows] == ["a.png", "b.png", "c.png"]
    assert table.patients.tolist() == ["a", "b.png", "a"]
    assert "every row counts as a patient of its own" in table.warnings[0]
    assert "1 image(s) are copies" in table.warnings[1]
    assert "1 of them have another label" in table.warnings[1]


def test_pictures_with_patients_keep_them_without_a_warning(eyes):
    write_rows(eyes / "labels.csv", [{"split": "train", "image": n, "grade": n, "patient": "P"} for n in "abc"])
    table = read_table("image_folder", eyes, label="grade")
    assert set(table.patients) == {"P"}
    assert table.warnings == ()


def test_pictures_that_are_missing_or_elsewhere_are_named(eyes):
    write_rows(
        eyes / "labels.csv",
        [{"split": "train", "image": n, "grade": 1} for n in ("a", "z", "../train/b", "/etc/passwd")],
    )
    with pytest.raises(TableError) as caught:
        read_table("image_folder", eyes, label="grade")
    assert [problem.line for problem in caught.value.problems] == [3, 4, 5]


# all ------------------------------------------------------------------------------------------------------------------


def test_an_unknown_reader_and_an_unknown_option_are_said(tmp_path):
    with pytest.raises(LesionLensError, match="no reader 'dicom'; known are table: a CSV"):
        read_table("dicom", tmp_path, label=None)
    with pytest.raises(LesionLensError, match="'nodule_set' has no option 'neighbours'"):
        read_table("nodule_set", tmp_path, label=None, neighbours=2)


@pytest.mark.parametrize("name", sorted(READERS))
def test_a_reader_refuses_what_is_not_there_with_a_table_error(tmp_path, name):
    with pytest.raises(TableError):
        read_table(name, tmp_path / "nowhere", label="label" if name != "nodule_set" else "malignant")


def test_medmnist_shapes_are_put_in_the_middle_and_turned_as_asked(tmp_path):
    path = tmp_path / "adrenalmnist3d.npz"
    shape = np.zeros((1, 8, 8, 8), np.uint8)
    shape[0, 0:2, 1:7, 3] = 255
    np.savez(path, train_images=shape, train_labels=np.array([[1]]))
    spec = input_spec({"kind": "shape_mask", "voxels": 8})

    def shown(**options):
        found = lesion_dataset(read_table("medmnist3d", path, label="label", **options), spec, progress=False)
        return found.images[0][0, 0]

    middle = shown(centred=True)
    assert [(where.min(), where.max()) for where in np.nonzero(middle)] == [(3, 4), (1, 6), (3, 3)]
    assert middle.sum() == 12
    assert (shown(is_xyz=True) == shown().transpose()).all()


def test_medmnist_val_can_be_what_is_measured_on(tmp_path):
    path = tmp_path / "adrenalmnist3d.npz"
    labels = {f"{part}_labels": np.array([[0], [1]]) for part in ("train", "val", "test")}
    np.savez(path, **{f"{part}_images": cubes(2, n) for n, part in enumerate(("train", "val", "test"))}, **labels)
    table = read_table("medmnist3d", path, label="label", measure_on_val=True)
    assert table.column("split").tolist() == ["train", "train", "test", "test"]
    assert np.array_equal(table.rows[2].source.read(), cubes(2, 1))  # the official val
    assert "test-00000" not in table.lesion_ids
