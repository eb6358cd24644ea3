"""The responses API: made at once or in the background, fetched again, cancelled. vLLM and SGLang have the same."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from runtime.engines.sim.answer import STREAM_HEADERS, answer
from runtime.engines.sim.body import read_json
from runtime.engines.sim.departure import Departure
from runtime.engines.sim.dialect import Dialect
from runtime.engines.sim.engine import Engine
from runtime.engines.sim.errors import ApiError, ClientLeft, EngineDown, invalid, overloaded
from runtime.engines.sim.form import JsonResponse, Reply
from runtime.engines.sim.generation import Order
from runtime.engines.sim.orders import CHAT_TOKENS, chat_prompt, content_text, generation_order, wished_tokens
from runtime.engines.sim.response_store import ResponseStore, Stored
from runtime.engines.sim.responses_form import ResponsesForm
from runtime.engines.sim.wire import wire_of

_NO_STORE = (
    "This vLLM engine does not support `store=True` and therefore does not support the background mode. To enable "
    "these features, set the environment variable `VLLM_ENABLE_RESPONSES_API_STORE=1` when launching the vLLM server."
)
_KIND = "invalid_request_error"


class ResponsesApi:
    def __init__(self, engine: Engine, dialect: Dialect) -> None:
        self._engine = engine
        self._options = engine.options
        self._dialect = dialect
        self._store = ResponseStore(open=engine.options.stores_responses)

    def routes(self) -> list[Route]:
        return [
            Route("/v1/responses", self.create, methods=["POST"]),
            Route("/v1/responses/{response_id}", self.retrieve, methods=["GET"]),
            Route("/v1/responses/{response_id}/cancel", self.cancel, methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        body = await read_json(request, "input")
        named = self._dialect.names.resolve(body)
        background = bool(body.get("background"))
        store = body.get("store") is not False
        if background and not store:
            raise ApiError(400, "background can only be used when `store` is true", "Bad Request", "background")
        if background and not self._store.open:
            raise ApiError(400, _NO_STORE, _KIND, "background")
        messages = self._messages(body)
        prompt = chat_prompt(messages, body.get("instructions"))
        default = min(CHAT_TOKENS, max(1, self._options.max_model_len - prompt.tokens))
        wish = wished_tokens(body, default, "max_output_tokens")
        reply = Reply(f"resp_{request.headers.get('x-request-id') or uuid4().hex[:16]}", named.shown)
        order = generation_order(self._options, body, named, prompt, reply.id, wish)
        keep = partial(self._store.finish, messages=messages) if store and self._store.open else None
        form = ResponsesForm(reply, body, order.max_tokens, keep)
        if background:
            return self._begin(order, form, messages)
        return await answer(self._engine, request, order, form)

    def _messages(self, body: dict[str, Any]) -> list[Any]:
        """The conversation so far and what is new."""
        given = body["input"]
        new = given if isinstance(given, list) else [{"role": "user", "content": content_text(given)}]
        previous = body.get("previous_response_id")
        if previous is None:
            return new
        before = self._find(str(previous))
        said = [{"role": item["role"], "content": item["content"]} for item in before.response["output"]]
        return [*before.messages, *said, *new]

    def _begin(self, order: Order, form: ResponsesForm, messages: list[Any]) -> Response:
        if self._engine.full:
            raise overloaded()
        stored = Stored(form.response("queued"), messages, told=order.stream)
        self._store.start(stored, self._make(order, form, stored))
        return Replay(stored, 0) if order.stream else JsonResponse(stored.response)

    async def _make(self, order: Order, form: ResponsesForm, stored: Stored) -> None:
        engine = self._engine
        try:
            async with engine.generation(order) as generation:
                stored.tell(form.created())
                for event in form.beginning():
                    stored.tell(event)
                async for batch in generation.batches(engine.pace, engine.page.said):
                    for piece in batch:
                        stored.tell(form.token(piece))
                if generation.ended == "error":
                    raise EngineDown
                for event in form.ending(generation):
                    stored.tell(event)
        except EngineDown:
            stored.response["status"] = "failed"

    async def retrieve(self, request: Request) -> Response:
        stored = self._find(request.path_params["response_id"])
        if request.query_params.get("stream", "").lower() in ("true", "1"):
            after = request.query_params.get("starting_after", "-1")
            if not after.removeprefix("-").isdecimal():
                raise invalid("int_parsing", "query.starting_after", "Input should be a valid integer")
            return Replay(stored, max(0, int(after) + 1))
        return JsonResponse(stored.response)

    async def cancel(self, request: Request) -> Response:
        stored = self._find(request.path_params["response_id"])
        if not stored.under_way:
            raise ApiError(400, "Cannot cancel a synchronous response.", _KIND, "response_id")
        self._store.cancel(stored)
        return JsonResponse(stored.response)

    def _find(self, response_id: str) -> Stored:
        stored = self._store.get(response_id)
        if stored is None:
            raise ApiError(404, f"Response with id '{response_id}' not found.", _KIND, "response_id")
        return stored


class Replay(Response):
    """The events of a response made in the background, from one of them on; vLLM breaks off where there are none."""

    def __init__(self, stored: Stored, start: int) -> None:
        super().__init__()
        self._stored = stored
        self._start = start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        if self._stored.events is None:
            wire_of(scope).close()
            return
        try:
            async with Departure(receive):
                async for event in self._stored.replay(self._start):
                    await send({"type": "http.response.body", "body": event, "more_body": True})
        except ClientLeft:
            return
        await send({"type": "http.response.body", "body": b""})
