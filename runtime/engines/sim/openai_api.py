"""The generating routes both dialects have."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.engines.sim.answer import answer
from runtime.engines.sim.body import integer, read_json
from runtime.engines.sim.dialect import Dialect
from runtime.engines.sim.engine import Engine
from runtime.engines.sim.errors import ApiError, invalid
from runtime.engines.sim.form import JsonResponse, Reply
from runtime.engines.sim.messages_form import Messages
from runtime.engines.sim.orders import (
    CHAT_TOKENS,
    COMPLETION_TOKENS,
    Prompt,
    chat_prompt,
    completion_prompt,
    generation_order,
    wants_usage,
    wished_tokens,
)
from runtime.engines.sim.text import detokenize, tokenize


class OpenAIApi:
    def __init__(self, engine: Engine, dialect: Dialect) -> None:
        self._engine = engine
        self._options = engine.options
        self._dialect = dialect

    def routes(self) -> list[Route]:
        post = ["POST"]
        return [
            Route("/v1/completions", self.completions, methods=post),
            Route("/v1/chat/completions", self.chat, methods=post),
            Route("/invocations", self.invocations, methods=post),
            Route("/v1/messages", self.messages, methods=post),
            Route("/v1/messages/count_tokens", self.count_tokens, methods=post),
            Route("/tokenize", self.tokenize, methods=post),
            Route("/detokenize", self.detokenize, methods=post),
        ]

    def _check_n(self, body: dict[str, Any]) -> None:
        n = integer(body, "n")
        if n is not None and n < 1:
            if self._options.dialect == "sglang":
                raise ApiError(400, "range() arg 3 must not be zero")
            raise ApiError(400, f"n must be at least 1, got {n}.")

    def _reply(self, body: dict[str, Any], request_id: str, shown: str) -> Reply:
        options = self._options
        return Reply(
            request_id,
            shown,
            include_usage=wants_usage(body),
            force_usage=options.enable_force_include_usage,
            cached_details=options.enable_prompt_tokens_details,
        )

    async def completions(self, request: Request) -> Response:
        return await self._complete(request, await read_json(request))

    async def _complete(self, request: Request, body: dict[str, Any]) -> Response:
        named = self._dialect.names.resolve(body)
        prompt = completion_prompt(body)
        self._check_n(body)
        request_id = self._dialect.names.request_id(request, body, "cmpl")
        wish = wished_tokens(body, COMPLETION_TOKENS, "max_tokens")
        form = self._dialect.completion(self._reply(body, request_id, named.shown))
        order = generation_order(self._options, body, named, prompt, request_id, wish)
        return await answer(self._engine, request, order, form)

    async def chat(self, request: Request) -> Response:
        return await self._chat(request, await read_json(request, "messages"))

    async def _chat(self, request: Request, body: dict[str, Any]) -> Response:
        named = self._dialect.names.resolve(body)
        prompt = chat_prompt(body["messages"])
        self._check_n(body)
        request_id = self._dialect.names.request_id(request, body, "chatcmpl")
        wish = self._fitting(prompt, body, "max_completion_tokens", "max_tokens")
        form = self._dialect.chat(self._reply(body, request_id, named.shown))
        order = generation_order(self._options, body, named, prompt, request_id, wish)
        return await answer(self._engine, request, order, form)

    def _fitting(self, prompt: Prompt, body: dict[str, Any], *names: str) -> int:
        """The wish, or a default that never makes a fitting prompt fail."""
        default = min(CHAT_TOKENS, max(1, self._options.max_model_len - prompt.tokens))
        return wished_tokens(body, default, *names)

    async def invocations(self, request: Request) -> Response:
        """SageMaker's one door: chat when there are messages, else a completion."""
        body = await read_json(request)
        return await (self._chat(request, body) if "messages" in body else self._complete(request, body))

    async def messages(self, request: Request) -> Response:
        body = await read_json(request, "messages")
        named = self._dialect.names.resolve(body)
        prompt = chat_prompt(body["messages"], body.get("system"))
        request_id = self._dialect.names.request_id(request, body, "chatcmpl")
        wish = self._fitting(prompt, body, "max_tokens")
        order = generation_order(self._options, body, named, prompt, request_id, wish)
        return await answer(self._engine, request, order, Messages(Reply(request_id, named.shown)))

    async def count_tokens(self, request: Request) -> Response:
        body = await read_json(request, "messages")
        self._dialect.names.resolve(body)
        count = chat_prompt(body["messages"], body.get("system")).tokens
        return JsonResponse({"input_tokens": count, "context_management": {"original_input_tokens": count}})

    async def tokenize(self, request: Request) -> Response:
        body = await read_json(request)
        self._dialect.names.resolve(body)
        prompt = chat_prompt(body["messages"]) if "messages" in body else completion_prompt(body)
        tokens = tokenize(prompt.text)
        limit = self._options.max_model_len
        return JsonResponse({"count": len(tokens), "max_model_len": limit, "tokens": tokens, "token_strs": None})

    async def detokenize(self, request: Request) -> Response:
        body = await read_json(request, "tokens")
        self._dialect.names.resolve(body)
        tokens = body["tokens"]
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise invalid("list_type", "body.tokens", "Input should be a valid list")
        return JsonResponse({"prompt": detokenize(tokens)})


def model_card(name: str, root: str, parent: str | None, max_model_len: int | None, owner: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": owner,
        "root": root,
        "parent": parent,
        "max_model_len": max_model_len,
    }
