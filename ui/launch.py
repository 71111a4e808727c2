"""Start the server of the page."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

from assembler.errors import AssemblerError
from ui.access import TOKEN, is_loopback
from ui.workspace import SPEC, WORKSPACE


def serve(spec: Path | None, workspace: Path, address: str, port: int) -> None:
    """Serve the page until it is interrupted; on another address than this computer's only to who has the token.

    Raises:
        AssemblerError: the spec is not there, or the port is taken.
    """
    if spec is not None and not spec.is_file():
        raise AssemblerError(f"{spec} is not there; check the path, or leave it out to start with an empty canvas")
    port = _free(address, port)
    os.environ[WORKSPACE] = str(workspace.resolve())
    os.environ.pop(SPEC, None)
    if spec is not None:
        os.environ[SPEC] = str(spec.resolve())
    if is_loopback(address):
        os.environ.pop(TOKEN, None)
        print(f"assembler: http://{address}:{port}", flush=True)
    else:
        token = os.environ.setdefault(TOKEN, secrets.token_urlsafe(24))
        print(f"assembler: http://{address}:{port}/?token={token}", flush=True)
    from streamlit.web.cli import main

    server = str(Path(__file__).with_name("server.py"))
    flags = ["--server.address", address, "--server.port", str(port), "--logger.hideWelcomeMessage", "true"]
    main(["run", server, *flags], standalone_mode=False)


def _free(address: str, port: int) -> int:
    """The port, or a free one for 0."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise AssemblerError(
                f"{address}:{port} cannot be used ({error.strerror}); choose another --port"
            ) from error
        return int(probe.getsockname()[1])
