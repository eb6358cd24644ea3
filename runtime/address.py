"""Addresses to listen on: a socket of one's own, a port as it is written, and who can reach it."""

from __future__ import annotations

import argparse
import ipaddress
import socket

LARGEST_PORT = 65_535


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address. Raises ``OSError`` when it is taken, or is not this machine's."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def port_number(text: str) -> int:
    """A port on a command line. The system takes one that is too large, and listens on quite another."""
    if not text.isdecimal() or not 1 <= int(text) <= LARGEST_PORT:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no port: there are 1 to {LARGEST_PORT}")
    return int(text)


def is_loopback(host: str) -> bool:
    """Whether no other machine reaches it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
