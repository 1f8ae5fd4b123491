"""How a CT comes into a session: a file or DICOM folder of this computer, or what the user drops into the page."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import slicer.util
from LesionClassifierLib.headless import startHeadlessSlicer
from LesionClassifierLib.scene.lesions import lesionsFromNodes, statesFrame
from LesionClassifierLib.scene.volumes import firstVolume, nodesOfClass, volumeFromNode
from LesionLib.errors import BoxError, InputWarning, LesionLensError, VolumeError
from LesionLib.geometry import LesionBox
from LesionLib.io.boxes import FrameSource, read_boxes_csv
from LesionLib.io.image_headers import readable_name
from LesionLib.io.private_files import open_private, private_folder
from LesionRetrievalLib.scene.annotations import Annotation, annotations_text, parse_annotations

from LesionLensApp.reading import frame_source
from LesionLensApp.serve.access import ApiError
from LesionLensApp.serve.sessions import DrawnBox, OpenCT, Session

# Files that hold all of a CT themselves; a header whose voxels lie in another file is not taken.
_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".dcm", ".ima", ".img.dcm", "")
_STEERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_MAX_FILES, MAX_BOXES, MAX_NAME = 5000, 200, 200
_UPLOADS = "uploads"
_MAX_SCENE = 16 * 1024**3
_SCENE = Lock()  # there is one scene a process


def shown_name(name: str) -> str:
    """The name of a user's file as it is shown and written into results: no folder, nothing that steers a terminal or a page."""
    last = PurePosixPath(name.replace("\\", "/")).name
    return _STEERS.sub("\ufffd", last).strip()[:MAX_NAME] or "upload"


async def take_upload(session: Session, name: str, content: AsyncIterator[bytes], *, most: int) -> dict[str, Any]:
    """Keep a dropped file under a name of our own. ``most``: bytes of all files of a session. Raises `ApiError`."""
    shown = shown_name(name)
    lower = shown.lower()
    if lower.endswith((".zip", ".mrb", ".7z", ".rar", ".tar", ".tgz", ".tar.gz")):
        raise ApiError(415, f"{shown} is an archive; unpack it and drop the files, or the folder, themselves.")
    if lower.endswith((".mhd", ".nhdr", ".hdr")):
        raise ApiError(415, f"{shown} has its voxels in another file; save it as one file (.nrrd, .nii.gz or .mha).")
    ending = next((end for end in _ENDINGS if end and lower.endswith(end)), "")
    with session.lock:
        if len(session.uploads) >= _MAX_FILES:
            raise ApiError(413, f"more than {_MAX_FILES} files; drop the files of one series.")
        key = shown
        while key in session.uploads:  # two folders of a disc have files of the same names
            key = f"{len(session.uploads)}-{shown}"
        path = private_folder(session.folder / _UPLOADS) / f"{len(session.uploads):05d}{ending}"
        session.uploads[key] = path
    size = 0
    try:
        with open_private(path) as file:
            async for part in content:
                size += len(part)
                session.uploaded_bytes += len(part)
                if session.uploaded_bytes > most:
                    raise ApiError(413, f"the files are larger than {most // 1024**2} MB together; crop the CT first.")
                file.write(part)
    except BaseException:
        path.unlink(missing_ok=True)
        session.uploads.pop(key, None)
        session.uploaded_bytes -= size
        raise
    return {"name": key, "bytes": size}


def forget_uploads(session: Session) -> None:
    """The next CT is another one."""
    for path in session.uploads.values():
        path.unlink(missing_ok=True)
    session.uploads.clear()
    session.uploaded_bytes = 0


def uploaded(session: Session) -> tuple[Path, str]:
    """What was dropped, a file or a folder of files, and what to call it. Raises `ApiError`."""
    if not session.uploads:
        raise ApiError(409, "nothing was dropped yet.")
    if len(session.uploads) == 1:
        ((name, path),) = session.uploads.items()
        return path, name
    return session.folder / _UPLOADS, "dropped files"


@contextmanager
def _naming(path: Path, name: str | None) -> Iterator[Callable[[str], str]]:
    """What is said of a file names it as its user does, and no folder of this computer."""
    shown = name or readable_name(path)

    def renamed(text: str) -> str:
        return text.replace(str(path), shown).replace(path.name, shown)

    try:
        yield renamed
    except LesionLensError as error:
        raise type(error)(renamed(str(error))) from error


def read(path: Path, *, series: str | None, name: str | None) -> OpenCT:
    """Read a CT; ``name``: what to call it (None: as its file). Raises a `LesionLensError`."""
    from LesionLib.io.series_details import series_details
    from LesionLib.io.volumes import read_ct, series_at

    with _naming(path, name) as renamed:
        found = series_at(path, series)
        volume = read_ct(path, series=found or series)
    warnings = tuple(InputWarning(w.name, renamed(w)) for w in volume.warnings)
    volume = replace(volume, name=name or volume.name, warnings=warnings)
    return OpenCT(volume, found, None if found is None else series_details(found))


_HEADERS = (".mhd", ".nhdr", ".hdr", ".img")  # their voxels lie in another file, whose state is not looked at
_shared: WeakValueDictionary[tuple, OpenCT] = WeakValueDictionary()
_READING = Lock()


def read_shared(path: Path, *, series: str | None, name: str | None = None) -> OpenCT:
    """As `read`, and as long as somebody has the same files open, their copy of the voxels, which cannot be written."""
    if path.suffix.lower() in _HEADERS:
        return read(path, series=series, name=name)
    key = (path, series, name, _state_of(path))
    with _READING:
        found = _shared.get(key)
    if found is None:
        found = read(path, series=series, name=name)
        found.volume.array.flags.writeable = False
        with _READING:
            found = _shared.setdefault(key, found)
    return found


def _state_of(path: Path) -> tuple:
    """What changes where a file, or one of a folder, does."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return tuple((str(one), one.stat().st_mtime_ns, one.stat().st_size) for one in files)


@contextmanager
def _staying_here() -> Iterator[None]:
    """Slicer unpacks a scene by going into a folder, and after a damaged one it stays there."""
    here = os.getcwd()
    try:
        yield
    finally:
        os.chdir(here)


def _require_zip(path: Path) -> None:
    """Refuse what is no archive, or one whose files would be unpacked elsewhere. Raises `VolumeError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        msg = f"{path.name} cannot be read as a scene of Slicer; save it again as .mrb."
        raise VolumeError(msg) from error
    outside = [
        name for name in names if name.startswith(("/", "\\")) or ".." in PurePosixPath(name).parts or ":" in name
    ]
    if outside or size > _MAX_SCENE:
        msg = f"{path.name} is no scene as Slicer saves it, or larger than any; save it again as .mrb."
        raise VolumeError(msg)


def read_scene(path: Path) -> tuple[OpenCT, list[DrawnBox]]:
    """The CT of a scene that was saved in Slicer (.mrb), and its ROIs as boxes. Raises a `LesionLensError`."""
    with _SCENE, _naming(path, None), _staying_here():
        _require_zip(path)
        scene = startHeadlessSlicer().scene
        scene.Clear(False)
        try:
            slicer.util.loadScene(str(path))
            node = firstVolume(scene)
            if node is None:
                msg = f"{path.name} holds no CT; save the scene with it, or open the CT itself."
                raise VolumeError(msg)
            seen = volumeFromNode(node)
            volume = replace(seen, array=seen.array.copy())  # the node goes with the scene
            rois = nodesOfClass(scene, "vtkMRMLMarkupsROINode")
            boxes = [DrawnBox(replace(box, segment=None)) for box in lesionsFromNodes(rois)]
        except RuntimeError as error:
            msg = f"{path.name} cannot be read as a scene of Slicer; save it again as .mrb."
            raise VolumeError(msg) from error
        finally:
            scene.Clear(False)
    return OpenCT(volume), _different(boxes)


def list_series(path: Path, *, name: str | None) -> list[dict[str, Any]]:
    """The series of a folder, as a list to choose from; empty for a file. Names nobody. Raises a `LesionLensError`."""
    from LesionLib.io.volumes import find_series

    if not path.is_dir():
        return []
    with _naming(path, name):
        found = find_series(path)
    return [
        {"number": str(number), "modality": one.modality, "images": len(one.slices), "summary": one.summary}
        for number, one in enumerate(found, start=1)
    ]


def ct_to_json(ct: OpenCT) -> dict[str, Any]:
    """What is known of a CT but for whose it is."""
    volume = ct.volume
    return {
        "name": volume.name,
        "sizeIJK": list(volume.sizeIJK),
        "spacingMm": np.round(volume.spacingMm, 6).tolist(),
        "ijkToRAS": volume.ijkToRAS.tolist(),
        "warnings": [str(warning) for warning in volume.warnings],
        "series": None if ct.series is None else {"modality": ct.series.modality, "images": len(ct.series.slices)},
        "details": None if ct.details is None else ct.details.to_json(identifying=False),
    }


def box_to_json(drawn: DrawnBox) -> dict[str, Any]:
    """As `boxes_from_json` takes it."""
    box = drawn.box
    return {
        "name": box.name, "centerRAS": box.centerRAS.tolist(), "sizeMm": box.sizeMm.tolist(), "axesRAS": (box.axesRAS + 0.0).tolist(),
    }  # fmt: skip


def boxes_from_json(values: list[dict[str, Any]], earlier: list[DrawnBox]) -> list[DrawnBox]:
    """Boxes of the page; one that was loaded and not moved keeps how it came to its frame. Raises `BoxError`."""
    frames = {(one.box.name, *one.box.centerRAS.tolist()): one.frame for one in earlier}
    boxes = [
        LesionBox(
            np.array(value["centerRAS"]), np.array(value["sizeMm"]), np.array(value.get("axesRAS", np.eye(3))),
            name=value["name"],
        )
        for value in values
    ]  # fmt: skip
    return _different(
        [DrawnBox(box, frames.get((box.name, *box.centerRAS.tolist()), FrameSource.SAVED)) for box in boxes]
    )


def boxes_from_file(session: Session, text: str) -> list[DrawnBox]:
    """Of a Slicer markups file (.mrk.json) or a CSV of boxes. Raises `BoxError` or `ApiError`."""
    is_json = text.lstrip("\ufeff \r\n\t").startswith("{")
    path = session.folder / f"boxes{'.mrk.json' if is_json else '.csv'}"
    try:
        with open_private(path, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        if is_json:
            boxes = [one.box for one in parse_annotations(text, source="The file")]
            frame = FrameSource.SAVED if statesFrame(path) else FrameSource.GUESSED
        else:
            boxes, frame = read_boxes_csv(path, ijkToRAS=session.require_ct().volume.ijkToRAS), frame_source(path)
    finally:
        path.unlink(missing_ok=True)
    return _different([DrawnBox(box, frame) for box in boxes])


def _different(drawn: list[DrawnBox]) -> list[DrawnBox]:
    names = [one.box.name for one in drawn]
    if len(drawn) > MAX_BOXES:
        msg = f"{len(drawn)} boxes are more than {MAX_BOXES}; classify them in several goes."
        raise BoxError(msg)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        msg = f"two boxes are named {twice!r}; give each its own name."
        raise BoxError(msg)
    return drawn


def markups_text(drawn: list[DrawnBox]) -> str:
    """The boxes as a .mrk.json file, which Slicer opens. Raises `BoxError` where there is none."""
    return annotations_text([Annotation(one.box) for one in drawn])
