"""Run a server: logs as JSON lines, loopback unless told otherwise, a graceful end."""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

from assembler.errors import AssemblerError
from assembler.serving.limits import Limits, read_keys


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def serve(folder: Path, host: str, port: int, limits: Limits, keys: Path | None, providers: list[str] | None) -> None:
    """Serve a bundle until the process is asked to stop.

    Raises:
        AssemblerError: the bundle is not whole, the keys cannot be read, or an address that others reach has no keys.
    """
    import uvicorn

    from assembler.serving.app import create_app
    from assembler.serving.model import Model

    try:
        known = read_keys(keys) if keys is not None else []
    except (OSError, UnicodeDecodeError) as error:
        raise AssemblerError(f"{keys} cannot be read ({error}); give a text file with one key a line") from error
    if keys is not None and not known:
        raise AssemblerError(f"{keys} holds no key; write one a line")
    if not known and not _loopback(host):
        raise AssemblerError(f"--host {host} is reached by others; give --keys FILE, with one API key a line")
    line = _listening(host, port)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    app = create_app(Model(folder, limits, providers), limits, known)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=int(limits.request_seconds),
        h11_max_incomplete_event_size=64 * 1024,
    )
    logging.getLogger("assembler.serve").info("listening", extra={"fields": {"url": _url(line)}})
    uvicorn.Server(config).run([line])


def _listening(host: str, port: int) -> socket.socket:
    """The socket that requests come to, taken before a bundle is loaded in vain."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or str(error)
        raise AssemblerError(f"{host}:{port} cannot be listened on ({reason}); choose another --port") from error


def _url(line: socket.socket) -> str:
    host, port = line.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
