"""Names, hosts and ports: what the file leaves open is filled in the same way by everyone who reads it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.config.model import session_name
from controller.config.resolve import FIRST_PORT, PORTS, assign_ports
from controller.config.schema import ConfigFile
from tests.controller.config.conftest import Load


def written(*names: str, **others: object) -> ConfigFile:
    return ConfigFile.model_validate(
        {"instances": [{"model": "m", "name": name, "engine": "sim"} for name in names], **others}
    )


@given(st.lists(st.text("abcdef0123456789", min_size=1, max_size=6), min_size=1, max_size=60, unique=True))
def test_assigned_ports_are_unique_and_below_the_kernels(names: list[str]) -> None:
    """Each instance has a port of its own from 20000 to 29999, the same each time."""
    ports = assign_ports(written(*names))
    assert len(set(ports)) == len(names)
    assert all(FIRST_PORT <= port < FIRST_PORT + PORTS for port in ports)
    assert ports == assign_ports(written(*names))


def test_an_assigned_port_stays_when_others_come_and_go() -> None:
    """It is made from the instance's name, not from its place in the file."""
    (alone,) = assign_ports(written("chat"))
    assert assign_ports(written("embed", "chat", "code"))[1] == alone


def test_an_assigned_port_avoids_what_the_file_takes() -> None:
    """A declared port and the router's own are left alone, also when they come later in the file."""
    (port,) = assign_ports(written("chat"))
    both = ConfigFile.model_validate(
        {
            "router": {"router_port": port + 1},
            "instances": [
                {"model": "m", "name": "chat", "engine": "sim"},
                {"model": "m", "name": "other", "engine": "sim", "port": port},
            ],
        }
    )
    assert assign_ports(both) == (port + 2, port)


def test_a_sidecar_has_a_name_a_session_and_a_port_of_its_own(loaded: Load) -> None:
    """Made from the instance's name, and nobody else's port; or the port that the file gives."""
    config = loaded("""
        instances:
          - {model: a, engine: sim, sidecar: true}
          - {model: x/b.c, engine: vllm, sidecar: true, sidecar_port: 9001}
          - {model: d, engine: sim}
        """)
    first, second, third = (instance.sidecar for instance in config.instances)
    assert first is not None and second is not None and third is None
    assert (second.name, second.session, second.url) == (
        "b.c-runtime",
        "kvcached-b_c-runtime",
        "http://127.0.0.1:9001",
    )
    ports = [instance.spec.port for instance in config.instances]
    assert len({first.port, second.port, *ports}) == 5 and FIRST_PORT <= first.port < FIRST_PORT + PORTS


def test_every_process_assigns_the_same_ports(tmp_path: Path, loaded: Load) -> None:
    """Launcher and router agree without talking, whatever Python's hash seed is."""
    text = "instances: [{model: a/b, engine: sim}, {model: c, engine: vllm}]"
    here = [instance.spec.port for instance in loaded(text).instances]
    program = (
        "import sys; from controller.config.load import load; print([i.spec.port for i in load(sys.argv[1]).instances])"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "torpor.yaml"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert told.stdout.strip() == str(here)


@pytest.mark.parametrize(
    ("lines", "base_url"),
    [
        ("port: 9000", "http://127.0.0.1:9000"),
        ("args: --port 9000", "http://127.0.0.1:9000"),
        ("args: --port=9000 --host=localhost", "http://localhost:9000"),
        ("args: --port 9000 --host 0.0.0.0", "http://127.0.0.1:9000"),
        ("args: --port 8999 --port 9000", "http://127.0.0.1:9000"),
        ("args: [[--port, 9000]]", "http://127.0.0.1:9000"),
        ("port: 9000, args: --port 9000", "http://127.0.0.1:9000"),
        ("port: 9000, host: 0.0.0.0", "http://127.0.0.1:9000"),
        ("port: 9000, host: '::'", "http://[::1]:9000"),
        ("port: 9000, host: '[::]'", "http://[::1]:9000"),
        ("port: 9000, host: '::1'", "http://[::1]:9000"),
        ("port: 9000, host: '[fe80::1]'", "http://[fe80::1]:9000"),
        ("port: 9000, args: '--host [::1]'", "http://[::1]:9000"),
        ("port: 9000, host: gpu-1.lan", "http://gpu-1.lan:9000"),
        ("url: 'http://gpu-1:9000'", "http://gpu-1:9000"),
        ("url: 'http://gpu-1:9000/'", "http://gpu-1:9000"),
        ("url: 'https://gpu-1'", "https://gpu-1"),
        ("url: 'http://[::1]:9000'", "http://[::1]:9000"),
        ("command: serve --port 9000", "http://127.0.0.1:9000"),
        ("command: 'serve --port {port}', port: 9000", "http://127.0.0.1:9000"),
        ("command: docker --host tcp://x run -p 9000:80 img --port 80, port: 9000", "http://127.0.0.1:9000"),
    ],
)
def test_where_an_engine_is_found(lines: str, base_url: str, loaded: Load) -> None:
    """From a key, from the arguments, or from the url; an any-address is reached by loopback."""
    (instance,) = loaded(f"instances: [{{model: a, engine: vllm, {lines}}}]").instances
    assert instance.spec.base_url == base_url


def test_a_command_is_filled_in(loaded: Load) -> None:
    """{host}, {port}, {model} and {name} stand for the instance's own; other braces stay."""
    (instance,) = loaded(
        """
        instances:
          - model: org/m
            name: one
            command: ['serve {model} --served-model-name {name} --host {host} --port {port} --json ''{"a": {b}}''']
        """
    ).instances
    spec = instance.spec
    assert spec.kind == "openai"
    assert spec.command == (
        "serve", "org/m", "--served-model-name", "one", "--host", "127.0.0.1", "--port", str(spec.port), "--json",
        '{"a": {b}}',
    )  # fmt: skip
    assert spec.served_names == ("one",)
    assert FIRST_PORT <= spec.port < FIRST_PORT + PORTS


def test_one_running_server_may_serve_many_models(loaded: Load) -> None:
    """Several instances with one url, as for a server such as Ollama; but one model there only once."""
    text = "instances: [{model: a, url: 'http://h:1'}, {model: b, url: 'http://h:1'}, {model: a, name: x, url: 'http://h:1'}]"
    assert loaded(text.replace(", {model: a, name: x, url: 'http://h:1'}", "")).models == ("a", "b")
    with pytest.raises(Exception, match="port 1 is already used"):
        loaded(text)


def test_an_engine_that_sleeps_serves_one_model(loaded: Load) -> None:
    """Two models at one vLLM would put each other to sleep."""
    with pytest.raises(Exception, match="port 1 is already used"):
        loaded("instances: [{model: a, engine: vllm, url: 'http://h:1'}, {model: b, engine: vllm, url: 'http://h:1'}]")


@pytest.mark.parametrize(
    ("model", "name"),
    [("org/Name-1B", "Name-1B"), ("/models/qwen/", "qwen"), ("plain", "plain"), ("/", "/"), ("a/b/c", "c")],
)
def test_default_names(model: str, name: str, loaded: Load) -> None:
    """An instance is called after the last part of its model."""
    assert loaded(f"instances: [{{model: {model}, engine: sim}}]").instances[0].name == name


@pytest.mark.parametrize(
    ("name", "session"),
    [
        ("Llama-3.2-1B", "kvcached-Llama-3_2-1B"),
        ("a:b", "kvcached-a_b"),
        ("a b/$c", "kvcached-a_b__c"),
        ("模", "kvcached-_"),
    ],
)
def test_sessions_are_named_so_that_tmux_finds_them(name: str, session: str) -> None:
    """Dots and colons are targets to tmux, spaces and dollars mean something to a shell."""
    assert session_name("kvcached-", name) == session


def test_all_names_of_a_model(loaded: Load) -> None:
    """The model, what the engine calls it, and its aliases, each once; adapters apart."""
    (instance,) = loaded(
        """
        instances:
          - model: org/m
            engine: vllm
            aliases: [small, served]
            engine_args: --served-model-name served other --lora-modules l=/x
        """
    ).instances
    assert instance.names == ("org/m", "served", "other", "small")
    assert instance.spec.served_names == ("served", "other")
    assert instance.spec.engine_name == "served"
    assert instance.spec.adapters == {"l": "l"}


def test_replicas_share_model_aliases_and_adapters(loaded: Load) -> None:
    """The same names on two instances of one model are no clash."""
    same = "model: m, engine: vllm, aliases: [x], args: --served-model-name s --lora-modules l=/x"
    config = loaded(f"instances: [{{name: a, {same}}}, {{name: b, {same}}}]")
    assert config.models == ("m",)
    assert [instance.name for instance in config.instances_of("m")] == ["a", "b"]


LINES = st.text("abc:-[]{},'\"#&*!|>%@` \n\t0159.~=<$\\x_/", max_size=60)


@settings(max_examples=60)
@given(LINES)
def test_any_model_name_gives_a_session_and_a_port(name: str) -> None:
    """Whatever a model is called, its session has only letters, digits, - and _."""
    assert re.fullmatch(r"[A-Za-z0-9_-]*", session_name("", name))
    assert assign_ports(written("".join(name.split()) or "x"))[0] >= FIRST_PORT
