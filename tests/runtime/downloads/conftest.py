"""Fixtures of the downloads' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from runtime.downloads import transfer
from tests.runtime.downloads.web_server import Web, web


@pytest.fixture
async def site() -> AsyncIterator[Web]:
    async with web() as served:
        yield served


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many attempts as ever, without the pauses between them."""
    monkeypatch.setattr(transfer, "PAUSES", (0.0,) * len(transfer.PAUSES))
