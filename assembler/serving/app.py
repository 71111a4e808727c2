"""The HTTP interface of a bundle: OpenAI's chat completions, with health, metrics and limits around them."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assembler.errors import AssemblerError
from assembler.serving import engine as serving
from assembler.serving.chat import BadRequest, sample_of
from assembler.serving.engine import DONE, Answer, Busy, TooLong
from assembler.serving.limits import Limits
from assembler.serving.metrics import Metrics
from assembler.serving.model import Model
from assembler.serving.protocol import ChatRequest, Choice, Completion, Failure, Usage, chunk, new_id
from assembler.serving.sampling import Sampling

RETRY_AFTER = 1
OPEN = ("/health", "/ready")
"""What is answered without a key."""
log = logging.getLogger("assembler.serve")
ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": Failure} for code in (400, 401, 404, 408, 413, 422, 429, 503, 504)
}


def create_app(model: Model, limits: Limits, keys: list[str] | None = None) -> FastAPI:
    """The application that serves a model; with `keys`, only to who has one of them."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with model.watched():
            yield
        await run_in_threadpool(model.close)

    app = FastAPI(title="assembler", description="A multimodal model behind OpenAI's interface.", lifespan=lifespan)
    metrics = Metrics(model)
    _routes(app, model, limits, metrics)
    _failures(app)
    app.add_middleware(Guard, limits=limits, keys=keys or [], metrics=metrics)
    return app


def _routes(app: FastAPI, model: Model, limits: Limits, metrics: Metrics) -> None:
    @app.get("/health", summary="Whether the process is alive")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", summary="Whether it takes requests", responses={503: {"model": Failure}})
    async def ready() -> dict[str, str]:
        if model.closing:
            raise HTTPException(503, "shutting down")
        return {"status": "ready", "model": model.name}

    @app.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def expose() -> Response:
        return Response(metrics.exposed(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models", summary="The model that is served, by itself and as MODEL:ADAPTER with each of its LoRAs")
    async def models() -> dict[str, Any]:
        about = {"object": "model", "created": model.loaded, "owned_by": "assembler"}
        return {"object": "list", "data": [{"id": name, **about} for name in model.names]}

    @app.post("/v1/chat/completions", summary="Answer a conversation", response_model=Completion, responses=ERRORS)
    async def chat(body: ChatRequest, request: Request) -> Any:
        if body.model and body.model not in model.names:
            raise HTTPException(404, f"there is no model {body.model[:80]!r}; this server has {', '.join(model.names)}")
        engine = model.engine
        sample, sample_keys = await run_in_threadpool(sample_of, body, model.manifest, limits)
        wanted = min(body.limit or model.manifest.max_new_tokens, limits.new_tokens)
        asked = serving.Request(
            sample,
            sample_keys,
            wanted,
            Sampling(body.temperature, body.top_p, body.seed),
            body.stop_words,
            limits.request_seconds,
            model.names.get(body.model),
        )
        loop, came = asyncio.get_running_loop(), asyncio.Event()

        def listen() -> None:
            loop.call_soon_threadsafe(came.set)

        answer = engine.submit(asked, listen)
        pieces = _pieces(answer, came)
        ident = new_id()
        if not body.stream:
            return await _whole(request, answer, pieces, ident, body.model or model.name, metrics)
        first = await anext(pieces, None)  # what is wrong is told before the stream begins
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return StreamingResponse(
            _stream(answer, first, pieces, ident, body.model or model.name, usage, metrics),
            media_type="text/event-stream",
        )


async def _pieces(answer: Answer, came: asyncio.Event) -> AsyncIterator[str]:
    """The pieces of an answer as they come; one that nobody reads any more is cancelled."""
    try:
        while True:
            await came.wait()
            came.clear()
            while not answer.pieces.empty():
                piece = answer.pieces.get_nowait()
                if piece is DONE:
                    if answer.error is not None:
                        raise answer.error
                    return
                yield piece
    finally:
        answer.cancel()


async def _whole(
    request: Request, answer: Answer, pieces: AsyncIterator[str], ident: str, name: str, metrics: Metrics
) -> Completion:
    async def leave_when_gone() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(0.25)
        answer.cancel()

    watch = asyncio.create_task(leave_when_gone())
    try:
        text = "".join([piece async for piece in pieces])
    finally:
        watch.cancel()
    metrics.answered(answer)
    if answer.reason == "timeout":
        raise HTTPException(504, "the answer took too long; ask for fewer tokens")
    message: dict[str, str | None] = {"role": "assistant", "content": text, "refusal": None}
    choice = Choice(message=message, finish_reason=_reason(answer))
    return Completion(id=ident, created=int(time.time()), model=name, choices=[choice], usage=_usage(answer))


async def _stream(
    answer: Answer,
    first: str | None,
    pieces: AsyncIterator[str],
    ident: str,
    name: str,
    usage: bool,
    metrics: Metrics,
) -> AsyncIterator[str]:
    def event(item: dict[str, Any]) -> str:
        return f"data: {json.dumps(item, ensure_ascii=False)}\n\n"

    try:
        yield event(chunk(ident, name, {"role": "assistant", "content": first or ""}))
        async for piece in pieces:
            yield event(chunk(ident, name, {"content": piece}))
        yield event(chunk(ident, name, {}, _reason(answer)))
        if usage:
            yield event({**chunk(ident, name, {}), "choices": [], "usage": _usage(answer).model_dump()})
        yield "data: [DONE]\n\n"
    except AssemblerError as error:  # the status is sent already; the stream says it
        log.error("an answer broke off", extra={"fields": {"id": ident, "error": str(error)}})
        yield event({"error": {"message": "the answer broke off", "type": "server_error"}})
    finally:
        answer.cancel()
        metrics.answered(answer)


def _reason(answer: Answer) -> str:
    """OpenAI's word for the end of an answer."""
    return "stop" if answer.reason == "stop" else "length"


def _usage(answer: Answer) -> Usage:
    total = answer.prompt_tokens + answer.answer_tokens
    return Usage(
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.answer_tokens,
        total_tokens=total,
        prompt_tokens_details={"cached_tokens": answer.cached_tokens},
    )


def failure(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as OpenAI's clients read it."""
    kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
    if status == 429:
        kind = "rate_limit_error"
    message = message.encode("utf-8", "replace").decode()  # what was sent may hold half a character
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status, headers)


def _failures(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(key) for key in first["loc"][1:])[:200]
        return failure(422, f"{where or 'the body'}: {str(first['msg']).removeprefix('Value error, ')[:500]}")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return failure(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(AssemblerError)
    async def told(request: Request, error: AssemblerError) -> JSONResponse:
        if isinstance(error, Busy):
            return failure(429, str(error), {"Retry-After": str(RETRY_AFTER)})
        if isinstance(error, BadRequest | TooLong):
            return failure(400, str(error))
        return failure(400, f"the model cannot take this: {error}")


class Guard:
    """What stands before every route: keys, the size and the time of a body, a request id, a line of log."""

    def __init__(self, app: ASGIApp, limits: Limits, keys: list[str], metrics: Metrics) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self.keys = [sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.monotonic(), [0]
        headers = {key.decode("latin-1"): item.decode("latin-1") for key, item in scope["headers"]}
        given = headers.get("x-request-id", "")
        ident = given if given and len(given) <= 100 and given.isprintable() else new_id()

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", ident.encode("latin-1"))]}
            await send(message)

        try:
            await self._admit(scope, headers, receive, sent)
        finally:
            took = time.monotonic() - begun
            self.metrics.responded(scope["path"], status[0], took)
            fields = {"id": ident, "method": scope["method"], "path": scope["path"], "status": status[0]}
            log.info("request", extra={"fields": {**fields, "seconds": round(took, 4)}})

    async def _admit(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        if scope["path"] not in OPEN and not self._known(headers.get("authorization", "")):
            refusal = failure(401, "give an API key: Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
            return
        try:
            body = await self._body(receive) if scope["method"] in ("POST", "PUT", "PATCH") else None
        except HTTPException as error:
            await failure(error.status_code, str(error.detail))(scope, receive, send)
            return
        await self.app(scope, receive if body is None else _replayed(body, receive), send)

    def _known(self, authorization: str) -> bool:
        """Whether no key is asked for, or one of them is given; each is compared, in the same time."""
        digest = sha256(authorization.removeprefix("Bearer ").encode("utf-8", "surrogateescape")).digest()
        matches = [hmac.compare_digest(digest, key) for key in self.keys]
        return not self.keys or any(matches)

    async def _body(self, receive: Receive) -> bytes:
        """The whole body, of at most so many bytes in so many seconds."""
        body = b""

        async def read() -> bytes:
            nonlocal body
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise HTTPException(400, "the connection was closed in the middle of the request")
                body += message.get("body", b"")
                if len(body) > self.limits.body_bytes:
                    raise HTTPException(413, f"the request has more than {self.limits.body_bytes:,} bytes")
                if not message.get("more_body", False):
                    return body

        try:
            return await asyncio.wait_for(read(), self.limits.body_seconds)
        except TimeoutError:
            raise HTTPException(408, f"the request took more than {self.limits.body_seconds:g} s to arrive") from None


def _replayed(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """A body that was read, for those who read it again; then whatever follows it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again
