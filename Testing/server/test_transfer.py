"""From a file to a real server and back: nothing lost, nothing doubled, whatever happens to the server meanwhile."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from LesionLensApp.cli import main
from LesionLib.errors import CaseLibraryError
from LesionRetrievalLib import libraries as library_transfer
from LesionRetrievalLib.libraries import TransferPlan, Transferred, transfer
from LesionRetrievalLib.library.cases import ModelIdentity
from LesionRetrievalLib.library.store import CaseLibrary
from LesionRetrievalLib.server import records as milvus_rows
from LesionRetrievalLib.server.connection import ServerAddress, ServerUnreachableError
from LesionRetrievalLib.server.library import MilvusLibrary

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]
MODEL = ModelIdentity("tested", "1.0.0", "a" * 64)
OTHER = ModelIdentity("second", "2.0.0", "b" * 64)
SHA = MODEL.sha256
ALL = TransferPlan(thumbnails=True, patches=True, patience_s=150)


def require_equal(one, other, *, queries) -> None:
    """Every field, number and order of two libraries."""
    assert one.cases() == other.cases()
    assert one.created() == other.created()
    assert one.contents() == other.contents()
    assert [m.identity for m in one.models()] == [m.identity for m in other.models()]
    for case_id, kinds in one.contents().items():
        if kinds:
            for plane, grey in one.thumbnails(case_id).items():
                np.testing.assert_array_equal(grey, other.thumbnails(case_id)[plane])
            if "patch" in kinds:
                np.testing.assert_array_equal(one.patch(case_id).volume.array, other.patch(case_id).volume.array)
    for query in queries:
        for model in one.models():
            found = [s.search(query, k=20, model_sha256=model.identity.sha256) for s in (one, other)]
            assert found[0] == found[1]


def test_a_library_survives_the_way_to_a_server_that_is_killed_on_the_way_and_back(
    server, local, tmp_path, monkeypatch
):
    source = local(150)
    rng = np.random.default_rng(1)
    source.add_vectors({f"c{i:04}": rng.normal(size=5) for i in range(150)}, model=OTHER)
    queries = rng.normal(size=(2, 12))
    monkeypatch.setattr(library_transfer, "CASES_AT_ONCE", 40)
    monkeypatch.setattr(milvus_rows, "_ROWS_AT_ONCE", 64)  # several pages, also of this small library
    # A second model makes the last one indexed the library's own: push goes by it.
    with MilvusLibrary.create(server.address("killed"), model=OTHER, dimension=5) as target:
        insert, written = milvus_rows.Collection.insert, []

        def insert_and_kill(self, rows):
            insert(self, rows)
            written.append(self.name)
            if len(written) == 5:  # in the second batch, after its pieces and before its cases
                server.kill()
                threading.Timer(2.0, server.start).start()

        monkeypatch.setattr(milvus_rows.Collection, "insert", insert_and_kill)
        steps = []
        assert transfer(source, target, ALL, progress=lambda done, total: steps.append((done, total))) == Transferred(
            150, 0
        )
        assert steps == [(40, 150), (80, 150), (120, 150), (150, 150)]
        assert len(target) == 150
        assert transfer(source, target, ALL) == Transferred(0, 150)
        by_model = [np.random.default_rng(2).normal(size=m.dimension) for m in source.models()]
        for model, query in zip(source.models(), by_model, strict=True):
            sha256 = model.identity.sha256
            assert source.search(query, k=30, model_sha256=sha256) == target.search(query, k=30, model_sha256=sha256)
        path = tmp_path / "back.lesionlib"
        with CaseLibrary.create(path, model=OTHER, dimension=5) as back:
            assert transfer(target, back, ALL) == Transferred(150, 0)
            assert back.integrity_problems() == ()
            assert back.cases() == source.cases()
            assert back.created() == source.created() == dict.fromkeys(source.created(), "2024-05-06")
            assert back.contents() == source.contents()
            assert source.search(queries[0], k=30, model_sha256=SHA) == back.search(queries[0], k=30, model_sha256=SHA)
            for case_id in ("c0000", "c0040"):
                np.testing.assert_array_equal(back.patch(case_id).volume.array, source.patch(case_id).volume.array)
                np.testing.assert_array_equal(back.thumbnails(case_id)["axial"], source.thumbnails(case_id)["axial"])


def test_another_case_of_the_same_id_is_refused_before_anything_is_written(server, local, entries):
    with MilvusLibrary.create(server.address("refused"), model=OTHER, dimension=5) as target:
        first = local(3)
        first.add_vectors({f"c{i:04}": np.arange(5.0) + i for i in range(3)}, model=OTHER)
        assert transfer(first, target, ALL) == Transferred(3, 0)
        before = target.cases()
        source = local(3, name="other.lesionlib", seed=9)
        source.add_vectors({f"c{i:04}": np.ones(5) for i in range(3)}, model=OTHER)
        with pytest.raises(CaseLibraryError, match="'c0000' is another one there than here, and nothing was written"):
            transfer(source, target)
        assert target.cases() == before


def test_the_command_line_pushes_lists_searches_and_pulls(server, local, tmp_path, capsys):
    library = local(12)
    library.close()
    file, address = str(tmp_path / "cases.lesionlib"), server.address("commands")
    assert main(["library", "push", file, address, "--pictures"]) == 0
    assert "12 cases added" in capsys.readouterr().out
    assert main(["library", "push", file, address, "--pictures"]) == 0
    assert "0 cases added, 12 were there already" in capsys.readouterr().out
    assert main(["library", "list", address]) == 0
    assert "12 cases: 6 benign, 6 malignant" in capsys.readouterr().out
    answers = []
    for place in (file, address):
        assert main(["library", "search", place, "--case", "c0003", "--scope", "cross-patient", "--json"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    assert main(["library", "pull", address, str(tmp_path / "pulled.lesionlib"), "--pictures"]) == 0
    with CaseLibrary.open(file) as one, CaseLibrary.open(tmp_path / "pulled.lesionlib") as other:
        assert one.cases() == other.cases()
        assert one.thumbnails("c0005").keys() == other.thumbnails("c0005").keys() == {"axial"}
        assert other.patch("c0000") is None  # not asked for
    assert main(["library", "list", server.address("nobody_made_this")]) == 2
    assert "There is no library 'nobody_made_this'" in capsys.readouterr().err


def test_a_server_that_does_not_answer_is_said_soon_and_the_local_library_works_on(local, capsys, tmp_path):
    library = local(5)
    started = time.monotonic()
    with pytest.raises(ServerUnreachableError, match=r"does not answer; check .* Libraries on this computer"):
        MilvusLibrary.open("milvus://127.0.0.1:9/cases")
    assert time.monotonic() - started < 15
    assert library.search(np.ones(12), k=2, model_sha256=SHA)
    assert main(["library", "push", str(tmp_path / "cases.lesionlib"), "milvus://127.0.0.1:9/cases"]) == 2
    assert "does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address",
    [
        "milvus://root:geheim@host/cases", "milvus://geheim@host/cases", "milvus://host/cases?token=geheim", "milvus://host",
        "milvus://host/Cases", "milvus://host/a/b", "milvus://host:port/cases", "milvus:///cases", "http://host/cases",
    ],
)  # fmt: skip
def test_an_address_that_is_none_or_holds_credentials_is_refused_without_repeating_them(address):
    with pytest.raises(CaseLibraryError) as error:
        ServerAddress.parse(address)
    assert "geheim" not in str(error.value)


def test_who_asks_comes_from_the_environment_and_a_wrong_password_is_in_no_error(start_server, monkeypatch):
    guarded = start_server(authorised=True)
    with pytest.raises(CaseLibraryError, match="set LESIONLENS_SERVER_TOKEN") as nobody:
        MilvusLibrary.open(guarded.address("cases"))
    assert not isinstance(nobody.value, ServerUnreachableError)
    monkeypatch.setenv("LESIONLENS_SERVER_USER", "root")
    monkeypatch.setenv("LESIONLENS_SERVER_PASSWORD", "geheim-123")
    with pytest.raises(CaseLibraryError, match="refuses this user") as wrong:
        MilvusLibrary.open(guarded.address("cases"))
    assert "geheim" not in f"{wrong.value} {wrong.value.__cause__} {wrong.value!r}"
    monkeypatch.setenv("LESIONLENS_SERVER_PASSWORD", "Milvus")  # the server's own first password
    with pytest.raises(CaseLibraryError, match="There is no library 'cases'"):
        MilvusLibrary.open(guarded.address("cases"))
