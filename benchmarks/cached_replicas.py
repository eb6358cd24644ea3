"""Replicas with a prefix cache each, in virtual time: who is asked, what is cached, how long it takes."""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from statistics import quantiles

from benchmarks.conversations import BLOCK, Block, Conversation, Turn
from router.balancing import Policy, Wants


@dataclass(frozen=True, slots=True)
class Machine:
    """One replica's engine. ``prefill``: tokens a second that are not cached, one prompt after the other.

    A token of an answer takes ``token`` seconds alone and ``beside`` more for each answer in the making beside it.
    ``cache``: tokens. ``seats``: requests at once, others wait.
    """

    prefill: float = 10_000.0
    token: float = 0.015
    beside: float = 0.0005
    cache: int = 150_000
    seats: int = 64


@dataclass(slots=True)
class Request:
    turn: Turn
    arrived: float
    whose: Conversation


class Cache:
    """What a replica has of prompts and answers, block by block, the longest unused forgotten first."""

    def __init__(self, tokens: int) -> None:
        self._most = tokens // BLOCK
        self._blocks: OrderedDict[Block, None] = OrderedDict()

    def cached(self, blocks: Sequence[Block]) -> int:
        """Tokens of the longest beginning that is there. The last block is always computed, as in vLLM."""
        found = 0
        for block in blocks[:-1]:
            if block not in self._blocks:
                break
            found += 1
        return found * BLOCK

    def keep(self, blocks: Sequence[Block]) -> None:
        for block in reversed(blocks):  # of one prompt the end is forgotten before the beginning
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._most:
            self._blocks.popitem(last=False)


class Replica:
    """As a policy sees it, and the engine behind it."""

    def __init__(self, name: str, machine: Machine) -> None:
        self.name = name
        self.weight = 1.0
        self.in_flight = 0
        self.machine = machine
        self.cache = Cache(machine.cache)
        self.waiting: deque[Request] = deque()
        self.running = 0
        self.reading = False
        self.busy = 0.0


@dataclass
class Outcome:
    """``ttft``: seconds. ``prompt``, ``cached``: tokens. ``imbalance``: the busiest replica's prefill to the mean's."""

    policy: str
    ttft: list[float] = field(default_factory=list)
    prompt: int = 0
    cached: int = 0
    imbalance: float = 1.0

    @property
    def hit_rate(self) -> float:
        return self.cached / max(1, self.prompt)

    def percentile(self, percent: int) -> float:
        return quantiles(self.ttft, n=100, method="inclusive")[percent - 1]


class Race:
    """One policy before some replicas. ``warmup``: requests that arrive before are not measured."""

    def __init__(self, name: str, policy: Policy, machine: Machine, replicas: int, warmup: float) -> None:
        self.outcome = Outcome(name)
        self.replicas = [Replica(f"replica {index}", machine) for index in range(replicas)]
        self._policy = policy
        self._warmup = warmup
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def run(self, arrivals: Iterable[tuple[float, Conversation]]) -> Outcome:
        for when, conversation in arrivals:
            self._at(when, partial(self._ask, conversation))
        while self._events:
            self._now, _, happen = heapq.heappop(self._events)
            happen()
        busy = [one.busy for one in self.replicas]
        self.outcome.imbalance = max(busy) * len(busy) / sum(busy)
        return self.outcome

    def _at(self, when: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), happen))

    def _ask(self, whose: Conversation) -> None:
        turn = whose.next()
        if turn is None:
            return
        about = {Wants.NOTHING: b"", Wants.SESSION: turn.conversation, Wants.PROMPT: turn.text}[self._policy.wants]
        replica = self._policy.choose(self.replicas, about)
        replica.in_flight += 1
        replica.waiting.append(Request(turn, self._now, whose))
        self._read(replica)

    def _read(self, replica: Replica) -> None:
        """Begin with the next prompt; they are read one after the other, and each finds what those before it left."""
        if replica.reading or not replica.waiting or replica.running >= replica.machine.seats:
            return
        request = replica.waiting.popleft()
        replica.reading = True
        replica.running += 1
        prompt = len(request.turn.blocks) * BLOCK
        cached = replica.cache.cached(request.turn.blocks)
        seconds = (prompt - cached) / replica.machine.prefill
        if request.arrived >= self._warmup:
            self.outcome.prompt += prompt
            self.outcome.cached += cached
            self.outcome.ttft.append(self._now + seconds - request.arrived)
            replica.busy += seconds
        self._at(self._now + seconds, partial(self._answer, replica, request))

    def _answer(self, replica: Replica, request: Request) -> None:
        replica.reading = False
        replica.cache.keep(request.turn.blocks)
        seconds = request.turn.answer * (replica.machine.token + replica.machine.beside * (replica.running - 1))
        self._at(self._now + seconds, partial(self._end, replica, request))
        self._read(replica)

    def _end(self, replica: Replica, request: Request) -> None:
        replica.running -= 1
        replica.in_flight -= 1
        replica.cache.keep((*request.turn.blocks, *request.turn.said))
        self._at(self._now + next(request.whose.pauses), partial(self._ask, request.whose))
        self._read(replica)
