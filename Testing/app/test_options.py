"""What all commands share: versions, suggestions, defaults of the user, devices; and that what is mistyped is refused at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from LesionLensApp.cli import build_parser
from LesionLensApp.loaded_model import ModelSession
from LesionLensApp.options import default_model, default_of
from LesionLib import __version__
from LesionLib.errors import LesionLensError
from LesionRetrievalLib.library.pseudonyms import settings_folder


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path):
    """A folder for the user's defaults, and none in the environment."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("MODEL", "LIBRARY", "KEY"):
        monkeypatch.delenv(f"LESIONLENS_{name}", raising=False)
    settings_folder().mkdir(parents=True)
    return settings_folder() / "config.toml"


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"lesionlens {__version__}\n"


@pytest.mark.parametrize(("typed", "meant"), [(["clasify"], "classify"), (["library", "serach", "x"], "search")])
def test_a_mistyped_command_is_answered_with_what_may_have_been_meant(typed, meant, capsys):
    assert f"did you mean {meant!r}?" in refused(typed, capsys)


def test_a_default_comes_from_the_environment_then_from_the_file(settings, monkeypatch):
    assert (default_of("key"), default_model()) == (None, "lung-nodule-kind")
    settings.write_text('model = "of-file"\nkey = "mine.key"\n')
    assert (default_of("key"), default_model()) == ("mine.key", "of-file")
    monkeypatch.setenv("LESIONLENS_MODEL", "of-environment")
    assert default_model() == "of-environment"


@pytest.mark.parametrize("text", ["model = ", 'modell = "x"\n', "key = 3\n", "\x00"])
def test_a_file_of_defaults_that_says_nothing_known_is_refused_with_its_path(settings, text):
    settings.write_text(text)
    with pytest.raises(LesionLensError, match=r"config\.toml"):
        default_of("model")


def test_the_key_of_the_user_s_defaults_is_taken(run, settings, nrrd, boxes, tmp_path):
    settings.write_text('library = "none.lesionlib"\n')
    ran = run("classify", nrrd, "--boxes", boxes, "--out", tmp_path / "out")
    assert ran.code == 2
    assert "none.lesionlib" in ran.err


MISTYPED = (
    ["nowhere.nrrd", "--boxes", "{boxes}"],
    ["{nrrd}", "--boxes", "nowhere.csv"],
    ["{nrrd}", "--segmentation", "nowhere.seg.nrrd"],
    ["{nrrd}", "--boxes", "{boxes}", "--model", "nobody-s-model"],
    ["{nrrd}", "--boxes", "{boxes}", "--library", "nowhere.lesionlib"],
    ["--batch", "nowhere.csv"],
)
LATE = ("torch", "slicer", "pydicom", "SimpleITK")
REFUSED = """
import contextlib, io, json, sys
from LesionLensApp.cli import main
tasks, late = json.load(sys.stdin)
for arguments in tasks:
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(arguments)
    print(json.dumps([code, said.getvalue(), [name for name in late if name in sys.modules]]))
"""


@pytest.fixture(scope="module")
def refusals(nrrd, lesion, write_boxes, tmp_path_factory) -> list[list]:
    """Of each of `MISTYPED`, by one new process: exit code, what was said, what was loaded by then."""
    folder = tmp_path_factory.mktemp("mistyped")
    places = {"nrrd": nrrd, "boxes": write_boxes(folder / "boxes.csv", lesion)}
    given = [[text.format(**places) for text in arguments] for arguments in MISTYPED]
    tasks = [["classify", *arguments, "--out", str(folder / "out")] for arguments in given]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LESIONLENS_")}
    ran = subprocess.run(
        [sys.executable, "-c", REFUSED], input=json.dumps([tasks, LATE]), env={**clean, "XDG_CONFIG_HOME": str(folder)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.parametrize("number", range(len(MISTYPED)), ids=lambda number: " ".join(MISTYPED[number]))
def test_what_is_mistyped_is_refused_before_torch_or_a_reader_of_images_is_loaded(number, refusals):
    code, said, loaded = refusals[number]
    assert (code, loaded) == (2, [])
    assert "nowhere" in said or "nobody-s-model" in said


def test_a_device_that_is_not_there_is_refused_by_name(run, nrrd, boxes, tmp_path):
    for device, message in (("cuda:7", "cuda:7: torch"), ("tpu", "unknown device 'tpu'")):
        ran = run("classify", nrrd, "--boxes", boxes, "--device", device, "--out", tmp_path / "out")
        assert ran.code == 2
        assert message in ran.err


def test_the_number_of_threads_is_what_was_asked_for():
    before = torch.get_num_threads()
    try:
        ModelSession("lung-nodule-malignancy", device="cpu", threads=before + 2)
        assert torch.get_num_threads() == before + 2
    finally:
        torch.set_num_threads(before)
    with pytest.raises(LesionLensError, match="cuda:7"):
        ModelSession("lung-nodule-malignancy", device="cuda:7")


@pytest.mark.parametrize(("given", "found"), [(None, ("PASSIVE", "400")), ("ACTIVE", ("ACTIVE", None))])
def test_threads_look_briefly_and_sleep_unless_the_user_wants_otherwise(given, found, run, monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # put back afterwards, whatever the command sets
        monkeypatch.delenv(name)
    if given is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    run("models", "list")
    assert (os.environ["OMP_WAIT_POLICY"], os.environ.get("GOMP_SPINCOUNT")) == found


def test_quiet_says_nothing_of_the_progress_and_json_is_what_the_file_holds(run, nrrd, boxes, tmp_path):
    ran = run("classify", nrrd, "--boxes", boxes, "--quiet", "--json", "--out", tmp_path / "out")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == json.loads((tmp_path / "out" / "results.json").read_text())


def test_models_are_listed_with_their_whole_names_on_a_narrow_terminal_and_as_json(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert "lung-nodule-malignancy" in run("models", "list").out
    listed = json.loads(run("models", "list", "--json").out)
    assert {"lung-nodule-malignancy"} <= {model["name"] for model in listed}
    assert all(model["version"] and not model["error"] for model in listed)
