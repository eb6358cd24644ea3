"""Who has a model woken when requests wait for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from controller.fleet.instance import Instance
from controller.fleet.transitions import Transitions

REQUEST = "request"
"""The cause of a wake for a request that found nobody awake."""


class Waker(Protocol):
    def want(self, model: str, among: Sequence[Instance], due: Sequence[Instance]) -> None:
        """Requests wait for one of ``among``. ``due``: those that could be woken now, the best first.

        Told again and again as long as they wait. Raises ``NoRoom`` when that can never be.
        """

    def unwant(self, model: str) -> None:
        """Nobody waits for it any more."""

    def help(self, due: Sequence[Instance], cause: str) -> bool:
        """Wake one of them if that costs nobody anything. Whether one is being woken."""

    def in_the_way(self, instance: Instance) -> Instance | None:
        """Who sleeps and should sleep deeper first, so that ``instance`` can sleep at the level that is wished for."""

    async def wake(self, instance: Instance, cause: str) -> None:
        """Wake it for somebody who waits for just that. Raises ``TransitionRefused`` or ``Unavailable``."""

    def renewed(self) -> None:
        """The configuration is another one."""


class AtOnce:
    """Nobody has to leave for anybody."""

    def __init__(self, transitions: Mapping[str, Transitions]) -> None:
        self._transitions = transitions

    def want(self, model: str, among: Sequence[Instance], due: Sequence[Instance]) -> None:
        if due:
            self._transitions[due[0].name].wake_soon(REQUEST)

    def unwant(self, model: str) -> None: ...

    def help(self, due: Sequence[Instance], cause: str) -> bool:
        self._transitions[due[0].name].wake_soon(cause)
        return True

    def in_the_way(self, instance: Instance) -> Instance | None:
        return None

    async def wake(self, instance: Instance, cause: str) -> None:
        await self._transitions[instance.name].wake(cause)

    def renewed(self) -> None: ...
