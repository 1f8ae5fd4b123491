"""A model from a zip file into the user's model folder: unpacked with suspicion, verified before it is there."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path, PurePosixPath

from LesionLib.errors import BundleError
from LesionLib.io.swap import put_folder, staging_folder
from LesionLib.model.bundle import load_bundle, max_file_bytes
from LesionLib.model.folder import (
    CARD,
    LICENSE,
    MANIFEST,
    WEIGHTS,
    same_manifest,
    shipped_bundles,
    user_model_root,
)

KNOWN_FILES = frozenset({MANIFEST, WEIGHTS, CARD, LICENSE})
_MAX_ENTRIES = 64
_MAX_BYTES = 2 * 1024**3
_CHUNK = 1024**2


def install_bundle(archive: Path, *, root: Path | None = None, overwrite: bool = False) -> Path:
    """Unpack a zipped model, verify it, and move it to ``root`` (default: the user's model folder); returns its folder.

    The zip may hold the model's files or one folder with them, and nothing else. Raises `BundleError` for anything that is
    not a model of ours: paths that leave the folder, links, unknown files, more bytes than a model has, encrypted entries.
    """
    root = root or user_model_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with staging_folder(root, prefix=".installing-") as staging:
            folder = staging / "model"
            _unpack(archive, folder)
            bundle = load_bundle(folder)
            _require_free_name(bundle.name, folder, archive.name)
            target = root / bundle.name
            if target.exists() and not overwrite:
                msg = f"{target} exists; install with --overwrite to replace it."
                raise BundleError(msg)
            put_folder(folder, target, staging / "replaced")
            return target
    except OSError as error:
        msg = f"{archive.name} cannot be installed into {root} ({error.strerror or error}); check the file and the folder."
        raise BundleError(msg) from error


def _require_free_name(name: str, folder: Path, archive: str) -> None:
    """Raises `BundleError` for another model under the name of one that comes along: it would answer in its place."""
    shipped = shipped_bundles().get(name)
    if shipped is not None and not same_manifest(folder, shipped):
        msg = (
            f"{archive} calls itself {name!r}, which is the name of a model that comes along with LesionLens, and is "
            "another one; it is not installed. Export it under another name, or unpack it and give the path of its folder."
        )
        raise BundleError(msg)


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = _checked_entries(opened, archive.name)
            left = _MAX_BYTES
            for name, info in entries.items():
                left -= _extract(opened, info, folder / name, most=left)
    except (BundleError, OSError):
        raise
    except zipfile.BadZipFile as error:
        msg = f"{archive.name} is not a zip file that can be read: {str(error).splitlines()[0] if str(error) else 'damaged'}."
        raise BundleError(msg) from error
    except Exception as error:  # zipfile and the decompressors raise many kinds for damaged bytes
        msg = f"{archive.name} is damaged ({type(error).__name__}); get the model again."
        raise BundleError(msg) from error


def _checked_entries(opened: zipfile.ZipFile, archive: str) -> dict[str, zipfile.ZipInfo]:
    """Name inside the model -> entry; everything else in the zip is a reason to refuse it."""
    infos = [info for info in opened.infolist() if not info.is_dir()]
    if len(opened.infolist()) > _MAX_ENTRIES:
        msg = f"{archive} holds {len(opened.infolist())} entries; a model has {len(KNOWN_FILES)} files."
        raise BundleError(msg)
    paths = [_checked_path(info, archive) for info in infos]
    top = {path.parts[0] for path in paths}
    wrapped = len(top) == 1 and all(len(path.parts) > 1 for path in paths)
    names = [str(PurePosixPath(*path.parts[1:])) if wrapped else str(path) for path in paths]
    unknown, missing = sorted(set(names) - KNOWN_FILES), sorted(KNOWN_FILES - set(names))
    if unknown or missing or len(names) != len(set(names)):
        what = f"holds {unknown[0]!r}" if unknown else f"lacks {missing[0]!r}" if missing else "holds a file twice"
        msg = f"{archive} {what}; a model is exactly {', '.join(sorted(KNOWN_FILES))}."
        raise BundleError(msg)
    for name, info in zip(names, infos, strict=True):
        if info.file_size > max_file_bytes(name):
            msg = f"{archive}: {name} unpacks to more than {max_file_bytes(name) // 1024**2} MiB; this is not a model of ours."
            raise BundleError(msg)
    if sum(info.file_size for info in infos) > _MAX_BYTES:
        msg = f"{archive} unpacks to more than {_MAX_BYTES // 1024**3} GiB; this is not a model of ours."
        raise BundleError(msg)
    return dict(zip(names, infos, strict=True))


def _checked_path(info: zipfile.ZipInfo, archive: str) -> PurePosixPath:
    path = PurePosixPath(info.filename)
    leaves = path.is_absolute() or ".." in path.parts or "\\" in info.filename or ":" in info.filename or not path.parts
    if leaves:
        msg = f"{archive} holds the path {info.filename!r}, which leaves the model's folder; it is not installed."
        raise BundleError(msg)
    if stat.S_ISLNK(info.external_attr >> 16):
        msg = f"{archive} holds a link ({info.filename!r}); it is not installed."
        raise BundleError(msg)
    if info.flag_bits & 1:
        msg = f"{archive} is encrypted; unpack it yourself and give the folder."
        raise BundleError(msg)
    return path


def _extract(opened: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, *, most: int) -> int:
    """Write one entry; the header's size is only a claim, so that bytes are counted as they come."""
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    most = min(most, info.file_size)
    with opened.open(info) as source, target.open("wb") as sink:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > most:
                msg = f"{info.filename} unpacks to more than it says; it is not installed."
                raise BundleError(msg)
            sink.write(chunk)
    return written
