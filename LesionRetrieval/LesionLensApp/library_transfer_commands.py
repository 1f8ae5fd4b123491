"""``lesionlens library push`` and ``pull``: between a file and a server."""

from __future__ import annotations

import argparse
from pathlib import Path

from LesionLib.errors import CaseLibraryError
from LesionRetrievalLib.library import CaseLibrary
from LesionRetrievalLib.library_protocol import CaseStore
from LesionRetrievalLib.library_transfer import Target, TransferPlan, Transferred, transfer
from LesionRetrievalLib.milvus_connection import is_server_address
from LesionRetrievalLib.milvus_library import MilvusLibrary

from .console import Steps


def push(options: argparse.Namespace) -> str:
    """The cases of a file to a server; what happened, in a line. Raises `CaseLibraryError`."""
    with CaseLibrary.open(options.library) as source:
        model = source.model
        with MilvusLibrary.create(_address(options.server), model=model, dimension=source.dimension) as target:
            return _said(_transfer(source, target, options), options.server)


def pull(options: argparse.Namespace) -> str:
    """The cases of a server into a file, which is made where it is not there; what happened, in a line."""
    with MilvusLibrary.open(_address(options.server)) as source, _file(options.library, source) as target:
        return _said(_transfer(source, target, options), str(options.library))


def _file(path: Path, source: MilvusLibrary) -> CaseLibrary:
    if path.exists():
        return CaseLibrary.open(path, read_only=False)
    dimension = next(m.dimension for m in source.models() if m.identity == source.model)
    return CaseLibrary.create(path, model=source.model, dimension=dimension)


def _transfer(source: CaseStore, target: Target, options: argparse.Namespace) -> Transferred:
    steps = Steps()
    steps.begin(f"Comparing {len(source)} cases with {len(target)} that are there")

    def progress(done: int, total: int) -> None:
        steps.begin(f"{done} of {total} cases")

    plan = TransferPlan(pictures=options.pictures, patches=options.patches)
    return transfer(source, target, plan, progress=progress)


def _address(text: str) -> str:
    if not is_server_address(text):
        msg = f"{text!r} is no address of a server; give milvus://host:port/library."
        raise CaseLibraryError(msg)
    return text


def _said(done: Transferred, where: str) -> str:
    there = f", {done.there} were there already" if done.there else ""
    return f"{where}: {done.added} cases added{there}."
