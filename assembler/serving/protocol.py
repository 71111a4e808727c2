"""The part of OpenAI's chat interface that a bundle can answer; what would change an answer is never ignored."""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

UNSUPPORTED = {
    "tools": None, "functions": None, "tool_choice": None, "function_call": None, "logprobs": False,
    "top_logprobs": None, "logit_bias": None, "modalities": ["text"], "audio": None, "prediction": None,
    "presence_penalty": 0, "frequency_penalty": 0, "n": 1, "response_format": {"type": "text"},
    "reasoning_effort": None, "web_search_options": None,
}  # fmt: skip
"""Options of OpenAI's that a bundle does not have, and the value that asks for nothing."""


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half a character; send whole ones") from error
    return text


Text = Annotated[str, AfterValidator(_whole)]
"""Characters that can be written down: JSON may hold halves of them."""


class Open(BaseModel):
    """Takes keys that it does not know, since clients send many that change nothing."""

    model_config = ConfigDict(extra="allow")


class TextPart(Open):
    type: Literal["text"]
    text: Text


class ImageUrl(Open):
    url: Text


class ImagePart(Open):
    type: Literal["image_url"]
    image_url: ImageUrl


class AudioData(Open):
    data: Text
    format: Annotated[str, Field(pattern=r"^[a-z0-9]{1,8}$")]


class AudioPart(Open):
    type: Literal["input_audio"]
    input_audio: AudioData


class FileData(Open):
    file_data: Text
    filename: Annotated[Text, Field(pattern=r"^[^/\\\x00]{1,200}$")]


class FilePart(Open):
    type: Literal["file"]
    file: FileData


Part = Annotated[TextPart | ImagePart | AudioPart | FilePart, Field(discriminator="type")]


class Message(Open):
    """One message; its content is a text or a list of parts."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[Part]

    @property
    def parts(self) -> list[Part]:
        """The content as parts."""
        return [TextPart(type="text", text=self.content)] if isinstance(self.content, str) else self.content


class StreamOptions(Open):
    include_usage: bool = False


class ChatRequest(Open):
    """The body of POST /v1/chat/completions.

    `temperature` is 0 unless given: a bundle answers as it was evaluated. `columns` gives texts of the prompt by name,
    where the prompt has several.
    """

    model: Text = ""
    messages: list[Message] = Field(min_length=1)
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: Text | list[Text] | None = None
    seed: int | None = Field(None, ge=0, le=2**63)
    stream: bool = False
    stream_options: StreamOptions | None = None
    columns: dict[Text, Text] = {}

    @model_validator(mode="before")
    @classmethod
    def _nulls_are_absent(cls, body: Any) -> Any:
        return {key: item for key, item in body.items() if item is not None} if isinstance(body, dict) else body

    @model_validator(mode="after")
    def _only_what_it_can(self) -> ChatRequest:
        asked = self.model_extra or {}
        odd = next(
            (key for key, nothing in UNSUPPORTED.items() if key in asked and asked[key] not in (nothing, [])), None
        )
        if odd is not None:
            raise ValueError(f"`{odd}` is not something that this server can do; leave it out")
        if len(self.stop_words) > 4 or not all(0 < len(word) <= 256 for word in self.stop_words):
            raise ValueError("`stop` takes at most 4 words of 1 to 256 characters")
        return self

    @property
    def stop_words(self) -> tuple[str, ...]:
        """The stop words, whichever way they were written."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def limit(self) -> int | None:
        """The longest answer asked for."""
        return self.max_completion_tokens or self.max_tokens


class Usage(BaseModel):
    """Tokens of the prompt and of the answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]


class Choice(BaseModel):
    index: int = 0
    message: dict[str, str | None]
    finish_reason: str
    logprobs: None = None


class Completion(BaseModel):
    """The body of an answer that is not streamed."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class ErrorBody(BaseModel):
    """What is wrong, as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Failure(BaseModel):
    error: ErrorBody


def new_id() -> str:
    """The id of an answer."""
    return f"chatcmpl-{uuid.uuid4().hex}"


def chunk(ident: str, model: str, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    """One piece of a streamed answer."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
    return {
        "id": ident,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
    }
