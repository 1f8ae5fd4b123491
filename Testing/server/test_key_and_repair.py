"""A library on a server knows its key, takes the same upload twice, and is verified and changed by the commands for a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from LesionLensApp.cli import main
from LesionLib.errors import CaseLibraryError
from LesionLib.io.boxes import HEADER
from LesionLib.io.volumes import read_ct
from LesionLib.phantom.nodules import nodule_patch
from LesionRetrievalLib.libraries import TransferPlan, transfer
from LesionRetrievalLib.library.cases import ModelIdentity
from LesionRetrievalLib.library.ownership import KEY_PROPERTY, KeyState, key_of, key_state, set_key
from LesionRetrievalLib.library.pseudonyms import Pseudonymiser
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.server.connection import create_properties, properties_of
from LesionRetrievalLib.server.library import MilvusLibrary
from LesionRetrievalLib.server.records import Collection
from repository import FILES_OF_0_1 as FILES

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
    assert main(["library", "remove", address, "c0001", "nobody", "--yes"]) == 2
    assert "'nobody' is not in this library" in capsys.readouterr().err
    assert main(["library", "remove", address, "c0001", "c0002", "--yes"]) == 0
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


def test_the_margin_around_segments_is_kept_and_another_is_refused(server, local, entries, tmp_path):
    address = server.address("margins")
    drawn = replace(MODEL, segment_margin_mm=1.5)
    with MilvusLibrary.create(address, model=drawn, dimension=12) as target:
        target.add_many(entries(3), model_sha256=SHA)
        assert target.require_model(SHA).segment_margin_mm == 1.5
        assert target.models()[0].identity.segment_margin_mm == 1.5
    with MilvusLibrary.open(address) as again:
        assert again.model.segment_margin_mm == 1.5
        with CaseLibrary.create(tmp_path / "pulled.lesionlib", model=again.model, dimension=12) as pulled:
            transfer(again, pulled, ALL)
            assert pulled.model.segment_margin_mm == 1.5
    wider = replace(MODEL, segment_margin_mm=3.5)
    with pytest.raises(CaseLibraryError, match=r"reach 1\.5 mm .* and 3\.5 mm .* Nothing was written"):
        MilvusLibrary.create(address, model=wider, dimension=12)
    with (
        CaseLibrary.create(tmp_path / "wider.lesionlib", model=wider, dimension=12) as source,
        MilvusLibrary.create(address, model=MODEL, dimension=12) as target,
    ):
        source.add_many(entries(2, prefix="w"), model_sha256=SHA)
        with pytest.raises(CaseLibraryError, match=r"3\.5 mm .* and 1\.5 mm"):
            transfer(source, target, ALL)
        assert len(target) == 3
        target.set_property(f"segmentMarginMm {SHA}", "wide")
        with pytest.raises(CaseLibraryError, match="the margin around its segments is damaged"):
            target.require_model(SHA)


def test_a_library_that_does_not_say_its_margin_learns_it_only_while_it_is_empty(server, entries):
    drawn = replace(MODEL, segment_margin_mm=1.5)
    for name, count, margin_mm in (("margin_empty", 0, 1.5), ("margin_old", 2, None)):
        with MilvusLibrary.create(server.address(name), model=MODEL, dimension=12) as library:
            library.add_many(entries(count), model_sha256=SHA)
        with MilvusLibrary.create(server.address(name), model=drawn, dimension=12) as library:
            assert library.model.segment_margin_mm == margin_mm


def test_a_lesion_is_added_to_an_address_and_found_there(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    volume, nodule = nodule_patch(kind="lobulated", diameter_mm=14.0, seed=3, size_mm=44.0)
    ct, address = str(tmp_path / "ct.nrrd"), server.address("added")
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(volume.spacingMm.tolist())
    sitk.WriteImage(image, ct)
    lesion = read_ct(Path(ct)).ijkToRAS @ volume.rasToIJK @ [*nodule.box.centerRAS, 1]
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(f"{','.join(HEADER)}\nL1,RAS,{','.join(map(str, [*lesion[:3], 16, 16, 16]))}\n")
    with (
        CaseLibrary.open(FILES / "cases.lesionlib") as source,
        MilvusLibrary.create(address, model=source.model, dimension=source.dimension) as target,
    ):
        transfer(source, target, ALL)
    lesions = [
        "--boxes",
        str(boxes),
        "--patient",
        "P",
        "--key",
        str(tmp_path / "owner.key"),
        "--model",
        str(FILES / "model"),
    ]
    says = ["--label", "bright", "--label-source", "a formula", "--case-id", "new", "--pictures"]
    assert main(["library", "add", address, ct, *lesions, *says]) == 0, capsys.readouterr().err
    assert main(["library", "add", address, ct, *lesions, *says[:-2], "again"]) == 2
    assert "is in the library already" in capsys.readouterr().err
    assert main(["library", "verify", address]) == 0
    assert "is sound: 4 cases" in capsys.readouterr().out
    assert main(["library", "search", address, "--volume", ct, "--json", *lesions, "--scope", "all"]) == 0
    found = json.loads(capsys.readouterr().out)[0]["found"]
    assert (found[0]["case_id"], found[0]["mayBeTheLesion"], len(found)) == ("new", True, 4)
    assert main(["library", "remove", address, "new", "--yes"]) == 0
    capsys.readouterr()
    assert main(["library", "verify", address]) == 0
    assert "is sound: 3 cases" in capsys.readouterr().out
