"""Pauses are short here. Engines in this process are found without a look at the kernel's tables."""

from __future__ import annotations

import os

import pytest

from controller.fleet import doubt, instance, origin, transitions
from runtime.processes import identity


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubt, "PAUSE", 0.02)
    monkeypatch.setattr(transitions, "BUSY_PAUSE", 0.01)
    monkeypatch.setattr(instance, "FIRST_RETRY", 0.05)
    monkeypatch.setattr(origin, "listener", lambda port: identity(os.getpid()))
