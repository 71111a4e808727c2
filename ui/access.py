"""Who may talk to the server: this computer, or whoever has the token."""

from __future__ import annotations

import hmac
import ipaddress
import os
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

TOKEN = "ASSEMBLER_TOKEN"
REFUSAL = "This page wants the token that `assembler ui` printed: open the address as it stands there.\n"


def is_loopback(host: str) -> bool:
    """Whether an address or host name means this computer alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.casefold() == "localhost"


class Guard:
    """ASGI middleware before everything else, uploads and the websocket too.

    With a token: it comes once in the address, is kept in a cookie of this site, and nothing is answered without it.
    Without one: only callers on this computer that name it so, since a page elsewhere may point its own name here.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.token = os.environ.get(TOKEN, "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        answer = self._answer(scope)
        if answer is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer(scope, receive, send)

    def _answer(self, scope: Scope) -> Response | None:
        """None to go on; else what to say instead."""
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        if not self.token:
            host = headers.get("host", "")
            name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
            caller = (scope.get("client") or ("",))[0]
            return None if is_loopback(name) and is_loopback(caller) else PlainTextResponse(REFUSAL, 403)
        if self._same(_cookie(headers.get("cookie", ""))):
            return None
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        if scope["type"] == "http" and any(key == "token" and self._same(value) for key, value in query):
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            answer = RedirectResponse("/" + scope["path"].lstrip("/\\") + (f"?{rest}" if rest else ""), 303)
            answer.set_cookie(TOKEN, self.token, httponly=True, samesite="strict")
            return answer
        return PlainTextResponse(REFUSAL, 403)

    def _same(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self.token.encode())


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(TOKEN)
    except CookieError:
        return ""
    return found.value if found else ""
