"""Deterministic text: what the simulated model reads and says.

A token read is four bytes of UTF-8, so its id can be turned back into text; a token said is one word.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Sequence

BYTES_PER_TOKEN = 4

_STORY = (
    "the small dormouse sleeps under warm leaves while winter rain falls on quiet hills and a slow river carries "
    "light past old stones until spring wakes every seed with bright wind over open fields where birds sing of "
    "long days soft moss green paths deep wells and kind hands that keep one lamp burning through night"
)
WORDS = tuple(f" {word}" for word in _STORY.split())
# What a model says whose weights were dropped and not loaded again.
NOISE = (" \u2588\u2588", " \u2593\u2591", " \u2588\u2592\u2588", " \u2591\u2591\u2593", " \ufffd\u2588")


def count_tokens(text: str) -> int:
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def tokenize(text: str) -> list[int]:
    data = text.encode()
    return [
        int.from_bytes(b"\x01" + data[at : at + BYTES_PER_TOKEN], "big") for at in range(0, len(data), BYTES_PER_TOKEN)
    ]


def detokenize(ids: Iterable[int]) -> str:
    """The text of these ids; one that is no token of ours becomes a replacement character."""
    parts: list[bytes] = []
    for token in ids:
        data = token.to_bytes((token.bit_length() + 7) // 8, "big") if token > 0 else b""
        parts.append(data[1:] if data[:1] == b"\x01" else "\ufffd".encode())
    return b"".join(parts).decode(errors="replace")


def digest(*parts: object) -> int:
    hashed = hashlib.blake2b(digest_size=8)
    for part in parts:
        hashed.update(str(part).encode())
        hashed.update(b"\0")
    return int.from_bytes(hashed.digest(), "big")


def say(seed: int, voice: str, prompt: str, tokens: int, *, sane: bool = True) -> list[str]:
    """The reply of `voice` (a model or an adapter) to a prompt, one string for each token."""
    return random.Random(digest(seed, voice, prompt)).choices(WORDS if sane else NOISE, k=tokens)


def cut_at_stop(pieces: Sequence[str], stops: Sequence[str]) -> tuple[list[str], str | None]:
    """The pieces before the earliest stop string, and that string."""
    text = "".join(pieces)
    found = min(((text.find(stop), stop) for stop in stops if stop and stop in text), default=None)
    if found is None:
        return list(pieces), None
    end, stop = found
    kept: list[str] = []
    length = 0
    for piece in pieces:
        kept.append(piece[: max(0, end - length)])
        length += len(piece)
        if length >= end + len(stop):
            break
    return kept, stop


def vector(seed: int, text: str, dimensions: int) -> list[float]:
    """A unit vector; texts that share words lie near each other."""
    total = [0.0] * dimensions
    for word in text.lower().split()[:512] or [""]:
        source = random.Random(digest(seed, word))
        for at in range(dimensions):
            total[at] += source.gauss(0.0, 1.0)
    norm = math.sqrt(sum(value * value for value in total)) or 1.0
    return [value / norm for value in total]


def relevance(query: str, document: str) -> float:
    """Between 0 and 1: how many of the query's words the document has."""
    wanted = set(query.lower().split())
    found = wanted & set(document.lower().split())
    return round(0.05 + 0.9 * len(found) / max(1, len(wanted)), 6)
