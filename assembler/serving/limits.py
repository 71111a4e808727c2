"""What a server lets anybody ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from assembler.errors import AssemblerError
from assembler.suggest import nearest

Count = Annotated[int, Field(ge=1)]


class Limits(BaseModel):
    """Bounds on a request and on the server; each has a default that holds without being asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body_bytes: Count = Field(32 * 2**20, description="size of a request")
    body_seconds: float = Field(30.0, gt=0, description="time for a request to arrive")
    messages: Count = Field(64, description="messages of a request")
    text_bytes: Count = Field(256 * 2**10, description="size of all texts of a request")
    media: Count = Field(8, description="pictures, sounds and files of a request")
    pixels: Count = Field(50_000_000, description="size of a picture")
    audio_seconds: float = Field(300.0, gt=0, description="length of a sound")
    new_tokens: Count = Field(1024, description="longest answer")
    context: Count = Field(2048, description="prompt and answer together, in tokens")
    rows: Count = Field(8, description="requests decoded together")
    waiting: Count = Field(64, description="requests that may wait")
    request_seconds: float = Field(120.0, gt=0, description="time for an answer")
    hosts: tuple[str, ...] = Field((), description="hosts that pictures may be fetched from; none unless named")
    fetch_seconds: float = Field(10.0, gt=0, description="time to fetch a picture")


def read_limits(settings: Sequence[str], hosts: Sequence[str]) -> Limits:
    """Limits from lines such as `new_tokens=256`, and the hosts that pictures may come from.

    Raises:
        AssemblerError: a name is unknown, or a value is none for it.
    """
    values: dict[str, Any] = {"hosts": tuple(hosts)}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in Limits.model_fields or name == "hosts":
            raise AssemblerError(f"--limit {setting}: write NAME=VALUE{nearest(name, Limits.model_fields)}")
        values[name] = text
    try:
        return Limits.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise AssemblerError(f"--limit {first['loc'][0]}: {first['msg'].lower()}") from error


def read_keys(path: Path) -> list[str]:
    """API keys, one a line; empty lines and those that begin with # are none.

    Raises:
        OSError: the file cannot be read.
    """
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
