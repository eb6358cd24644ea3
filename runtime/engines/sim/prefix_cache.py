"""Which beginnings of prompts the engine has seen, in blocks."""

from __future__ import annotations

from collections import OrderedDict

from runtime.engines.sim.text import BYTES_PER_TOKEN

BLOCK_TOKENS = 16
_BLOCK_BYTES = BLOCK_TOKENS * BYTES_PER_TOKEN


class PrefixCache:
    def __init__(self, capacity_tokens: int) -> None:
        self._capacity = max(1, capacity_tokens // BLOCK_TOKENS)
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def read(self, voice: str, prompt: str) -> int:
        """Count the tokens found in the cache, whole blocks only, and remember the prompt."""
        data = prompt.encode()
        chain = hash(voice)
        hits = 0
        unbroken = True
        for at in range(0, len(data) - _BLOCK_BYTES + 1, _BLOCK_BYTES):
            chain = hash((chain, data[at : at + _BLOCK_BYTES]))
            unbroken = unbroken and chain in self._blocks
            hits += unbroken
            self._blocks[chain] = None
            self._blocks.move_to_end(chain)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)
        return hits * BLOCK_TOKENS

    def clear(self) -> None:
        self._blocks.clear()
