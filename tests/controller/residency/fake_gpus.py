"""GPUs whose memory a test hands out."""

from __future__ import annotations

import asyncio

from controller.residency.memory import GIB
from runtime.gpus import Gpu


class FakeGpus:
    """``held``: number -> pid -> GiB. ``foreign``: number -> GiB that nobody is known to hold."""

    def __init__(self, *totals: float) -> None:
        self.totals = totals
        self.held: dict[int, dict[int, float]] = {}
        self.foreign: dict[int, float] = {}
        self.looks = 0
        self.looked = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def look(self) -> tuple[Gpu, ...]:
        self.looks += 1
        self._loop.call_soon_threadsafe(self.looked.set)
        return tuple(self._gpu(number, total) for number, total in enumerate(self.totals))

    def _gpu(self, number: int, total: float) -> Gpu:
        held = self.held.get(number, {})
        free = total - sum(held.values()) - self.foreign.get(number, 0)
        processes = {pid: _bytes(size) for pid, size in held.items()}
        return Gpu(number, f"GPU-{number}", _bytes(total), _bytes(free), processes)


def _bytes(gib: float) -> int:
    return round(gib * GIB)
