"""``make fuzz``: about 10,000 damaged files, by a seed, over every reader; counts of what was read, refused, and what failed.

A reader may read a damaged file or refuse it with an error of ours. It may not fail in any other way, end the process, take
longer than 20 seconds, or need more than 2 GB. Each input is made of its seed, its reader and its number alone, so that
``--reader NAME --number N`` does it again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

FUZZ = Path(__file__).resolve().parent
OUTCOMES = ("read", "refused", "crash", "hang", "memory")
HANG_S, STARTING_S = 20.0, 300.0  # of computing, and of waiting where other work holds the cores


def main() -> int:
    """The command line; 0 where nothing failed, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="how many, over all readers (default: 10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=15.0, help="stop after this time (default: 15)")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--reader", help="only this reader")
    parser.add_argument("--number", type=int, help="only this input of --reader, in this process, with its traceback")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return _serve(options.seed)
    if options.number is not None:
        from trial import Trial

        print(Trial(options.reader, Path(tempfile.mkdtemp(prefix="fuzz-"))).outcome(options.seed, options.number))
        return 0
    counts, failures = run(options)
    _print(counts, failures)
    return 1 if failures else 0


def plan(inputs: int, only: str | None) -> list[tuple[str, int]]:
    """Reader and number of every input, the readers by turns."""
    shares = json.loads(
        subprocess.run(
            [sys.executable, "-c", "import json, readers; print(json.dumps({n: r.share for n, r in readers.READERS.items()}))"],
            cwd=FUZZ, capture_output=True, text=True, check=True,
        ).stdout
    )  # fmt: skip
    shares = {name: share for name, share in shares.items() if only in (None, name)}
    total = sum(shares.values())
    wanted = [(name, number) for name, share in shares.items() for number in range(round(inputs * share / total))]
    return sorted(wanted, key=lambda one: one[1] / shares[one[0]])


def run(options: argparse.Namespace) -> tuple[dict[str, Counter], list[dict]]:
    """Counts by reader, and what failed. Each process answers from one queue, and is replaced where it ends or hangs."""
    waiting: Queue[tuple[str, int]] = Queue()
    for one in plan(options.inputs, options.reader):
        waiting.put(one)
    counts: dict[str, Counter] = {}
    failures: list[dict] = []
    deadline = time.monotonic() + 60 * options.minutes
    threads = [
        Thread(target=_feed, args=(waiting, counts, failures, deadline, options.seed), daemon=True)
        for _ in range(options.processes)
    ]
    for thread in threads:
        thread.start()
    # Who is asked at the end has until a hang would be told, and no longer: what was found is to be printed in any case.
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline + HANG_S:
        time.sleep(5)
        done = sum(counter.total() for name, counter in list(counts.items()) if name != "seconds")
        print(f"{done} done, {waiting.qsize()} left, {len(failures)} failed", file=sys.stderr, flush=True)
    return counts, failures


def _feed(waiting: Queue, counts: dict[str, Counter], failures: list[dict], deadline: float, seed: int) -> None:
    worker = None
    while time.monotonic() < deadline:
        try:
            name, number = waiting.get_nowait()
        except Empty:
            break
        worker = worker or _Worker(seed)
        started = time.monotonic()
        outcome = worker.ask(name, number)
        counts.setdefault("seconds", Counter())[name] += time.monotonic() - started
        if worker.is_gone:
            worker = None
        counts.setdefault(name, Counter())[outcome["outcome"]] += 1
        if outcome["outcome"] not in ("read", "refused"):
            failures.append({"reader": name, "number": number, **outcome})
            print(f"{outcome['outcome']}: --reader {name!r} --number {number}", file=sys.stderr, flush=True)
    if worker is not None:
        worker.end()


class _Worker:
    """A process that reads damaged files; what it answers, or that it ended, or that it did not answer in time."""

    def __init__(self, seed: int) -> None:
        command = [sys.executable, str(FUZZ / "fuzz.py"), "--worker", "--seed", str(seed)]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, text=True, cwd=FUZZ
        )
        self._lines: Queue[str] = Queue()
        Thread(target=self._read, daemon=True).start()
        self.is_gone = False
        self._prepared: set[str] = set()
        self._line(STARTING_S)

    def ask(self, name: str, number: int) -> dict:
        """The outcome of one input; before the first of a reader, its whole files are made and read."""
        for what in ([name, None], [name, number]) if name not in self._prepared else ([name, number],):
            try:
                self._process.stdin.write(json.dumps(what) + "\n")
                self._process.stdin.flush()
            except OSError:
                return self._ended()
            line = self._line(STARTING_S, cpu_s=HANG_S if what[1] is not None else STARTING_S)
            if line is None:
                self.end()
                return {"outcome": "hang", "details": f"no answer after {HANG_S:g} s of computing"}
            if not line:
                return self._ended()
            self._prepared.add(name)
        return json.loads(line)

    def end(self) -> None:
        self.is_gone = True
        self._process.kill()
        self._process.wait()

    def _ended(self) -> dict:
        self.end()
        self._stderr.seek(0)
        said = self._stderr.read()[-2000:].decode("utf-8", "replace")
        return {"outcome": "crash", "details": f"the process ended with {self._process.returncode}: {said}"}

    def _read(self) -> None:
        for line in self._process.stdout:
            if line.startswith("{"):
                self._lines.put(line)
        self._lines.put("")

    def _line(self, seconds: float, *, cpu_s: float = STARTING_S) -> str | None:
        """What it answers; empty where it ended; None after ``seconds``, or ``cpu_s`` of computing."""
        start, begun = time.monotonic(), self._cpu_s()
        while time.monotonic() - start < seconds and self._cpu_s() - begun < cpu_s:
            try:
                return self._lines.get(timeout=0.5)
            except Empty:
                continue
        return None

    def _cpu_s(self) -> float:
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _serve(seed: int) -> int:
    """Answer until the input ends. What is printed besides goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from trial import Trial

    trials: dict[str, Trial] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        print(json.dumps({"outcome": "ready"}), file=answers, flush=True)
        for line in sys.stdin:
            name, number = json.loads(line)
            try:
                if name not in trials:
                    trials[name] = Trial(name, Path(folder) / name.replace(" ", "-"))
                outcome = {"outcome": "ready"} if number is None else trials[name].outcome(seed, number)
            except Exception:
                outcome = {"outcome": "crash", "details": "the fuzzer itself: " + traceback.format_exc()[-2000:]}
            print(json.dumps(outcome), file=answers, flush=True)
    return 0


def _print(counts: dict[str, Counter], failures: list[dict]) -> None:
    print(f"{'reader':<20}" + "".join(f"{outcome:>9}" for outcome in OUTCOMES))
    seconds = counts.pop("seconds", Counter())
    print("seconds: " + ", ".join(f"{name} {spent:.0f}" for name, spent in seconds.most_common()))
    for name, counter in [*sorted(counts.items()), ("all", sum(counts.values(), Counter()))]:
        print(f"{name:<20}" + "".join(f"{counter[outcome]:>9}" for outcome in OUTCOMES))
    for failure in failures:
        last = failure["details"].strip().splitlines()[-1][:160]
        print(f"\n{failure['outcome']}: --reader {failure['reader']!r} --number {failure['number']}: {last}")
        print(failure["details"])


if __name__ == "__main__":
    sys.exit(main())
