"""Prometheus metrics of a server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from assembler.serving.engine import Answer
from assembler.serving.model import Model

PATHS = ("/v1/chat/completions", "/v1/models", "/health", "/ready", "/metrics")
SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """Counts and times, each server its own."""

    def __init__(self, model: Model) -> None:
        own = self.registry = CollectorRegistry()
        self.requests = Counter("assembler_requests", "Requests by path and status", ["path", "status"], registry=own)
        self.seconds = Histogram(
            "assembler_request_seconds", "Time of a request", ["path"], registry=own, buckets=SECONDS
        )
        self.first = Histogram("assembler_first_token_seconds", "Time to first piece", registry=own, buckets=SECONDS)
        self.tokens = Counter("assembler_tokens", "Tokens by kind", ["kind"], registry=own)
        self.ends = Counter("assembler_answers", "Answers by why they ended", ["reason"], registry=own)
        Gauge("assembler_running", "Requests in decoding", registry=own).set_function(lambda: len(model.engine.running))
        Gauge("assembler_waiting", "Requests that wait", registry=own).set_function(lambda: model.engine.queued)

    def responded(self, path: str, status: int, seconds: float) -> None:
        """A response was sent; paths that nobody serves count as one."""
        known = path if path in PATHS else "other"
        self.requests.labels(known, str(status)).inc()
        self.seconds.labels(known).observe(seconds)

    def answered(self, answer: Answer) -> None:
        """An answer is over, or was left."""
        self.ends.labels(answer.reason or "cancelled").inc()
        for kind, count in (("prompt", answer.prompt_tokens), ("answer", answer.answer_tokens)):
            self.tokens.labels(kind).inc(count)
        self.tokens.labels("cached").inc(answer.cached_tokens)
        if answer.first is not None:
            self.first.observe(answer.first)

    def exposed(self) -> bytes:
        """The metrics as Prometheus reads them."""
        return generate_latest(self.registry)
