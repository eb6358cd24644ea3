"""Every error of every layer has its status, and a body in its client's shape."""

from __future__ import annotations

import json

import pytest

from controller.fleet import errors as fleet
from router import envelope, errors
from runtime.engines import base as engines
from state.database import StateError

ERROR = {"type": "error"}
BARE = {**ERROR, "error": {"type": "api_error", "message": "m"}}
TYPED = {**ERROR, "error": {"type": "t"}}


def leaves(base: type[Exception]) -> list[type[Exception]]:
    found = [base] if not base.__subclasses__() else []
    return found + [leaf for one in base.__subclasses__() for leaf in leaves(one)]


def test_every_kind_of_fleet_error_has_a_status() -> None:
    """Those that name a particular reason, and the bases that are raised themselves."""
    for kind in [*leaves(fleet.FleetError), fleet.Unavailable]:
        found = envelope.gateway_error(kind("why", 3.2))
        assert found.status in (409, 502, 503)
        assert (found.message, found.retry_after) == ("why", 3.2)
        assert found.code is not None
        assert (b"retry-after", b"4") in envelope.headers(found)


def test_every_kind_of_engine_error_has_a_status() -> None:
    """The base is abstract; each kind under it has one."""
    kinds = leaves(engines.EngineError)
    assert len(kinds) >= 4
    for kind in kinds:
        error = kind.__new__(kind)
        assert envelope.gateway_error(error).status in (409, 502, 504)
        assert envelope.is_expected(error)


def test_what_nobody_expected_tells_nothing_of_itself() -> None:
    """500 without the message; a broken database is 503, and the log says why."""
    found = envelope.gateway_error(RuntimeError("secret"))
    assert (found.status, found.code) == (500, "internal_error")
    assert "secret" not in found.message
    assert envelope.gateway_error(StateError("secret path")).status == 503
    assert "secret" not in envelope.gateway_error(StateError("secret path")).message
    assert not envelope.is_expected(RuntimeError())


@pytest.mark.parametrize("kind", leaves(errors.GatewayError))
def test_bodies_are_json_in_both_shapes(kind: type[Exception]) -> None:
    """Whatever the message holds: quotes, line breaks, other scripts."""
    if kind is errors.ModelNotFound:
        error: errors.GatewayError = errors.ModelNotFound('no"such\n\ud800模型')
    else:
        assert issubclass(kind, errors.GatewayError)
        error = kind('a "quoted"\nfé模型', "code", param="p")
    openai = json.loads(envelope.body(error, "/v1/chat/completions"))["error"]
    assert (openai["message"], openai["code"], openai["param"]) == (error.message, error.code, error.param)
    anthropic = json.loads(envelope.body(error, "/v1/messages"))
    assert anthropic["type"] == "error"
    assert anthropic["error"]["message"] == error.message
    assert anthropic["error"]["type"].endswith(("_error", "_too_large"))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"])
def test_events_are_one_event(path: str) -> None:
    """One data line, ended by a blank one, whatever the message holds."""
    event = envelope.event(errors.BadUpstream("broke\n\noff", "engine_disconnected"), path).decode()
    assert event.endswith("\n\n")
    *names, data = event.rstrip("\n").split("\n")
    assert names in ([], ["event: error"])
    assert "broke" in json.dumps(json.loads(data.removeprefix("data: ")))


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/v1/messages", {"error": {"message": "m", "code": 3}}, BARE),
        ("/v1/messages", {"object": "error", "message": "m"}, BARE),
        ("/v1/messages", TYPED, TYPED),
        ("/v1/completions", {"error": {"message": "m"}}, {"error": {"message": "m"}}),
        ("/v1/completions", {"object": "error", "message": "m"}, {"error": {"object": "error", "message": "m"}}),
        ("/v1/responses", {"object": "error", "message": "m"}, {**ERROR, "code": None, "message": "m", "param": None}),
    ],
)
def test_an_engines_error_is_told_as_the_protocol_has_it(path: str, body: object, told: object) -> None:
    """Engines answer in one shape whatever the path, and not all in the same."""
    event = envelope.event_of(json.dumps(body).encode(), path)
    assert json.loads(event[event.index(b"{") :]) == told


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages", "/v1/responses"])
def test_half_a_character_in_an_error_breaks_nothing(path: str) -> None:
    """JSON may hold it as an escape; an engine's error may repeat what a client has sent."""
    told = envelope.event_of(rb'{"error": {"message": "no \ud83d here"}}', path)
    assert json.loads(told[told.index(b"{") :]) and rb"\ud83d" in told
    assert rb"\ud83d" in envelope.body(errors.InvalidRequest("no \ud83d here"), path)
