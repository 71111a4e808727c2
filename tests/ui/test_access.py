"""Who gets an answer: this computer, or whoever has the token; not a page elsewhere that points its name here."""

import pytest

from ui.access import TOKEN, Guard, is_loopback


def status(guard: Guard, kind: str = "http", **scope) -> tuple[int | str, dict[str, str]]:
    """What a request is answered with: a status, or `through`; and the headers."""
    headers = {"host": "127.0.0.1:8501", **scope.pop("headers", {})}
    found = {
        "type": kind,
        "path": "/",
        "method": "GET",
        "query_string": b"",
        "client": ("127.0.0.1", 5000),
        "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
        **scope,
    }
    sent: list[dict] = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    finish(guard(found, receive, send))
    if not sent:
        return "through", {}
    if sent[0]["type"] == "websocket.close":
        return "closed", {}
    return sent[0]["status"], {key.decode(): value.decode() for key, value in sent[0]["headers"]}


def finish(coroutine) -> None:
    """Run what waits for nothing to its end, whatever loop the browser's tests have going."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


async def inner(scope, receive, send):
    """The app behind the guard: it says nothing."""


@pytest.fixture
def open_guard(monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    return Guard(inner)


@pytest.fixture
def guard(monkeypatch):
    monkeypatch.setenv(TOKEN, "right")
    return Guard(inner)


@pytest.mark.parametrize("host", ["127.0.0.1:8501", "localhost:1", "[::1]:8501", "127.0.0.1", "LOCALHOST"])
def test_without_a_token_this_computer_is_let_in(open_guard, host):
    assert status(open_guard, headers={"host": host})[0] == "through"
    assert status(open_guard, "websocket", headers={"host": host})[0] == "through"


@pytest.mark.parametrize(
    "scope",
    [
        {"headers": {"host": "evil.example:8501"}},
        {"headers": {"host": "localhost.evil.example"}},
        {"headers": {"host": ""}},
        {"client": ("10.0.0.7", 5000)},
        {"client": None},
    ],
)
def test_without_a_token_nobody_else_is(open_guard, scope):
    assert status(open_guard, **scope)[0] == 403
    assert status(open_guard, "websocket", **scope)[0] == "closed"


def test_the_token_comes_once_in_the_address_and_then_in_a_cookie(guard):
    code, headers = status(guard, path="/train", query_string=b"token=right&run=a%26b")
    assert code == 303 and headers["location"] == "/train?run=a%26b"
    assert "HttpOnly" in headers["set-cookie"] and "SameSite=strict" in headers["set-cookie"]
    cookie = {"cookie": headers["set-cookie"].split(";")[0], "host": "box:8501"}
    assert status(guard, headers=cookie, client=("10.0.0.7", 1))[0] == "through"
    assert status(guard, "websocket", headers=cookie, client=("10.0.0.7", 1))[0] == "through"


@pytest.mark.parametrize(
    "scope",
    [
        {},
        {"query_string": b"token=wrong"},
        {"query_string": b"token="},
        {"query_string": "token=ri\u00dfht".encode()},
        {"headers": {"cookie": f"{TOKEN}=wrong"}},
        {"headers": {"cookie": "\x00;;="}},
        {"path": "/_stcore/upload_file/a/b", "method": "PUT"},
        {"path": "/bundles/a.zip"},
        {"path": "/_stcore/health"},
    ],
)
def test_with_a_token_nothing_is_answered_without_it(guard, scope):
    assert status(guard, **scope)[0] == 403
    assert status(guard, "websocket", **scope)[0] == "closed"


def test_a_right_token_in_the_address_opens_no_websocket(guard):
    assert status(guard, "websocket", query_string=b"token=right")[0] == "closed"


def test_loopback_is_told_from_what_looks_like_it():
    assert is_loopback("127.0.0.2") and is_loopback("::1")
    assert not is_loopback("0.0.0.0") and not is_loopback("127.0.0.1.example") and not is_loopback("")
