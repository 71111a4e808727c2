"""A tokenizer's chat template rendered by jinja2 alone, since to import transformers takes longer than to read a model.

What a template finds is what transformers gives it. A template comes with the weights, so it is run in jinja2's sandbox
and sees texts and lists of them, nothing that has methods worth calling.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace


def render(template: str, messages: Sequence[Mapping[str, str]], **tokens: str) -> str:
    """The messages as the template writes them, up to where the answer begins; `tokens` are `bos_token` and the like.

    Raises:
        jinja2.TemplateError: the template is none, or refuses the messages.
    """
    made = _environment().from_string(template)
    chat = [dict(message) for message in messages]
    return made.render(messages=chat, tools=None, documents=None, add_generation_prompt=True, **tokens)


def _environment() -> ImmutableSandboxedEnvironment:
    found = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    found.filters["tojson"] = _json
    found.globals |= {
        "raise_exception": _refuse,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "namespace": _Names,
        "dict": lambda *given, **named: dict(*given, **named),
    }
    return found


class _Generation(Extension):
    """`{% generation %}` marks what an assistant says, for training; it writes nothing."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Names(Namespace):
    """jinja2's `namespace`, without names that Python keeps for itself."""

    def __init__(*given: Any, **named: Any) -> None:
        self, *rest = given
        values = dict(*rest, **named)
        for name in values:
            _plain(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _plain(name)
        super().__setitem__(name, value)


def _plain(name: str) -> None:
    if name.startswith("_"):
        raise SecurityError(f"a chat template may not set {name!r:.80}")


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _json(value: Any, ensure_ascii: bool = False, **form: Any) -> str:
    """JSON as it is, where jinja2's own filter writes it for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **form)
