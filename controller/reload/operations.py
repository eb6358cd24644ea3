"""Showing what a changed YAML would change of what runs, and changing it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from controller.config.model import FRONTEND
from controller.launch.display import say
from controller.launch.gateway import Gateway, GatewayPlan, GatewayRefused, NoGateway
from controller.launch.operations import BY, FAILED, OK, Operations, close_sessions
from controller.launch.survey import Survey
from controller.launch.tmux import Pane
from controller.reload.rollout import Rollout, Steps, steps_of
from runtime.engines.control import open_client
from state.database import open_database
from state.desired_states import DesiredStates, Wanted
from state.launches import Launches
from state.sleep_marks import SleepMarks


class Changes(Operations):
    async def plan(self) -> int:
        """Show what ``reload`` would do."""
        await asyncio.to_thread(self._tmux.panes)  # tmux missing is said before anything else is tried
        async with open_client() as client, open_database(self._config.state_url) as database:
            survey = Survey(self._config, tuple(self._every.values()), self._tmux, client, SleepMarks(database))
            steps = await self._steps(survey)
            try:
                own = await Gateway(self._config, client).plan()
            except (NoGateway, GatewayRefused) as silent:
                own = GatewayPlan((), ())
                say(self._out, f"gateway: {silent}")
        self._show(own, steps)
        return OK

    async def reload(self) -> int:
        """Bring what runs to what the YAML says now, without losing a request."""
        async with self._fleet() as tools, open_client() as client:
            gateway, survey = Gateway(self._config, client), tools.survey
            rollout = Rollout(self._config, tools.launcher, gateway, tools.desired, lambda text: say(self._out, text))
            steps, frontend = await self._steps(survey), await survey.pane(self._every[FRONTEND])
            frontend = None if frontend is None or frontend.dead else frontend
            try:
                applied = await rollout.apply(frontend)
            except GatewayRefused as refused:
                say(self._out, f"nothing was changed: {refused}")
                return FAILED
            if applied is None and frontend is not None:
                say(self._out, f"{FRONTEND}: does not answer at its address in the YAML, and is started anew")
                await rollout.start_at_once(self._every[FRONTEND])
            self._show(applied or GatewayPlan((), ()), steps)
            await tools.wish(steps.start, Wanted.RUNNING, f"{BY} --reload")
            await rollout.carry_out(steps, self.units, self._close)
            if applied is not None and applied.anew and frontend is not None:
                moves = any(line.startswith("router.") for line in applied.anew)
                renew = rollout.start_at_once if moves else rollout.renew_frontend
                await renew(self._every[FRONTEND])
            await self._note(frontend)
            return await self._sum_up(tools, rollout.failures)

    async def _steps(self, survey: Survey) -> Steps:
        async with open_database(self._config.state_url) as database:
            records = await Launches(database).all()
            rests = await self._rests(Launches(database), DesiredStates(database))
        seen = await survey.seen(self.units, records)
        panes = self._ours(await asyncio.to_thread(self._tmux.panes))
        return steps_of(self.units, seen, [pane for pane in panes if pane.unit not in self._every], rests)

    async def _close(self, pane: Pane) -> str | None:
        panes = await asyncio.to_thread(self._tmux.panes)
        seconds = self._config.launch.stop_timeout_seconds
        left = await close_sessions(self._tmux, [pane], panes, seconds, self._out)
        if left:
            return f"processes that could not be ended: {', '.join(map(str, left))}"
        async with open_database(self._config.state_url) as database:
            await Launches(database).clear(pane.unit)
        return None

    async def _note(self, frontend: Pane | None) -> None:
        """The running gateway has this YAML now."""
        if frontend is None:
            return
        async with open_database(self._config.state_url) as database:
            launches = Launches(database)
            record = (await launches.all()).get(FRONTEND)
            if record is not None:
                await launches.put(replace(record, environment=self._every[FRONTEND].record[1]))

    def _show(self, own: GatewayPlan, steps: Steps) -> None:
        anew = [f"{line} (when the gateway is started anew)" for line in own.anew]
        lines = [*own.in_place, *anew, *steps.lines()]
        for line in lines or ["nothing has changed"]:
            say(self._out, line)
