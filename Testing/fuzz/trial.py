"""One damaged file and what its reader makes of it."""

from __future__ import annotations

import resource
import shutil
import traceback
import warnings
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from readers import READERS, REFUSALS

MEMORY_BYTES = 2 * 1024**3


class Trial:
    """The trials of one reader, in ``folder``."""

    def __init__(self, name: str, folder: Path) -> None:
        self._reader, self._name, self._folder = READERS[name], name, folder
        warnings.simplefilter("ignore")
        sitk.ProcessObject.GlobalWarningDisplayOff()
        (folder / "whole").mkdir(parents=True)
        self._reader.prepare(folder / "whole")
        self._reader_reads_what_is_whole()

    def outcome(self, seed: int, number: int) -> dict[str, str]:
        """Of input ``number``: ``outcome`` (read, refused, crash, memory) and ``details``."""
        rng = np.random.default_rng([seed, zlib.crc32(self._name.encode()), number])
        work = self._fresh_copy()
        self._reader.damage(work, rng)
        before = _reset_peak()
        try:
            self._reader.read(work)
            outcome, details = "read", ""
        except (*REFUSALS, *self._reader.refusals) as error:
            outcome, details = "refused", str(error)
        except MemoryError:
            outcome, details = "memory", traceback.format_exc()[-3000:]
        except Exception:
            outcome, details = "crash", traceback.format_exc()[-3000:]
        if (grown := _peak() - before) > MEMORY_BYTES:
            outcome, details = "memory", f"{grown / 1024**3:.1f} GB; {outcome}: {details}"
        return {"outcome": outcome, "details": details}

    def _fresh_copy(self) -> Path:
        work = self._folder / "work"
        if work.exists():
            shutil.rmtree(work)
        return Path(shutil.copytree(self._folder / "whole", work))

    def _reader_reads_what_is_whole(self) -> None:
        try:
            self._reader.read(self._fresh_copy())
        except REFUSALS as error:
            if "absent" not in str(error) and "does not exist" not in str(error) and self._name != "lesion table":
                msg = f"{self._name} refuses its whole file: {error}"
                raise AssertionError(msg) from error


def _reset_peak() -> int:
    """Forget the largest memory so far; bytes in use now. 4 GB more than now cannot be had at all."""
    now = _status("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (now + 2 * MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024
