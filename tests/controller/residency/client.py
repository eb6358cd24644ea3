"""A client of a house: one request, as the gateway's pipeline sees it through."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from controller.fleet.errors import Unavailable
from controller.fleet.instance import Instance
from router.traffic.monitor import Outcome
from tests.controller.residency.tenant_engine import NextGateway, TenantEngine

if TYPE_CHECKING:
    from tests.controller.residency.house import House


class Client:
    """``outcome``: '' until it has one. ``phase``: where it is. ``lasts``: seconds; None: until told.

    ``onward``: the same request at the next gateway, if this one has passed it on.
    """

    def __init__(self, house: House, model: str, seconds: float, lasts: float | None) -> None:
        self.house = house
        self.live = house.live
        self.onward: Client | None = None
        self.model = model
        self.lasts = lasts
        self.asked_at = house.loop.time()
        self.deadline = self.asked_at + seconds
        self.phase = "new"
        self.outcomes: list[str] = []
        self.reason = ""
        self.instance: Instance | None = None
        self.waited = 0.0
        self.route = self.live.fleet.routes[model]
        self.replicas = self.route.replicas
        self.tracked = self.live.serving[model].traffic.begin(self.asked_at)
        self.answer: asyncio.Future[None] = house.loop.create_future()
        self.task = house.loop.create_task(self._run())

    @property
    def outcome(self) -> str:
        return ", ".join(self.outcomes)

    def finish(self) -> None:
        """Its answer is whole, unless its engine has fallen asleep over it."""
        if self.onward is not None:
            return
        if self.instance is not None and cast(TenantEngine, self.instance.engine).asleep:
            self.breaks()
        elif not self.answer.done():
            self.answer.set_result(None)

    def breaks(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(ConnectionResetError())

    def leave(self) -> None:
        if self.phase == "new":  # its task will never begin
            self._ends("left")
        self.task.cancel()

    def _ends(self, outcome: str) -> None:
        self.phase = "over"
        self.outcomes.append(outcome)
        self.tracked.end(Outcome.SUCCESSFUL if outcome == "served" else Outcome.FAILED, 200)

    async def _run(self) -> None:
        try:
            self.phase = "waiting"
            try:
                self.instance = await self._acquired()
            finally:
                self.phase = "between"
                self.waited = self.house.loop.time() - self.asked_at
                if self.house.loop.time() > self.deadline + 0.01:
                    self.house.wrong.append(f"{self.model} was made to wait beyond its deadline")
        except Unavailable as refusal:
            self.reason = str(refusal)
            self._ends(type(refusal).__name__)
        except asyncio.CancelledError:
            self._ends("left")
        else:
            if isinstance(self.instance.engine, NextGateway):
                await self._be_passed_on(self.instance)
            else:
                await self._be_served(self.instance)

    async def _acquired(self) -> Instance:
        while True:
            among, choose = self.route.instances, self.house.choose
            instance = self.replicas.try_acquire(among, choose)
            if instance is None:
                instance = await self.replicas.acquire(among, choose, self.deadline)
            if instance in self.route.rename:
                assert instance in self.live.pools, f"{instance.name} has no connections any more"
                return instance
            instance.end()

    async def _be_passed_on(self, instance: Instance) -> None:
        """What the next gateway answers is the answer. Its connection waits until that one serves."""
        self.phase = "in flight"
        try:
            await self.house.serves.wait()
            if self.model not in self.house.fleet.routes:
                self._ends("NotFound")
                return
            self.onward = self.house.ask(self.model, lasts=self.lasts)
            await asyncio.wait([self.onward.task])
            self._ends(self.onward.outcome)
        except asyncio.CancelledError:
            if self.onward is not None:
                self.onward.leave()
            self._ends("left")
        finally:
            instance.end()

    async def _be_served(self, instance: Instance) -> None:
        self.phase = "in flight"
        engine, began, abandoned = cast(TenantEngine, instance.engine), self.house.loop.time(), False
        try:
            await asyncio.sleep(0.001)  # it goes over a wire
            if not engine.there:
                raise ConnectionRefusedError
            if engine.meddled or engine.meddled_at >= began:
                raise ConnectionResetError
            if engine.asleep:
                engine.steps.happened.append("reached asleep")
            if engine.bare and not engine.astray:
                engine.steps.happened.append("reached bare")
            engine.serving.add(self)
            if self.lasts is not None:
                self.house.loop.call_later(self.lasts, self.finish)
            await self.answer
            instance.answered()
            self._ends("served")
        except asyncio.CancelledError:
            abandoned = True
            self._ends("left")
            if self in engine.serving:
                engine.running += 1  # an engine goes on for a while
                self.house.loop.call_later(0.3, self._given_up, engine, engine.process)
        except ConnectionError:
            self._ends("broke")
            self.replicas.look_at(instance)
        finally:
            engine.serving.discard(self)
            instance.end(abandoned=abandoned)

    @staticmethod
    def _given_up(engine: TenantEngine, process: str) -> None:
        if engine.running and engine.process == process and engine.there:
            engine.running -= 1
