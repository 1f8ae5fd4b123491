"""The page of the Python API: what it shows is what comes out."""

import doctest
from pathlib import Path

import pytest
from repository import ROOT

PAGE = ROOT / "PYTHON_API.md"


def test_every_example_of_the_page_gives_what_stands_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    unfenced = "\n".join("" if line.startswith("```") else line for line in PAGE.read_text().splitlines())
    examples = doctest.DocTestParser().get_doctest(unfenced, {}, PAGE.name, str(PAGE), 0)
    said: list[str] = []
    ran = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL).run(examples, out=said.append)
    assert ran.attempted > 50
    assert ran.failed == 0, "".join(said)
