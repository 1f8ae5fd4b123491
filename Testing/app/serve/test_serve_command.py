"""``lesionlens serve`` as a command: what it refuses before it starts, and a real process from its first line to its end."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from urllib.parse import urlsplit

import pytest

MODEL = "lung-nodule-malignancy"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--host", "0.0.0.0"], "other computers could read what is sent"),
        (["--host", "gpu.example"], "--tls-cert and --tls-key"),
        (["--tls-cert", "c.pem"], "go together"),
        (["--tls-cert", "c.pem", "--tls-key", "k.pem"], "does not exist"),
        (["--folder", "/nowhere"], "is no folder"),
        (["--port", "70000"], "--port is 70000"),
        (["--idle-minutes", "0"], "--idle-minutes 0"),
        (["--model", "nothing"], "unknown model 'nothing'"),
    ],
)
def test_what_could_not_be_served_safely_is_refused_at_once(run, given, said):
    ran = run("serve", *given)
    assert ran.code == 2
    assert said in ran.err


def test_a_certificate_that_is_none_and_a_port_that_is_taken_are_said(run, tmp_path):
    for name in ("c.pem", "k.pem"):
        (tmp_path / name).write_text("none")
    assert (
        "no certificate and its key"
        in run("serve", "--tls-cert", tmp_path / "c.pem", "--tls-key", tmp_path / "k.pem").err
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "cannot be listened at" in run("serve", "--port", taken.getsockname()[1]).err


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_a_process_serves_from_its_first_line_and_leaves_nothing_when_it_is_ended(tmp_path, shelf):
    command = [
        sys.executable,
        "-m",
        "LesionLensApp.cli",
        "serve",
        "--port",
        "0",
        "--model",
        MODEL,
        "--folder",
        str(shelf),
    ]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        address = urlsplit(process.stdout.readline().strip())
        token = address.fragment.removeprefix("token=")
        assert (address.hostname, len(token) > 40) == ("127.0.0.1", True)
        assert "not for diagnosis" in process.stdout.readline()

        def asked(method: str, path: str, body: bytes | None = None) -> int:
            with closing(http.client.HTTPConnection("127.0.0.1", address.port, timeout=60)) as connection:
                connection.request(method, path, body, {"Authorization": f"Bearer {token}"})
                return connection.getresponse().status

        for _ in range(600):
            try:
                assert asked("GET", "/") == 200
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        assert asked("POST", "/api/sessions") == 201
        assert asked("GET", "/api/sessions/Doe-Jane/ct") == 404
        (left,) = tmp_path.glob("lesionlens-serve-*")
        assert len(list(left.iterdir())) == 1
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.glob("lesionlens-serve-*")) == []
    assert "Doe" not in out + err
    assert token not in out + err  # after the first line
    assert err.strip().splitlines() == ["lesionlens: the server has ended; nothing of its sessions is left."]
