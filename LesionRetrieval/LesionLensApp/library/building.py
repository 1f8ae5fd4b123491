"""A library as it is built, case by case, and gone on with after a break: a kill, Ctrl-C, an error, no power.

What is done lies in a library of its own beside the place of the new one. Of every row of the table it notes a digest of all that
its case depends on: what has changed since is embedded again, the rest is not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from LesionLib.errors import CaseLibraryError
from LesionLib.io.leftovers import unfinished_build
from LesionRetrievalLib.library.cases import ADDED, CaseEntry, Change, ModelIdentity
from LesionRetrievalLib.library.duplicates import LesionDigests, Repeats
from LesionRetrievalLib.library.file import discard, place_of_new_library, put_in_place
from LesionRetrievalLib.library.store import CaseLibrary

_ROW = "~row "  # a property of this and the case's id; gone when the library is whole
_SECONDS_BETWEEN_COMMITS = 1.0


@dataclass(frozen=True)
class _Row:
    """What became of a row: the ``digest`` of all that its case depends on, the lesion's, and which case it ``repeats``, if any."""

    digest: str
    vector: str
    ct: str | None
    repeats: str = ""

    @property
    def lesion(self) -> LesionDigests:
        return LesionDigests(self.vector, self.ct)


class StartedBuild:
    """Cases on their way into a library at ``out``; made by `started_build`.

    Rows are told one after the other in the order of the table: `confirms` those that were done before, `take` those that are done
    now. `finish` puts the library in its place.
    """

    def __init__(self, out: Path, model: ModelIdentity) -> None:
        self._out, self._path, self._model = out, unfinished_build(out), model
        self._library, self._rows = self._opened()
        self._repeats = Repeats()
        self._told: dict[str, _Row] = {}
        self._pending: list[CaseEntry] = []
        self._unsaved: dict[str, _Row] = {}
        self._saved_at = time.monotonic()

    @property
    def repeats(self) -> tuple[tuple[str, str], ...]:
        """(case, the earlier same one), of the rows that were told."""
        return tuple((case_id, row.repeats) for case_id, row in self._told.items() if row.repeats)

    def is_done(self, case_id: str, digest: str) -> bool:
        """Whether the row was embedded before, and nothing that its case depends on has changed."""
        return case_id in self._rows and self._rows[case_id].digest == digest

    def confirms(self, case_id: str, digest: str) -> bool:
        """Whether the row need not be embedded: it was, as it is now."""
        row = self._rows.get(case_id)
        if row is None:
            return False
        earlier = self._repeats.earlier(row.lesion) if row.digest == digest else None
        if row.digest != digest or (row.repeats and earlier is None):
            self._drop(case_id)  # another lesion now, or the one that it repeated is
            return False
        if earlier is None:
            self._repeats.take(case_id, row.lesion)
        elif not row.repeats:
            self._drop(case_id)
        self._tell(case_id, _Row(digest, row.vector, row.ct, earlier or ""))
        return True

    def take(self, entry: CaseEntry, digest: str) -> None:
        """One that was embedded now; it is on the disk within a second or two."""
        lesion = LesionDigests.of(entry)
        earlier = self._repeats.earlier(lesion)
        if earlier is None:
            self._repeats.take(entry.case.case_id, lesion)
            self._pending.append(entry)
        self._tell(entry.case.case_id, _Row(digest, lesion.vector, lesion.ct, earlier or ""))
        if self._library is None:
            self._library = CaseLibrary.create(self._path, model=self._model, dimension=len(entry.vector))
        if time.monotonic() - self._saved_at > _SECONDS_BETWEEN_COMMITS:
            self.save()

    def save(self) -> int:
        """Commit what is done; how many rows that are."""
        if self._library is not None and self._unsaved:
            with self._library.transaction():
                self._library.add_many(self._pending, model_sha256=self._model.sha256, by=None)
                for case_id, row in self._unsaved.items():
                    self._library.set_property(_ROW + case_id, json.dumps(asdict(row)))
        self._pending, self._unsaved, self._saved_at = [], {}, time.monotonic()
        return len(self._rows | self._told)

    def finish(self, properties: Mapping[str, str], *, by: str) -> int:
        """Move the library to its place; how many cases it holds. ``by``: the code of who builds it.

        Raises `CaseLibraryError` where no row became a case.
        """
        self.save()
        library = self._library
        if library is None:
            msg = f"there is no case to put into {self._out}."
            raise CaseLibraryError(msg)
        with library.transaction():
            for case_id in self._rows.keys() - self._told.keys():  # of a row that is in the table no more
                self._drop(case_id)
            for name in library.properties():
                if name.startswith(_ROW):
                    library.remove_property(name)
            for name, value in properties.items():
                library.set_property(name, value)
            ids = [case.case_id for case in library.cases()]
            library.note_changes(Change.now(case_id, by, ADDED) for case_id in ids)
        self.close()
        put_in_place(self._path, self._out)
        return len(ids)

    def close(self) -> None:
        """Leave what is done where it is; nothing is left where nothing was done."""
        if self._library is not None:
            self._library.close()
        if not self._rows and not self._told:
            discard(self._path)

    def _tell(self, case_id: str, row: _Row) -> None:
        if self._rows.get(case_id) != row:
            self._unsaved[case_id] = row
        self._told[case_id] = row

    def _drop(self, case_id: str) -> None:
        row = self._rows.pop(case_id)
        with self._library.transaction():
            self._library.remove_property(_ROW + case_id)
            if not row.repeats:
                self._library.remove(case_id, by=None)

    def _opened(self) -> tuple[CaseLibrary | None, dict[str, _Row]]:
        """What an earlier build left and its rows; nothing where it left nothing that this one can go on with."""
        if self._path.exists():
            try:
                library = CaseLibrary.open(self._path, read_only=False)
            except CaseLibraryError:  # killed before it was a library, or damaged
                library = None
            if library is not None:
                rows = _stored_rows(library)
                if rows is not None and [model.identity for model in library.models()] == [self._model]:
                    return library, rows
                library.close()
        discard(self._path)
        return None, {}


def _stored_rows(library: CaseLibrary) -> dict[str, _Row] | None:
    """The rows that were done, by case; None where they are not those of the library's cases."""
    try:
        rows = {
            name.removeprefix(_ROW): _Row(**json.loads(value))
            for name, value in library.properties().items()
            if name.startswith(_ROW)
        }
    except (ValueError, TypeError):
        return None
    return rows if {case_id for case_id, row in rows.items() if not row.repeats} == set(library.contents()) else None


@contextmanager
def started_build(out: Path, model: ModelIdentity, *, overwrite: bool, total: int) -> Iterator[StartedBuild]:
    """A build of ``total`` rows into ``out``, new or gone on with; what is done stays however this is left.

    Raises `CaseLibraryError` where another program builds the same library; `OutputError` where the file cannot be written, or is
    there and may not be replaced.
    """
    with place_of_new_library(out, overwrite=overwrite):
        build = StartedBuild(out, model)
        try:
            yield build
        except KeyboardInterrupt as error:
            done = build.save()
            if done:
                msg = f"interrupted; {done} of {total} cases are embedded and kept, the same command goes on with the others."
                raise type(error)(msg) from None
            raise
        except Exception:
            build.save()
            raise
        finally:
            build.close()


def digest_of_files(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Name, size and time of each: a file that was written again is another one. Raises `OSError`."""
    return [(path.name, (state := path.stat()).st_size, state.st_mtime_ns) for path in paths]
