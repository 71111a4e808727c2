"""Chat messages to a bundle's sample: texts to the prompt's columns, media to its inputs, by guarded readers alone."""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from assembler.bundle.manifest import Manifest
from assembler.errors import AssemblerError
from assembler.readers import READERS
from assembler.serving.engine import key_of
from assembler.serving.limits import Limits
from assembler.serving.protocol import AudioPart, ChatRequest, FilePart, ImagePart, Part, TextPart

SUFFIXES = {"points": (".ply", ".obj", ".stl", ".glb", ".npy", ".off", ".wrl"), "expression": (".h5ad",)}
SUFFIXES |= {"video": (".gif", ".webp"), "audio": (".wav", ".flac", ".ogg", ".mp3"), "image": (".png", ".jpg", ".jpeg")}
Named = tuple[str, bytes]
"""The suffix of a file and what is in it."""


class BadRequest(AssemblerError):
    """A request that cannot be answered as it is; the sentence says what to change."""


def sample_of(body: ChatRequest, manifest: Manifest, limits: Limits) -> tuple[dict[str, Any], dict[str, str]]:
    """The sample of a request, and the keys of its media.

    Raises:
        BadRequest: the messages do not give what the bundle takes, or a medium cannot be read.
    """
    if len(body.messages) > limits.messages:
        raise BadRequest(f"{len(body.messages)} messages; at most {limits.messages} are taken")
    parts = [part for message in body.messages for part in message.parts]
    sample: dict[str, Any] = _texts(body, manifest, limits)
    media = [part for part in parts if not isinstance(part, TextPart)]
    if len(media) > limits.media:
        raise BadRequest(f"{len(media)} pictures, sounds and files; at most {limits.media} are taken")
    left = {name: item.processor.kind for name, item in manifest.inputs.items() if item.processor.kind != "text"}
    keys = {}
    for part in media:
        kind, (suffix, content) = _medium(part, left, limits)
        name = next((name for name in left if left[name] == kind), None)
        if name is None:
            takes = ", ".join(f"{n} ({k})" for n, k in left.items()) or "nothing more"
            raise BadRequest(f"there is no place for another {kind}; the model still takes {takes}")
        del left[name]
        sample[name], keys[name] = read_medium(name, kind, suffix, content, limits), key_of(content)
    if left:
        raise BadRequest(f"the model also takes {', '.join(f'{n} ({k})' for n, k in left.items())}; add it")
    return sample, keys


def _texts(body: ChatRequest, manifest: Manifest, limits: Limits) -> dict[str, Any]:
    """Texts for the prompt's columns: what was named, and the messages' own words for the one that is left."""
    wanted = [part.column for part in manifest.prompt if part.column is not None]
    wanted += [name for name, item in manifest.inputs.items() if item.processor.kind == "text" and name not in wanted]
    unknown = sorted(set(body.columns) - set(wanted))
    if unknown:
        raise BadRequest(f"`columns` names {unknown[0]}, and the prompt has {', '.join(wanted) or 'none'}")
    words = spoken(body)
    if len((words + "".join(body.columns.values())).encode()) > limits.text_bytes:
        raise BadRequest(f"the texts have more than {limits.text_bytes:,} bytes; make them shorter")
    left = [name for name in wanted if name not in body.columns]
    if len(left) > 1:
        raise BadRequest(f"the prompt has the texts {', '.join(left)}; give all but one of them in `columns`")
    if words and not left:
        raise BadRequest("the prompt has no place for words; leave the text out")
    return {**body.columns, **dict.fromkeys(left, words)}


def spoken(body: ChatRequest) -> str:
    """The words of a conversation: the last message's, after those before it, each with its speaker."""
    said = [(m.role, "\n".join(p.text for p in m.parts if isinstance(p, TextPart))) for m in body.messages]
    *before, (_, last) = said
    return "\n".join([*(f"{role}: {text}" for role, text in before if text), last])


def _medium(part: Part, wanted: Mapping[str, str], limits: Limits) -> tuple[str, Named]:
    """The kind of a part and its bytes."""
    if isinstance(part, ImagePart):
        return "image", _picture(part.image_url.url, limits)
    if isinstance(part, AudioPart):
        return "audio", (f".{part.input_audio.format}", _base64(part.input_audio.data))
    assert isinstance(part, FilePart)
    suffix = Path(part.file.filename).suffix.lower()
    kinds = [kind for kind, suffixes in SUFFIXES.items() if suffix in suffixes]
    kind = next((kind for kind in kinds if kind in wanted.values()), None)
    if kind is None:
        takes = ", ".join(sorted(set(wanted.values()))) or "nothing more"
        raise BadRequest(f"a file that ends in {suffix or 'nothing'} is not what the model takes ({takes})")
    data = part.file.file_data
    return kind, (suffix, _data_url(data)[1] if data.startswith("data:") else _base64(data))


def _picture(url: str, limits: Limits) -> Named:
    if url.startswith("data:"):
        return _data_url(url)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise BadRequest("a picture comes as a data URL: data:image/png;base64,...")
    if parts.hostname not in limits.hosts:
        raise BadRequest("this server fetches no picture from there; send it as a data URL")
    return Path(parts.path).suffix.lower(), fetched(url, limits)


def fetched(url: str, limits: Limits) -> bytes:
    """What lies at a URL whose host is allowed; no redirection is followed.

    Raises:
        BadRequest: it does not come, is too large or takes too long.
    """
    import httpx

    try:
        with httpx.stream("GET", url, timeout=limits.fetch_seconds, follow_redirects=False) as answer:
            if answer.status_code != 200:
                raise BadRequest(f"the picture's host answered {answer.status_code}; send the picture as a data URL")
            content = b""
            for piece in answer.iter_bytes():
                content += piece
                if len(content) > limits.body_bytes:
                    raise BadRequest(f"the picture has more than {limits.body_bytes:,} bytes")
            return content
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BadRequest(f"the picture could not be fetched ({type(error).__name__}); send it as a data URL") from error


def _data_url(url: str) -> Named:
    head, comma, data = url.removeprefix("data:").partition(",")
    if not comma:
        raise BadRequest("the data URL has no comma; write data:image/png;base64,...")
    kind = head.partition(";")[0]
    suffix = "." + kind.rpartition("/")[2].lower()
    return suffix, _base64(data) if head.endswith(";base64") else unquote_to_bytes(data)


def _base64(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"a medium is not valid base64 ({error})") from error


def read_medium(name: str, kind: str, suffix: str, content: bytes, limits: Limits) -> Any:
    """The raw sample in a file's bytes, by the reader of its kind.

    Raises:
        BadRequest: it cannot be read, or is larger than is taken.
    """
    safe = suffix if suffix[1:].isalnum() and len(suffix) < 10 else ""
    with tempfile.TemporaryDirectory(prefix="assembler-") as folder:
        path = Path(folder) / f"{name}{safe}"
        path.write_bytes(content)
        if kind == "image":
            _check_pixels(name, path, limits)
        try:
            found = READERS[kind](path)
        except AssemblerError as error:
            raise BadRequest(f"{name}: {str(error).replace(str(path), 'what was sent')}") from error
    if kind == "audio" and found.seconds > limits.audio_seconds:
        raise BadRequest(f"{name}: {found.seconds:.0f} s of sound; at most {limits.audio_seconds:g} s are taken")
    return found


def _check_pixels(name: str, path: Path, limits: Limits) -> None:
    """Refuse a picture by the size it says it has, before its pixels are made."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            pixels = image.width * image.height
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadRequest(f"{name}: what was sent is no picture that can be opened") from error
    if pixels > limits.pixels:
        raise BadRequest(f"{name}: {pixels:,} pixels; at most {limits.pixels:,} are taken")
