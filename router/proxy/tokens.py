"""Token counts out of what an engine answers, found in the last bytes so that nothing else need be read."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Annotated

import msgspec

TAIL_BYTES = 16_384
TAIL_FRAMES = 64
USAGE = b'"usage"'
NONE = (0, 0)
AFTER_USAGE = len(USAGE) + 1  # and its colon
PROMPT = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*(\d{1,15})(?!\d)')
COMPLETION = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*(\d{1,15})(?!\d)')


Tokens = Annotated[int, msgspec.Meta(ge=0, lt=10**15)]
"""Whatever an engine says of them can be added up."""


class _Usage(msgspec.Struct):
    """As OpenAI's API has it, without the details that some engines add."""

    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0


_decoder = msgspec.json.Decoder(_Usage)


class Tail:
    """The last chunks of a response, by reference: ``TAIL_BYTES`` at least, twice that and two chunks at most.

    Of one that comes in frames, which are short, ``TAIL_FRAMES``.
    """

    __slots__ = ("_chunks", "_older", "_size")

    def __init__(self) -> None:
        self._older: list[bytes] = []
        self._chunks: list[bytes] | deque[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > TAIL_BYTES:  # what was before is enough, and older than that nothing is needed
            self._older = list(self._chunks)
            self._chunks.clear()
            self._size = 0

    def keep_frames(self) -> Callable[[bytes], None]:
        """From here on there are frames. Returns what adds one, at next to no cost."""
        self._chunks = deque(self._chunks, TAIL_FRAMES)
        return self._chunks.append

    def usage(self) -> tuple[int, int]:
        """Prompt and completion tokens as the engine last reported them; zeros when it did not."""
        found = usage_in(self._chunks[-1]) if self._chunks else NONE
        return found if found != NONE else usage_in(b"".join((*self._older, *self._chunks)))


def usage_in(data: bytes) -> tuple[int, int]:
    """As ``Tail.usage``, in an answer that came as one."""
    at = data.rfind(USAGE)
    while at >= 0:
        try:  # with most engines this finds them, and a search by pattern takes three times as long
            usage = _decoder.decode(data[at + AFTER_USAGE : data.find(b"}", at) + 1])
            if usage.prompt_tokens:
                return usage.prompt_tokens, usage.completion_tokens
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        prompt, completion = PROMPT.search(data, at), COMPLETION.search(data, at)
        if prompt or completion:
            return int(prompt[1]) if prompt else 0, int(completion[1]) if completion else 0
        at = data.rfind(USAGE, 0, at)  # an empty "usage": null is not the last word
    return NONE
