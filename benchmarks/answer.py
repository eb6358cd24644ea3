"""One request's answer as it arrives: when its tokens came, what the engine counted, and whether it is whole."""

from __future__ import annotations

from typing import Any

import msgspec

DATA = b"data:"
DONE = b"[DONE]"
EVENT_STREAM = b"text/event-stream"


class Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0


class Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class Choice(msgspec.Struct):
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None

    def says_something(self) -> bool:
        delta = self.delta
        if delta is None:
            return bool(self.text)
        return bool(delta.content or delta.reasoning or delta.reasoning_content or delta.tool_calls)


class Event(msgspec.Struct):
    """A chunk of a stream, or a whole answer: of both only what is counted here."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(Event).decode


class Answer:
    """Times are ``perf_counter`` seconds. ``problem`` says what is wrong with it, None when it is whole.

    ``sent``: when the request was written; ``first_byte``: the first of the body; ``first_token``: the first text.
    """

    __slots__ = (
        "_done",
        "_rest",
        "_stream",
        "_text",
        "chunks",
        "ended",
        "first_byte",
        "first_token",
        "gaps",
        "last_token",
        "problem",
        "sent",
        "status",
        "usage",
    )

    def __init__(self) -> None:
        self.sent: float | None = None
        self.first_byte: float | None = None
        self.first_token: float | None = None
        self.last_token = 0.0
        self.ended = 0.0
        self.status = 0
        self.chunks = 0
        self.gaps: list[float] = []
        self.usage: Usage | None = None
        self.problem: str | None = None
        self._stream = False
        self._done = False
        self._rest = b""
        self._text: list[bytes] = []

    def begin(self, status: int, content_type: bytes) -> None:
        self.status = status
        self._stream = status < 400 and content_type.startswith(EVENT_STREAM)

    def feed(self, data: bytes, now: float) -> None:
        """Take a piece of the body that arrived at ``now``."""
        if self.first_byte is None:
            self.first_byte = now
        if not self._stream:
            self._text.append(data)
            return
        if self._rest:
            data = self._rest + data
        *lines, self._rest = data.split(b"\n")
        for line in lines:
            if line.startswith(DATA):
                self._event(line[len(DATA) :].strip(), now)

    def end(self, now: float) -> None:
        """The body is complete."""
        self.ended = now
        if self.status >= 400:
            self.problem = f"HTTP {self.status}"
        elif self._stream:
            if self.problem is None and not self._done:
                self.problem = "stream without its end"
        else:
            self._whole(now)

    def fail(self, problem: str, now: float) -> None:
        self.ended = now
        self.problem = problem

    def _event(self, text: bytes, now: float) -> None:
        if text == DONE:
            self._done = True
            return
        try:
            event = _decode(text)
        except msgspec.MsgspecError:
            self.problem = "event that is not understood"
            return
        self._take(event)
        if any(choice.says_something() for choice in event.choices):
            self.chunks += 1
            if self.first_token is None:
                self.first_token = now
            else:
                self.gaps.append(now - self.last_token)
            self.last_token = now

    def _whole(self, now: float) -> None:
        try:
            self._take(_decode(b"".join(self._text)))
        except msgspec.MsgspecError:
            self.problem = "answer that is not understood"
        self.chunks = 1

    def _take(self, event: Event) -> None:
        if event.usage is not None:
            self.usage = event.usage
        if event.error is not None:
            self.problem = "error in the stream"
        for choice in event.choices:
            if choice.finish_reason == "abort":  # how an engine that is put to sleep ends what it was doing
                self.problem = "aborted by the engine"
