"""The server as its clients see it: the official client, wrong and hostile requests, a bundle that is replaced."""

import asyncio
import base64
import io
import json
import shutil
import socket
import threading
import time
from functools import cache

import httpx
import numpy as np
import openai
import pytest
import uvicorn

from assembler.bundle.runtime import Bundle
from assembler.check import check
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.export import export
from assembler.serving.app import create_app
from assembler.serving.limits import Limits, read_keys, read_limits
from assembler.serving.model import Model
from assembler.serving.run import serve
from assembler.spec import parse
from tests.serving.conftest import picture, sample

LIMITS = Limits(rows=4, context=256, waiting=6, body_bytes=400_000, body_seconds=1.0, pixels=100_000, text_bytes=2000)
BODY = {"messages": [{"role": "user", "content": "hi"}]}


def data_url(seed: int) -> str:
    file = io.BytesIO()
    picture(seed).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def messages(seed: int) -> list[dict]:
    image = {"type": "image_url", "image_url": {"url": data_url(seed % 3)}}
    return [{"role": "user", "content": [image, {"type": "text", "text": sample(seed)["question"]}]}]


class Running:
    """A server on loopback in a thread."""

    def __init__(self, folder, limits=LIMITS, keys=None):
        self.model = Model(folder, limits)
        config = uvicorn.Config(create_app(self.model, limits, keys), log_level="error", port=0)
        self.server = uvicorn.Server(config)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve([self.socket])))
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self):
        self.server.should_exit = True
        self.thread.join(20)


@pytest.fixture(scope="module")
def server(folders):
    running = Running(folders["in_place"])
    yield running
    running.stop()


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def post(server, body, **more) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    more |= {"headers": {"content-type": "application/json"}, "timeout": 30, "verify": False}  # no certificates to read
    return httpx.post(f"{server.url}/v1/chat/completions", content=content, **more)


def test_the_official_client_asks_about_a_picture(client, server, folders):
    (model,) = client.models.list().data
    answer = client.chat.completions.create(model=model.id, messages=messages(1), max_tokens=8)
    assert answer.choices[0].message.content == Bundle(folders["in_place"]).generate([sample(1)], 8)[0]
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 8


def test_the_official_client_streams(client, folders):
    stream = client.chat.completions.create(
        model="", messages=messages(2), max_tokens=8, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == Bundle(folders["in_place"]).generate([sample(2)], 8)[0]
    assert chunks[-1].usage.completion_tokens == 8 and chunks[-2].choices[0].finish_reason == "length"


def test_many_clients_get_their_own_answers(server, folders):
    bundle, given = Bundle(folders["in_place"]), {}
    wanted = [bundle.generate([sample(seed)], 6)[0] for seed in range(6)]

    async def run() -> None:
        remote = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=8)

        async def one(i: int) -> None:
            done = await remote.chat.completions.create(model="", messages=messages(i % 6), max_tokens=6)
            given[i] = done.choices[0].message.content

        await asyncio.gather(*[one(i) for i in range(24)])

    asyncio.run(run())
    assert [given[i] for i in range(24)] == wanted * 4


def test_earlier_messages_stand_before_the_last(server, folders):
    body = {"messages": [{"role": "system", "content": "be brief"}, *messages(0)], "max_tokens": 4}
    text = post(server, body).json()["choices"][0]["message"]["content"]
    asked = {**sample(0), "question": "system: be brief\n" + sample(0)["question"]}
    assert text == Bundle(folders["in_place"]).generate([asked], 4)[0]


def test_the_openapi_document_and_the_probes_are_there(server):
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    assert set(paths) == {"/health", "/ready", "/metrics", "/v1/models", "/v1/chat/completions"}
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}
    assert httpx.get(f"{server.url}/ready").status_code == 200
    post(server, {"messages": messages(0), "max_tokens": 2})
    text = httpx.get(f"{server.url}/metrics").text
    assert 'assembler_requests_total{path="/v1/chat/completions",status="200"}' in text


def test_a_request_keeps_its_id(server):
    answer = httpx.get(f"{server.url}/health", headers={"x-request-id": "abc"})
    assert answer.headers["x-request-id"] == "abc" and "x-request-id" in httpx.get(f"{server.url}/none").headers


@cache
def bomb() -> str:
    file = io.BytesIO()
    from PIL import Image

    Image.new("1", (5000, 5000)).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def image_of(url: str) -> dict:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


def file_of(name: str) -> dict:
    part = {"type": "file", "file": {"file_data": "AA==", "filename": name}}
    return {"messages": [{"role": "user", "content": [part]}]}


HOSTILE = {
    "no JSON": (b"{", 422),
    "no messages": ({"messages": []}, 422),
    "a role of its own": ({"messages": [{"role": "root", "content": "hi"}]}, 422),
    "no picture": (BODY, 400),
    "two pictures": ({"messages": messages(0) + messages(1)}, 400),
    "bad base64": (image_of("data:image/png;base64,%%%"), 400),
    "a cut picture": (image_of(data_url(0)[:200] + "="), 400),
    "a bomb": (image_of(bomb()), 400),
    "a local file": (image_of("file:///etc/passwd"), 400),
    "a path": (image_of("/etc/passwd"), 400),
    "another host": (image_of("http://127.0.0.1:1/x.png"), 400),
    "metadata of a cloud": (image_of("http://169.254.169.254/latest"), 400),
    "too large": ({"messages": [{"role": "user", "content": "x" * 500_000}]}, 413),
    "too many words": ({"messages": [{"role": "user", "content": "x " * 1500}]}, 400),
    "too long a prompt": ({"messages": [messages(0)[0], {"role": "user", "content": "x " * 600}]}, 400),
    "tools": ({**BODY, "tools": [{"type": "function"}]}, 422),
    "two answers": ({**BODY, "n": 2}, 422),
    "half a character": ({"messages": [{"role": "user", "content": "\ud800"}]}, 422),
    "half a name": ({**BODY, "columns": {"\ud800": "x"}}, 422),
    "another model": ({**BODY, "model": "gpt-4"}, 404),
    "a temperature of a sun": ({**BODY, "temperature": 5800}, 422),
    "no number": (b'{"messages": [{"role": "user", "content": "hi"}], "temperature": NaN}', 422),
    "deep": (b"[" * 100_000, 400),
    "a file elsewhere": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "file", "file": {"file_data": "", "filename": "../a.ply"}}]}
            ]
        },
        422,
    ),
    "a file it does not take": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "file", "file": {"file_data": "AA==", "filename": "a.ply"}}]}
            ]
        },
        400,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_request_that_cannot_be_answered_gets_a_sentence(server, name):
    body, status = HOSTILE[name]
    answer = post(server, body)
    error = answer.json()["error"]
    assert answer.status_code == status and error["message"] and "Traceback" not in answer.text
    assert "/tmp" not in answer.text and httpx.get(f"{server.url}/ready").status_code == 200


def test_a_slow_body_and_a_cut_one_are_ended(server):
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        line.settimeout(10)
        assert b"408" in line.recv(100)
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    assert httpx.get(f"{server.url}/ready").status_code == 200


def test_a_client_that_goes_away_frees_its_row(server):
    body = {"messages": messages(0), "max_tokens": 150, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body) as answer:
        next(answer.iter_lines())
    deadline = time.monotonic() + 10
    while server.model.engine.running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not server.model.engine.running


def test_when_too_many_wait_the_next_is_asked_to_come_later(folders):
    running = Running(folders["in_place"], Limits(rows=1, context=2000, waiting=1))
    try:
        engine = running.model.engine
        held = [engine.submit(request(1900))]
        next(iter(held[0]))  # it is in the only row
        held.append(engine.submit(request(1900)))
        refused = post(running, {"messages": messages(0)})
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        for answer in held:
            answer.cancel()
    finally:
        running.stop()


def request(tokens: int):
    from assembler.serving.engine import Request

    return Request(sample(0), max_new_tokens=tokens)


def test_only_who_has_a_key_is_answered(folders):
    running = Running(folders["in_place"], keys=["one", "two"])
    try:
        url = f"{running.url}/v1/models"
        assert httpx.get(url).status_code == 401
        assert httpx.get(url, headers={"authorization": "Bearer three"}).status_code == 401
        assert httpx.get(url, headers={"authorization": "Bearer two"}).status_code == 200
        assert httpx.get(f"{running.url}/health").status_code == 200
    finally:
        running.stop()


def test_a_new_bundle_takes_over_and_a_broken_one_does_not(folders, tmp_path):
    here = tmp_path / "bundle"
    shutil.copytree(folders["in_place"], here)
    model = Model(here, LIMITS)
    before = model.engine
    (here / "manifest.json").write_text("{}")
    assert not model.reload() and model.engine is before
    shutil.rmtree(here)
    shutil.copytree(folders["grows"], here)
    assert model.reload() and model.engine is not before and not model.engine.joins
    assert model.engine.submit(request(3)).text() == Bundle(here).generate([sample(0)], 3)[0]
    model.close()


def test_an_address_that_others_reach_needs_keys(folders, tmp_path):
    with pytest.raises(AssemblerError, match="give --keys"):
        serve(folders["in_place"], "0.0.0.0", 0, LIMITS, None, None)
    (tmp_path / "keys").write_text("# none\n\n")
    with pytest.raises(AssemblerError, match="holds no key"):
        serve(folders["in_place"], "0.0.0.0", 0, LIMITS, tmp_path / "keys", None)
    (tmp_path / "keys").write_text("# mine\nabc\n")
    assert read_keys(tmp_path / "keys") == ["abc"]


@pytest.mark.parametrize(("setting", "sentence"), [("rows", "NAME=VALUE"), ("row=2", "rows"), ("rows=0", "rows: ")])
def test_a_limit_that_is_none_is_refused(setting, sentence):
    with pytest.raises(AssemblerError, match=sentence):
        read_limits([setting], [])


def test_serving_imports_no_torch():
    import subprocess
    import sys

    code = "import sys, assembler.serving.app; print({'torch', 'transformers', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_official_client_sends_a_sound_and_a_cloud(tmp_path):
    import soundfile

    from assembler.samples import Cloud, Sound
    from tests.serving.conftest import SENSES

    graph = check(parse(SENSES, tmp_path / "senses.yaml")).require()
    draw = np.random.default_rng(0)
    tone = draw.normal(0, 0.1, 4000).astype(np.float32)
    wave, cloud = io.BytesIO(), io.BytesIO()
    soundfile.write(wave, np.stack([tone, tone], 1), 8000, format="wav", subtype="FLOAT")
    points = draw.normal(size=(80, 3)).astype(np.float32)
    np.save(cloud, points)
    row = {"voice": Sound(tone, 8000), "shape": Cloud(points), "question": "what?", "answer": "yes"}
    export(graph, compile_graph(graph), tmp_path / "bundle", "fp32", [row])
    sound = {"data": base64.b64encode(wave.getvalue()).decode(), "format": "wav"}
    file = {"file_data": base64.b64encode(cloud.getvalue()).decode(), "filename": "shape.npy"}
    content = [
        {"type": "text", "text": "what?"},
        {"type": "input_audio", "input_audio": sound},
        {"type": "file", "file": file},
    ]
    running = Running(tmp_path / "bundle")
    try:
        remote = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
        done = remote.chat.completions.create(model="", messages=[{"role": "user", "content": content}], max_tokens=8)
    finally:
        running.stop()
    assert done.choices[0].message.content == Bundle(tmp_path / "bundle").generate([row], 8)[0]


def test_a_port_that_is_taken_is_said_before_the_bundle_is_read(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AssemblerError, match=f"127.0.0.1:{port} cannot be listened on"):
            serve(tmp_path / "no bundle", "127.0.0.1", port, LIMITS, None, None)
