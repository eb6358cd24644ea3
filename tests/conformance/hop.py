"""What a check works with: the gateway, a client before it, an engine behind it."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Mapping
from typing import Any

from tests.conformance.client import Client, Reply
from tests.conformance.engine import PATIENCE, Engine, Script
from tests.conformance.target import Target
from tests.router.proxy.scripted import Received, answer, chunk

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
PATHS = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
LAST = b"0\r\n\r\n"

COMPLETION = (
    b'{"id": "chatcmpl-1",  "object": "chat.completion", "created": 1795218146, "model": "conformance",\n'
    b' "choices": [{"index": 0, "message": {"role": "assistant", "content": "fine \\u00e9 \xc3\xa9"},'
    b' "logprobs": null, "finish_reason": "stop"}],\n'
    b' "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}, "of_the_engine": {"z": 1.0, "a": 1e3}}'
)
"""As an engine might write it: blanks, escapes and fields that no schema asks for."""
FINE = answer(COMPLETION)
SAID = "fine \u00e9 \u00e9"


def delta(text: str) -> bytes:
    """One event of a chat stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    fields = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "conformance"}
    return b"data: " + json.dumps({**fields, "choices": [choice]}).encode() + b"\n\n"


def said(body: bytes) -> str:
    """What an answer of a chat says, streamed or not: for checks of something else than how it is written."""
    if body.startswith(b"{"):
        return str(json.loads(body)["choices"][0]["message"]["content"])
    events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: {")]
    choices = [choice for event in events for choice in json.loads(event).get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def stream(*pieces: bytes) -> bytes:
    """A whole streamed answer."""
    return STREAM_HEAD + b"".join(map(chunk, pieces)) + LAST


class Event(threading.Event):
    """Waits no longer than an engine does."""

    def wait(self, timeout: float | None = PATIENCE) -> bool:
        return super().wait(timeout)


class Hop:
    def __init__(self, target: Target, engine: Engine) -> None:
        self.target = target
        self.word = f"word-{secrets.token_hex(4)}"
        self._engine = engine
        self._clients: list[Client] = []

    def event(self) -> Event:
        """For a script and its check to wait for each other."""
        return Event()

    # -- the engine's side ---------------------------------------------------------------------------------------

    def answers(self, script: Script | bytes = FINE, *, early: bool = False) -> None:
        """What the engine does with each request of this check. ``early``: without reading it to its end."""
        self._engine.answers(self.word.encode(), script, early)

    @property
    def received(self) -> list[Received]:
        return self._engine.received[self.word.encode()]

    @property
    def request(self) -> Received:
        """The request as it reached the engine."""
        assert self.received, "nothing reached the engine"
        return self.received[0]

    # -- the client's side ---------------------------------------------------------------------------------------

    def body(self, path: str = CHAT, **fields: Any) -> dict[str, Any]:
        """A request that every gateway must take."""
        messages = [{"role": "user", "content": self.word}]
        prompts: dict[str, dict[str, Any]] = {
            CHAT: {"messages": messages},
            COMPLETIONS: {"prompt": self.word},
            RESPONSES: {"input": self.word},
            MESSAGES: {"messages": messages, "max_tokens": 16},
        }
        return {"model": self.target.model, **prompts[path], **fields}

    def client(self) -> Client:
        client = Client(self.target.host, self.target.port)
        self._clients.append(client)
        return client

    def head(self, length: int, path: str = CHAT, *headers: str, keyed: bool = True) -> bytes:
        lines = [f"POST {path} HTTP/1.1", "Host: gateway.example", "Content-Type: application/json", *headers]
        if keyed and self.target.key:
            lines.append(f"Authorization: Bearer {self.target.key}")
        return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode("latin-1")

    def send(
        self,
        body: Mapping[str, Any] | bytes | None = None,
        *headers: str,
        path: str = CHAT,
        client: Client | None = None,
    ) -> Client:
        """Send a request, whose answer is still to be read."""
        client = client or self.client()
        data = body if isinstance(body, bytes) else json.dumps(body or self.body(path.partition("?")[0])).encode()
        client.send(self.head(len(data), path, *headers) + data)
        return client

    def post(self, body: Mapping[str, Any] | bytes | None = None, *headers: str, path: str = CHAT) -> Reply:
        return self.send(body, *headers, path=path).reply()

    def close(self) -> None:
        self._engine.over(self.word.encode())
        for client in self._clients:
            client.leave()
