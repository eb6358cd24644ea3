"""The seam between a generation and the API it is told through."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.responses import Response

from runtime.engines.sim.errors import EngineDown, vllm_body
from runtime.engines.sim.generation import Generation

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Reply:
    """What is the same in every chunk of a reply."""

    id: str
    model: str
    include_usage: bool = False
    force_usage: bool = False
    cached_details: bool = False
    created: int = field(default_factory=lambda: int(time.time()))


class Form(Protocol):
    """One API's way to write a reply: as events, or as one body."""

    def opening(self, generation: Generation) -> bytes: ...

    def token(self, text: str) -> bytes: ...

    def closing(self, generation: Generation, last: str) -> bytes:
        """The end, with the last token, why it ended and what it used."""
        ...

    def failure(self) -> bytes: ...

    def whole(self, generation: Generation) -> Response: ...


class OpenAIForm:
    """What completions and chat share in every dialect: how each chunk begins. A kind says what is around a token."""

    object_name: str
    token_head: str
    token_tail: str

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._base = {
            "id": reply.id,
            "object": self.object_name,
            "created": reply.created,
            "model": reply.model,
        }
        self._head = f'data: {dump(self._base)[:-1]},"choices":[{{"index":0,{self.token_head}'


class JsonResponse(Response):
    """JSON without spaces, as pydantic writes it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return dump(content).encode()


def dump(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def event(data: Any, name: str | None = None) -> bytes:
    line = f"data: {dump(data)}\n\n"
    return (line if name is None else f"event: {name}\n{line}").encode()


def failure_event() -> bytes:
    """What vLLM sends into a stream when its engine dies: JSON with spaces, then the end."""
    return f"data: {json.dumps(vllm_body(EngineDown()))}\n\n".encode() + DONE


def usage(generation: Generation) -> dict[str, Any]:
    prompt, completion = generation.order.prompt_tokens, generation.sent
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}
