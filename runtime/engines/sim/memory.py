"""What of the engine is in GPU memory, and whether its weights are worth anything."""

from __future__ import annotations

from collections.abc import Iterable

_SHARES = {"weights": 0.6, "kv_cache": 0.4}
SGLANG_TAGS = frozenset({"weights", "kv_cache", "cuda_graph"})


class Memory:
    def __init__(self, awake_gib: float, asleep_gib: float, *, backup: bool) -> None:
        self._awake_gib = awake_gib
        self._asleep_gib = asleep_gib
        self._backup = backup
        self.level: int | None = None  # vLLM's sleep level; None is awake
        self.absent: set[str] = set()
        self.intact = True

    @property
    def gib(self) -> float:
        gone = sum(_SHARES.get(tag, 0.0) for tag in self.absent)
        return self._awake_gib - (self._awake_gib - self._asleep_gib) * gone

    def sleep(self, level: int) -> None:
        """vLLM: level 1 keeps the weights in main memory, level 2 drops them, level 0 keeps all."""
        self.level = level
        if level > 0:
            self.absent.update(_SHARES)
        if level == 2:
            self.intact = False

    def wake(self, tags: Iterable[str] | None) -> bool:
        """vLLM: bring these parts back, None meaning all; True when the engine is awake."""
        self.absent.difference_update(self.absent.copy() if tags is None else tags)
        if not self.absent:
            self.level = None
        return not self.absent

    def reload(self) -> None:
        """Load the weights from disk into memory they have."""
        if "weights" in self.absent:
            raise RuntimeError("reload_weights needs the memory of the weights: wake_up?tags=weights first")
        self.intact = True

    def release(self, tags: frozenset[str]) -> bool:
        """SGLang: give these parts up; True when that changed something."""
        leaving = tags - self.absent
        self.absent |= leaving
        if "weights" in leaving and not self._backup:
            self.intact = False
        return bool(leaving)

    def resume(self, tags: frozenset[str]) -> None:
        """SGLang: raises KeyError for a part that was not released, as the real scheduler does."""
        for tag in sorted(tags, reverse=True):
            self.absent.remove(tag)
