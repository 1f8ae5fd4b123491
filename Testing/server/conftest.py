"""A real Milvus server, from the PyPI package ``milvus``: started once, on ports of its own, killed and started again."""

from __future__ import annotations

import gc
import importlib.util
import os
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from LesionLib.geometry import CTVolume, LesionBox
from LesionRetrievalLib.library.cases import Case, CaseEntry, ModelIdentity
from LesionRetrievalLib.library.patches import lesion_patch
from LesionRetrievalLib.library.store import CaseLibrary

MODEL = ModelIdentity("tested", "1.0.0", "a" * 64)
DIMENSION = 12
HERE = Path(__file__).parent


class Server:
    """``start`` and ``kill`` may be called in turn: data, configuration and ports stay."""

    def __init__(self, folder: Path, program: Path, *, authorised: bool = False) -> None:
        from milvus import MilvusServerConfig

        self.folder, self.program = folder, program
        config = MilvusServerConfig(data_dir=str(folder))
        config.set("authorization_enabled", authorised)
        config.set("proxy.timeTickInterval", 20)  # a query waits for the next tick
        config.set("common.session.ttl", 5)  # one that was killed counts as there for so long, and nothing is loaded
        config.set("queryCoord.distPullInterval", 100)
        config.set("rootCoord.dmlChannelNum", 2)  # each of 16 would be told of every tick
        config.set("log.level", "warn")
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ResourceWarning
            )  # the package leaves the sockets open that it tries ports with
            config.resolve()
            self.health, trial = config.resolve_port(9091)
            trial.close()
            del trial
            gc.collect()
        self.port = config.get("proxy_port")

    def start(self) -> None:
        own = {
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(self.health),
            "MILVUS_RUN_DIR": str(self.folder / "run"),
        }
        libraries = f"{self.program.parent}:{os.environ.get('LD_LIBRARY_PATH', '')}"
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [self.program, "run", "standalone"], cwd=self.folder, env={**os.environ, **own, "LD_LIBRARY_PATH": libraries},
                stdout=log, stderr=log,
            )  # fmt: skip
        self._wait()

    def _wait(self, seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/healthz", timeout=2) as answer:
                    if b"OK" in answer.read():
                        return
            except OSError:
                time.sleep(0.2)
        pytest.fail(f"the Milvus server did not come up; {self.folder / 'server.log'} says why")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def address(self, library: str) -> str:
        return f"milvus://127.0.0.1:{self.port}/{library}"


running: list[Server] = []


@pytest.fixture(scope="session")
def milvus_program(pytestconfig) -> Path:
    """The server's program, its libraries beside it: unpacked once for all servers, and kept beside pytest's own notes for the
    next run; the package unpacks again what is not whole or of another version.
    """
    if sys.platform != "linux" or importlib.util.find_spec("milvus") is None:
        pytest.skip("the server's package (milvus, Linux only) is not installed: pip install 'lesionlens[dev]'")
    from milvus import _initialize_data_files

    folder = pytestconfig.cache.mkdir("milvus")
    _initialize_data_files(str(folder))
    return folder / "bin" / "milvus"


@pytest.fixture(scope="session")
def start_server(milvus_program, tmp_path_factory) -> Iterator[Callable[..., Server]]:
    """Start a new server, or one that was there before; the last one is killed, for only one can run: its etcd has one port."""

    def start(server: Server | None = None, **options) -> Server:
        kill_all()
        server = server or Server(tmp_path_factory.mktemp("milvus"), milvus_program, **options)
        server.start()
        running.append(server)
        return server

    yield start
    kill_all()


def kill_all() -> None:
    """Nothing of a server is left."""
    while running:
        running.pop().kill()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """The last server ends with the last of these tests: beside others it would only take time from them."""
    if nextitem is None or HERE not in nextitem.path.parents:
        kill_all()


@pytest.fixture(scope="session")
def shared_server(start_server) -> Callable[[], Server]:
    """The server of most tests: started once, and again only for a test that comes after one with a server of its own."""
    made: list[Server] = []

    def up() -> Server:
        if not made:
            made.append(start_server())
        return made[0] if made[0] in running else start_server(made[0])

    return up


@pytest.fixture
def server(shared_server) -> Server:
    return shared_server()


@pytest.fixture(autouse=True)
def nobody_in_the_environment(monkeypatch):
    for name in ("LESIONLENS_SERVER_TOKEN", "LESIONLENS_SERVER_USER", "LESIONLENS_SERVER_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def entries() -> Callable[..., list[CaseEntry]]:
    """Cases of three a patient; every tenth has the vector of the one before it, some have pictures and a patch."""

    def make(count: int, *, seed: int = 0, prefix: str = "c") -> list[CaseEntry]:
        rng = np.random.default_rng(seed)
        found: list[CaseEntry] = []
        volume = CTVolume(rng.integers(-900, 100, (40, 40, 40)).astype(np.int16), np.diag([1.7, 1.7, 2.0, 1.0]))
        for i in range(count):
            vector = found[-1].vector if i % 10 == 9 else rng.normal(size=DIMENSION)
            case = Case(
                f"{prefix}{i:04}", ("benign", "malignant")[i % 2], "histology", ("lung", "liver")[i % 3 == 0],
                f"{i // 3:032x}", f"{i // 2 + 9:032x}", {"size": float(i % 25), "phase": "venous" if i % 4 else "arterial"},
                note=f"\"quoted\", ünïcode, line\nbreak {i}",
            )  # fmt: skip
            thumbnails = {"axial": rng.integers(0, 255, (9, 7), dtype=np.uint8)} if i % 5 == 0 else None
            patch = lesion_patch(volume, LesionBox([34, 34, 40], [12, 10, 8])) if i % 40 == 0 else None
            found.append(CaseEntry(case, vector, thumbnails, patch))
        return found

    return make


@pytest.fixture
def local(tmp_path, entries) -> Callable[..., CaseLibrary]:
    """A library in a file."""

    def make(count: int, name: str = "cases.lesionlib", **options) -> CaseLibrary:
        library = CaseLibrary.create(tmp_path / name, model=MODEL, dimension=DIMENSION)
        library.add_many(
            entries(count, **options), model_sha256=MODEL.sha256, created=dict.fromkeys(_ids(count), "2024-05-06")
        )
        return library

    return make


def _ids(count: int) -> list[str]:
    return [f"c{i:04}" for i in range(count)]
