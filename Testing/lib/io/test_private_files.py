"""Files and folders that are made are their owner's only; what was there keeps its place."""

from __future__ import annotations

import os
import stat

import pytest
from LesionLib.io.private_files import make_private, open_private, private_folder, write_private

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")


@pytest.fixture(autouse=True)
def open_to_everybody():
    """As if the system made every file open to all."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_private_from_its_first_byte_on(tmp_path):
    with open_private(tmp_path / "a", "w", encoding="utf-8") as file:
        assert mode(tmp_path / "a") == 0o600
        file.write("x")
    write_private(tmp_path / "b", "Größe\n")
    assert (mode(tmp_path / "b"), (tmp_path / "b").read_bytes()) == (0o600, "Größe\n".encode())


def test_a_file_that_was_open_is_closed_when_it_is_written_again(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o644)
    write_private(tmp_path / "a", "new")
    assert (mode(tmp_path / "a"), (tmp_path / "a").read_text()) == (0o600, "new")
    with open_private(tmp_path / "a", "ab") as file:
        file.write(b"er")
    assert (tmp_path / "a").read_text() == "newer"


def test_new_folders_are_private_and_old_ones_stay_as_they_are(tmp_path):
    (tmp_path / "old").mkdir(mode=0o755)
    private_folder(tmp_path / "old" / "new" / "newer")
    assert [mode(tmp_path / name) for name in ("old", "old/new", "old/new/newer")] == [0o755, 0o700, 0o700]
    assert private_folder(tmp_path / "old") == tmp_path / "old"
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError):  # noqa: PT011
        private_folder(tmp_path / "file")


def test_what_cannot_be_made_private_stays_as_it_is(tmp_path):
    make_private(tmp_path / "absent")
    (tmp_path / "folder").mkdir(mode=0o755)
    make_private(tmp_path / "folder")
    assert mode(tmp_path / "folder") == 0o700
