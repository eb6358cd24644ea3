"""The GPUs of this machine, as their driver tells: the one door to NVML.

Numbers are the driver's, in the order of the bus, as ``nvidia-smi`` shows them; what an engine sees of them
(``CUDA_VISIBLE_DEVICES``, by number or by UUID) plays no part. One that is cut up (MIG) counts as one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

log = logging.getLogger(__name__)

READ_SECONDS = 2.0
FIRST_SECONDS = 10.0
"""A driver that nobody uses yet takes seconds to come up."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """In bytes. ``processes``: pid -> what it holds, of those that can be told apart."""

    number: int
    uuid: str
    total: int
    free: int
    processes: Mapping[int, int]


class Gpus(Protocol):
    def look(self) -> tuple[Gpu, ...]:
        """All there are, now; none without a driver. Blocks. Raises nothing."""


def _pynvml() -> Any:
    import pynvml  # only the gateway measures, and the launcher starts faster without it

    return pynvml


class Nvml:
    """``load`` gives NVML's Python binding. What it lacks or refuses is said once, in the log."""

    def __init__(self, load: Callable[[], Any] = _pynvml) -> None:
        self._load = load
        self._binding: Any = None
        self._opened = False
        self._said: set[str] = set()

    def look(self) -> tuple[Gpu, ...]:
        if not self._opened:
            self._opened, self._binding = True, self._open()
        if self._binding is None:
            return ()
        try:
            count = self._binding.nvmlDeviceGetCount()
        except self._binding.NVMLError as error:
            self._say(f"the GPUs cannot be counted: {error}")
            return ()
        found = (self._gpu(number) for number in range(count))
        return tuple(one for one in found if one is not None)

    def _open(self) -> Any:
        try:
            binding = self._load()
        except ImportError:
            self._say("memory of GPUs is not measured: nvidia-ml-py is not installed")
            return None
        try:
            binding.nvmlInit()
        except binding.NVMLError as error:
            self._say(f"memory of GPUs is not measured: there is no driver to ask ({error})")
            return None
        return binding

    def _gpu(self, number: int) -> Gpu | None:
        nvml = self._binding
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(number)
            memory, uuid = nvml.nvmlDeviceGetMemoryInfo(handle), nvml.nvmlDeviceGetUUID(handle)
        except nvml.NVMLError as error:
            self._say(f"GPU {number} cannot be asked for its memory: {error}")
            return None
        return Gpu(number, str(uuid), int(memory.total), int(memory.free), self._processes(number, handle))

    def _processes(self, number: int, handle: Any) -> dict[int, int]:
        try:
            running = self._binding.nvmlDeviceGetComputeRunningProcesses(handle)
        except self._binding.NVMLError as error:
            self._say(f"GPU {number} does not tell which process holds what: {error}")
            return {}
        held: dict[int, int] = {}
        for process in running:
            if process.usedGpuMemory is not None:  # some drivers do not know
                held[process.pid] = held.get(process.pid, 0) + int(process.usedGpuMemory)
        return held

    def _say(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.info("%s", what)


class Panel:
    """Reads them off the event loop. A driver that hangs costs one thread, which nobody waits for at the end."""

    def __init__(self, gpus: Gpus) -> None:
        self._gpus = gpus
        self._reading: asyncio.Future[tuple[Gpu, ...]] | None = None
        self._late = False

    async def read(self, seconds: float = READ_SECONDS) -> tuple[Gpu, ...]:
        """Nothing if the driver does not answer in so many ``seconds``. Who asks meanwhile shares one reading."""
        if self._reading is None or self._reading.done():
            self._reading = self._begin()
        done, _ = await asyncio.wait([self._reading], timeout=seconds)
        if not done and not self._late:
            log.warning("the driver of the GPUs has not answered for %g s", seconds)
        self._late = not done
        return next(iter(done)).result() if done else ()

    def _begin(self) -> asyncio.Future[tuple[Gpu, ...]]:
        loop = asyncio.get_running_loop()
        reading: asyncio.Future[tuple[Gpu, ...]] = loop.create_future()

        def tell(found: tuple[Gpu, ...]) -> None:
            if not reading.done():
                reading.set_result(found)

        def look() -> None:
            found = self._gpus.look()
            try:
                loop.call_soon_threadsafe(tell, found)
            except RuntimeError:
                pass  # the loop is closed: nobody asks any more

        threading.Thread(target=look, name="gpus", daemon=True).start()
        return reading
