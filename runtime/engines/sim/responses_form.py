"""The responses API as vLLM writes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from starlette.responses import Response

from runtime.engines.sim.errors import EngineDown, vllm_body
from runtime.engines.sim.form import JsonResponse, Reply, event
from runtime.engines.sim.generation import Generation

Keep = Callable[[dict[str, Any]], None]


class ResponsesForm:
    """``keep`` is told of the whole response, when there is one."""

    def __init__(self, reply: Reply, body: dict[str, Any], max_tokens: int, keep: Keep | None) -> None:
        self.id = reply.id
        self._reply = reply
        self._body = body
        self._max_tokens = max_tokens
        self._keep = keep
        self._item_id = f"msg_{uuid4().hex[:16]}"
        self._sequence = 0

    def response(self, status: str, generation: Generation | None = None) -> dict[str, Any]:
        body = self._body
        done = generation is not None
        cut = done and generation is not None and generation.finish_reason == "length"
        return {
            "id": self.id,
            "created_at": self._reply.created,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": body.get("instructions"),
            "metadata": body.get("metadata"),
            "model": self._reply.model,
            "object": "response",
            "output": [self._item(generation.text, "completed")] if generation is not None else [],
            "parallel_tool_calls": True,
            "temperature": body.get("temperature", 1.0),
            "tool_choice": "none",
            "tools": [],
            "top_p": body.get("top_p", 1.0),
            "background": bool(body.get("background")),
            "max_output_tokens": self._max_tokens,
            "max_tool_calls": None,
            "previous_response_id": body.get("previous_response_id"),
            "prompt": None,
            "reasoning": None,
            "service_tier": "auto",
            "status": "incomplete" if cut else status,
            "text": None,
            "top_logprobs": None,
            "truncation": "disabled",
            "usage": _usage(generation) if generation is not None else None,
            "user": body.get("user"),
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "input_messages": None,
            "output_messages": None,
        }

    def _item(self, text: str | None, status: str) -> dict[str, Any]:
        part: dict[str, Any] = {"annotations": [], "text": text, "type": "output_text", "logprobs": None}
        return {
            "id": self._item_id,
            "content": [] if text is None else [part],
            "role": "assistant",
            "status": status,
            "type": "message",
            "phase": None,
        }

    def _event(self, name: str, fields: dict[str, Any]) -> bytes:
        number = self._sequence
        self._sequence += 1
        return event(fields | {"sequence_number": number, "type": name}, name)

    def created(self) -> bytes:
        return self._event("response.created", {"response": self.response("in_progress")})

    def beginning(self) -> list[bytes]:
        part: dict[str, Any] = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
        item = {"item": self._item(None, "in_progress"), "output_index": 0}
        return [
            self._event("response.in_progress", {"response": self.response("in_progress")}),
            self._event("response.output_item.added", item),
            self._event(
                "response.content_part.added",
                {"content_index": 0, "item_id": self._item_id, "output_index": 0, "part": part},
            ),
        ]

    def opening(self, generation: Generation) -> bytes:
        return self.created() + b"".join(self.beginning())

    def token(self, text: str) -> bytes:
        where = {"item_id": self._item_id, "logprobs": [], "output_index": 0}
        return self._event("response.output_text.delta", {"content_index": 0, "delta": text} | where)

    def ending(self, generation: Generation) -> list[bytes]:
        where = {"content_index": 0, "item_id": self._item_id, "output_index": 0}
        item = self._item(generation.text, "completed")
        response = self._whole(generation)
        return [
            self._event("response.output_text.done", where | {"logprobs": [], "text": generation.text}),
            self._event("response.content_part.done", where | {"part": item["content"][0]}),
            self._event("response.output_item.done", {"item": item, "output_index": 0}),
            self._event("response.completed", {"response": response}),
        ]

    def closing(self, generation: Generation, last: str) -> bytes:
        return (self.token(last) if last else b"") + b"".join(self.ending(generation))

    def failure(self) -> bytes:
        return event(vllm_body(EngineDown()), "error")

    def whole(self, generation: Generation) -> Response:
        return JsonResponse(self._whole(generation))

    def _whole(self, generation: Generation) -> dict[str, Any]:
        response = self.response("completed", generation)
        if self._keep is not None:
            self._keep(response)
        return response


def _usage(generation: Generation) -> dict[str, Any]:
    prompt, said = generation.order.prompt_tokens, generation.sent
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": generation.cached_tokens,
            "cache_write_tokens": 0,
            "input_tokens_per_turn": [],
            "cached_tokens_per_turn": [],
        },
        "output_tokens": said,
        "output_tokens_details": {
            "reasoning_tokens": 0,
            "tool_output_tokens": 0,
            "output_tokens_per_turn": [],
            "tool_output_tokens_per_turn": [],
        },
        "total_tokens": prompt + said,
    }
