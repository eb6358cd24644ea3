"""An engine that costs next to nothing, to measure what stands before it: ``python -m benchmarks.fake_engine``.

A raw asyncio protocol that reads as much HTTP as gateways write. A POST is answered with a fixed completion, or, with
``"stream": true``, with ``max_tokens`` events, one every ``--interval-ms``. ``"hold": true``: one event, and then
nothing until the client leaves. Its ports are printed as a JSON list once it listens on all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
from typing import cast

import uvloop

STREAM = re.compile(rb'"stream" *: *true')
HOLD = re.compile(rb'"hold" *: *true')
TOKENS = re.compile(rb'"max_tokens" *: *(\d+)')
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
USAGE = {"prompt_tokens": 180, "completion_tokens": 40, "total_tokens": 220}


def _whole(value: object) -> bytes:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _event(text: str) -> bytes:
    data = f"data: {text}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def _chunk(choices: list[object], usage: object) -> str:
    kind = {"id": "chatcmpl-0f1e2d3c4b5a6978", "object": "chat.completion.chunk", "created": 1763600000, "model": "m"}
    return json.dumps({**kind, "choices": choices, "usage": usage})


_MESSAGE = {"role": "assistant", "content": "word " * 48}
COMPLETION = _whole(
    {
        "id": "chatcmpl-0f1e2d3c4b5a6978",
        "object": "chat.completion",
        "created": 1763600000,
        "model": "m",
        "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
        "usage": USAGE,
    }
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
TOKEN = _event(_chunk([{"index": 0, "delta": {"content": " word"}, "finish_reason": None}], None))
END = _event(_chunk([], USAGE)) + _event("[DONE]") + b"0\r\n\r\n"
AWAKE = _whole({"is_sleeping": False})
MODELS = _whole({"object": "list", "data": [{"id": "bench", "object": "model", "created": 1, "owned_by": "bench"}]})


class Engine(asyncio.Protocol):
    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float) -> None:
        self._loop = loop
        self._interval = interval
        self._unread = b""
        self._left = 0
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._unread = self._unread + data if self._unread else data
        while (end := self._unread.find(b"\r\n\r\n")) >= 0:
            size = self._body_size(end)
            if size is None or len(self._unread) < end + 4 + size:
                return
            request, self._unread = self._unread[: end + 4 + size], self._unread[end + 4 + size :]
            self._answer(request)

    def _body_size(self, end: int) -> int | None:
        """Bytes after the head, which ends at ``end``; None when that is not known yet."""
        length = LENGTH.search(self._unread, 0, end)
        if length is not None:
            return int(length[1])
        if CHUNKED.search(self._unread, 0, end):
            stop = self._unread.find(b"\r\n0\r\n\r\n", end)
            return None if stop < 0 else stop + 7 - end - 4
        return 0

    def _answer(self, request: bytes) -> None:
        if request.startswith(b"GET "):
            self._transport.write(AWAKE if request.startswith(b"GET /is_sleeping") else MODELS)
        elif STREAM.search(request) is None:
            self._transport.write(COMPLETION)
        elif HOLD.search(request) is not None:
            self._transport.write(STREAM_HEAD)
            self._transport.write(TOKEN)
        else:
            tokens = TOKENS.search(request)
            self._left = int(tokens[1]) if tokens else 16
            self._transport.write(STREAM_HEAD)
            self._due = self._loop.time()
            self._tick()

    def _tick(self) -> None:
        if self._transport.is_closing():
            return
        if not self._left:
            self._transport.write(END)
            return
        self._left -= 1
        self._transport.write(TOKEN)
        self._due += self._interval
        self._loop.call_at(self._due, self._tick)


async def serve(number: int, interval: float) -> None:
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(lambda: Engine(loop, interval), "127.0.0.1", 0, backlog=4096) for _ in range(number)
    ]
    print(json.dumps([one.sockets[0].getsockname()[1] for one in servers]), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fake_engine", description=__doc__)
    parser.add_argument("--ports", type=int, default=1, metavar="N", help="listen on so many (1)")
    parser.add_argument("--interval-ms", type=float, default=10.0, help="between two events of a stream (10)")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(serve(options.ports, options.interval_ms / 1000))


if __name__ == "__main__":
    main()
