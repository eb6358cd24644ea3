"""The simulated engine itself: everything the HTTP side talks to, made and joined in one place."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

from runtime.engines.sim.adapters import Adapters
from runtime.engines.sim.errors import EngineDown
from runtime.engines.sim.faults import Fault, Faults
from runtime.engines.sim.gate import Gate
from runtime.engines.sim.generation import Generation, Order, Pace
from runtime.engines.sim.memory import Memory
from runtime.engines.sim.metrics_page import Load, MetricsPage
from runtime.engines.sim.options import SimOptions
from runtime.engines.sim.prefix_cache import PrefixCache
from runtime.engines.sim.scheduler import Scheduler
from runtime.engines.sim.sglang_page import SglangPage
from runtime.engines.sim.text import cut_at_stop, say
from runtime.engines.sim.vllm_page import VllmPage
from runtime.engines.sim.wire import Connections

logger = logging.getLogger(__name__)

_PAGES: dict[str, Callable[[SimOptions, Load], MetricsPage]] = {"vllm": VllmPage, "sglang": SglangPage}


class Engine:
    def __init__(self, options: SimOptions, exit_process: Callable[[int], object] = os._exit) -> None:
        self.options = options
        self.scheduler = Scheduler(options.max_num_seqs)
        self.gate = Gate()
        self.moving = asyncio.Lock()  # one sleep or wake at a time
        self.memory = Memory(options.memory_gib, options.asleep_memory_gib, backup=options.enable_weights_cpu_backup)
        self.adapters = Adapters(options.lora_modules, base_names=options.served_names, max_rank=options.max_lora_rank)
        self.faults = Faults(options.faults)
        self.prefixes = PrefixCache(options.kv_cache_tokens)
        self.connections = Connections()
        self.pace = Pace(options.ttft, options.seconds_per_token)
        self.page = _PAGES[options.dialect](options, Load(self.scheduler, self.memory, self.connections))
        self._exit_process = exit_process

    @property
    def asleep(self) -> bool:
        return self.gate.closed_for("asleep") or bool(self.memory.absent)

    @property
    def full(self) -> bool:
        limit = self.options.max_num_queued_reqs
        return limit is not None and self.scheduler.size >= limit

    def crash(self, reason: str) -> NoReturn:
        """End the whole process, as engines do."""
        logger.critical("%s", reason)
        self._exit_process(1)
        raise EngineDown

    def shut_down(self) -> None:
        """What runs or waits gets an error; nothing starts any more."""
        self.gate.tear_down()
        self.scheduler.end_all("error")

    async def pass_gate(self) -> None:
        if self.asleep:
            self.page.sim.while_asleep.inc()
            if self.options.strict_sleep:
                self.crash("a request reached the engine while its memory was released")
        await self.gate.wait()

    @asynccontextmanager
    async def generation(self, order: Order, fault: Fault | None = None) -> AsyncIterator[Generation]:
        """Wait for the engine to be awake and for a place, hold the place, and count the outcome."""
        self.page.sim.requests.inc()
        generation = Generation(order, asyncio.get_running_loop().time())
        try:
            await self.pass_gate()
            await self.scheduler.admit(generation)
            self._prepare(generation, fault)
            yield generation
        finally:
            self.scheduler.leave(generation)
            complete = generation.sent >= len(generation.pieces) and generation.started_at is not None
            if generation.ended == "abort" or (complete and generation.ended is None and not generation.struck):
                self.page.finished(generation, asyncio.get_running_loop().time())
            elif generation.ended is None:
                self.page.aborted(generation)

    def _prepare(self, generation: Generation, fault: Fault | None) -> None:
        order = generation.order
        pieces = say(self.options.seed, order.voice, order.prompt, order.max_tokens, sane=self.memory.intact)
        if order.stops:
            pieces, generation.stop_reason = cut_at_stop(pieces, order.stops)
        generation.pieces = pieces
        generation.cut_at = None if fault is None else int(fault.tokens or 0)
        generation.cached_tokens = min(self.prefixes.read(order.voice, order.prompt), order.prompt_tokens)
        self.page.started(generation)
