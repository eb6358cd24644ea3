"""When requests start and what they say. Pure: the same seed makes the same load."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from benchmarks.settings import Load

_COMMON = (
    "the and for you that with this from have they will one all would there what out about who get which when make "
    "can like time just him know take people into year your good some could them see other than then now look only "
    "come its over think also back after use two how our work first well way even new want because any these give day"
)
WORDS = _COMMON.split()
TEXT_WORDS = 16_384


def arrivals(rate: float, seed: str, duration: float | None, number: int | None) -> Iterator[float]:
    """Yield the times, in seconds from the start, at which requests are meant to start: a Poisson process.

    ``seed`` should name the model too, else all models' requests come at once.
    """
    source = random.Random(f"arrivals {seed}")
    time, made = 0.0, 0
    while number is None or made < number:
        time += source.expovariate(rate)
        if duration is not None and time >= duration:
            return
        yield time
        made += 1


class Prompts:
    """One text of which each request gets another piece, so that making a body costs next to nothing.

    A word is about a token. Each body begins with its own number, so no engine finds it in its prefix cache.
    """

    def __init__(self, model: str, load: Load, *, engine_options: bool) -> None:
        self.model = model
        source = random.Random(f"prompts {load.seed} {model}")
        words = source.choices(WORDS, k=TEXT_WORDS + load.input_len)
        self._text = " ".join(words).encode()
        self._starts = [0]
        for word in words:
            self._starts.append(self._starts[-1] + len(word) + 1)
        self._words = max(1, load.input_len - 1)
        self._step = source.randrange(1, TEXT_WORDS, 2)
        self._before, self._after = _around(model, load, engine_options)

    def body(self, index: int) -> bytes:
        """The JSON body of request ``index``."""
        first = index * self._step % TEXT_WORDS
        piece = self._text[self._starts[first] : self._starts[first + self._words] - 1]
        return b"%s%d %s%s" % (self._before, index, piece, self._after)


def _around(model: str, load: Load, engine_options: bool) -> tuple[bytes, bytes]:
    mark = "PROMPT"
    body: dict[str, object] = {"max_tokens": load.output_len}
    if engine_options:
        body["ignore_eos"] = True
    if load.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if load.endpoint == "chat":
        body["messages"] = [{"role": "user", "content": mark}]
    else:
        body["prompt"] = mark
    before, _, after = json.dumps(body).rpartition(mark)
    return f'{{"model": {json.dumps(model)}, {before[1:]}'.encode(), after.encode()
