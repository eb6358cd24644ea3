"""Token counts out of what an engine answers, found in the last bytes so that nothing else need be read."""

from __future__ import annotations

import re

TAIL_BYTES = 16_384
USAGE = b'"usage"'
_COUNT = re.compile(rb'"(prompt_tokens|input_tokens|completion_tokens|output_tokens)"\s*:\s*(\d+)')


class Tail:
    """The last chunks of a response, by reference. Memory: a few times ``TAIL_BYTES``, or one chunk that is larger."""

    __slots__ = ("_chunks", "_untrimmed")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._untrimmed = 0

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._untrimmed += len(chunk)
        if self._untrimmed > TAIL_BYTES:
            self._trim()

    def _trim(self) -> None:
        """Drop what is before the last ``TAIL_BYTES``. Done once for many chunks."""
        kept = index = 0
        for index in range(len(self._chunks) - 1, -1, -1):
            kept += len(self._chunks[index])
            if kept >= TAIL_BYTES:
                break
        del self._chunks[:index]
        self._untrimmed = 0

    def usage(self) -> tuple[int, int]:
        """Prompt and completion tokens as the engine last reported them; zeros when it did not."""
        data = b"".join(self._chunks)
        at = data.rfind(USAGE)
        while at >= 0:
            counts = {name: int(count) for name, count in reversed(_COUNT.findall(data, at))}
            prompt = counts.get(b"prompt_tokens", counts.get(b"input_tokens", 0))
            completion = counts.get(b"completion_tokens", counts.get(b"output_tokens", 0))
            if counts:
                return prompt, completion
            at = data.rfind(USAGE, 0, at)  # an empty "usage": null is not the last word
        return 0, 0
