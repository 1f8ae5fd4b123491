"""Every reader of a file that may come from somebody else, with whole files to damage and what reading it means."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk

FUZZ = Path(__file__).resolve().parent
ROOT = FUZZ.parents[1]
FILES = ROOT / "Testing" / "fixtures" / "v0_1"
sys.path[:0] = [str(FUZZ), str(ROOT / "Testing" / "support")]

import mutations as m  # noqa: E402
from LesionLib.errors import LesionLensError  # noqa: E402
from LesionLib.inference.messages import (  # noqa: E402
    RunRequest,
    WireError,
    question_from_frame,
    question_to_frame,
    read_first_frame,
    read_frame,
    write_frame,
)
from LesionLib.io.boxes import read_boxes_csv, read_case_table, read_segment_boxes  # noqa: E402
from LesionLib.io.volumes import read_volume  # noqa: E402
from LesionLib.model.bundle import load_bundle, manifest_sha256  # noqa: E402
from LesionLib.model.folder import CARD, LICENSE, MANIFEST, WEIGHTS, golden_case, unchecked_manifest  # noqa: E402
from LesionLib.model.install import install_bundle  # noqa: E402
from LesionLib.networks.weights import load_pretrained  # noqa: E402
from LesionRetrievalLib.library.feedback import FeedbackLog, Query  # noqa: E402
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser  # noqa: E402
from LesionRetrievalLib.library.store import CaseLibrary  # noqa: E402
from LesionRetrievalLib.quiz.attempt import open_log, read_attempts  # noqa: E402
from LesionRetrievalLib.quiz.file import load_quiz  # noqa: E402
from lesiontraining.commands.recipe_check import check_texts  # noqa: E402
from lesiontraining.data.readers.registry import read_with  # noqa: E402
from lesiontraining.runs.folder import FittedModel, FoldFolder  # noqa: E402

Rng = np.random.Generator
REFUSALS = (LesionLensError, WireError, EOFError)


@dataclass(frozen=True)
class Reader:
    """``prepare(folder)`` writes whole files; ``damage(folder, rng)`` changes them; ``read(folder)`` reads them, or refuses.

    ``share``: how many of a thousand inputs go to it. ``refusals``: errors that are a refusal here beside the usual ones.
    """

    prepare: Callable[[Path], None]
    damage: Callable[[Path, Rng], None]
    read: Callable[[Path], Any]
    share: int
    refusals: tuple[type[BaseException], ...] = ()


def _copy(source: Path, name: str | None = None) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        target = folder / (name or source.name)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)

    return prepare


def _bytes(name: str) -> Callable[[Path, Rng], None]:
    def damage(folder: Path, rng: Rng) -> None:
        (folder / name).write_bytes(m.damaged_bytes((folder / name).read_bytes(), rng))

    return damage


def _json(name: str) -> Callable[[Path, Rng], None]:
    def damage(folder: Path, rng: Rng) -> None:
        text = m.damaged_json((folder / name).read_text(encoding="utf-8"), rng)
        (folder / name).write_text(text, encoding="utf-8", errors="replace")

    return damage


def _csv(name: str) -> Callable[[Path, Rng], None]:
    def damage(folder: Path, rng: Rng) -> None:
        (folder / name).write_bytes(m.damaged_csv((folder / name).read_text(encoding="utf-8"), rng))

    return damage


def _head(name: str) -> Callable[[Path, Rng], None]:
    def damage(folder: Path, rng: Rng) -> None:
        (folder / name).write_bytes(m.damaged_header((folder / name).read_bytes(), rng, m.damaged_fields))

    return damage


# CTs, segmentations and boxes.


def _image(name: str, *, segments: bool = False) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        k, j, i = np.indices((8, 10, 12))
        inside = (i - 6) ** 2 + (j - 5) ** 2 + (k - 4) ** 2 < 9
        array = inside.astype(np.uint8) if segments else np.where(inside, 40, -800).astype(np.int16)
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.8, 0.8, 2.0))
        if segments and name.endswith(".seg.nrrd"):
            for key, value in {"Segment0_Name": "nodule", "Segment0_LabelValue": "1", "Segment0_Layer": "0"}.items():
                image.SetMetaData(key, value)
        sitk.WriteImage(image, str(folder / name))

    return prepare


def _dicom(folder: Path) -> None:
    (folder / "series").mkdir()
    for k in range(4):
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = (
            pydicom.uid.CTImageStorage,
            pydicom.uid.ExplicitVRLittleEndian,
        )
        meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.1.{k}"
        data = pydicom.dataset.FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.9", "1.2.826.0.1.3680043.8.498.1"
        data.Modality, data.SeriesNumber, data.InstanceNumber = "CT", 1, k + 1
        data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.0 * k]
        data.PixelSpacing, data.SliceThickness = [0.8, 0.8], 2.0
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 10, 12, 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation, data.RescaleSlope, data.RescaleIntercept = 15, 0, 1, -1024
        data.PixelData = np.full((10, 12), 1000 + k, np.uint16).tobytes()
        pydicom.dcmwrite(folder / "series" / f"{k}.dcm", data, enforce_file_format=True)


def _damage_dicom(folder: Path, rng: Rng) -> None:
    for _ in range(int(rng.integers(1, 3))):
        m.damage_dicom(folder / "series" / f"{int(rng.integers(4))}.dcm", rng)


def _markups(folder: Path) -> None:
    roi = {
        "type": "ROI", "coordinateSystem": "LPS", "coordinateUnits": "mm", "roiType": "Box", "insideOut": False,
        "center": [1.0, 2.0, 3.0], "orientation": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], "size": [10.0, 11.0, 12.0],
        "controlPoints": [{"id": "1", "label": "L1", "position": [1.0, 2.0, 3.0], "positionStatus": "defined"}],
        "display": {"visibility": True, "color": [0.4, 1.0, 1.0]},
    }  # fmt: skip
    schema = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#"
    (folder / "boxes.mrk.json").write_text(
        json.dumps(
            {
                "@schema": schema,
                "markups": [
                    roi,
                    {**roi, "center": [9, 9, 9], "controlPoints": [{**roi["controlPoints"][0], "position": [9, 9, 9]}]},
                ],
            }
        )
    )


def _read_markups(folder: Path) -> None:
    from LesionClassifierLib.headless import startHeadlessSlicer
    from LesionClassifierLib.scene.lesions import loadRoiNodes

    scene = startHeadlessSlicer().scene
    scene.Clear(False)
    loadRoiNodes(scene, folder / "boxes.mrk.json")


def _stored_result(folder: Path) -> None:
    from LesionClassifierLib.headless import startHeadlessSlicer
    from LesionClassifierLib.scene.lesions import addRoiNode
    from LesionClassifierLib.scene.results import storeResult
    from LesionClassifierLib.scene.volumes import addVolumeNode
    from LesionLib.inference.results import LesionResult, RunInfo

    scene = startHeadlessSlicer().scene
    scene.Clear(False)
    volume, box = golden_case()
    box = replace(box, segment=None)
    result = LesionResult("L1", box, "a", {"a": 0.7, "b": 0.3}, np.ones(4, np.float32) / 2, None, ("A warning.",))
    node, ct = addRoiNode(scene, box), addVolumeNode(scene, volume)
    info = RunInfo("CT", "model", "1.0.0", "a" * 64, "cpu")
    storeResult(node, ct, result, run=info, classColors={"a": (1, 0, 0), "b": (0, 1, 0)}, fingerprint="f")
    name = max(node.GetAttributeNames(), key=lambda n: len(node.GetAttribute(n) or ""))
    (folder / "result.json").write_text(json.dumps({"name": name, "text": json.loads(node.GetAttribute(name))}))


def _damage_result(folder: Path, rng: Rng) -> None:
    content = json.loads((folder / "result.json").read_text())
    content["text"] = m.damaged_value(content["text"], rng)
    (folder / "result.json").write_text(json.dumps(content))


def _read_result(folder: Path) -> None:
    from LesionClassifierLib.headless import startHeadlessSlicer
    from LesionClassifierLib.scene.lesions import addRoiNode
    from LesionClassifierLib.scene.results import storedResult

    scene = startHeadlessSlicer().scene
    scene.Clear(False)
    node = addRoiNode(scene, replace(golden_case()[1], segment=None))
    content = json.loads((folder / "result.json").read_text())
    node.SetAttribute(content["name"], json.dumps(content["text"]))
    if storedResult(node) is None:
        msg = "passed over"
        raise LesionLensError(msg)


def _case_folder(folder: Path) -> None:
    from phantom_cases import write_cases

    cases = write_cases(folder / "cases", patients=2)
    lines = ["file,patient_id,diameter_mm,malignant,texture"]
    lines += [f"{case.volume_path.name},{case.patient},9.5,{n % 2},solid" for n, case in enumerate(cases)]
    (folder / "cases" / "nodules.csv").write_text("\n".join(lines) + "\n")


def _lesion_table(folder: Path) -> None:
    shutil.copy(FILES / "lesions.csv", folder / "lesions.csv")


def _parquet(folder: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.csv.read_csv(FILES / "lesions.csv"), folder / "lesions.parquet")


def _medmnist(folder: Path) -> None:
    arrays = {f"{part}_images": np.full((2, 8, 8, 8), 7, np.uint8) for part in ("train", "val", "test")}
    arrays |= {f"{part}_labels": np.array([[0], [1]], np.uint8) for part in ("train", "val", "test")}
    np.savez(folder / "nodulemnist3d.npz", **arrays)


def _damage_npz(name: str) -> Callable[[Path, Rng], None]:
    def damage(folder: Path, rng: Rng) -> None:
        path = folder / name
        if rng.random() < 0.5:
            path.write_bytes(m.damaged_bytes(path.read_bytes(), rng))
            return
        with np.load(path) as stored:
            arrays = {key: stored[key] for key in stored.files}
        key = list(arrays)[rng.integers(len(arrays))]
        others = (
            np.zeros(0),
            np.array("x"),
            np.zeros((1, 1)),
            np.full(arrays[key].shape, np.nan),
            np.zeros((2, 8, 8)),
            arrays[key][:1],
        )
        if rng.random() < 0.2:
            del arrays[key]
        else:
            arrays[key] = others[rng.integers(len(others))]
        np.savez(path, **arrays)

    return damage


# Libraries, feedback, keys.


def _damage_library(folder: Path, rng: Rng) -> None:
    path = folder / "cases.lesionlib"
    if rng.random() < 0.6:
        m.damage_rows(path, rng)
    else:
        path.write_bytes(m.damaged_bytes(path.read_bytes(), rng))


def _read_library(folder: Path) -> None:
    path = folder / "cases.lesionlib"
    with CaseLibrary.open(path) as library:
        library.integrity_problems()
        for model in library.models():
            library.search(np.ones(model.dimension), k=3, model_sha256=model.identity.sha256)
        for case in library.cases():
            library.thumbnails(case.case_id)
            library.patch(case.case_id)
    with CaseLibrary.open(path, read_only=False) as library:  # which brings it to the newest schema
        for case in library.cases()[:1]:
            library.remove(case.case_id)


def _feedback(folder: Path) -> None:
    shutil.copy(FILES / "cases.lesionlib.feedback.jsonl", folder / "cases.lesionlib.feedback.jsonl")


def _damage_lines(name: str) -> Callable[[Path, Rng], None]:
    def damage(folder: Path, rng: Rng) -> None:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        place = int(rng.integers(len(lines)))
        lines[place] = m.damaged_json(lines[place], rng)
        text = "\n".join(lines) + ("\n" if rng.random() < 0.8 else "")
        content = text.encode("utf-8", "replace")
        (folder / name).write_bytes(content if rng.random() < 0.8 else m.damaged_bytes(content, rng))

    return damage


def _read_feedback(folder: Path) -> None:
    log = FeedbackLog(folder / "cases.lesionlib", own_folder=folder / "own")
    entry = json.loads((FILES / "cases.lesionlib.feedback.jsonl").read_text().splitlines()[0])
    fields = Query.__dataclass_fields__
    log.marked(Query(**{name: str(entry.get(name, "x")) for name in fields}))


def _key(folder: Path) -> None:
    Pseudonymiser.create(folder / "pseudonym.key")


# Quizzes.


def _quiz(folder: Path) -> None:
    shutil.copy(FILES / "quiz.json", folder / "quiz.json")


def _attempts(folder: Path) -> None:
    shutil.copytree(FILES / "answers", folder / "answers")


def _read_attempts(folder: Path) -> None:
    quiz = load_quiz(FILES / "quiz.json")
    open_log(quiz, folder / "answers", "L1")
    read_attempts(quiz, folder / "answers")


# Models and runs.


def _damage_model(folder: Path, rng: Rng) -> None:
    """Sealed again most times: what is asked is what happens to a manifest that its own hash speaks for."""
    model = folder / "model"
    manifest = json.loads((model / MANIFEST).read_text())
    if rng.random() < 0.25:
        name = (MANIFEST, WEIGHTS, CARD, LICENSE)[rng.integers(4)]
        content = m.damaged_bytes((model / name).read_bytes(), rng)
        (model / name).write_bytes(content)
        if name == MANIFEST:
            return
        if rng.random() < 0.7:
            manifest["lesionlens"]["files"][name] = hashlib.sha256(content).hexdigest()
    else:
        ours = manifest["lesionlens"]
        training = ours.pop("training", {})
        manifest = m.damaged_value(manifest, rng)
        if isinstance(manifest, dict) and isinstance(manifest.get("lesionlens"), dict):
            manifest["lesionlens"]["training"] = training
    if isinstance(manifest, dict):
        manifest["sha256"] = manifest_sha256(manifest)
    (model / MANIFEST).write_text(json.dumps(manifest))


def _read_model(folder: Path) -> None:
    unchecked_manifest(folder / "model")
    load_bundle(folder / "model")


def _zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "model.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (MANIFEST, WEIGHTS, CARD, LICENSE):
            archive.write(FILES / "model" / name, name)


def _read_zip(folder: Path) -> None:
    install_bundle(folder / "model.zip", root=folder / "models")


def _pretrained(folder: Path) -> None:
    import torch
    from LesionLib.networks import build_network

    torch.save({"state_dict": build_network("lesionsearch", {"width": "tiny"}).state_dict()}, folder / "weights.pth")


def _read_pretrained(folder: Path) -> None:
    from LesionLib.networks import build_network

    load_pretrained(build_network("lesionsearch", {"width": "tiny"}), folder / "weights.pth")


def _damage_run(folder: Path, rng: Rng) -> None:
    name = ("network.json", "network.safetensors", "predictions.npz", "done.json")[rng.integers(4)]
    (_json(name) if name.endswith(".json") else _damage_npz(name) if name.endswith(".npz") else _bytes(name))(
        folder / "fold-0", rng
    )


def _read_run(folder: Path) -> None:
    fold = FoldFolder(folder / "fold-0", 0)
    _ = fold.facts
    fold.predictions()
    FittedModel.load(fold.path)


def _recipe(folder: Path) -> None:
    shutil.copy(ROOT / "training" / "configs" / "tiny" / "orthopatch.yaml", folder / "recipe.yaml")


# Frames between a runner and its worker.


def _frame(folder: Path) -> None:
    volume, box = golden_case()
    stream = io.BytesIO()
    question = question_to_frame(RunRequest("model", volume, [box, replace(box, segment=None)]))
    write_frame(stream, {**question.header, "id": 7}, question.arrays)
    (folder / "frame").write_bytes(stream.getvalue())


def _damage_frame(folder: Path, rng: Rng) -> None:
    content = (folder / "frame").read_bytes()
    if rng.random() < 0.3:
        (folder / "frame").write_bytes(m.damaged_bytes(content, rng))
        return
    (length,) = struct.unpack("<I", content[4:8])
    head = m.damaged_json(content[8 : 8 + length].decode(), rng).encode("utf-8", "replace")
    (folder / "frame").write_bytes(b"LLW1" + struct.pack("<I", len(head)) + head + content[8 + length :])


def _read_frame(folder: Path) -> None:
    content = (folder / "frame").read_bytes()
    read_first_frame(io.BytesIO(b"stray" + content))
    frame = read_frame(io.BytesIO(content))
    if {"kind", "id"} <= frame.header.keys():
        question_from_frame(frame)


READERS: dict[str, Reader] = {
    "boxes csv": Reader(_copy(FILES / "boxes.csv"), _csv("boxes.csv"), lambda f: read_boxes_csv(f / "boxes.csv"), 70),
    "markups json": Reader(_markups, _json("boxes.mrk.json"), _read_markups, 50),
    "segmentation": Reader(
        _image("s.seg.nrrd", segments=True),
        _head("s.seg.nrrd"),
        lambda f: read_segment_boxes(f / "s.seg.nrrd", margin_mm=2.0),
        60,
    ),
    "label map": Reader(
        _image("s.nii.gz", segments=True), _bytes("s.nii.gz"), lambda f: read_segment_boxes(f / "s.nii.gz", margin_mm=2.0), 20
    ),
    "nrrd": Reader(_image("ct.nrrd"), _head("ct.nrrd"), lambda f: read_volume(f / "ct.nrrd"), 60),
    "nifti": Reader(_image("ct.nii"), _bytes("ct.nii"), lambda f: read_volume(f / "ct.nii"), 60),
    "nifti gz": Reader(_image("ct.nii.gz"), _bytes("ct.nii.gz"), lambda f: read_volume(f / "ct.nii.gz"), 20),
    "mha": Reader(_image("ct.mha"), _head("ct.mha"), lambda f: read_volume(f / "ct.mha"), 60),
    "mhd": Reader(_image("ct.mhd"), _head("ct.mhd"), lambda f: read_volume(f / "ct.mhd"), 20),
    "dicom": Reader(_dicom, _damage_dicom, lambda f: read_volume(f / "series"), 90),
    "case table": Reader(
        _case_folder,
        lambda f, rng: _csv("nodules.csv")(f / "cases", rng),
        lambda f: read_case_table(f / "cases", columns=("malignant",)),
        50,
    ),
    "lesion table": Reader(
        _lesion_table,
        _csv("lesions.csv"),
        lambda f: read_with("table", f / "lesions.csv", label="kind", classes=None),
        60,
    ),
    "parquet table": Reader(
        _parquet, _bytes("lesions.parquet"), lambda f: read_with("table", f / "lesions.parquet", label="kind", classes=None), 20
    ),
    "medmnist": Reader(
        _medmnist,
        _damage_npz("nodulemnist3d.npz"),
        lambda f: read_with("medmnist3d", f / "nodulemnist3d.npz", label=None, classes=None),
        20,
    ),
    "library": Reader(_copy(FILES / "cases.lesionlib"), _damage_library, _read_library, 90),
    "feedback": Reader(_feedback, _damage_lines("cases.lesionlib.feedback.jsonl"), _read_feedback, 20),
    "pseudonym key": Reader(_key, _bytes("pseudonym.key"), lambda f: Pseudonymiser.load(f / "pseudonym.key"), 10),
    "quiz": Reader(_quiz, _json("quiz.json"), lambda f: load_quiz(f / "quiz.json"), 60),
    "attempts": Reader(_attempts, lambda f, rng: _damage_lines("attempt-L1.jsonl")(f / "answers", rng), _read_attempts, 40),
    "model folder": Reader(_copy(FILES / "model"), _damage_model, _read_model, 60),
    "model zip": Reader(_zip, _bytes("model.zip"), _read_zip, 20),
    "pretrained weights": Reader(_pretrained, _bytes("weights.pth"), _read_pretrained, 10, (ValueError, OSError)),
    "run": Reader(_copy(FILES / "run" / "fold-0"), _damage_run, _read_run, 30),
    "recipe": Reader(
        _recipe, _bytes("recipe.yaml"), lambda f: check_texts([f"--config={f / 'recipe.yaml'}"]), 20
    ),
    "frames": Reader(_frame, _damage_frame, _read_frame, 60),
    "stored result": Reader(_stored_result, _damage_result, _read_result, 30),
}  # fmt: skip
