"""Whatever happens to a command: one line, an exit code that says of what kind, details that name nobody, nothing half-written."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from LesionLensApp import cli
from LesionLib.errors import BoxError
from LesionLib.faults import guarded, log_folder
from LesionLib.io.leftovers import leftovers
from lesiontraining import cli as training_cli

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
SECRET = "DOE^JANE-4711"


@pytest.fixture(autouse=True)
def own_log_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "state"))


def raising(error: BaseException):
    def body() -> int:
        raise error

    return body


def said(capsys, program: str = "lesionlens") -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"{program}: ")
    return line


@pytest.mark.parametrize("module", [cli, training_cli], ids=["lesionlens", "lesiontrain"])
def test_what_nobody_foresaw_is_a_line_a_file_and_exit_code_3(module, capsys, monkeypatch):
    class Parser:
        def parse_args(self, _arguments: object) -> None:
            patient = SECRET
            raise KeyError(patient)

        parse_known_args = parse_args

    program = "lesionlens" if module is cli else "lesiontrain"
    monkeypatch.setattr(module, "build_parser", Parser)
    assert module.main(["classify", f"/data/{SECRET}/ct.nrrd"]) == 3
    line = said(capsys, program)
    assert "unforeseen: KeyError" in line
    (path,) = log_folder().iterdir()
    assert str(path) in line
    details = path.read_text()
    assert "builtins.KeyError" in details
    assert "in parse_args" in details
    assert "raise KeyError(patient)" in details
    assert "LesionLib/faults.py" in details


def test_details_hold_no_value_of_arguments_errors_or_causes(tmp_path, capsys):
    def body() -> int:
        path = tmp_path / SECRET / "ct.nrrd"
        try:
            path.read_text()
        except OSError as error:
            msg = f"{path} of {SECRET}"
            raise AssertionError(msg) from error
        return 0

    assert guarded("lesionlens", body) == 3
    details = next(log_folder().iterdir()).read_text()
    assert "AssertionError" in details
    assert "FileNotFoundError (errno 2)" in details
    assert "caused by" in details
    assert SECRET not in details
    assert str(tmp_path) not in details
    assert str(Path.home()) not in details.replace(str(Path.home()) + "/.local", "")


def test_only_the_newest_details_are_kept_and_none_is_no_fault(capsys, monkeypatch):
    log_folder().mkdir(parents=True)
    for number in range(40):
        path = log_folder() / f"lesionlens-{number}.txt"
        path.touch()
        os.utime(path, (number, number))
    assert guarded("lesionlens", raising(KeyError())) == 3
    assert len(list(log_folder().iterdir())) == 20
    capsys.readouterr()
    monkeypatch.setenv("XDG_STATE_HOME", os.devnull)
    if log_folder().parts[1:2] == ("dev",):
        assert guarded("lesionlens", raising(KeyError())) == 3
        assert "its details could not be kept" in said(capsys)


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "can only be read"), (errno.EACCES, "may not use this place")],
)
def test_what_the_machine_refuses_is_a_line(number, advice, capsys):
    assert guarded("lesionlens", raising(OSError(number, os.strerror(number), "/data/out"))) == 2
    line = said(capsys)
    assert f"/data/out: {advice}" in line or advice in line
    assert not log_folder().exists()


def test_another_fault_of_the_machine_is_unforeseen(capsys):
    assert guarded("lesionlens", raising(OSError(errno.ENOTTY, "x"))) == 3
    assert guarded("lesionlens", raising(MemoryError())) == 3
    assert "the memory does not suffice" in capsys.readouterr().err


def test_bad_input_and_ctrl_c_are_as_before(capsys):
    assert guarded("lesionlens", raising(BoxError("two\nlines"))) == 2
    assert said(capsys) == "lesionlens: error: two lines"
    assert guarded("lesionlens", raising(KeyboardInterrupt())) == 130
    assert "interrupted; nothing was written" in said(capsys)


def test_what_an_error_quotes_from_a_file_steers_no_terminal(capsys):
    def body():
        msg = "the segment '\x1b]0;owned\x07\x1b[2J\u202e' is damaged"
        raise BoxError(msg)

    assert guarded("lesionlens", body) == 2
    shown = capsys.readouterr().err
    assert not set(shown) & {"\x1b", "\x07", "\u202e"}
    assert "\\u001b" in shown


def test_a_reader_that_goes_away_is_no_fault():
    code = "import sys; from LesionLib.faults import guarded\n"
    code += "def body():\n    while True: print('x' * 1000)\n"
    code += "sys.exit(guarded('lesionlens', body))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 141


# Tests that run in the background of a shell ignore Ctrl-C, and their children would, too.
# Of tests that run below nohup.
NOT_IGNORED = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
WRITER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from LesionLensApp.output import staged_output
from LesionLib.faults import guarded
def body():
    with staged_output(Path(sys.argv[1]), overwrite=True) as folder:
        (folder / "results.json").write_text("new")
        try:
            print("half", flush=True)
            time.sleep(60)
        finally:
            print("cleaning", flush=True)
            time.sleep(0.5)
    return 0
sys.exit(guarded("lesionlens", body))
"""


@posix_only
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_cleans_up_like_ctrl_c(name, tmp_path):
    number = signal.Signals[name]
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.json").write_text("old")
    with subprocess.Popen(
        [sys.executable, "-c", NOT_IGNORED + WRITER, str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "half\n"
        process.send_signal(number)
        assert process.stdout.readline() == "cleaning\n"
        if number != signal.SIGINT:
            process.send_signal(number)  # a second one does not break the cleaning off
        assert process.wait(20) == 128 + number
        assert process.stderr.read() == "lesionlens: interrupted; nothing was written.\n"
    assert [path.name for path in tmp_path.iterdir() if path.name != "state"] == ["out"]
    assert (out / "results.json").read_text() == "old"


@posix_only
def test_what_the_caller_ignores_stays_ignored(tmp_path):
    code = textwrap.dedent("""
        import os, signal, sys
        from LesionLib.faults import guarded
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        def body():
            os.kill(os.getpid(), signal.SIGHUP)
            print("still here", flush=True)
            return 0
        sys.exit(guarded("lesionlens", body))
    """)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "still here\n")


def test_handlers_are_given_back():
    before = signal.getsignal(signal.SIGTERM)
    assert guarded("lesionlens", lambda: 0) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_leftovers_are_named_at_the_next_run_and_those_at_work_are_not(tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / ".out-abc123").mkdir()
    (tmp_path / ".out.lesionlib.partial").touch()
    (tmp_path / ".outside").touch()
    (tmp_path / ".config").touch()
    assert leftovers(out) == []
    later = time.time() + 3600
    assert [path.name for path in leftovers(out, now=later)] == [".out-abc123", ".out.lesionlib.partial"]
    out.mkdir()
    (out / ".score-x").mkdir()
    (out / "mine").mkdir()
    assert [path.name for path in leftovers(out, now=later)] == [".out-abc123", ".out.lesionlib.partial", ".score-x"]
    for left in leftovers(out, now=later):
        os.utime(left, (0, 0))
    assert cli.main(["classify", "nowhere.nrrd", "--boxes", "nowhere.csv", "--out", str(out)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all(re.search(r"note: .* was left by a run that was ended before it could clean up", x) for x in lines[:3])
    assert lines[3].startswith("lesionlens: error: ")


def test_the_draft_of_a_draft_is_a_leftover_too(tmp_path):
    for name in ("..out.lesionlib.partial.1f.new", "..other.partial", ".out"):
        (tmp_path / name).touch()
    assert [path.name for path in leftovers(tmp_path / "out.lesionlib", now=time.time() + 1000)] == [
        "..out.lesionlib.partial.1f.new"
    ]


def test_leftovers_of_a_place_that_is_not_there_are_none(tmp_path):
    assert leftovers(tmp_path / "no" / "where", now=1e12) == []
