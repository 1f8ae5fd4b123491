"""For all tests: the same examples in every run, a fair share of the cores, and an order in which no worker waits long."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from phantoms import whole_phantom
from repository import ROOT

# A change is judged by what it changes, not by the dice, nor by what else the machine does.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a core for each process; torch reads it when it is imported
else:
    # For the workers, and for what they start: glibc keeps freed memory. A network's features are 60 MB; given back to the
    # system and taken again at every answer, they cost as much as the answer itself.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 30))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(1 << 30))
    # NumPy reads it when a worker starts, before the line above is reached. Threads that wait for each other on cores that the
    # other worker needs took many times as long as one for the small matrices of a fit.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# What is measured of this machine is kept for the other processes of the run, and not in the user's folder; nothing is converted
# for an accelerator but where a test asks for it.
if "XDG_DATA_HOME" not in os.environ:
    os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="lesionlens-tests-")
    atexit.register(shutil.rmtree, os.environ["XDG_DATA_HOME"], ignore_errors=True)
os.environ.setdefault("LESIONLENS_ACCELERATOR", "off")

# Folders whose files share what takes long to start: one worker has them all. The server's ports are fixed, too.
TOGETHER = ("Testing/server/", "Testing/gui/test_", "Testing/gui/quiz/", "Testing/app/serve/")
# What takes longest comes first: at the end only short files are left to be shared out.
FIRST = (
    *TOGETHER, "Testing/training/tasks/", "Testing/training/runs/", "Testing/app/", "Testing/lib/inference/",
    "Testing/mrml/", "Testing/training/", "Testing/lib/test_fuzz", "Testing/lib/model/", "Testing/lib/library/",
)  # fmt: skip
LONG = ROOT / "Testing" / "long_tests.txt"


@pytest.fixture(scope="session", autouse=True)
def shipped_models_once() -> Iterator[None]:
    """A runner that asks for a model that ships gets the one that an earlier runner of this process loaded and verified.

    `load_bundle` itself loads whenever it is called, and so does a runner for any other folder, or for changed files.
    """
    from LesionLib.inference import loaded_models

    load, loaded = loaded_models.load_bundle, {}

    def load_once(folder: Any, **options: Any) -> Any:
        if folder.resolve().parent != ROOT / "Resources" / "Models":
            return load(folder, **options)
        key = (folder.resolve(), loaded_models._state(folder), str(options))
        if key not in loaded:
            loaded[key] = load(folder, **options)
        return loaded[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loaded_models, "load_bundle", load_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def shapes_at_once() -> Iterator[None]:
    """What lies on the meta device has no values to fill or to normalise: PyTorch takes a millisecond of Python for each layer."""
    import torch

    def unless_meta(function: Any, otherwise: Any) -> Any:
        def call(tensor: Any, *others: Any, **options: Any) -> Any:
            return otherwise(tensor) if tensor.is_meta else function(tensor, *others, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        normalised = unless_meta(torch.nn.functional.batch_norm, torch.empty_like)
        patch.setattr(torch.nn.functional, "batch_norm", normalised)
        for name in ("kaiming_normal_", "kaiming_uniform_", "uniform_", "normal_", "trunc_normal_"):
            patch.setattr(torch.nn.init, name, unless_meta(getattr(torch.nn.init, name), lambda tensor: tensor))
        yield


@pytest.fixture
def phantom_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for the chest phantom gets the one that was computed for an earlier test."""
    monkeypatch.setattr("LesionLib.phantom.chest.chest_phantom", whole_phantom)


def scope_of(nodeid: str) -> str:
    """What a worker takes as a whole: a file, or one of the folders of `TOGETHER`."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


@pytest.hookimpl(hookwrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported and read now stays to the end: there is no garbage to look for, now or among it later."""
    gc.disable()
    yield
    gc.enable()
    gc.freeze()


class _Backwards(pytest.Dir):
    """A folder that is read from its end."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        return reversed(list(super().collect()))


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Every second worker reads the files from the end: in a fresh checkout none is compiled by two at once.

    pytest keeps what it has compiled, and half of a worker's start is compiling. The order of the tests is made afterwards.
    """
    if int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 2 == 0:
        return None
    return _Backwards.from_parent(parent, path=path)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help=f"also the tests of {LONG.name}: some ten minutes more")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((place for place, start in enumerate(FIRST) if item.nodeid.startswith(start)), len(FIRST))

    items.sort(key=lambda item: (place(item), item.path.parts))  # the same for every worker
    if config.getoption("--all") or any("::" in argument for argument in config.args):  # one that is named is wanted
        return
    long = long_tests()
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid.startswith(long)])
    items[:] = [item for item in items if not item.nodeid.startswith(long)]


def long_tests() -> tuple[str, ...]:
    """The beginnings of the ids of what takes long."""
    lines = LONG.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object | None:
    """``--dist loadfile`` with the scopes and the order of this file."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    config.option.loadscopereorder = False
    return Scheduling(config, log)
