"""Every error of the layers below has a status."""

from __future__ import annotations

import pytest

from runtime.adapters import UnfitAdapter
from runtime.downloads.errors import DownloadError
from runtime.engines import base as engines
from runtime.sidecar import problems
from runtime.sidecar.problems import failure_of


def below(base: type[Exception]) -> list[type[Exception]]:
    return [one for kind in base.__subclasses__() for one in (kind, *below(kind))]


@pytest.mark.parametrize("kind", below(DownloadError))
def test_every_failed_download_has_one(kind: type[DownloadError]) -> None:
    """Of its own, with whether to try again; the seed's prefix is before the reason."""
    failure = failure_of(kind("why"))
    assert 400 <= failure.status < 600
    assert failure.status != 500
    assert (failure.message, failure.retriable) == ("Download failed: why", kind.retriable)


def test_so_have_engines_and_ours() -> None:
    """An engine's refusal keeps its own."""
    assert failure_of(engines.EngineRefused("e", "POST /x", 418, "tea")).message == "HTTP 418: tea"
    table = {
        engines.AlreadyLoaded("e", "POST /x", 400, ""): 400,
        engines.NotLoaded("e", "POST /x", 404, ""): 404,
        engines.EngineUnreachable("e", "x", "y"): 502,
        engines.EngineTimeout("e", "x", "y"): 504,
        engines.NotSupported("e", "x", "y"): 501,
        UnfitAdapter("x"): 400,
        problems.BadRequest("x"): 400,
        problems.NotFound("x"): 404,
        problems.Conflict("x"): 409,
    }
    assert {error: failure_of(error).status for error in table} == table


def test_a_bug_says_nothing_of_itself() -> None:
    """Its traceback is in the log."""
    failure = failure_of(ValueError("SECRET"))
    assert (failure.status, "SECRET" in failure.message) == (500, False)
