"""From an order to an answer: streamed or whole, with the faults wanted."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from runtime.engines.sim.departure import Departure
from runtime.engines.sim.engine import Engine
from runtime.engines.sim.errors import ClientLeft, EngineDown, overloaded, vllm_body
from runtime.engines.sim.faults import AT_THE_DOOR, IN_A_REPLY, Fault
from runtime.engines.sim.form import Form, JsonResponse
from runtime.engines.sim.generation import Generation, Order
from runtime.engines.sim.wire import wire_of

STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8")]
_GARBAGE = b"\x16\x03\x01\x02 this is no HTTP \x00\xff\xfe\r\n\r\n"


async def answer(engine: Engine, request: Request, order: Order, form: Form) -> Response:
    fault = engine.faults.take(*AT_THE_DOOR)
    if fault is not None:
        return await _turn_away(request, fault)
    if engine.full:
        engine.page.rejected()
        raise overloaded()
    fault = engine.faults.take(*IN_A_REPLY)
    if order.stream:
        return EventStream(engine, order, form, fault)
    return await _whole(engine, request, order, form, fault)


def refusal(fault: Fault, status: int) -> Response:
    """The answer a fault prescribes."""
    status = int(fault.status or status)
    body: Any = fault.body if fault.body is not None else vllm_body(overloaded())
    headers = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:g}"}
    if isinstance(body, str):
        return Response(body, status, headers, "text/plain")
    return JsonResponse(body, status, headers)


async def load_fault(engine: Engine) -> Fault | None:
    """What is to go wrong with the loading of an adapter, after what is to be slow."""
    slow = engine.faults.take("slow_load")
    if slow is not None:
        await asyncio.sleep(slow.seconds or 0.0)
    return engine.faults.take("fail_load")


async def _turn_away(request: Request, fault: Fault) -> Response:
    if fault.kind == "refuse":
        return refusal(fault, 503)
    wire = wire_of(request.scope) if fault.kind == "garbage" else None
    try:
        async with Departure(request.receive):
            if wire is not None:
                wire.write(_GARBAGE)
                wire.close()
            await _for_ever()
    except ClientLeft:
        return Response(status_code=499)


async def _for_ever() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def _strike(engine: Engine, fault: Fault, scope: Scope) -> NoReturn:
    """Do what the fault says to the connection, then wait until it is gone."""
    if fault.kind == "crash":
        engine.crash("fault: crash")
    if fault.kind == "error_after_tokens":
        raise EngineDown
    if fault.kind == "reset_after_tokens":
        wire_of(scope).reset()
    if fault.kind == "close_after_tokens":
        wire_of(scope).close()
    await _for_ever()


async def _whole(engine: Engine, request: Request, order: Order, form: Form, fault: Fault | None) -> Response:
    try:
        async with (
            Departure(request.receive, engine.options.lag_of_abort),
            engine.generation(order, fault) as generation,
        ):
            async for _ in generation.batches(engine.pace, engine.page.said):
                pass
            if generation.struck and fault is not None:
                await _strike(engine, fault, request.scope)
            if generation.ended == "error":
                raise EngineDown
    except ClientLeft:
        return Response(status_code=499)
    response = form.whole(generation)
    if engine.faults.take("short_body") is not None:
        return ShortBody(response)
    return response


class EventStream(Response):
    """Server-sent events, one for each token, written as tokens fall due."""

    def __init__(self, engine: Engine, order: Order, form: Form, fault: Fault | None) -> None:
        super().__init__()
        self._engine = engine
        self._order = order
        self._form = form
        self._fault = fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        try:
            async with Departure(receive):
                end = await self._stream(scope, send)
        except ClientLeft:
            return
        except EngineDown:
            end = self._form.failure()
        await send({"type": "http.response.body", "body": end})

    async def _stream(self, scope: Scope, send: Send) -> bytes:
        """Send all but the end, and return that."""
        engine, form = self._engine, self._form
        async with engine.generation(self._order, self._fault) as generation:
            opening, last = True, ""
            async for batch in generation.batches(engine.pace, engine.page.said):
                events = [form.opening(generation)] if opening else []
                opening = False
                if generation.sent == len(generation.pieces) and not generation.struck:
                    *batch, last = batch
                events.extend([form.token(piece) for piece in batch])
                await send({"type": "http.response.body", "body": b"".join(events), "more_body": True})
            if generation.struck and self._fault is not None:
                await _strike(engine, self._fault, scope)
            if generation.ended == "error":
                raise EngineDown
            return self._end(generation, opening, last)

    def _end(self, generation: Generation, opening: bool, last: str) -> bytes:
        start = self._form.opening(generation) if opening else b""
        return start + self._form.closing(generation, last)


class ShortBody(Response):
    """A response that promises more bytes than it sends."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self._response = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = wire_of(scope)
        whole = self._response
        await send({"type": "http.response.start", "status": whole.status_code, "headers": whole.raw_headers})
        half = bytes(whole.body)[: len(whole.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        wire.close()
        try:
            async with Departure(receive):
                await _for_ever()
        except ClientLeft:
            return
