"""What clients send under ``/v1``. Fields not named here are tolerated, and go to the model behind as they are."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError, from_json

from serving.openai.errors import bad_json, invalid

MAX_INPUTS = 2048
"""Texts of one embeddings request, as with OpenAI."""


class _Wire(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class Part(_Wire):
    """A piece of a message: text, or something that only some models take."""

    type: str
    text: str | None = None

    @field_validator("type")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ("text", "image_url", "input_audio", "file", "refusal"):
            raise PydanticCustomError(
                "literal_error", "unknown", {"expected": "'text', 'image_url', 'input_audio', 'file'"}
            )
        return value


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


Content = Annotated[list[Part] | None, BeforeValidator(_as_parts, json_schema_input_type=str | list[Part] | None)]


class Message(_Wire):
    """A message of a history."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content = None

    @property
    def text(self) -> str:
        """Its text parts, one after the other."""
        return "\n".join(part.text for part in self.content or () if part.type == "text" and part.text)


class StreamOptions(_Wire):
    """How a stream ends."""

    include_usage: bool = False


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


Stops = Annotated[list[str] | None, BeforeValidator(_as_list, json_schema_input_type=str | list[str] | None)]


class ChatRequest(_Wire):
    """``POST /v1/chat/completions``."""

    model: str = Field(min_length=1)
    messages: list[Message] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Stops = Field(None, max_length=4)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = None
    n: int | None = Field(None, ge=1, le=128)
    tools: list[dict[str, Any]] | None = Field(None, max_length=128)
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    topics: list[str] = Field(default_factory=list, max_length=20)
    """Lumina's own models: articles to start from."""
    hops: int = Field(1, ge=0, le=5)
    max_nodes: int = Field(30, ge=1, le=5_000)


def _one_or_more(given: Any) -> Any:
    if isinstance(given, str):
        return [given]
    numbers = isinstance(given, list) and any(isinstance(one, int | list) for one in given)
    if numbers:
        raise PydanticCustomError(
            "tokens", "arrays of tokens are not accepted, for they belong to another tokenizer; send text"
        )
    return given


class EmbeddingsRequest(_Wire):
    """``POST /v1/embeddings``."""

    model: str = Field(min_length=1)
    input: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(min_length=1, max_length=MAX_INPUTS),
        BeforeValidator(_one_or_more, json_schema_input_type=str | list[str]),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1)
    input_type: Literal["query", "document"] | None = None
    """Not OpenAI's: what a text is, for models that tell questions from documents."""


Model = TypeVar("Model", bound=_Wire)


def parse(kind: type[Model], raw: bytes) -> tuple[Model, dict[str, Any]]:
    """A request's body, checked, and as it was sent.

    Raises:
        OpenAIError: it is no JSON object, or something in it is not accepted.
    """
    try:
        given = from_json(raw, allow_inf_nan=False)
    except (ValueError, RecursionError) as error:
        raise bad_json() from error
    if not isinstance(given, dict):
        raise bad_json()
    try:
        return kind.model_validate(given), given
    except ValidationError as error:
        raise invalid(error.errors(include_url=False)) from error
