"""What load a client makes: the options that ``benchmark.py`` and ``client.py`` share, and how one hands them on."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_SECONDS = 30.0
PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


@dataclass(frozen=True, slots=True)
class Load:
    """``request_rate`` None means a closed loop of ``concurrency``. Without ``num_requests``, ``duration`` counts."""

    request_rate: float | None
    concurrency: int
    input_len: int
    output_len: int
    duration: float | None
    num_requests: int | None
    warmup: int
    seed: int
    stream: bool
    endpoint: str
    timeout: float

    @classmethod
    def of(cls, options: argparse.Namespace) -> Load:
        duration = options.duration
        if duration is None and options.num_requests is None:
            duration = DEFAULT_SECONDS
        return cls(
            request_rate=options.request_rate,
            concurrency=options.concurrency,
            input_len=options.input_len,
            output_len=options.output_len,
            duration=duration,
            num_requests=options.num_requests,
            warmup=options.warmup,
            seed=options.seed,
            stream=options.stream,
            endpoint=options.endpoint,
            timeout=options.timeout,
        )

    @property
    def path(self) -> str:
        return PATHS[self.endpoint]

    def argv(self) -> tuple[str, ...]:
        """The same load as a command line: ``Load.of`` of it, parsed, is this load."""
        words = ["--stream" if self.stream else "--no-stream"]
        given: Mapping[str, object] = {
            "--request-rate": self.request_rate,
            "--concurrency": None if self.request_rate is not None else self.concurrency,
            "--input-len": self.input_len,
            "--output-len": self.output_len,
            "--duration": self.duration,
            "--num-requests": self.num_requests,
            "--warmup": self.warmup,
            "--seed": self.seed,
            "--endpoint": self.endpoint,
            "--timeout": self.timeout,
        }
        for option, value in given.items():
            if value is not None:
                words += [option, str(value)]
        return tuple(words)

    def describe(self) -> str:
        pace = f"{self.request_rate:g} requests/s" if self.request_rate is not None else f"{self.concurrency} at a time"
        ends = [f"{self.duration:g} s"] if self.duration is not None else []
        ends += [f"{self.num_requests} requests"] if self.num_requests is not None else []
        way = "streamed" if self.stream else "not streamed"
        return f"{pace}, {' or '.join(ends)}, about {self.input_len} tokens in, {self.output_len} out, {way}"


def add_load_options(parser: argparse.ArgumentParser) -> None:
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--request-rate", type=_positive, metavar="R", help="requests per second and model, at random times (Poisson)"
    )
    pace.add_argument(
        "--concurrency", type=_count, default=4, metavar="N", help="requests at a time and model, the default (4)"
    )
    parser.add_argument("--input-len", type=_count, default=128, metavar="TOKENS", help="about so many, in words (128)")
    parser.add_argument("--output-len", type=_count, default=64, metavar="TOKENS", help="exactly so many (64)")
    parser.add_argument("--duration", type=_positive, metavar="SECONDS", help="start requests for so long (30)")
    parser.add_argument("--num-requests", type=_count, metavar="N", help="start so many requests per model")
    parser.add_argument(
        "--warmup", type=_count_or_none, default=0, metavar="N", help="requests before, not measured (0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other prompts and other times (0)")
    parser.add_argument("--stream", action=argparse.BooleanOptionalAction, default=True, help="stream the answers")
    parser.add_argument("--endpoint", choices=sorted(PATHS), default="chat", help="which API to use (chat)")
    parser.add_argument(
        "--timeout", type=_positive, default=600.0, metavar="SECONDS", help="give one request up after so long (600)"
    )


def read_key(variable: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The key in ``variable``. Raises ``ValueError`` when a variable is named but not set."""
    if variable is None:
        return None
    if not environment.get(variable):
        raise ValueError(f"the environment variable {variable}, which should hold the API key, is not set")
    return environment[variable]


def base_url(text: str) -> str:
    """An argparse type: a server's address, without the ``/v1`` that OpenAI clients add to it."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address such as http://127.0.0.1:8080")
    return text.rstrip("/").removesuffix("/v1")


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _count_or_none(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number
