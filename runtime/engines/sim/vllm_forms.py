"""Completions and chat as vLLM writes them."""

from __future__ import annotations

from json.encoder import encode_basestring
from typing import Any

from starlette.responses import Response

from runtime.engines.sim.form import DONE, JsonResponse, OpenAIForm, Reply, dump, event, failure_event, usage
from runtime.engines.sim.generation import Generation
from runtime.engines.sim.text import digest


def fingerprint(model: str) -> str:
    return f"vllm-0.32.0-{digest(model) & 0xFFFFFFFF:08x}"


class _VllmForm(OpenAIForm):
    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self._prompt_tokens = 0
        self._said = 0

    def opening(self, generation: Generation) -> bytes:
        self._prompt_tokens = generation.order.prompt_tokens
        return b""

    def token(self, text: str) -> bytes:
        self._said += 1
        tail = f',"usage":{dump(self._running_usage())}' if self._reply.force_usage else ""
        return f"{self._head}{encode_basestring(text)}{self.token_tail}]{tail}}}\n\n".encode()

    def _running_usage(self) -> dict[str, int]:
        total = self._prompt_tokens + self._said
        return {"prompt_tokens": self._prompt_tokens, "total_tokens": total, "completion_tokens": self._said}

    def _last_choice(self, generation: Generation, last: str) -> dict[str, Any]:
        raise NotImplementedError

    def closing(self, generation: Generation, last: str) -> bytes:
        reply = self._reply
        mark = {"system_fingerprint": fingerprint(reply.model)}
        finish = self._base | {"choices": [self._last_choice(generation, last)]}
        if reply.force_usage:
            finish["usage"] = usage(generation)
        if not (reply.include_usage or reply.force_usage):
            return event(finish | mark) + DONE
        return event(finish) + event(self._base | {"choices": [], "usage": self._usage(generation)} | mark) + DONE

    def _usage(self, generation: Generation) -> dict[str, Any]:
        details = {"prompt_tokens_details": {"cached_tokens": generation.cached_tokens}}
        return usage(generation) | (details if self._reply.cached_details else {})

    def failure(self) -> bytes:
        return failure_event()

    def _body(self, generation: Generation) -> dict[str, Any]:
        """The parts of a whole answer after its choices."""
        nothing = {"prompt_tokens_details": None, "completion_tokens_details": None}
        return {
            "service_tier": None,
            "system_fingerprint": fingerprint(self._reply.model),
            "usage": usage(generation) | nothing | self._usage(generation),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }


class VllmCompletion(_VllmForm):
    object_name = "text_completion"
    token_head = '"text":'
    token_tail = ',"logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}'

    def _last_choice(self, generation: Generation, last: str) -> dict[str, Any]:
        return {
            "index": 0,
            "text": last,
            "logprobs": None,
            "finish_reason": generation.finish_reason,
            "stop_reason": generation.stop_reason,
            "prompt_token_ids": None,
            "token_ids": None,
        }

    def whole(self, generation: Generation) -> Response:
        choice = self._last_choice(generation, generation.text) | {"prompt_logprobs": None, "routed_experts": None}
        return JsonResponse(self._base | {"choices": [choice]} | self._body(generation))


class VllmChat(_VllmForm):
    object_name = "chat.completion.chunk"
    token_head = '"delta":{"content":'
    token_tail = '},"logprobs":null,"finish_reason":null,"token_ids":null}'

    def opening(self, generation: Generation) -> bytes:
        super().opening(generation)
        role = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": role, "logprobs": None, "finish_reason": None}
        first = self._base | {"choices": [choice], "prompt_token_ids": None, "prompt_text": None}
        return event(first | ({"usage": self._running_usage()} if self._reply.force_usage else {}))

    def _last_choice(self, generation: Generation, last: str) -> dict[str, Any]:
        return {
            "index": 0,
            "delta": {"content": last},
            "logprobs": None,
            "finish_reason": generation.finish_reason,
            "stop_reason": generation.stop_reason,
            "token_ids": None,
        }

    def whole(self, generation: Generation) -> Response:
        message = {
            "role": "assistant",
            "content": generation.text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": None,
        }
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": generation.finish_reason,
            "stop_reason": generation.stop_reason,
            "token_ids": None,
            "routed_experts": None,
        }
        more = {"prompt_logprobs": None, "prompt_token_ids": None, "prompt_text": None}
        base = self._base | {"object": "chat.completion"}
        return JsonResponse(base | {"choices": [choice]} | self._body(generation) | more)
