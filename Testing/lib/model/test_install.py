"""A zipped model is unpacked with suspicion: nothing leaves its folder, nothing runs, nothing half-installed stays."""

from __future__ import annotations

import io
import shutil
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from LesionLib.errors import BundleError
from LesionLib.io import swap
from LesionLib.io.swap import staging_folder
from LesionLib.model.bundle import load_bundle
from LesionLib.model.folder import CARD, LICENSE, MANIFEST, WEIGHTS, find_bundle
from LesionLib.model.install import install_bundle

NAME = "lung-nodule-malignancy"
FILES = (MANIFEST, WEIGHTS, CARD, LICENSE)


@pytest.fixture(scope="session")
def contents() -> dict[str, bytes]:
    return {name: (find_bundle(NAME) / name).read_bytes() for name in FILES}


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "models"


def zipped(path: Path, contents: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def assert_nothing_is_left(root: Path) -> None:
    assert not root.exists() or list(root.iterdir()) == []


@pytest.mark.parametrize("prefix", ["", "lung-1.0.0/"])
def test_a_zip_of_the_files_or_of_their_folder_is_installed(tmp_path, root, contents, prefix):
    archive = zipped(tmp_path / "model.zip", {prefix + name: content for name, content in contents.items()})
    folder = install_bundle(archive, root=root)
    assert folder == root / NAME
    assert load_bundle(folder).sha256 == load_bundle(NAME).sha256
    assert [p.name for p in root.iterdir()] == [NAME]


def test_an_installed_model_is_found_by_name_and_replaced_only_when_asked(tmp_path, root, contents, monkeypatch):
    archive = zipped(tmp_path / "model.zip", contents)
    monkeypatch.setenv("LESIONLENS_MODELS", str(root))
    install_bundle(archive)
    assert find_bundle(NAME) == root / NAME
    with pytest.raises(BundleError, match="exists; install with --overwrite"):
        install_bundle(archive)
    assert install_bundle(archive, overwrite=True) == root / NAME


@pytest.mark.parametrize(
    "path", ["../evil.py", "/etc/evil", "models/../../evil", "C:/evil", "models\\evil", "a/../../b"]
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path, root, contents, path):
    archive = zipped(tmp_path / "model.zip", {**contents, path: b"x"})
    with pytest.raises(BundleError, match="leaves the model's folder"):
        install_bundle(archive, root=root)
    assert_nothing_is_left(root)
    assert not (tmp_path / "evil.py").exists()


def test_a_link_is_refused(tmp_path, root, contents):
    archive = zipped(tmp_path / "model.zip", {k: v for k, v in contents.items() if k != CARD})
    with zipfile.ZipFile(archive, "a") as opened:
        link = zipfile.ZipInfo(CARD)
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "/etc/passwd")
    with pytest.raises(BundleError, match="holds a link"):
        install_bundle(archive, root=root)
    assert_nothing_is_left(root)


@pytest.mark.parametrize("extra", ["run.py", "models/weights.pkl", "configs/__init__.py"])
def test_a_file_that_no_model_has_is_refused(tmp_path, root, contents, extra):
    with pytest.raises(BundleError, match=f"holds '{extra}'"):
        install_bundle(zipped(tmp_path / "model.zip", {**contents, extra: b"x"}), root=root)
    assert_nothing_is_left(root)


def test_a_missing_file_is_named(tmp_path, root, contents):
    with pytest.raises(BundleError, match="lacks 'LICENSE'"):
        install_bundle(zipped(tmp_path / "model.zip", {k: v for k, v in contents.items() if k != LICENSE}), root=root)


def test_a_file_that_stands_twice_is_refused(tmp_path, root, contents):
    archive = zipped(tmp_path / "model.zip", contents)
    with zipfile.ZipFile(archive, "a") as opened, pytest.warns(UserWarning, match="Duplicate"):
        opened.writestr(LICENSE, b"other")
    with pytest.raises(BundleError, match="holds a file twice"):
        install_bundle(archive, root=root)


def test_more_bytes_than_the_header_says_are_refused(tmp_path, root, contents):
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in contents.items():
            opened.writestr(name, b"\0" * 30_000_000 if name == CARD else content)
    data = bytearray(archive.read_bytes())
    place = data.rfind(CARD.encode())  # in the central directory: uncompressed size, 22 bytes before the name
    data[place - 22 : place - 18] = (1000).to_bytes(4, "little")
    archive.write_bytes(data)
    with pytest.raises(BundleError):
        install_bundle(archive, root=root)
    assert_nothing_is_left(root)


def test_a_changed_model_is_refused_and_leaves_nothing(tmp_path, root, contents):
    broken = {**contents, CARD: contents[CARD] + b" better figures"}
    with pytest.raises(BundleError, match="was changed after the model was made"):
        install_bundle(zipped(tmp_path / "model.zip", broken), root=root)
    assert_nothing_is_left(root)


def test_what_is_not_a_zip_is_refused(tmp_path, root):
    (tmp_path / "model.zip").write_text("hello")
    with pytest.raises(BundleError, match="not a zip file"):
        install_bundle(tmp_path / "model.zip", root=root)
    with pytest.raises(BundleError, match="cannot be installed"):
        install_bundle(tmp_path / "absent.zip", root=root)


SMALL = {MANIFEST: b"{}", WEIGHTS: b"\0" * 64, CARD: b"card", LICENSE: b"licence"}


def small_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in SMALL.items():
            opened.writestr(name, content)
    return buffer.getvalue()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6), cut=st.integers(0, 400))
def test_no_damaged_zip_raises_anything_but_a_bundle_error(tmp_path, root, edits, cut):
    data = bytearray(small_archive())
    for place, value in edits:
        data[place % len(data)] = value
    archive = tmp_path / "model.zip"
    archive.write_bytes(bytes(data[: len(data) - cut % len(data)]))
    with pytest.raises(BundleError):
        install_bundle(archive, root=root)
    assert_nothing_is_left(root)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4))
def test_no_name_in_a_zip_writes_outside_or_raises_anything_but_a_bundle_error(tmp_path, root, names):
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for name in dict.fromkeys(names):
            try:
                opened.writestr(name, b"x")
            except (ValueError, UnicodeEncodeError, IndexError):  # zipfile itself cannot write such a name
                return
    before = set(tmp_path.rglob("*"))
    with pytest.raises(BundleError):
        install_bundle(archive, root=root)
    assert set(tmp_path.rglob("*")) - before <= {root}


def test_a_signal_in_the_middle_of_the_cleaning_up_leaves_nothing(tmp_path, monkeypatch):
    rmtree, calls = shutil.rmtree, []

    def interrupted(folder, **options):
        calls.append(folder)
        if len(calls) == 1:
            raise KeyboardInterrupt
        rmtree(folder, **options)

    monkeypatch.setattr(swap.shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt), staging_folder(tmp_path, prefix=".aside-") as folder:
        (folder / "file").write_text("x")
    assert list(tmp_path.iterdir()) == []
