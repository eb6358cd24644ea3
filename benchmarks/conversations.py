"""Conversations as clients have them: shared system prompts, several turns each, pauses in between. Seeded."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

BYTES_PER_TOKEN = 4
BLOCK = 64
"""Tokens of a cache block. Lengths are whole blocks."""

Block = tuple[int, int]
"""Whose it is and the how manieth: a conversation's, or below 0 that of a shared system prompt."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Lengths in tokens, times in seconds. ``skew``: of the popularity of system prompts (Zipf); 0 is none.

    ``system_prompts`` 0: no conversation begins like another.
    """

    name: str
    conversations_per_second: float
    system_prompts: int
    system_length: tuple[int, int]
    skew: float = 1.0
    turns: float = 5.0
    question: float = 200.0
    answer: float = 250.0
    pause: float = 20.0


@dataclass(frozen=True, slots=True)
class Turn:
    """``blocks``: what the prompt begins with up to each block, as a cache knows it; ``said`` are those of the answer.

    ``text``: the same as the bytes that a gateway sees.
    """

    conversation: bytes
    blocks: tuple[Block, ...]
    said: tuple[Block, ...]
    text: bytes

    @property
    def answer(self) -> int:
        return len(self.said) * BLOCK


class Conversation:
    """One client's. The same seed and number, the same conversation, whatever was chosen for the others."""

    def __init__(self, workload: Workload, number: int, seed: int, system: Sequence[Block], text: bytes) -> None:
        self.name = b"conversation %d" % number
        self._workload = workload
        self._number = number
        self._chance = chance = random.Random(f"{seed}/{number}")
        self.pauses: Iterator[float] = iter(lambda: chance.expovariate(1 / workload.pause), None)
        self._left = 1
        while chance.random() < 1 - 1 / workload.turns:
            self._left += 1
        self._blocks = list(system)
        self._text = text

    def next(self) -> Turn | None:
        """What is asked now, the whole conversation before it; None when it is over."""
        if not self._left:
            return None
        self._left -= 1
        self._add(self._workload.question)
        asked, text = tuple(self._blocks), self._text
        self._add(self._workload.answer)
        return Turn(self.name, asked, tuple(self._blocks[len(asked) :]), text)

    def _add(self, mean: float) -> None:
        count = max(1, round(self._chance.expovariate(1 / mean) / BLOCK))
        self._blocks += [(self._number, len(self._blocks) + index) for index in range(count)]
        self._text += text_of(self._chance, count)


def arrivals(workload: Workload, seed: int, seconds: float) -> Iterator[tuple[float, Conversation]]:
    """When each conversation begins: a Poisson process."""
    chance = random.Random(seed)
    shared = [_system_prompt(workload, chance, -1 - rank) for rank in range(workload.system_prompts)]
    popular = [1 / (rank + 1) ** workload.skew for rank in range(workload.system_prompts)]
    now, number = 0.0, 0
    while (now := now + chance.expovariate(workload.conversations_per_second)) < seconds:
        own = chance.choices(shared, popular)[0] if shared else _system_prompt(workload, chance, number)
        yield now, Conversation(workload, number, seed, *own)
        number += 1


def _system_prompt(workload: Workload, chance: random.Random, owner: int) -> tuple[list[Block], bytes]:
    length = chance.randint(*workload.system_length) // BLOCK
    return [(owner, index) for index in range(length)], text_of(chance, length)


def text_of(chance: random.Random, blocks: int) -> bytes:
    """So many blocks as text; no two alike."""
    return chance.randbytes(blocks * BLOCK * BYTES_PER_TOKEN // 2).hex().encode()
