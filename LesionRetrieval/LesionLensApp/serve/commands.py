"""``lesionlens serve``: its options, what is refused before anything starts, and the server itself."""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from LesionLib.errors import LesionLensError
from LesionLib.model.folder import find_bundle
from LesionLib.terminal import notify
from LesionRetrievalLib.libraries import library_location

from LesionLensApp.options import default_model, default_of, model_for
from LesionLensApp.output import NOTICE

if TYPE_CHECKING:
    from LesionLib.inference.runner import InferenceRunner

_PORT, _IDLE_MINUTES, _SESSIONS, _UPLOAD_MB = 8765, 10.0, 16, 2048
_LOOPBACK = "127.0.0.1"


def add_serve(commands: argparse._SubParsersAction) -> None:
    """The command and its options."""
    parser = commands.add_parser(
        "serve", help="the lesion page for a browser, and the models of this computer for Slicer on another one"
    )
    parser.epilog = (
        "Without --host it is reached from this computer only. The address that is printed holds a token, new at each start; "
        "whoever has it may use the server. Nothing of a session stays on the disk when it ends."
    )
    parser.add_argument(
        "--folder", type=Path, help="folder whose files the page may open (default: none, files are dropped in)"
    )
    parser.add_argument(
        "--model", help=f"name of the model that is asked (default: {default_model()}, or that of --library)"
    )
    parser.add_argument("--library", type=library_location, help="case library to compare with")
    parser.add_argument("--key", type=Path, help="pseudonym key of the library: leaves out cases of the same patient")
    parser.add_argument(
        "--device",
        default="auto",
        metavar="auto|cpu|cuda[:N]",
        help="where the model computes (default: auto, a GPU if any)",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        default="",
        help="let the models answer on a Ray cluster, by Ray Serve: local (all GPUs of this computer), or, on a node of a cluster, "
        "auto or HOST:PORT; all nodes have LesionLens and see the models under the same paths",
    )
    parser.add_argument(
        "--replicas",
        type=int,
        metavar="N",
        help="with --ray: so many answer at a time (default: one for each GPU, or one)",
    )
    parser.add_argument("--port", type=int, default=_PORT, help=f"(default: {_PORT}; 0: any that is free)")
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        help="address of this computer under which others reach it; needs --tls-cert and --tls-key",
    )
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which others reach it (several times, if need be)",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate (with its chain) as .pem")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key as .pem")
    parser.add_argument(
        "--idle-minutes", type=float, default=_IDLE_MINUTES, metavar="N",
        help=f"a session that nobody uses ends after so long (default: {_IDLE_MINUTES:g})",
    )  # fmt: skip
    parser.add_argument(
        "--max-sessions", type=int, default=_SESSIONS, metavar="N", help=f"at once (default: {_SESSIONS})"
    )
    parser.add_argument(
        "--max-upload-mb",
        type=int,
        default=_UPLOAD_MB,
        metavar="MB",
        help=f"of a session's files (default: {_UPLOAD_MB})",
    )
    parser.set_defaults(command=_serve)


def _serve(options: argparse.Namespace) -> None:
    _require_options(options)
    if options.library is None and (library := default_of("library")):
        options.library = library_location(library)
    options.model = options.model or model_for(options.library)
    find_bundle(options.model)
    with ExitStack() as stack:
        runners: Sequence[InferenceRunner] = ()
        if options.ray:
            from LesionLensApp.serve.replicas import replicas

            notify("lesionlens: the models are being started on Ray …", sys.stderr)
            runners = stack.enter_context(replicas(options.ray, count=options.replicas, device=options.device))
        _listen(options, runners)


def _listen(options: argparse.Namespace, runners: Sequence[InferenceRunner]) -> None:
    """The server, until it is ended."""
    # Late: what is mistyped is refused at once.
    import uvicorn

    from LesionLensApp.serve.access import new_token
    from LesionLensApp.serve.app import Settings, build_app

    listening = _listening(options.host or _LOOPBACK, options.port)
    port = listening.getsockname()[1]
    names = [*options.name, *_names_of(options.host)] if options.host else list(options.name)
    settings = Settings(
        token=new_token(), model=str(options.model), device=options.device, folder=options.folder, library=options.library,
        key=options.key, names=names, idle_s=60 * options.idle_minutes, max_sessions=options.max_sessions,
        max_upload=options.max_upload_mb * 1024**2,
    )  # fmt: skip
    config = uvicorn.Config(
        build_app(settings, runners=runners), log_level="critical", access_log=False, server_header=False, lifespan="on",
        ssl_certfile=options.tls_cert, ssl_keyfile=options.tls_key, timeout_graceful_shutdown=3, ws="none",
    )  # fmt: skip
    scheme = "https" if options.tls_cert else "http"
    shown = options.name[0] if options.name else options.host or _LOOPBACK
    shown = f"[{shown}]" if ":" in shown else shown
    notify(f"{scheme}://{shown}:{port}/#token={settings.token}")
    notify(f"Open this address in a browser, or give it to Slicer; Ctrl-C ends the server. {NOTICE}")
    sys.stdout.flush()
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:  # the server has ended all sessions by now
        notify("lesionlens: the server has ended; nothing of its sessions is left.", sys.stderr)


def _require_options(options: argparse.Namespace) -> None:
    """Refuse what could not be served, or not safely. Raises `LesionLensError`."""
    if find_spec("uvicorn") is None or find_spec("starlette") is None:
        msg = "serve needs Starlette and Uvicorn: pip install 'lesionlens[serve]'."
        raise LesionLensError(msg)
    tls = (options.tls_cert, options.tls_key)
    if (tls[0] is None) != (tls[1] is None):
        msg = "--tls-cert and --tls-key go together; give both files."
        raise LesionLensError(msg)
    if options.host and not _is_loopback(options.host) and tls[0] is None:
        msg = (
            f"--host {options.host}: other computers could read what is sent; give --tls-cert and --tls-key, or leave --host out "
            "and reach the server from this computer only."
        )
        raise LesionLensError(msg)
    for path in tls:
        if path is not None and not path.is_file():
            msg = f"{path} does not exist; give the certificate and its key as .pem files."
            raise LesionLensError(msg)
    if tls[0] is not None:
        _require_pair(*tls)
    if options.folder is not None and not options.folder.is_dir():
        msg = f"{options.folder} is no folder; give the folder whose files may be opened."
        raise LesionLensError(msg)
    _require_ray(options)
    numbers = (0 <= options.port < 2**16, options.idle_minutes > 0, options.max_sessions > 0, options.max_upload_mb > 0)
    if not all(numbers):
        msg = (
            f"--port is {options.port} (0 to 65535), --idle-minutes {options.idle_minutes:g}, --max-sessions "
            f"{options.max_sessions} and --max-upload-mb {options.max_upload_mb} (all above 0)."
        )
        raise LesionLensError(msg)


def _require_ray(options: argparse.Namespace) -> None:
    if options.replicas is not None and not options.ray:
        msg = "--replicas goes with --ray; leave it out, or give --ray local."
        raise LesionLensError(msg)
    if not options.ray:
        return
    if find_spec("ray") is None or find_spec("pydantic") is None:  # the latter: Ray without its part Serve
        msg = "--ray needs Ray Serve: pip install 'lesionlens[ray]'."
        raise LesionLensError(msg)
    if "://" in options.ray:
        msg = (
            f"--ray {options.ray}: Ray Serve asks from a node of the cluster; start the server there, with --ray auto."
        )
        raise LesionLensError(msg)
    if options.device.startswith("cuda:"):
        msg = (
            f"--device {options.device}: Ray gives each replica a GPU of its own; give --device cuda, or leave it out."
        )
        raise LesionLensError(msg)
    if options.replicas is not None and options.replicas < 1:
        msg = f"--replicas is {options.replicas}; give 1 or more."
        raise LesionLensError(msg)


def _require_pair(certificate: Path, key: Path) -> None:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        msg = f"{certificate} and {key} are no certificate and its key ({error}); give both as .pem files."
        raise LesionLensError(msg) from error


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _names_of(host: str) -> list[str]:
    """By which this computer is reached under ``--host``: that itself; where it means all addresses, its own name."""
    try:
        is_any = ip_address(host).is_unspecified
    except ValueError:
        is_any = False
    names = [socket.gethostname(), socket.getfqdn()] if is_any else [host]
    return [f"[{name}]" if ":" in name else name for name in names]


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        msg = f"{host}, port {port} cannot be listened at ({error.strerror or error}); choose another --port, or 0 for any."
        raise LesionLensError(msg) from error
    listening.set_inheritable(False)
    return listening
