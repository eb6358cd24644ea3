"""Anthropic's messages as vLLM writes them."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from runtime.engines.sim.errors import EngineDown, anthropic_body
from runtime.engines.sim.form import JsonResponse, Reply, event
from runtime.engines.sim.generation import Generation

_REASONS = {"length": "max_tokens", "stop": "stop_sequence", "abort": "end_turn", "error": "end_turn"}


class Messages:
    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def _event(self, name: str, **fields: Any) -> bytes:
        return event({"type": name} | fields, name)

    def opening(self, generation: Generation) -> bytes:
        usage = {"input_tokens": generation.order.prompt_tokens, "output_tokens": 0}
        message: dict[str, Any] = {
            "id": self._reply.id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self._reply.model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        block = {"type": "text", "text": ""}
        return self._event("message_start", message=message) + self._event(
            "content_block_start", content_block=block, index=0
        )

    def token(self, text: str) -> bytes:
        return self._event("content_block_delta", delta={"type": "text_delta", "text": text}, index=0)

    def closing(self, generation: Generation, last: str) -> bytes:
        return (
            (self.token(last) if last else b"")
            + self._event("content_block_stop", index=0)
            + self._event("message_delta", delta=self._stop(generation), usage=self._usage(generation))
            + self._event("message_stop")
        )

    def _stop(self, generation: Generation) -> dict[str, Any]:
        return {"stop_reason": _REASONS[generation.finish_reason], "stop_sequence": generation.stop_reason}

    def _usage(self, generation: Generation) -> dict[str, int]:
        return {"input_tokens": generation.order.prompt_tokens, "output_tokens": generation.sent}

    def failure(self) -> bytes:
        return event(anthropic_body(EngineDown()), "error")

    def whole(self, generation: Generation) -> Response:
        start = {
            "id": self._reply.id,
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": generation.text}],
            "model": self._reply.model,
        }
        # The real one leaves out what is null here.
        stop = {key: value for key, value in self._stop(generation).items() if value is not None}
        return JsonResponse(start | stop | {"usage": self._usage(generation)})
