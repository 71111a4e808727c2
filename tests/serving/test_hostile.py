"""Whatever is sent, the server answers with a sentence, stays up, and touches nothing outside: requests drawn from its
own OpenAPI document, and two thousand that are meant to hurt."""

import base64
import io
import json
import logging
import random
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis import checks

from tests.serving.test_http import Running, bomb, image_of, messages

COUNT, CLIENTS = 2000, 4
CONFORMS = ("status_code_conformance", "content_type_conformance", "response_schema_conformance")
HARMLESS = {200, 400, 404, 405, 408, 413, 422, 429}
NASTY = ["", "\x00", "../../etc/passwd", "file:///etc/shadow", "\ud800", "A" * 5000, "{photo}", "<|im_end|>", "💥" * 50]
NASTY += [None, True, -1, 10**400, 1e308, [], {}, [[]], {"type": "text"}, [{"type": "image_url"}], {"$ref": "#"}]
URLS = ["http://127.0.0.1:{port}/metrics", "https://localhost/x.png", "http://[::1]/x", "//evil/x.png", "gopher://x/1"]
URLS += [
    "http://127.0.0.1:{port}@evil.test/x",
    "data:text/html,<script>",
    "data:image/png;base64",
    "data:,",
    "data:;,%",
]
URLS += ["data:image/../../x;base64,AA==", "file://localhost/etc/hosts", "http://169.254.169.254/", "ftp://127.0.0.1/a"]
SUFFIXES = ["png", "svg+xml", "gif", "tiff", "webp", "bmp", "x-icon", "../x", "PNG", "jpeg2000", "avif", "eps", "pdf"]


@pytest.fixture(scope="module")
def server(folders) -> Iterator[Running]:
    running = Running(folders["in_place"])
    yield running
    running.stop()


def test_requests_drawn_from_its_own_document_are_answered_as_the_document_says(server):
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    wanted = [checks.not_a_server_error, *map(checks.CHECKS.get_one, CONFORMS)]
    for found in document.get_all_operations():
        operation = found.ok()

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def answered(case):
            case.call_and_validate(checks=wanted)

        answered()


def damaged(drawn: random.Random, content: bytes) -> bytes:
    """The bytes cut, doubled, zeroed or with some of them changed."""
    at = drawn.randrange(len(content))
    return drawn.choice(
        [
            content[:at],
            content[:at] + bytes(drawn.randrange(1, 64)) + content[at:],
            content[:at] + bytes([content[at] ^ (1 << drawn.randrange(8))]) + content[at + 1 :],
            content + content,
            drawn.randbytes(len(content)),
        ]
    )


def pictures() -> list[bytes]:
    """Small files of many formats."""
    found = []
    for form in ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm"):
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file, form)
        found.append(file.getvalue())
    return found


def mangled(drawn: random.Random, tree: object) -> object:
    """A copy of a JSON tree in which one place holds something else."""
    if isinstance(tree, dict) and tree and drawn.random() < 0.85:
        key = drawn.choice(list(tree))
        if drawn.random() < 0.15:
            return {name: item for name, item in tree.items() if name != key}
        return {**tree, key: mangled(drawn, tree[key])}
    if isinstance(tree, list) and tree and drawn.random() < 0.85:
        at = drawn.randrange(len(tree))
        return [*tree[:at], mangled(drawn, tree[at]), *tree[at + 1 :]]
    return drawn.choice(NASTY)


def hostile(drawn: random.Random, port: int, files: list[bytes]) -> bytes:
    """The body of one request that is meant to hurt."""
    good = {"messages": messages(drawn.randrange(3)), "max_tokens": 1, "temperature": 0.5, "stop": ["x"], "seed": 1}
    kind = drawn.randrange(6)
    if kind == 0:
        return damaged(drawn, json.dumps(good).encode())
    if kind == 1:
        content = damaged(drawn, drawn.choice(files))
        body: object = image_of(f"data:image/{drawn.choice(SUFFIXES)};base64,{base64.b64encode(content).decode()}")
    elif kind == 2:
        body = image_of(drawn.choice(URLS).format(port=port))
    elif kind == 3:
        body = {
            **good,
            drawn.choice(["n", "tools", "logit_bias", "columns", "model", "stop", "x"]): drawn.choice(NASTY),
        }
    elif kind == 4 and drawn.random() < 0.1:
        body = image_of(bomb())
    else:
        body = mangled(drawn, good)
    return json.dumps(body).encode("utf-8", "surrogatepass")


class Watch:
    """What the process opens and whom it calls, while it is on; hooks stay for good, so there is one."""

    def __init__(self, allowed: list[Path]) -> None:
        self.on, self.seen, self.allowed, self.port = False, [], [str(path) for path in allowed], 0
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        if event == "open" and isinstance(arguments[0], str) and not arguments[0].startswith(tuple(self.allowed)):
            self.seen.append(f"open {arguments[0]}")
        elif event in ("socket.connect", "socket.getaddrinfo"):
            target = arguments[1] if event == "socket.connect" else arguments[:2]
            if self.port not in target:
                self.seen.append(f"{event} {target}")
        elif event in ("os.system", "subprocess.Popen", "exec"):
            self.seen.append(event)


def test_two_thousand_hostile_requests_do_no_harm(server, folders, caplog):
    watch = Watch(
        [Path(sys.prefix), Path(sys.base_prefix), folders["in_place"], Path(tempfile.gettempdir()) / "assembler-"]
    )
    watch.port, files = server.port, pictures()

    def send(client_number: int) -> list[str]:
        drawn, wrong = random.Random(client_number), []
        line = HTTPConnection("127.0.0.1", server.port, timeout=30)  # lighter than httpx, which takes half of the time
        for _ in range(COUNT // CLIENTS):
            body = hostile(drawn, server.port, files)
            line.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
            answer = line.getresponse()
            text = answer.read().decode()
            told = answer.status == 200 or json.loads(text)["error"]["message"]
            leaks = [word for word in ("Traceback", "site-packages", tempfile.gettempdir()) if word in text]
            if answer.status not in HARMLESS or leaks or not told:
                wrong.append(f"{answer.status} {text[:300]} to {body[:300]!r}")
        line.close()
        return wrong

    post = httpx.post(f"{server.url}/v1/chat/completions", json={"messages": messages(0), "max_tokens": 1})
    assert post.status_code == 200  # what is imported at the first request is imported now
    watch.on = True
    with caplog.at_level(logging.ERROR), ThreadPoolExecutor(CLIENTS) as pool:
        wrong = [line for lines in pool.map(send, range(CLIENTS)) for line in lines]
    watch.on = False
    assert wrong == []
    assert sorted(set(watch.seen)) == []
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    assert httpx.get(f"{server.url}/ready").status_code == 200
