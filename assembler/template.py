"""A prompt template: `{photo} What is this? {answer}` read into texts and slots, and given the LLM's chat form."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assembler.bundle.manifest import PromptPart

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from assembler.gguf_tokenizer import Words

    Tokenizer = PreTrainedTokenizerFast | Words

ANSWER = "answer"
MARK = "\x02{}\x03"
"""Stands for a slot while the chat template is rendered; control characters that no template touches."""


def parse(template: str) -> list[tuple[str, str | None]]:
    """Pairs of (text, slot after it or None at the end); `{{` and `}}` are braces.

    Raises:
        ValueError: a brace is open, a slot has no plain name, appears twice, or text follows `{answer}`.
    """
    try:
        pieces = [(text, slot) for text, slot, form, conversion in string.Formatter().parse(template)]
        odd = [slot for _, slot, form, conv in string.Formatter().parse(template) if form or conv]
    except ValueError as error:
        raise ValueError(f"the prompt's braces do not pair ({error}); write {{{{ for a brace itself") from error
    if set(MARK) & set(template) - set("{}"):
        raise ValueError("the prompt has a control character; take it out")
    slots = [slot for _, slot in pieces if slot is not None]
    odd += [slot for slot in slots if not slot.isidentifier()]
    if odd:
        raise ValueError(f"the prompt's slot {{{odd[0]}}} is not a plain name of letters, digits and _")
    twice = [slot for slot in slots if slots.count(slot) > 1]
    if twice:
        raise ValueError(f"the prompt names the slot {{{twice[0]}}} twice; name it once")
    after = pieces[[slot for _, slot in pieces].index(ANSWER) + 1 :] if ANSWER in slots else []
    if any(slot is not None or text.strip() for text, slot in after):
        raise ValueError("the prompt goes on after {answer}; put {answer} at its end")
    return pieces


def slots(template: str) -> list[str]:
    """The names of the slots, in order."""
    return [slot for _, slot in parse(template) if slot is not None]


@dataclass(frozen=True)
class Prompt:
    """A template made ready for one tokenizer: what goes before the answer, and how the answer begins and ends.

    A part is a text, a slot (a wire's tokens) or a column (a text of the sample), as in a bundle's manifest.
    """

    parts: tuple[PromptPart, ...]
    lead: str
    stop: tuple[int, ...]
    bos: int | None


def prepare(template: str, wired: set[str], tokenizer: Tokenizer, chat: bool | None, system: str | None) -> Prompt:
    """The prompt for `tokenizer`; `chat` None uses the tokenizer's chat template where it has one.

    Raises:
        ValueError: a chat template was asked for and there is none, it drops a slot, or it does not run.
    """
    pieces = [(text, slot) for text, slot in parse(template) if slot != ANSWER]
    last = next((text for text, slot in parse(template) if slot == ANSWER), "")
    body = "".join(text + (MARK.format(slot) if slot else "") for text, slot in pieces) + last
    if chat and not tokenizer.chat_template:
        raise ValueError("`chat: true`, but the tokenizer has no chat template; leave `chat` out")
    use_chat = bool(tokenizer.chat_template) if chat is None else chat
    lead = "" if use_chat or not body[-1:].isspace() else " "
    body = _chatted(tokenizer, body.strip(), system) if use_chat else body.rstrip()
    eos = [tokenizer.eos_token_id]
    begins = None if use_chat else _bos(tokenizer)
    return Prompt(tuple(_parts(body, wired)), lead, tuple(x for x in eos if x is not None), begins)


def _chatted(tokenizer: Tokenizer, body: str, system: str | None) -> str:
    messages = [{"role": "user", "content": body}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program of the model's maker, and fails as programs do
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"the chat template fails ({reason}); write `chat: false` and the full prompt") from error
    assert isinstance(text, str)
    if body not in text:
        raise ValueError("the chat template changes the prompt's text; write `chat: false` and the full prompt instead")
    return text


def _bos(tokenizer: Tokenizer) -> int | None:
    """The begin token, if this tokenizer puts one before a text."""
    ids = tokenizer.encode("a")
    return tokenizer.bos_token_id if ids and ids[0] == tokenizer.bos_token_id else None


def _parts(body: str, wired: set[str]) -> list[PromptPart]:
    parts: list[PromptPart] = []
    for piece in body.split("\x02"):
        slot, mark, text = piece.partition("\x03")
        if mark:
            parts.append(PromptPart(slot=slot) if slot in wired else PromptPart(column=slot))
        else:
            text = slot
        if text:
            parts.append(PromptPart(text=text))
    return parts
