"""Pauses are short here, and no test leaves a task behind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from controller.fleet import doubt, instance, transitions
from tests.router.gateway import no_task_left


@pytest.fixture
async def tidy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(doubt, "PAUSE", 0.001)
    monkeypatch.setattr(transitions, "BUSY_PAUSE", 0.001)
    monkeypatch.setattr(instance, "FIRST_RETRY", 0.005)
    async with no_task_left():
        yield
