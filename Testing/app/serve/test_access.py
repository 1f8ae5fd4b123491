"""Who gets in, what may be opened, and that nobody sees anything of anybody else."""

from __future__ import annotations

import gc
import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from urllib.parse import quote

import pytest
from LesionLensApp.serve.access import AllowedFolder, ApiError
from LesionLensApp.serve.jobs import Job, JobState, Queue
from LesionLensApp.serve.opening import shown_name
from LesionLensApp.serve.sessions import Sessions
from LesionLib.inference.runner import WorkerRunner
from served import TOKEN, serving

MODEL = "lung-nodule-malignancy"


def idle_worker() -> WorkerRunner:
    """One that answers nothing and loads no torch."""
    return WorkerRunner(arguments=("-c", "import sys; sys.stdin.read()"))


@pytest.fixture(autouse=True)
def no_session_stays(request):
    yield
    if "small" in request.fixturenames:
        sessions = request.getfixturevalue("small").service.sessions
        for name in list(sessions._sessions):
            sessions.end(name)


@pytest.fixture(scope="module")
def small(shelf):
    """A server with narrow limits, which answers no model."""
    options = {"folder": shelf, "max_sessions": 2, "max_upload": 4096, "names": ["gpu.example"]}
    with serving(MODEL, runner=idle_worker(), **options) as running:
        yield running


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", "ä"])
def test_without_its_token_nothing_is_answered(small, token):
    status, refused, headers = small.ask("GET", "/api/server", token=token.encode("utf-8").decode("latin-1"))
    assert status == 401
    assert "token" in refused["message"]
    assert headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("scheme", ["Basic", "Token", ""])
def test_the_token_counts_only_as_a_bearer_s(small, scheme):
    assert small.ask("GET", "/api/server", headers={"Authorization": f"{scheme} {TOKEN}"})[0] == 401


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil",
        "",
        "[::1].evil",
        "169.254.169.254",
    ],
)
def test_a_name_that_is_not_the_server_s_is_refused_against_dns_rebinding(small, host):
    for path in ("/", "/api/server", "/openapi.json"):
        assert small.ask("GET", path, headers={"Host": host})[0] == 421


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1234", "LOCALHOST", "[::1]:9", "gpu.example:443"])
def test_the_names_that_it_has_are_taken(small, host):
    assert small.ask("GET", "/api/server", headers={"Host": host})[0] == 200


def test_every_answer_has_its_headers_and_none_lets_another_page_read_it(small):
    for path in ("/openapi.json", "/api/server", "/nowhere", "/api/nowhere"):
        _, _, headers = small.ask("GET", path, headers={"Origin": "https://evil.example"})
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
    status, _, headers = small.ask("OPTIONS", "/api/server", headers={"Origin": "https://evil.example"})
    assert status == 405
    assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "shelf"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "ct.nrrd").write_text("x")
    (root / ".hidden").write_text("x")
    (tmp_path / "secret.nrrd").write_text("x")
    (root / "link.nrrd").symlink_to(tmp_path / "secret.nrrd")
    (root / "up").symlink_to(tmp_path)
    (root / "a" / "b" / "inside").symlink_to(root / "a" / "ct.nrrd")
    return AllowedFolder(root)


HOSTILE = (
    "..", "../secret.nrrd", "a/../../secret.nrrd", "/etc/passwd", "//etc/passwd", "a/./ct.nrrd", "..\\secret.nrrd", "a\0b",
    "link.nrrd", "up/secret.nrrd", ".hidden", "C:/windows", "a:b", "x/" * 40, "",
)  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE)
def test_nothing_outside_the_folder_or_behind_a_link_is_opened(tree, path):
    with pytest.raises(ApiError) as raised:
        tree.openable(path)
    assert raised.value.status in (403, 404)
    assert str(tree.root) not in raised.value.message


def test_a_folder_with_a_link_anywhere_in_it_is_not_opened(tree):
    with pytest.raises(ApiError, match="links are not followed"):
        tree.openable("a")


def test_the_list_shows_no_links_and_nothing_hidden(tree):
    assert [(entry.name, entry.is_folder) for entry in tree.entries("")] == [("a", True)]
    assert tree.openable("a/ct.nrrd").name == "ct.nrrd"
    assert [entry.path for entry in tree.entries("a")] == ["a/b", "a/ct.nrrd"]


@pytest.mark.parametrize("path", HOSTILE[:-1])
def test_the_api_opens_nothing_of_that_either(small, path):
    visitor = small.session()
    for status, _ in (
        visitor.ask("PUT", "ct", {"path": path}),
        visitor.ask("GET", f"series?path={quote(path, safe='')}"),
    ):
        assert status in (400, 403, 404)
    visitor.ask("DELETE", "")


def test_people_who_open_the_same_file_share_its_voxels_until_it_changes(served, shelf, tmp_path):
    one, other = served.session(), served.session()
    sessions = served.service.sessions
    path = shelf / "same.nrrd"
    shutil.copy(shelf / "patch.nrrd", path)
    for source in ("same.nrrd", "series"):
        for person in (one, other):
            person.got("PUT", "ct", {"path": source})
        assert sessions.get(one.id).ct is sessions.get(other.id).ct
        assert not sessions.get(one.id).ct.volume.array.flags.writeable
    for person in (one, other):
        person.got("PUT", "ct", {"path": "same.nrrd"})
    os.utime(path, (1, 1))
    other.got("PUT", "ct", {"path": "same.nrrd"})
    assert sessions.get(one.id).ct is not sessions.get(other.id).ct
    one.drop(path)
    one.got("PUT", "ct", {})
    two = served.session()
    two.drop(path)
    two.got("PUT", "ct", {})
    assert sessions.get(one.id).ct is not sessions.get(two.id).ct  # what was dropped is nobody else's
    held = weakref.ref(sessions.get(other.id).ct)
    for person in (one, other, two):
        person.ask("DELETE", "")
    path.unlink()
    gc.collect()
    assert held() is None


def test_a_server_without_a_folder_opens_no_file_of_its_disk():
    with serving(MODEL, runner=idle_worker()) as running:
        assert running.ask("GET", "/api/folder?path=")[0] == 403
        assert running.session().ask("PUT", "ct", {"path": "etc"})[0] == 403


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"), ("..\\..\\boot.ini", "boot.ini"), ("a\x1b[31m\n.nrrd", "a\ufffd[31m\ufffd.nrrd"),
        ("<img src=x onerror=alert(1)>.nii", "<img src=x onerror=alert(1)>.nii"), ("", "upload"),
        ("\u202egnp.nrrd", "\ufffdgnp.nrrd"),
        ("x" * 500, "x" * 200), ("..", ".."),
    ],
)  # fmt: skip
def test_a_hostile_file_name_is_shown_and_never_used(name, shown):
    assert shown_name(name) == shown


@pytest.mark.parametrize("name", ["..", "a\0b.nrrd", "%2e%2e%2fevil", "CON.nrrd", "a" * 300, "é\u202e.nii"])
def test_a_dropped_file_stays_in_its_session_whatever_it_is_called(small, name):
    visitor = small.session()
    assert visitor.ask("PUT", "files/..%2F..%2Fevil.nrrd", b"x")[0] == 404  # a folder is no name
    status, told = visitor.ask("PUT", f"files/{quote(name, safe='')}", b"NRRD0004\n")
    session = small.service.sessions.get(visitor.id)
    assert status == 200
    assert len(told["name"]) <= 220
    files = [path for path in session.folder.rglob("*") if path.is_file()]
    assert [path.parent.name for path in files] == ["uploads"]
    assert files[0].name.startswith("00000")
    assert files[0].stat().st_mode & 0o077 == 0
    visitor.ask("DELETE", "")
    assert not session.folder.exists()


@pytest.mark.parametrize("name", ["a.zip", "a.MRB", "a.tar.gz", "a.nhdr", "a.mhd", "a.hdr"])
def test_archives_and_headers_without_voxels_are_refused(small, name):
    visitor = small.session()
    status, refused = visitor.ask("PUT", f"files/{name}", b"PK")
    assert status == 415
    assert name.split(".")[0] in refused["message"]
    visitor.ask("DELETE", "")


def test_a_header_that_points_to_a_file_of_the_server_is_refused(small):
    visitor = small.session()
    head = (
        "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nspacings: 1 1 1\ndata file: /etc/passwd\n\n"
    )
    visitor.got("PUT", "files/a.nrrd", head.encode())
    status, refused = visitor.ask("PUT", "ct", {})
    assert status == 422
    assert "outside its folder" in refused["message"]
    visitor.ask("DELETE", "")


def test_files_larger_than_the_limit_are_refused_as_they_come_and_leave_nothing(small):
    visitor = small.session()
    visitor.got("PUT", "files/a.nrrd", b"x" * 3000)
    status, refused = visitor.ask("PUT", "files/b.nrrd", b"x" * 3000)
    assert status == 413
    assert "larger than" in refused["message"]
    session = small.service.sessions.get(visitor.id)
    assert len(list((session.folder / "uploads").iterdir())) == 1
    visitor.got("PUT", "files/c.nrrd", b"x" * 1000)
    visitor.ask("DELETE", "")


def test_a_session_knows_nothing_of_another_one(small):
    one, other = small.session(), small.session()
    one.got("PUT", "files/a.nrrd", b"x")
    assert other.ask("PUT", "ct", {})[0] == 409
    assert small.ask("GET", f"/api/sessions/{'0' * 32}/ct")[0] == 404
    status, refused, _ = small.ask("POST", "/api/sessions")
    assert (status, "2 sessions are open" in refused["message"]) == (503, True)
    one.ask("DELETE", "")
    assert one.ask("GET", "boxes")[0] == 404
    other.ask("DELETE", "")


def test_a_session_that_nobody_uses_ends_and_its_files_go(small):
    now = [0.0]
    sessions = Sessions(small.service.queue, idle_s=60, most=5, clock=lambda: now[0])
    used, unused = sessions.create(), sessions.create()
    (unused.folder / "file").write_text("x")
    now[0] = 50.0
    sessions.get(used.id)
    now[0] = 70.0
    assert sessions.end_idle() == 1
    assert not unused.folder.exists()
    with pytest.raises(ApiError, match="has ended"):
        sessions.get(unused.id)
    sessions.end_all()
    assert not sessions.root.exists()


@pytest.mark.skipif(os.name != "posix", reason="a process cannot be asked for there")
def test_what_a_killed_server_left_is_deleted_by_the_next_one(small, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / f"lesionlens-serve-{ended.pid}-abc"
    alive = tmp_path / f"lesionlens-serve-{os.getpid()}-abc"
    for folder in (left, alive, tmp_path / "lesionlens-serve-notes"):
        folder.mkdir()
    Sessions(small.service.queue, idle_s=60, most=5)
    assert not left.exists()
    assert alive.exists()
    assert (tmp_path / "lesionlens-serve-notes").exists()


def test_bodies_that_are_not_as_they_should_be_are_refused_with_the_place(small):
    visitor = small.session()
    for body in (b"{", b"[1]", b'{"boxes": [{"name": ""}]}', b'{"boxes": NaN}', b"\xff", b"[" * 100_000):
        status, refused = visitor.ask("PUT", "boxes", body, kind="application/json")
        assert status == 400
        assert refused["message"]
    assert visitor.ask("PUT", "boxes", b"{}", kind="text/plain")[0] == 415
    assert visitor.ask("PUT", "boxes", b" " * 3_000_000, kind="application/json")[0] == 413
    assert visitor.ask("POST", "job", {})[0] == 409
    visitor.ask("DELETE", "")


def test_two_boxes_of_one_name_and_a_sheared_one_are_refused(small, box):
    visitor = small.session()
    assert visitor.ask("PUT", "boxes", {"boxes": [box, box]})[0] == 422
    assert visitor.ask("PUT", "boxes", {"boxes": [{**box, "axesRAS": [[1, 1, 0], [0, 1, 0], [0, 0, 1]]}]})[0] == 422
    visitor.ask("DELETE", "")


def test_what_nobody_foresaw_tells_the_owner_the_place_and_nobody_the_patient(small, monkeypatch, capsys):
    path = "/home/x/Doe^Jane.nrrd"  # not in the line that raises: lines of code are told, what was in them is not

    def fails(*_arguments):
        raise KeyError(path)

    monkeypatch.setattr(small.service.sessions, "create", fails)
    status, refused, _ = small.ask("POST", "/api/sessions")
    assert status == 500
    printed = ""
    while "builtins.KeyError" not in printed:  # the answer comes first
        time.sleep(0.01)
        printed += "".join(capsys.readouterr())
    assert "Doe" not in json.dumps(refused) + printed


def test_ten_at_once_are_answered_each_with_its_own(served, box):
    names = [f"visitor {number}" for number in range(10)]
    answers, places = {}, []

    def visit(name: str) -> None:
        visitor = served.session()
        visitor.got("PUT", "ct", {"path": "patch.nrrd"})
        visitor.got("PUT", "boxes", {"boxes": [{**box, "name": name}]})
        places.append(visitor.got("POST", "job", {})["place"])
        assert visitor.waited(120)["state"] == "done"
        answers[name] = visitor.got("GET", "answer")["lesions"]
        visitor.got("DELETE", "")

    threads = [threading.Thread(target=visit, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    assert {name: lesions[0]["name"] for name, lesions in answers.items()} == {name: name for name in names}
    assert len({json.dumps(lesions[0]["probabilities"]) for lesions in answers.values()}) == 1
    assert max(places) > 1


def test_a_job_is_cancelled_in_the_queue_and_while_it_runs_and_the_next_is_answered(served, box):
    one, other = served.session(), served.session()
    for visitor in (one, other):
        visitor.got("PUT", "ct", {"path": "patch.nrrd"})
        visitor.got("PUT", "boxes", {"boxes": [{**box, "name": f"L{n}"} for n in range(30)]})
    one.got("POST", "job", {"map": "occlusion", "boxJitter": 32})
    assert other.got("POST", "job", {})["place"] >= 1
    assert other.ask("POST", "job", {})[0] == 409
    other.got("DELETE", "job")
    assert other.got("GET", "job")["state"] == "cancelled"
    while one.got("GET", "job")["state"] != "running":
        time.sleep(0.01)
    one.got("DELETE", "job")
    assert one.waited(15)["state"] == "cancelled"
    assert one.ask("GET", "answer")[0] == 409
    other.got("PUT", "boxes", {"boxes": [box]})
    assert other.classified()["lesions"][0]["label"]
    one.ask("DELETE", "")
    other.ask("DELETE", "")


def test_a_worker_that_is_killed_in_the_middle_is_said_and_the_next_job_is_answered(served, visitor, box):
    visitor.got("PUT", "ct", {"path": "patch.nrrd"})
    visitor.got("PUT", "boxes", {"boxes": [{**box, "name": f"L{n}"} for n in range(30)]})
    visitor.got("POST", "job", {"map": "occlusion", "boxJitter": 32})
    while visitor.got("GET", "job")["state"] != "running":
        time.sleep(0.01)
    served.service.queue.runners[0]._process.kill()
    job = visitor.waited()
    assert job["state"] == "failed"
    assert "stopped in the middle" in job["error"]["message"]
    visitor.got("PUT", "boxes", {"boxes": [box]})
    assert visitor.classified()["lesions"][0]["label"]


def test_who_cancels_a_job_that_is_just_ending_does_not_cancel_the_next_one():
    """The runner is asked to stop while nobody else can begin with it."""
    started, ends, begun = (threading.Event() for _ in range(3))
    was_begun: list[bool] = []

    class Runner:
        def cancel(self) -> bool:
            ends.set()
            was_begun.append(begun.wait(0.3))
            return True

        def close(self) -> None: ...

    queue = Queue([Runner()], device="cpu", on_error=lambda error: None)
    try:
        first = queue.put(Job("one", lambda job: started.set() or ends.wait(5)))
        second = queue.put(Job("two", lambda job: begun.set()))
        assert started.wait(5)
        queue.cancel(first)
        assert second.ended.wait(5)
        assert (first.state, second.state) == (JobState.CANCELLED, JobState.DONE)
        assert was_begun == [False]
    finally:
        queue.close()


def test_the_queue_takes_so_many_and_no_more(small):
    queue, jobs = small.service.queue, []
    try:
        with pytest.raises(ApiError, match="too many wait"):
            for _ in range(200):
                jobs.append(queue.put(Job("one", lambda job: None)))
        assert 0 < len(jobs) < 20
    finally:
        for job in jobs:
            queue.cancel(job)


def test_a_client_that_goes_away_takes_its_run_with_it(small):
    from LesionLensApp.serve.api import Runs
    from LesionLensApp.serve.jobs import Job

    now = [0.0]
    runs = Runs(small.service.queue, clock=lambda: now[0])
    job = runs.begin(Job("laptop", lambda job: None))
    now[0] = 59.0
    assert runs.forget_idle() == 0
    runs.get(job.id)
    now[0] = 125.0
    assert runs.forget_idle() == 1
    assert job.state == "cancelled"
    assert len(runs) == 0


def test_head_and_a_half_sent_body_do_no_harm(small):
    visitor = small.session()
    connection = http.client.HTTPConnection("127.0.0.1", small.port, timeout=10)
    connection.putrequest("PUT", f"/api/sessions/{visitor.id}/files/a.nrrd")
    for name, value in (
        ("Authorization", f"Bearer {TOKEN}"),
        ("Content-Type", "application/octet-stream"),
        ("Content-Length", "100"),
    ):
        connection.putheader(name, value)
    connection.endheaders(b"half")
    connection.close()
    assert small.ask("HEAD", "/api/server")[0] == 200
    session = small.service.sessions.get(visitor.id)
    for _ in range(200):
        if not session.uploads:
            break
        time.sleep(0.02)
    assert session.uploads == {}
    visitor.ask("DELETE", "")
