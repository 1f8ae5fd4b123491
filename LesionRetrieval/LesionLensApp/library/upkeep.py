"""``lesionlens library verify | reindex | push | pull``: what is done to a library as a whole."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from LesionLib.errors import CaseLibraryError
from LesionLib.model.folder import segment_margin_of
from LesionLib.terminal import notify
from LesionRetrievalLib.libraries import Target, TransferPlan, Transferred, open_store, transfer
from LesionRetrievalLib.library.cases import CaseStore, ModelIdentity
from LesionRetrievalLib.library.reindex import ReindexReport, patch_embedder, reindex
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.server.connection import is_server_address
from LesionRetrievalLib.server.library import MilvusLibrary

from LesionLensApp.library.contents import described_model
from LesionLensApp.output import Steps

if TYPE_CHECKING:
    from LesionLensApp.loaded_model import ModelSession

_SHOWN_PROBLEMS = 10


def verify_library(path: Path | str) -> str:
    """``lesionlens library verify``: whether a library is sound.

    One line that all is well, or `CaseLibraryError` with what is not.
    """
    with open_store(path) as library:
        problems = library.integrity_problems()
        if problems:
            more = f" and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
            msg = f"{path} is damaged: {'; '.join(problems[:_SHOWN_PROBLEMS])}{more}."
            raise CaseLibraryError(msg)
        models = "; ".join(map(described_model, library.models()))
        return f"{path} is sound: {len(library)} cases, embedded by {models}."


_INTERRUPTED = 130
_SHOWN_CASES = 5


def reindex_library(path: Path, model: ModelSession, steps: Steps, *, by: str = "") -> str:
    """``lesionlens library reindex``: the cases embedded by another model, with a bar, to be broken off and resumed.

    Embed what is not embedded yet; returns what was done and what is another from now on, in a few lines. ``by``: the code of
    who does it. Raises `CaseLibraryError`.

    Ends the program with code 130 when interrupted; what is done is kept.
    """
    with CaseLibrary.open(path, read_only=False) as library:
        try:
            who, before = model.described, library.model
            steps.begin(f"Embedding {len(library)} cases by {who.name} {who.version}")
            embed = patch_embedder(who.spec, model.embed, margin_mm=segment_margin_of(who.manifest))
            with steps.bar() as bar:
                report = reindex(library, who, progress=bar, embed=embed, by=by)
            after = library.model
        except KeyboardInterrupt:
            notify("lesionlens: interrupted; what is embedded is kept, reindex again to go on.", sys.stderr)
            raise SystemExit(_INTERRUPTED) from None
    return "\n".join([f"{path}: {_counted(report)}", *_left_out(report), *_another_now(before, after, report)])


def _another_now(before: ModelIdentity, after: ModelIdentity, report: ReindexReport) -> list[str]:
    """What searches do otherwise than before a reindex."""
    if before == after:
        return ["Searches compare by the same model as before."]
    earlier = f"{before.name} {before.version}"
    how = before.name if before.name != after.name else f"with the folder of {earlier}"
    first = (
        f"Searches by --case compare by {after} from now on, before by {before}: similarities and order may be others. The "
        f"vectors of {earlier} stay: --model {how} compares by them."
    )
    lines = [first]
    if report.left_out:
        lines.append(
            f"A search by {after.name} {after.version} does not find the {len(report.left_out)} cases left out."
        )
    return lines


def _counted(report: ReindexReport) -> str:
    earlier = f", {report.kept} were already" if report.kept else ""
    return f"{report.embedded} cases embedded by {report.model}{earlier}."


def _left_out(report: ReindexReport) -> list[str]:
    lines = []
    for reason, count in Counter(report.left_out.values()).items():
        names = [case_id for case_id, cause in report.left_out.items() if cause == reason]
        more = ", …" if count > _SHOWN_CASES else ""
        lines.append(f"{count} cannot be: {reason} ({', '.join(names[:_SHOWN_CASES])}{more}).")
    return lines


def push(options: argparse.Namespace) -> str:
    """``lesionlens library push``: the cases of a file to a server; what happened, in a line. Raises `CaseLibraryError`."""
    with CaseLibrary.open(options.library) as source:
        model = source.model
        with MilvusLibrary.create(_address(options.server), model=model, dimension=source.dimension) as target:
            return _transfer_text(_transfer(source, target, options), options.server)


def pull(options: argparse.Namespace) -> str:
    """``lesionlens library pull``: the cases of a server into a file, which is made where it is not there.

    Returns what happened, in a line.
    """
    with MilvusLibrary.open(_address(options.server)) as source, _file(options.library, source) as target:
        return _transfer_text(_transfer(source, target, options), str(options.library))


def _file(path: Path, source: MilvusLibrary) -> CaseLibrary:
    if os.path.exists(path):
        return CaseLibrary.open(path, read_only=False)
    dimension = next(m.dimension for m in source.models() if m.identity == source.model)
    return CaseLibrary.create(path, model=source.model, dimension=dimension)


def _transfer(source: CaseStore, target: Target, options: argparse.Namespace) -> Transferred:
    steps = Steps()
    steps.begin(f"Comparing {len(source)} cases with {len(target)} that are there")

    def progress(done: int, total: int) -> None:
        steps.begin(f"{done} of {total} cases")

    plan = TransferPlan(thumbnails=options.pictures, patches=options.patches)
    return transfer(source, target, plan, progress=progress)


def _address(text: str) -> str:
    if not is_server_address(text):
        msg = f"{text!r} is no address of a server; give milvus://host:port/library."
        raise CaseLibraryError(msg)
    return text


def _transfer_text(done: Transferred, where: str) -> str:
    there = f", {done.there} were there already" if done.there else ""
    return f"{where}: {done.added} cases added{there}."
