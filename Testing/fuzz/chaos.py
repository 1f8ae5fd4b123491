"""``make chaos``: writers that are killed, find the disk full or the folder read-only; what was there before must open as before.

Each trial makes an earlier file, forks a process that writes over it or adds to it, ends that process at a random moment
(kill -9, or SIGTERM, which must clean up), and opens what is there: the earlier content or the new one, whole.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FUZZ = Path(__file__).resolve().parent
ROOT = FUZZ.parents[1]
FILES = ROOT / "Testing" / "fixtures" / "v0_1"
sys.path[:0] = [str(FUZZ), str(ROOT / "Testing" / "support")]

from LesionLensApp.output import staged_output  # noqa: E402
from LesionLib.faults import guarded  # noqa: E402
from LesionLib.io.leftovers import leftovers  # noqa: E402
from LesionLib.model.folder import CARD, LICENSE, MANIFEST, WEIGHTS  # noqa: E402
from LesionRetrievalLib.library.cases import Case, CaseEntry, ModelIdentity  # noqa: E402
from LesionRetrievalLib.library.intake import write_library  # noqa: E402
from LesionRetrievalLib.library.store import CaseLibrary  # noqa: E402
from LesionRetrievalLib.quiz.attempt import open_log  # noqa: E402
from LesionRetrievalLib.quiz.file import load_quiz, save_quiz  # noqa: E402

MODEL = ModelIdentity("orthopatch", "1.2.0", "a" * 64)
_EARLIER, _LATER = 30, 300
_LAST = ("results.csv", "report.html", "scene.mrb", "gradcam_1.nrrd", "results.json")
_NOBODY = 65534


@dataclass(frozen=True)
class Writer:
    """``before`` makes the earlier file; ``write`` writes over or into it; ``verify`` says what is there, or raises.

    ``out``: the place beside and in which leftovers are looked for, from the trial's folder.
    """

    before: Callable[[Path], None]
    write: Callable[[Path], None]
    verify: Callable[[Path], str]
    out: str


def _case(number: int) -> Case:
    return Case(f"c{number:05}", "cyst", "histology", "liver", f"{number:032x}", f"{number:032x}")


def _entries(count: int):
    rng = np.random.default_rng(0)
    pictures = {plane: np.full((64, 64), 7, np.uint8) for plane in ("axial", "coronal", "sagittal")}
    return (CaseEntry(_case(n), rng.standard_normal(64), pictures) for n in range(count))


def _library(folder: Path) -> None:
    write_library(folder / "cases.lesionlib", MODEL, _entries(_EARLIER))


def _add(folder: Path) -> None:
    with CaseLibrary.open(folder / "cases.lesionlib", read_only=False) as library:
        for entry in list(_entries(_LATER))[_EARLIER:]:
            library.add(entry.case, entry.vector, model_sha256=MODEL.sha256, thumbnails=entry.thumbnails)


def _build(folder: Path) -> None:
    write_library(folder / "cases.lesionlib", MODEL, _entries(_LATER))


def _remove(folder: Path) -> None:
    with CaseLibrary.open(folder / "cases.lesionlib", read_only=False) as library:
        for case in library.cases():
            library.remove(case.case_id)


def _verify_library(folder: Path) -> str:
    with CaseLibrary.open(folder / "cases.lesionlib") as library:
        problems = library.integrity_problems()
        assert problems == (), problems
        ids = [case.case_id for case in library.cases()]
        assert library.ids_without_vector(MODEL.sha256) == []
        assert all(len(library.thumbnails(case_id)) == 3 for case_id in ids)
        return f"{len(ids)} cases"


def _verify_built(folder: Path) -> str:
    found = _verify_library(folder)
    assert found in (f"{_EARLIER} cases", f"{_LATER} cases"), found
    return found


def _results(folder: Path, generation: str) -> None:
    with staged_output(folder / "out", overwrite=True) as staging:
        for name in _LAST:
            (staging / name).write_text(json.dumps({"generation": generation, "fill": "x" * 200_000}))


def _verify_results(folder: Path) -> str:
    contents = {path.name: json.loads(path.read_text()) for path in (folder / "out").iterdir() if path.name in _LAST}
    assert set(contents) == set(_LAST), f"only {sorted(contents)} are there"
    generations = {content["generation"] for content in contents.values()}
    assert len(generations) == 1, f"files of {sorted(generations)} results side by side"
    return generations.pop()


def _quiz(folder: Path) -> None:
    shutil.copy(FILES / "quiz.json", folder / "quiz.json")


def _write_quiz(folder: Path) -> None:
    quiz = load_quiz(FILES / "quiz.json")
    for _ in range(5):
        save_quiz(quiz, folder / "quiz.json", overwrite=True)


def _verify_quiz(folder: Path) -> str:
    return f"{len(load_quiz(folder / 'quiz.json').cases)} cases"


def _attempt(folder: Path) -> None:
    open_log(load_quiz(FILES / "quiz.json"), folder / "answers", "chaos")


def _write_attempt(folder: Path) -> None:
    quiz = load_quiz(FILES / "quiz.json")
    log = open_log(quiz, folder / "answers", "chaos")
    for _ in range(400):
        log.append({"interrupted": True})
        (folder / "said").write_text(str(log.attempt.record.interruptions))


def _verify_attempt(folder: Path) -> str:
    log = open_log(load_quiz(FILES / "quiz.json"), folder / "answers", "chaos")
    said = folder / "said"
    target_coverage = int(said.read_text() or 0) if said.exists() else 0
    held = log.attempt.record.interruptions
    assert held >= target_coverage, f"{target_coverage} events were promised, {held} are there"
    return f"{held} events"


def _zip(folder: Path) -> None:
    import zipfile

    from LesionLib.model.install import install_bundle

    with zipfile.ZipFile(folder / "model.zip", "w") as archive:
        for name in (MANIFEST, WEIGHTS, CARD, LICENSE):
            archive.write(FILES / "model" / name, name)
    install_bundle(folder / "model.zip", root=folder / "models")


def _install(folder: Path) -> None:
    from LesionLib.model.install import install_bundle

    for _ in range(3):
        install_bundle(folder / "model.zip", root=folder / "models", overwrite=True)


def _verify_install(folder: Path) -> str:
    from LesionLib.model.bundle import load_bundle

    (name,) = [path for path in (folder / "models").iterdir() if not path.name.startswith(".")]
    return load_bundle(name).version


def _exported(folder: Path) -> None:
    shutil.copytree(FILES / "model", folder / "exported")


def _export(folder: Path) -> None:
    from LesionLib.model.bundle import load_bundle
    from lesiontraining.commands.export import write_bundle

    bundle = load_bundle(FILES / "model")
    manifest = dict(bundle.manifest)
    ours = {
        key: value
        for key, value in manifest.pop("lesionlens").items()
        if key not in ("input", "golden_logits", "golden_probabilities", "files", "schema", "training")
    }
    manifest.pop("sha256")
    for _ in range(3):
        write_bundle(
            folder / "exported", head=manifest, lesionlens=ours, network=bundle.network, spec=bundle.spec,
            calibration={}, card="card", license_text="licence",
        )  # fmt: skip


def _verify_export(folder: Path) -> str:
    from LesionLib.model.bundle import load_bundle

    return load_bundle(folder / "exported").version


def _import_for_models() -> None:
    """What writers of models import, which takes longer than all else here: before they are forked, and only for them."""
    import lesiontraining.commands.export  # noqa: F401
    import torch

    torch.set_num_threads(1)  # what is forked must find no thread pool


WRITERS: dict[str, Writer] = {
    "library add": Writer(_library, _add, _verify_library, "cases.lesionlib"),
    "library build": Writer(_library, _build, _verify_built, "cases.lesionlib"),
    "library remove": Writer(_library, _remove, _verify_library, "cases.lesionlib"),
    "results": Writer(lambda f: _results(f, "old"), lambda f: _results(f, "new"), _verify_results, "out"),
    "quiz": Writer(_quiz, _write_quiz, _verify_quiz, "quiz.json"),
    "attempt log": Writer(_attempt, _write_attempt, _verify_attempt, "answers"),
    "model install": Writer(_zip, _install, _verify_install, "models"),
    "model export": Writer(_exported, _export, _verify_export, "exported"),
}


def in_a_process(write: Callable[[], None], *, before: Callable[[], None] = lambda: None) -> int:
    """Fork a process that calls ``before``, then ``write`` as a command does; its id."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 2)
            before()
            code = guarded("chaos", lambda: (write(), 0)[1])
        finally:
            os._exit(code)
    return pid


def _wait(pid: int) -> int:
    """How it ended: an exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _unnamed(folder: Path, writer: Writer) -> list[str]:
    """Hidden files that no later run would name."""
    named = {path.name for path in leftovers(folder / writer.out, now=time.time() + 1e6)}
    places = [folder, folder / writer.out] if (folder / writer.out).is_dir() else [folder]
    hidden = {path.name for place in places for path in place.iterdir() if path.name.startswith(".")}
    return sorted(hidden - named)


def killed(writer: Writer, folder: Path, number: signal.Signals, after_s: float) -> str:
    """End the writer by a signal; what is there afterwards. Raises AssertionError or what the reader raises."""
    writer.before(folder)
    pid = in_a_process(lambda: writer.write(folder))
    time.sleep(after_s)
    with suppress(ProcessLookupError):
        os.kill(pid, number)
    code = _wait(pid)
    found = writer.verify(folder)
    unnamed = _unnamed(folder, writer)
    assert not unnamed, f"no later run names {unnamed}"
    if number == signal.SIGTERM:
        assert code in (0, 128 + signal.SIGTERM, -signal.SIGTERM), f"exit code {code}"
        left = [path.name for path in leftovers(folder / writer.out, now=time.time() + 1e6)]
        assert not left or code == -signal.SIGTERM, f"SIGTERM left {left}"
    return found


def disk_full(writer: Writer, folder: Path, most_bytes: int) -> str:
    """No file can grow beyond ``most_bytes``; the command must end with a line, not a fault of ours."""
    writer.before(folder)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    code = _wait(in_a_process(lambda: writer.write(folder), before=limit))
    assert code in (0, 2), f"exit code {code}"
    found = writer.verify(folder)
    left = [path.name for path in leftovers(folder / writer.out, now=time.time() + 1e6)]
    assert not left, f"left {left}"
    return f"{found}, exit code {code}"


def read_only(writer: Writer, folder: Path) -> str:
    """Nothing in the folder can be changed; the command must end with a line."""
    writer.before(folder)
    changed = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in changed}
    for path in changed:
        path.chmod(0o555 if path.is_dir() else 0o444)

    def be_nobody() -> None:
        if os.geteuid() == 0:  # who may write everywhere
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)

    try:
        code = _wait(in_a_process(lambda: writer.write(folder), before=be_nobody))
    finally:
        for path, mode in modes.items():
            if path.exists():
                path.chmod(mode)
    assert code == 2, f"exit code {code}"
    return writer.verify(folder)


def seconds_of(writer: Writer, folder: Path) -> float:
    """How long the writer takes when nobody disturbs it; it must succeed."""
    writer.before(folder)
    start = time.monotonic()
    code = _wait(in_a_process(lambda: writer.write(folder)))
    assert code == 0, f"exit code {code}"
    writer.verify(folder)
    return time.monotonic() - start


def run(kills: int, seed: int, names: list[str]) -> tuple[Counter, list[str]]:
    """All trials; counts by writer and kind, and what failed."""
    if any(name.startswith("model ") for name in names):
        _import_for_models()
    rng = np.random.default_rng(seed)
    counts: Counter = Counter()
    failures: list[str] = []

    def trial(name: str, kind: str, one: Callable[[Path], str]) -> None:
        with tempfile.TemporaryDirectory(prefix="chaos-") as text:
            folder = Path(text)
            folder.chmod(0o755)
            counts[name, kind] += 1
            try:
                one(folder)
            except Exception as error:
                counts[name, "failed"] += 1
                failures.append(f"{name}, {kind}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")

    for place, name in enumerate(names):
        writer = WRITERS[name]
        with tempfile.TemporaryDirectory(prefix="chaos-") as text:
            whole_s = seconds_of(writer, Path(text))
        for number in range(kills // len(names) + (place < kills % len(names))):
            after_s = float(rng.uniform(0, 1.1 * whole_s))
            how = signal.SIGTERM if number % 4 == 3 else signal.SIGKILL
            trial(name, how.name, lambda folder, how=how, s=after_s, w=writer: killed(w, folder, how, s))
        for most_bytes in (0, *(int(b) for b in rng.integers(1, 400_000, 3))):
            trial(name, "disk full", lambda folder, b=most_bytes, w=writer: disk_full(w, folder, b))
        trial(name, "read-only", lambda folder, w=writer: read_only(w, folder))
        print(f"{name}: {whole_s:.2f} s undisturbed, {counts[name, 'failed']} failed", file=sys.stderr, flush=True)
    return counts, failures


def main() -> int:
    """The command line; 0 where nothing failed, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="how many kills, over all writers (default: 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--writer", choices=list(WRITERS), help="only this writer")
    options = parser.parse_args()
    counts, failures = run(options.kills, options.seed, [options.writer] if options.writer else list(WRITERS))
    kinds = ("SIGKILL", "SIGTERM", "disk full", "read-only", "failed")
    print(f"{'writer':<16}" + "".join(f"{kind:>11}" for kind in kinds))
    for name in WRITERS:
        print(f"{name:<16}" + "".join(f"{counts[name, kind]:>11}" for kind in kinds))
    print("\n".join(failures) or "nothing failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
