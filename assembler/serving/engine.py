"""Requests to a bundle, answered together: each enters the running batch when a row is free and leaves when it is done.

One thread prepares requests (encoders, prompt), one decodes. A decoder whose cache grows has no rows to join, so its
requests are answered in groups.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from assembler.bundle.prompt import prompt_ids, segments
from assembler.bundle.runtime import Bundle
from assembler.errors import AssemblerError
from assembler.serving.sampling import Sampling, Text
from assembler.serving.slots import Slots

DONE = object()


class Busy(AssemblerError):
    """As many requests wait as may; come again later."""


class TooLong(AssemblerError):
    """A prompt and its answer do not fit the context."""


@dataclass(frozen=True)
class Request:
    """What to answer. `keys` name inputs by what they hold (a digest), so that their features are made once;
    `adapter` is a LoRA of the bundle.
    """

    sample: Mapping[str, Any]
    keys: Mapping[str, str] = field(default_factory=dict)
    max_new_tokens: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    seconds: float = 120.0
    adapter: str | None = None


class Answer:
    """An answer as it comes: iterate over its pieces of text; `reason` is there afterwards.

    Attributes:
        reason: `stop` (an end token or a stop word), `length`, `cancelled` or `timeout`.
        prompt_tokens, answer_tokens, cached_tokens: counts; the last are prompt tokens that needed no work.
        first, done: seconds from the request to its first piece and to its end.
    """

    def __init__(self, request: Request, listen: Callable[[], None] = lambda: None) -> None:
        self.request, self._listen = request, listen
        self.pieces: queue.Queue[Any] = queue.Queue()
        self.reason: str | None = None
        self.error: Exception | None = None
        self.prompt_tokens = self.answer_tokens = self.cached_tokens = 0
        self.begun = time.monotonic()
        self.first: float | None = None
        self.done: float | None = None
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Stop answering; the row is free at the next step."""
        self._cancelled.set()

    @property
    def ends(self) -> str | None:
        """Why it must end now, or None."""
        if self._cancelled.is_set():
            return "cancelled"
        return "timeout" if time.monotonic() - self.begun > self.request.seconds else None

    def give(self, piece: str) -> None:
        """One more piece; an empty one is none."""
        if piece:
            self.first = self.first or time.monotonic() - self.begun
            self.pieces.put(piece)
            self._listen()

    def close(self, reason: str, error: Exception | None = None) -> None:
        """No more pieces."""
        self.reason, self.error, self.done = reason, error, time.monotonic() - self.begun
        self.pieces.put(DONE)
        self._listen()

    def __iter__(self) -> Iterator[str]:
        while (piece := self.pieces.get()) is not DONE:
            yield piece
        if self.error is not None:
            raise self.error

    def text(self) -> str:
        """The whole answer, when it is there."""
        return "".join(self)


@dataclass
class Prepared:
    """A request as the decoder takes it: `embeds` [1, T, D] and what each position is of."""

    answer: Answer
    embeds: np.ndarray
    keys: list[Hashable]
    limit: int


@dataclass
class Running:
    """A request in the batch."""

    answer: Answer
    text: Text
    draws: np.random.Generator
    limit: int
    token: int = 0


class Engine:
    """Answers requests to one bundle until it is closed.

    Args:
        bundle: what to serve.
        rows: requests that are decoded together.
        context: positions a row has, prompt and answer together; fewer where the model reads fewer.
        waiting: requests that may wait; one more is refused as Busy.
        cached: inputs whose features are kept.
    """

    def __init__(
        self, bundle: Bundle, rows: int = 8, context: int = 2048, waiting: int = 64, cached: int = 256
    ) -> None:
        self.bundle, self.waiting = bundle, waiting
        self.context = context = min(context, bundle.manifest.positions or context)
        self.stop = set(bundle.manifest.stop)
        self.joins = bundle.manifest.cache == "in_place"
        self.rows = rows
        if self.joins and bundle.reader is not None:
            bundle.reader()  # now, since another bundle may take the folder while this one still answers
        self.slots = Slots(bundle.decoder, bundle.device, rows, context, bundle.reader) if self.joins else None
        self.running: dict[int, Running] = {}
        self.steps = self.tokens = self.answered = 0
        self._features: OrderedDict[Hashable, dict[str, np.ndarray]] = OrderedDict()
        self._cached = cached
        self._arrived: deque[Answer] = deque()
        self._ready: deque[Prepared] = deque()
        self._preparing = False
        self._changed = threading.Condition()
        self._closing = False
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._prepare_all, self._decode_all)]
        for thread in self._threads:
            thread.start()

    @property
    def queued(self) -> int:
        """Requests that wait for a row."""
        return len(self._arrived) + self._preparing + len(self._ready)

    def submit(self, request: Request, listen: Callable[[], None] = lambda: None) -> Answer:
        """Take a request in; `listen` is called, from the engine's threads, whenever a piece or the end has come.

        Raises:
            Busy: too many wait, or the engine is closing.
        """
        answer = Answer(request, listen)
        with self._changed:
            if self._closing:
                raise Busy("the server is shutting down; ask again soon")
            if self.queued >= self.waiting:
                raise Busy(f"{self.queued} requests wait already; ask again later")
            self._arrived.append(answer)
            self._changed.notify_all()
        return answer

    def close(self, seconds: float = 30.0) -> None:
        """Take nothing more, let what is there finish for so many seconds, then stop."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._closing = True
            while (self.queued or self.running) and time.monotonic() < deadline:
                self._changed.wait(0.05)
            for answer in [
                *self._arrived,
                *(p.answer for p in self._ready),
                *(r.answer for r in self.running.values()),
            ]:
                answer.cancel()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(5.0)

    # --- preparing

    def _prepare_all(self) -> None:
        while (answer := self._next_arrived()) is not None:
            prepared = None
            if (why := answer.ends) is not None:
                answer.close(why)
            else:
                try:
                    prepared = self._prepare(answer)
                except Exception as error:  # told to the one who asked; the others go on
                    answer.close("error", error)
            with self._changed:
                self._preparing = False
                if prepared is not None:
                    self._ready.append(prepared)
                self._changed.notify_all()

    def _next_arrived(self) -> Answer | None:
        with self._changed:
            while not self._arrived:
                if self._closing:
                    return None
                self._changed.wait(0.5)
            self._preparing = True
            return self._arrived.popleft()

    def _prepare(self, answer: Answer) -> Prepared:
        request, manifest = answer.request, self.bundle.manifest
        parts = segments(manifest.prompt, request.sample)
        blocks, rows, names = [], {}, {}
        start, given = manifest.vocab_size, self._given([part["slot"] for part in parts if "slot" in part], request)
        for part in parts:
            if "slot" in part:
                block, name = given[part["slot"]]
                rows[part["slot"]] = range(start, start + len(block))
                names.update({start + i: (name, i) for i in range(len(block))})
                start += len(block)
                blocks.append(block)
        ids = [] if manifest.bos is None else [manifest.bos]
        ids += prompt_ids(parts, rows, self.bundle.tokenize)
        wanted = manifest.max_new_tokens if request.max_new_tokens is None else request.max_new_tokens
        limit = min(wanted, self.context - len(ids))
        if limit < 1:
            raise TooLong(f"the prompt has {len(ids)} tokens, and {self.context} is the context; make it shorter")
        answer.prompt_tokens = len(ids)
        embeds = self.bundle.embed(np.array([ids], np.int64), np.concatenate(blocks) if blocks else None)
        self.bundle.adapter(request.adapter)  # one that is not there is told now
        return Prepared(answer, embeds, [key_in(request, names.get(i, i)) for i in ids], limit)

    def _given(self, wanted: Sequence[str], request: Request) -> dict[str, tuple[np.ndarray, Hashable]]:
        """The real feature rows [n, D] of each slot, and what to call them."""
        slots = self.bundle.manifest.slots
        found: dict[str, tuple[np.ndarray, Hashable]] = {}
        for file in dict.fromkeys(slots[name].graph for name in wanted):
            blocks, key = self._made(file, request)
            found.update({name: (block, (name, key)) for name, block in blocks.items()})
        return found

    def _made(self, file: str, request: Request) -> tuple[dict[str, np.ndarray], Hashable]:
        """The real feature rows [n, D] of every slot that a graph fills, and what to call them."""
        inputs = next(slot.inputs for slot in self.bundle.manifest.slots.values() if slot.graph == file)
        known = all(name in request.keys for name in inputs)
        key = (file, *(request.keys[name] for name in inputs)) if known else (file, object())
        if key in self._features:
            self._features.move_to_end(key)
            return self._features[key], key
        made = self.bundle.features(file, [request.sample])
        blocks = {name: out[0] if real is None else out[0][real[0]] for name, (out, real) in made.items()}
        if known:
            self._features[key] = blocks
            while len(self._features) > self._cached:
                self._features.popitem(last=False)
        return blocks, key

    # --- decoding

    def _decode_all(self) -> None:
        while self._wait():
            if self.slots is None:
                self._group()
            else:
                self._join(self.slots)
                self._step(self.slots)

    def _wait(self) -> bool:
        """Until there is something to decode; False when the engine is closed."""
        with self._changed:
            while not (self._ready or self.running):
                if self._closing and not self.queued:
                    return False
                self._changed.wait(0.5)
        return True

    def _join(self, slots: Slots) -> None:
        """Prompts of waiting requests into free rows; one a step while others are decoded, so that none is held up."""
        while len(self.running) < self.rows and self._ready:
            prepared = self._ready.popleft()
            answer = prepared.answer
            if (why := answer.ends) is not None:
                answer.close(why)
                continue
            free = [row for row in range(self.rows) if row not in self.running]
            row, shared = slots.best(free, prepared.keys)
            answer.cached_tokens = shared
            others = bool(self.running)
            self.running[row] = Running(
                answer,
                Text(self.bundle.tokenizer, answer.request.stop),
                answer.request.sampling.generator(),
                prepared.limit,
            )
            try:
                adapter = self.bundle.adapter(answer.request.adapter)
                self._take(row, slots.prefill(row, prepared.embeds[:, shared:], prepared.keys, shared, adapter))
            except AssemblerError as error:
                self._leave(row, "error", error)
            if others:
                return

    def _step(self, slots: Slots) -> None:
        for row, running in list(self.running.items()):
            if (why := running.answer.ends) is not None:
                self._leave(row, why)
        for adapter in sorted({r.answer.request.adapter or "" for r in self.running.values()}):
            self._step_with(slots, adapter or None)
        self.steps += bool(self.running)

    def _step_with(self, slots: Slots, adapter: str | None) -> None:
        """One more token of every row that has this LoRA."""
        busy = sorted(row for row, running in self.running.items() if running.answer.request.adapter == adapter)
        ids = np.zeros((busy[-1] + 1, 1), np.int64)
        for row in busy:
            ids[row] = self.running[row].token
        try:
            keys = [key_in(self.running[row].answer.request, self.running[row].token) for row in busy]
            logits = slots.step(self.bundle.embed(ids, None), busy, keys, self.bundle.adapter(adapter))
        except AssemblerError as error:
            for row in busy:
                self._leave(row, "error", error)
            return
        for row in busy:
            self._take(row, logits[row])

    def _take(self, row: int, logits: np.ndarray) -> None:
        """The next token of a row, given to the one who asked; the row is left when it was the last."""
        running = self.running[row]
        reason = advance(running, logits, self.stop)
        self.tokens += 1
        if reason is not None:
            self._leave(row, reason)

    def _leave(self, row: int, reason: str, error: Exception | None = None) -> None:
        running = self.running.pop(row)
        running.answer.give(running.text.rest())
        self.answered += 1
        running.answer.close(reason, error)
        with self._changed:
            self._changed.notify_all()

    def _group(self) -> None:
        """All that wait, as one batch of a decoder whose cache grows; each leaves when it is done."""
        taken = [self._ready.popleft() for _ in range(min(self.rows, len(self._ready)))]
        lengths = np.array([p.embeds.shape[1] for p in taken], np.int64)
        embeds = np.zeros((len(taken), lengths.max(), taken[0].embeds.shape[2]), taken[0].embeds.dtype)
        for i, prepared in enumerate(taken):
            embeds[i, -lengths[i] :] = prepared.embeds[0]  # padded on the left
            request = prepared.answer.request
            text = Text(self.bundle.tokenizer, request.stop)
            self.running[i] = Running(prepared.answer, text, request.sampling.generator(), prepared.limit)
        try:
            decoding = self.bundle.decoding()
            logits = decoding.start(embeds, lengths, max(p.limit for p in taken))
            while self.running:
                for row, running in list(self.running.items()):
                    if (why := running.answer.ends) is not None:
                        self._leave(row, why)
                    else:
                        self._take(row, logits[row])
                if self.running:
                    ids = [[self.running[i].token if i in self.running else 0] for i in range(len(taken))]
                    logits = decoding.step(self.bundle.embed(np.array(ids, np.int64), None))
                    self.steps += 1
        except AssemblerError as error:
            for row in list(self.running):
                self._leave(row, "error", error)


def key_in(request: Request, key: Hashable) -> Hashable:
    """What a position of a request is of: with a LoRA the same token has other keys and values."""
    return key if request.adapter is None else (request.adapter, key)


def advance(running: Running, logits: np.ndarray, stop: set[int]) -> str | None:
    """Choose a row's next token and give its text; the reason why the answer ends with it, or None."""
    answer = running.answer
    token = answer.request.sampling.choose(logits, running.draws)
    if token in stop:
        return "stop"
    running.token = token
    answer.answer_tokens += 1
    answer.give(running.text.add(token))
    if running.text.stopped:
        return "stop"
    return "length" if answer.answer_tokens >= running.limit else None


def key_of(content: bytes) -> str:
    """The key of an input by the bytes it came as."""
    return hashlib.sha256(content).hexdigest()
