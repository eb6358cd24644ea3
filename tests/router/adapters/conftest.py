"""Pauses are short here: instances are stable at once, tries follow each other, engines are asked often."""

from __future__ import annotations

import pytest

from controller.adapters import backoff, census, controller, steps


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "STABLE_SECONDS", 0.0)
    monkeypatch.setattr(backoff, "DELAYS", (0.01, 0.02, 0.02, 0.02, 0.02))
    monkeypatch.setattr(census, "CENSUS_SECONDS", 0.05)
    monkeypatch.setattr(controller, "AGAIN_SECONDS", 0.05)
