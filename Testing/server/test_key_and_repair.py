"""A library on a server knows its key, takes the same upload twice, and is verified and changed by the commands for a file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from LesionLensApp.cli import main
from LesionLib.errors import CaseLibraryError
from LesionRetrievalLib.libraries import TransferPlan, transfer
from LesionRetrievalLib.library.cases import ModelIdentity
from LesionRetrievalLib.library.ownership import KEY_PROPERTY, KeyState, key_of, key_state, set_key
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser
from LesionRetrievalLib.server.connection import create_properties, properties_of
from LesionRetrievalLib.server.library import MilvusLibrary
from LesionRetrievalLib.server.records import Collection

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]
MODEL = ModelIdentity("tested", "1.0.0", "a" * 64)
SHA = MODEL.sha256
OWN, FOREIGN = Pseudonymiser(bytes(range(32))), Pseudonymiser(bytes(range(1, 33)))
ALL = TransferPlan(thumbnails=True, patches=True)


def test_a_library_takes_the_key_along_and_refuses_another(server, local):
    source = local(6)
    set_key(source, OWN)
    with MilvusLibrary.create(server.address("keyed"), model=MODEL, dimension=12) as target:
        assert target.properties() == {}
        assert key_state(target, OWN) is KeyState.UNKNOWN
        transfer(source, target, ALL)
        assert key_of(target) == OWN.fingerprint
        assert key_state(target, FOREIGN) is KeyState.FOREIGN
        other = local(2, name="other.lesionlib", prefix="x")
        set_key(other, FOREIGN)
        with pytest.raises(CaseLibraryError, match="different keys .* Nothing was written"):
            transfer(other, target, ALL)
        unknown = local(2, name="unknown.lesionlib", prefix="y")
        with pytest.raises(CaseLibraryError, match="lesionlens library key LIBRARY --set"):
            transfer(unknown, target, ALL)
        assert len(target) == 6


def test_an_upload_whose_answer_was_lost_is_sent_again_and_nothing_is_there_twice(server, entries, monkeypatch):
    with MilvusLibrary.create(server.address("twice"), model=MODEL, dimension=12) as library:
        given, insert = entries(12), Collection.insert

        def twice(self, rows):
            insert(self, rows)
            insert(self, rows)

        monkeypatch.setattr(Collection, "insert", twice)
        library.add_many(given, model_sha256=SHA)
        assert len(library) == 12
        assert len(library.cases()) == 12
        assert [m.cases for m in library.models()] == [12]
        found = library.search(given[3].vector, k=12, model_sha256=SHA)
        assert sorted(n.case_id for n in found) == [entry.case.case_id for entry in given]
        assert library.integrity_problems() == ()


def test_the_commands_verify_and_remove_on_an_address(server, local, capsys):
    address = server.address("repaired")
    with MilvusLibrary.create(address, model=MODEL, dimension=12) as target:
        transfer(local(41), target, ALL)
    assert main(["library", "verify", address]) == 0
    assert "is sound: 41 cases" in capsys.readouterr().out
    assert main(["library", "remove", address, "c0001", "nobody"]) == 2
    assert "'nobody' is not in this library" in capsys.readouterr().err
    assert main(["library", "remove", address, "c0001", "c0002"]) == 0
    assert "removed c0001, c0002" in capsys.readouterr().out
    assert main(["library", "list", address, "--json"]) == 0
    out = capsys.readouterr().out
    assert len(json.loads(out)["cases"]) == 39
    assert main(["library", "key", address, "--key", "absent"]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_damaged_rows_on_the_server_are_named_in_one_line(server, local, capsys):
    address = server.address("damaged")
    with MilvusLibrary.create(address, model=MODEL, dimension=12) as target:
        transfer(local(41), target, ALL)
        rows = target._cases.where('case_id == "c0003"', ["*"])
        target._cases.insert([{**_plain(rows[0]), "attributes": '{"a": [1]}'}])
        rows = target._vectors(SHA).where('case_id == "c0004"', ["*"])
        target._vectors(SHA).insert([{**_plain(rows[0]), "vector": [0.5] * 12}])
        rows = target._pieces.where('case_id == "c0040"', ["*"])
        target._pieces.insert([{**_plain(rows[0]), "about": '{"about": 7, "parts": 1}'}])
        target._pieces.delete([row["piece_id"] for row in target._pieces.where('case_id == "c0005"', ["kind"])])
        problems = "; ".join(target.integrity_problems())
    for case_id in ("c0003", "c0004", "c0005", "c0040"):
        assert case_id in problems
    assert main(["library", "verify", address]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    for command in (["search", address, "--case", "c0000", "--similar", "41"], ["search", address, "--case", "c0004"]):
        assert main(["library", *command]) == 2
        said = capsys.readouterr()
        assert said.err.count("\n") == 1
        assert "damaged" in said.err


def _plain(row) -> dict:
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row.items()}


def test_a_library_without_properties_of_an_earlier_version_is_read(server, local):
    address = server.address("earlier")
    with MilvusLibrary.create(address, model=MODEL, dimension=12) as target:
        transfer(local(2), target, ALL)
        assert not target._client.has_collection(properties_of("earlier"))
        assert key_of(target) is None
        create_properties(target._client, "earlier")
        target.set_property(KEY_PROPERTY, OWN.fingerprint)
        target.set_property(KEY_PROPERTY, OWN.fingerprint)
    with MilvusLibrary.open(address) as again:
        assert again.properties() == {KEY_PROPERTY: OWN.fingerprint}


def test_an_address_of_the_next_internet_is_understood(capsys):
    from LesionRetrievalLib.server.connection import ServerAddress

    address = ServerAddress.parse("milvus://[::1]:9/cases")
    assert (address.host, address.port, address.authority) == ("::1", 9, "[::1]:9")
    assert str(address) == "milvus://[::1]:9/cases"
    assert main(["library", "list", "milvus://[::1]:9/cases"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "milvus://[::1]:9/cases does not answer" in said
