"""Completions and chat as SGLang writes them."""

from __future__ import annotations

from json.encoder import encode_basestring
from typing import Any

from starlette.responses import Response

from runtime.engines.sim.errors import EngineDown, sglang_body
from runtime.engines.sim.form import DONE, JsonResponse, OpenAIForm, event, usage
from runtime.engines.sim.generation import Generation


class _SglangForm(OpenAIForm):
    def opening(self, generation: Generation) -> bytes:
        return b""

    def token(self, text: str) -> bytes:
        return f"{self._head}{encode_basestring(text)}{self.token_tail}\n\n".encode()

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        return event(self._base | {"choices": [choice], "usage": None})

    def _end(self, generation: Generation) -> bytes:
        if not self._reply.include_usage:
            return DONE
        return event(self._base | {"choices": [], "usage": usage(generation)}) + DONE

    def failure(self) -> bytes:
        return event({"error": sglang_body(EngineDown())}) + DONE

    def _reason(self, generation: Generation) -> dict[str, Any]:
        return {
            "logprobs": None,
            "finish_reason": generation.finish_reason,
            "matched_stop": generation.stop_reason,
        }

    def _usage(self, generation: Generation) -> dict[str, Any]:
        details = {"cached_tokens": generation.cached_tokens} if self._reply.cached_details else None
        more = {"prompt_tokens_details": details, "reasoning_tokens": 0}
        return {"usage": usage(generation) | more, "metadata": {"weight_version": "default"}}


class SglangCompletion(_SglangForm):
    object_name = "text_completion"
    token_head = '"text":'
    token_tail = ',"logprobs":null,"finish_reason":null,"matched_stop":null}],"usage":null}'

    def closing(self, generation: Generation, last: str) -> bytes:
        return self._chunk({"index": 0, "text": last} | self._reason(generation)) + self._end(generation)

    def whole(self, generation: Generation) -> Response:
        choice = {"index": 0, "text": generation.text} | self._reason(generation)
        return JsonResponse(self._base | {"choices": [choice]} | self._usage(generation))


class SglangChat(_SglangForm):
    object_name = "chat.completion.chunk"
    token_head = '"delta":{"role":null,"content":'
    token_tail = (
        ',"reasoning_content":null,"tool_calls":null},"logprobs":null,"finish_reason":null,"matched_stop":null}],'
        '"usage":null}'
    )

    def _delta(self, role: str | None, content: str | None) -> dict[str, Any]:
        return {"role": role, "content": content, "reasoning_content": None, "tool_calls": None}

    def opening(self, generation: Generation) -> bytes:
        nothing = {"logprobs": None, "finish_reason": None, "matched_stop": None}
        return self._chunk({"index": 0, "delta": self._delta("assistant", "")} | nothing)

    def closing(self, generation: Generation, last: str) -> bytes:
        final = self._chunk({"index": 0, "delta": self._delta(None, None)} | self._reason(generation))
        return (self.token(last) if last else b"") + final + self._end(generation)

    def whole(self, generation: Generation) -> Response:
        message = {"role": "assistant", "content": generation.text, "reasoning_content": None, "tool_calls": None}
        choice = {"index": 0, "message": message} | self._reason(generation)
        base = self._base | {"object": "chat.completion"}
        return JsonResponse(base | {"choices": [choice]} | self._usage(generation))
