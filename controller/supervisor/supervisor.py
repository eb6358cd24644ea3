"""Keeps engine processes as they are wanted: starts again what crashed, replaces what hangs, lets lie what is stopped.

It looks at what the fleet has found out, and acts through the fleet: a restart takes memory that is free. Where others
would have to leave for it, it is left to the next request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from weakref import WeakKeyDictionary

from controller.fleet.errors import FleetError, NotPossible, TransitionRefused
from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.fleet.journal import Happened
from controller.fleet.state import AWAKE, Hold, State
from controller.fleet.transitions import Transitions
from controller.supervisor import rounds
from controller.supervisor.keeper import LaunchKeeper
from controller.supervisor.policy import Course, Signs, hangs
from controller.supervisor.rounds import keep_looking
from controller.supervisor.standstill import Standstill
from state.desired_states import DesiredState, DesiredStates, Wanted

log = logging.getLogger(__name__)

RESTART, MANUAL = "restart", "manual"
"""Causes of a start."""

CROWDED_OUT, DIED_ASLEEP = "it crashed, and others would have to leave for it", "it died asleep"
"""Why one rests."""

UP = AWAKE | {State.ASLEEP}


class Supervisor:
    def __init__(self, fleet: Fleet, keeper: LaunchKeeper, desired: DesiredStates) -> None:
        self._fleet = fleet
        self._keeper = keeper
        self._desired = desired
        self._courses: WeakKeyDictionary[Instance, Course] = WeakKeyDictionary()
        self._work: dict[Instance, asyncio.Task[None]] = {}
        self._stops: dict[Instance, asyncio.Task[None]] = {}
        self._standstill = Standstill(fleet.clock())
        self._deciding = asyncio.Lock()  # what is wanted must not change between reading it and acting on it

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep looking while open."""
        self._attend()  # before the first look: requests may come at once
        loops = [
            asyncio.create_task(keep_looking(self._beat, "the time")),
            asyncio.create_task(keep_looking(self.look, "the engines' processes")),
        ]
        try:
            yield
        finally:
            tasks = [*loops, *self._work.values(), *self._stops.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def look(self) -> None:
        """Look once at all of them, and begin what is to be done."""
        self._attend()
        for departed in list(self._fleet.departed.values()):
            await self._see_off(departed)
        async with self._deciding:
            await self._look()

    def _attend(self) -> None:
        """Whoever finds that one of them has ended may wait for it."""
        for name, instance in self._fleet.instances.items():
            instance.attended = self._fleet.config.launch.restart and self._keeper.can(name)

    async def _see_off(self, departed: Transitions) -> None:
        """The memory of one that is out of the configuration is taken until nothing of it runs."""
        instance = departed.instance
        if instance.in_flight or departed.under_way or await self._keeper.runs(instance.name):
            return
        self._fleet.forget(departed)

    async def _look(self) -> None:
        wanted, processes = await self._desired.all(), await self._keeper.processes()
        for name, transitions in list(self._fleet.transitions.items()):
            instance = transitions.instance
            if self._fleet.transitions.get(name) is not transitions:
                continue  # it has left while others were looked at
            if not self._keeper.can(name) or instance in self._work or transitions.under_way:
                continue
            if instance.state in UP:
                self._of(instance).see_up(instance.clock())
            ended = instance.state in UP and processes.get(name) is False
            if ended or (instance.state is State.STOPPED and await self._keeper.runs(name)):
                transitions.observe_soon()  # in the second case somebody else has started it
                continue
            desired = wanted.get(name)
            if desired is not None and desired.wanted is Wanted.STOPPED:
                self._let_lie(transitions, desired)
            else:
                await self._see_to(transitions)

    # -- by hand -------------------------------------------------------------------------------------------------

    async def start(self, instances: Sequence[Instance], by: str) -> None:
        """Start those that do not run; they are starting when this returns. Raises ``TransitionRefused``."""
        chosen = await self._chosen(instances)
        down = [one for one in chosen if one.state in (State.STOPPED, State.FAILED)]
        for one in down:
            if one.state is State.FAILED and await self._keeper.runs(one.name):
                raise NotPossible(f"{one.name!r} runs already, but does not answer: stop it first")
        async with self._deciding:
            await self._wish(chosen, Wanted.RUNNING, by)
            for one in down:
                self._courses.pop(one, None)
                one.release()
        await _each([self._fleet.waker.wake(one, MANUAL) for one in down])

    async def stop(self, instances: Sequence[Instance], by: str) -> None:
        """End the processes of ``instances``, each drained first. Raises ``TransitionRefused`` when one goes on."""
        chosen = await self._chosen(instances)
        await _each([self._stop_once(one, by) for one in chosen])

    async def _stop_once(self, instance: Instance, by: str) -> None:
        """Or wait for the one that somebody asked for before. Leaving breaks nothing off: what is wanted is done."""
        task = self._stops.get(instance)
        if task is None:
            task = self._stops[instance] = asyncio.create_task(self._stop(instance, by))
            task.add_done_callback(lambda done: self._stopped(instance, done))
        await asyncio.shield(task)

    def _stopped(self, instance: Instance, task: asyncio.Task[None]) -> None:
        del self._stops[instance]
        if not task.cancelled() and (error := task.exception()) is not None:  # who asked may have left
            log.info("%s was not stopped: %s", instance.name, error)

    async def _stop(self, instance: Instance, by: str) -> None:
        async with self._deciding:
            before = (await self._desired.all()).get(instance.name)
            await self._wish([instance], Wanted.STOPPED, by)
        try:
            seconds = instance.config.sleep.drain_timeout_seconds
            await self._fleet.way_of(instance).stop(f"stopped by {by}", seconds, Hold.BY_HAND)
        except BaseException:
            if before is None:
                await self._desired.clear(instance.name)
            else:
                await self._desired.put(before)
            raise

    async def _chosen(self, instances: Sequence[Instance]) -> Sequence[Instance]:
        for one in instances:
            if not self._keeper.can(one.name):
                raise NotPossible(f"{one.name!r} runs elsewhere: it is neither started nor stopped from here")
        return instances

    async def _wish(self, instances: Sequence[Instance], wanted: Wanted, by: str) -> None:
        await self._desired.put(*(DesiredState(one.name, wanted, one.wall(), by) for one in instances))

    # -- by itself -----------------------------------------------------------------------------------------------

    def _let_lie(self, transitions: Transitions, desired: DesiredState) -> None:
        instance = transitions.instance
        if instance.state is State.STOPPED and instance.hold is not Hold.BY_HAND:
            instance.enter_stopped(f"stopped by {desired.by}", Hold.BY_HAND)
        elif instance.state is State.FAILED:
            transitions.settle_soon()
        elif instance.state in UP:  # it is being stopped, or was started by other means
            transitions.observe_soon()

    async def _see_to(self, transitions: Transitions) -> None:
        instance, course = transitions.instance, self._of(transitions.instance)
        if instance.state is State.STOPPED and instance.hold is Hold.BY_HAND:
            instance.release()
        if not self._fleet.config.launch.restart or instance.hold:
            return
        runs = await self._keeper.runs(instance.name) if instance.state is State.FAILED else True
        if runs is False and self._fleet.transitions.get(instance.name) is transitions:
            await self._has_crashed(transitions)
        elif runs is None:
            return  # nobody has started it
        elif instance.state is State.STOPPED:
            if course.due is not None and instance.clock() >= course.due and not self._is_loaded_beside(instance):
                self._bring_back(transitions)
        elif self._fleet.has_predecessor:
            return  # what runs may still serve that gateway's requests
        elif reason := hangs(self._signs(instance), self._fleet.config.launch.ready_timeout_seconds):
            self._begin(instance, self._replace(transitions, reason))

    async def _has_crashed(self, transitions: Transitions) -> None:
        instance, ending = transitions.instance, await self._keeper.ending(transitions.instance.name)
        if instance.state is not State.FAILED:
            return  # somebody has started it meanwhile
        problem = f"its process ended ({ending})"
        log.warning("%s: %s", instance.name, problem)
        instance.tell(Happened.CRASHED, detail=problem)
        await self._fail(transitions, problem)
        if instance.slept:  # nobody wanted it: the next request starts it
            self._of(instance).due = None
            self._begin(instance, self._clear_up(instance.name, partial(transitions.rest, DIED_ASLEEP)))
        elif instance.hold is Hold.GIVEN_UP:
            self._begin(instance, self._clear_up(instance.name, partial(self._keeper.end_leftovers, instance.name)))

    async def _fail(self, transitions: Transitions, problem: str) -> None:
        """It has failed once more: it is due again after a pause, or given up."""
        instance, course = transitions.instance, self._of(transitions.instance)
        problem = course.fail(problem, instance.clock())
        if course.given_up:
            log.error("%s is given up: %s", instance.name, problem)
            instance.tell(Happened.GIVEN_UP, detail=problem)
            del self._courses[instance]  # whoever starts it by hand begins a new row
        await transitions.fall(problem, course.row.pause, course.in_vain)

    def _bring_back(self, transitions: Transitions) -> None:
        """At once where there is room. Nobody leaves for one that nobody asks for: it rests until somebody does."""
        instance, course, waker = transitions.instance, self._of(transitions.instance), self._fleet.waker
        course.due = None
        if self._is_wanted_unasked(instance):
            self._begin(instance, self._restart(transitions, partial(waker.wake, instance)))
        elif waker.help([instance], RESTART):
            self._begin(instance, self._restart(transitions, transitions.wake))
        elif self._fleet.models[instance.config.model].waiting:
            course.due = instance.clock()  # unless it is started for them
        else:
            self._begin(instance, self._clear_up(instance.name, partial(transitions.rest, CROWDED_OUT)))

    def _is_wanted_unasked(self, instance: Instance) -> bool:
        """Whether it is to be there at any time, or no request would bring it back."""
        pinned = self._fleet.config.settings_of(instance.config.model).pinned
        return pinned or not instance.config.sleep.wakeup_on_request

    async def _clear_up(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Of one that is not started again now: whoever is does that first."""
        try:
            await work()
        except TransitionRefused as refused:
            log.warning("what %s has left behind stays: %s", name, refused)

    async def _restart(self, transitions: Transitions, wake: Callable[[str], Awaitable[None]]) -> None:
        instance = transitions.instance
        try:
            await wake(RESTART)
        except TransitionRefused as refused:
            if instance.state is State.STOPPED and not instance.hold:
                await self._fail(transitions, f"it could not be started: {refused}")
        except FleetError as refused:  # no room now
            log.info("%s is not started again yet: %s", instance.name, refused)
            self._of(instance).due = instance.clock() + (refused.retry_after or rounds.LOOK_SECONDS)

    async def _replace(self, transitions: Transitions, reason: str) -> None:
        instance = transitions.instance
        log.warning("%s hangs and is replaced: %s", instance.name, reason)
        instance.tell(Happened.HUNG, detail=reason)
        try:
            await transitions.stop("hung", None)
        except TransitionRefused as refused:
            log.error("%s", refused)
            return
        await self._fail(transitions, f"it hung: {reason}")

    def _is_loaded_beside(self, instance: Instance) -> bool:
        """Whether another engine loads just now onto the same GPU: they would take memory from each other."""
        others = [one for one in self._fleet.instances.values() if one.state is State.STARTING]
        return any(self._keeper.can(one.name) and self._keeper.share_a_gpu(instance.name, one.name) for one in others)

    async def _beat(self) -> None:
        self._standstill.beat(self._fleet.clock())

    def _signs(self, instance: Instance) -> Signs:
        now = instance.clock()
        self._standstill.beat(now)
        seconds = partial(self._standstill.seconds, now=now)
        silent = seconds(instance.silent_since) if instance.silent_since is not None else 0.0
        return Signs(instance.state, seconds(instance.since), seconds(instance.looked_at), silent)

    def _of(self, instance: Instance) -> Course:
        return self._courses.setdefault(instance, Course())

    def _begin(self, instance: Instance, work: Coroutine[None, None, None]) -> None:
        """One thing at a time for each of them."""
        task = self._work[instance] = asyncio.create_task(work, name=f"supervision of {instance.name}")
        task.add_done_callback(lambda done: self._ended(instance, done))

    def _ended(self, instance: Instance, task: asyncio.Task[None]) -> None:
        del self._work[instance]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s broke", task.get_name(), exc_info=error)


async def _each(work: Sequence[Awaitable[None]]) -> None:
    """All of it to the end; then the first of what went wrong."""
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
