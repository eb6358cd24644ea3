"""Where a program listens, and who reaches it there."""

from __future__ import annotations

import argparse

import pytest

from runtime.address import is_loopback, listen, port_number


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("box", False)],
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    """Only addresses that no other machine reaches."""
    assert is_loopback(host) is loopback


def test_a_port_serves_one_listener() -> None:
    """The second is refused: no two gateways share requests by accident."""
    with listen("127.0.0.1", 0) as first, pytest.raises(OSError, match="in use"):
        first.listen()
        listen("127.0.0.1", first.getsockname()[1])


@pytest.mark.parametrize("text", ["0", "-1", "65536", "99999", "9e3", "", "http"])
def test_what_is_no_port(text: str) -> None:
    """Sockets take 99999, and listen on 34463."""
    with pytest.raises(argparse.ArgumentTypeError, match="is no port"):
        port_number(text)


@pytest.mark.parametrize("port", [1, 65535])
def test_what_is_a_port(port: int) -> None:
    """From the first to the last."""
    assert port_number(str(port)) == port
