"""A YAML file becomes one complete, frozen configuration."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
import pytest

from controller.config.load import load
from controller.config.mistakes import ConfigError
from controller.config.schema import LaunchSection, RouterSection, SleepSection, TimeoutSection
from tests.controller.config.conftest import Load

KVCACHED = """
kvcached:
  kvcached_gpu_utilization: 0.95
  kvcached_page_prealloc_enabled: true
  kvcached_min_reserved_pages: 5
  kvcached_max_reserved_pages: 10
  kvcached_sanity_check: false
  kvcached_log_level: INFO

router:
  enable_router: true
  router_port: 8080
  router_host: localhost

sleep_manager:
  idle_threshold_seconds: 300
  check_interval_seconds: 60
  auto_sleep_enabled: false
  wakeup_on_request: true
  min_sleep_duration: 80

launch_delay_seconds: 30

instances:
  - name: instance1
    model: meta-llama/Llama-3.2-1B
    engine: vllm
    using_venv: false
    venv_path: ../../engine_integration/vllm-kvcached-venv
    kvcached_env:
      - "ENABLE_KVCACHED=true"
      - "KVCACHED_AUTOPATCH=1"
    engine_env:
      - "VLLM_USE_V1=1"
      - "VLLM_ATTENTION_BACKEND=FLASH_ATTN"
      - "VLLM_SERVER_DEV_MODE=1"
    engine_args:
      - "--no-enable-prefix-caching"
      - "--host=localhost"
      - "--port=12346"
      - "--gpu-memory-utilization 0.5"
      - "--enable-sleep-mode"
  - name: instance2
    model: Qwen/Qwen3-0.6B
    engine: sgl
    using_venv: false
    venv_path: ../../engine_integration/sglang-kvcached-venv
    kvcached_env:
      - "ENABLE_KVCACHED=true"
      - "KVCACHED_AUTOPATCH=1"
    engine_env: []
    engine_args:
      - "--disable-radix-cache"
      - "--trust-remote-code"
      - "--mem-fraction-static 0.5"
      - "--host=localhost"
      - "--port=30000"
      - "--enable-memory-saver"
"""


def test_kvcacheds_file_means_what_it_means_there(loaded: Load) -> None:
    """Every key of kvcached's example is taken as it is, in its sense."""
    config = loaded(KVCACHED)
    assert config.router == RouterSection(enable_router=True, router_host="localhost", router_port=8080)
    assert config.sleep == SleepSection(min_sleep_duration=80)
    assert config.launch_delay_seconds == 30
    assert config.frontend_session == "kvcached-frontend"
    assert config.models == ("meta-llama/Llama-3.2-1B", "Qwen/Qwen3-0.6B")
    first, second = config.instances
    assert (first.session, second.session) == ("kvcached-instance1", "kvcached-instance2")
    assert (first.spec.kind, second.spec.kind) == ("vllm", "sglang")
    assert (first.spec.base_url, second.spec.base_url) == ("http://localhost:12346", "http://localhost:30000")
    assert first.spec.args == (
        "--no-enable-prefix-caching",
        "--host=localhost",
        "--port=12346",
        "--gpu-memory-utilization",
        "0.5",
        "--enable-sleep-mode",
    )
    assert first.spec.env == {
        "KVCACHED_GPU_UTILIZATION": "0.95",
        "KVCACHED_PAGE_PREALLOC_ENABLED": "True",
        "KVCACHED_MIN_RESERVED_PAGES": "5",
        "KVCACHED_MAX_RESERVED_PAGES": "10",
        "KVCACHED_SANITY_CHECK": "False",
        "KVCACHED_LOG_LEVEL": "INFO",
        "VLLM_USE_V1": "1",
        "VLLM_ATTENTION_BACKEND": "FLASH_ATTN",
        "VLLM_SERVER_DEV_MODE": "1",
        "ENABLE_KVCACHED": "true",
        "KVCACHED_AUTOPATCH": "1",
    }


def test_defaults(loaded: Load, tmp_path: Path) -> None:
    """A file that says only model and engine gets kvcached's defaults, and loopback."""
    config = loaded("instances: [{model: org/Name-1B, engine: vllm}]")
    assert dict(config.router) == {
        "enable_router": False,
        "router_host": "127.0.0.1",
        "router_port": 8080,
        "api_key_env": None,
        "max_body_mb": 64,
        "max_buffered_mb": 1024,
        "keepalive_after_seconds": None,
        "stop_timeout_seconds": 25,
        "timeouts": TimeoutSection(),
    }
    assert dict(config.sleep) == {
        "idle_threshold_seconds": 300,
        "check_interval_seconds": 60,
        "auto_sleep_enabled": False,
        "wakeup_on_request": True,
        "min_sleep_duration": 60,
        "wake_timeout_seconds": 300,
        "drain_timeout_seconds": 30,
        "level": 1,
        "level2_after_seconds": None,
        "stop_after_seconds": None,
    }
    assert dict(config.launch) == {
        "session_prefix": "kvcached-",
        "ready_timeout_seconds": 1800,
        "stop_timeout_seconds": 30,
        "restart": True,
        "log_dir": None,
    }
    assert config.launch_delay_seconds == 0
    assert config.api_key is None
    assert config.state_url == f"sqlite:///{tmp_path / 'torpor.state.db'}"
    assert config.log_dir == tmp_path / "torpor.logs"
    (instance,) = config.instances
    assert (instance.name, instance.session, instance.names) == ("Name-1B", "kvcached-Name-1B", ("org/Name-1B",))
    assert (instance.labels, instance.venv, instance.launched, instance.sleep) == ({}, None, True, config.sleep)
    spec = instance.spec
    assert (spec.host, spec.python, spec.args, spec.command) == ("127.0.0.1", sys.executable, (), ())
    assert (spec.env, spec.gpus, spec.sleep_flags, spec.remote) == ({}, (), True, False)
    assert (spec.served_names, spec.adapters, spec.api_key) == (("org/Name-1B",), {}, None)


@pytest.mark.parametrize("section", ["kvcached", "router", "sleep_manager", "launch", "state"])
def test_an_empty_section_is_as_none(section: str, loaded: Load) -> None:
    """`router:` with everything under it commented out means the defaults."""
    config = loaded(f"{section}:\ninstances: [{{model: a, engine: sim}}]")
    assert (config.router, config.sleep, config.launch) == (RouterSection(), SleepSection(), LaunchSection())


def test_empty_keys_of_an_instance_are_as_none(loaded: Load) -> None:
    """So are lists and mappings of an instance."""
    keys = ["kvcached_env", "engine_env", "env", "engine_args", "args", "gpus", "aliases", "labels", "sleep_manager"]
    config = loaded("instances:\n - model: a\n   engine: sim\n" + "".join(f"   {key}:\n" for key in keys))
    assert config.instances[0].spec.args == ()
    assert config.instances[0].spec.env == {}


@pytest.mark.parametrize(
    ("written", "args"),
    [
        ("--a 1 --b", ("--a", "1", "--b")),
        ('["--a 1", --b]', ("--a", "1", "--b")),
        ("['--a \"x y\"']", ("--a", "x y")),
        ('[--a, ["x y", "z  w"]]', ("--a", "x y", "z  w")),
        ("[--a, 1, 0.5]", ("--a", "1", "0.5")),
        ("|\n     --a 1\n     --b", ("--a", "1", "--b")),
        ("[]", ()),
        ("", ()),
        (r"""['--x ''{"a": 1}''']""", ("--x", '{"a": 1}')),
    ],
)
@pytest.mark.parametrize("key", ["engine_args", "args"])
def test_engine_arguments(key: str, written: str, args: tuple[str, ...], loaded: Load) -> None:
    """Text is split as a shell would, items too; a list within a list is taken word for word."""
    config = loaded(f"instances:\n - model: a\n   engine: sim\n   {key}: {written}\n")
    assert config.instances[0].spec.args == args


def test_environment_precedence(loaded: Load) -> None:
    """kvcached < engine_env < env < kvcached_env; lists and mappings alike."""
    config = loaded(
        """
        kvcached: {a: 1, b: 1, c: 1, d: 1}
        instances:
          - model: m
            engine: sim
            engine_env: [B=2, C=2, D=2, E=x=y, F=]
            env: {C: 3, D: 3.5}
            kvcached_env: {D: four}
        """
    )
    assert config.instances[0].spec.env == {"A": "1", "B": "2", "C": "3", "D": "four", "E": "x=y", "F": ""}


def test_sleep_settings_of_an_instance_override_the_global_ones(loaded: Load) -> None:
    """Only what is set there; what is not follows the global section."""
    config = loaded(
        """
        sleep_manager: {idle_threshold_seconds: 10, min_sleep_duration: 1, level: 2}
        instances:
          - {model: a, engine: sim, sleep_manager: {min_sleep_duration: 60, auto_sleep_enabled: true}}
          - {model: b, engine: sim}
        """
    )
    first, second = config.instances
    assert first.sleep == SleepSection(
        idle_threshold_seconds=10, min_sleep_duration=60, level=2, auto_sleep_enabled=True
    )
    assert second.sleep == config.sleep


def test_keys_that_begin_with_x_are_the_user_s_own(loaded: Load) -> None:
    """At the top only: a place for what anchors refer to."""
    text = "x-common: &common {engine: vllm, anything: [1]}\nx-b: 1\ninstances: [{model: a/b, engine: vllm}]"
    assert [one.model for one in loaded(text).instances] == ["a/b"]
    with pytest.raises(ConfigError, match="x-here"):
        loaded("instances: [{model: a/b, engine: vllm, x-here: 1}]")


def test_instances_may_share_settings_by_anchor(loaded: Load) -> None:
    """YAML's own anchors and merge keys work, and what overrides is no duplicate."""
    config = loaded(
        """
        instances:
          - &base {model: m, name: one, engine: sim, port: 9001, env: {A: 1}}
          - {<<: *base, name: two, port: 9002}
          - {<<: *base, name: three, port: 9003, env: {B: 2}}
        """
    )
    assert [(i.name, i.spec.port, dict(i.spec.env)) for i in config.instances] == [
        ("one", 9001, {"A": "1"}),
        ("two", 9002, {"A": "1"}),
        ("three", 9003, {"B": "2"}),
    ]
    assert config.instances_of("m") == config.instances


def test_variables_in_a_whole_file(loaded: Load) -> None:
    """Ports, arguments, addresses and names may come from the environment."""
    config = loaded(
        """
        router: {router_host: "${HOST:-127.0.0.1}"}
        instances:
          - model: ${MODEL}
            engine: sim
            port: ${PORT}
            engine_args: ["--max-model-len ${LENGTH:-4096}", "--x=$${NOT}"]
            env:
              TOKEN: ${TOKEN}
        """,
        {"MODEL": "org/m", "PORT": "9001", "TOKEN": "00123"},
    )
    spec = config.instances[0].spec
    assert (spec.model, spec.port, spec.env) == ("org/m", 9001, {"TOKEN": "00123"})
    assert spec.args == ("--max-model-len", "4096", "--x=${NOT}")


def test_printing_shows_no_key(loaded: Load) -> None:
    """Printing the configuration shows no key, no variable's value, no argument and no password."""
    secrets = {"CLIENTS": "secret-1\n", "ENGINE": "secret-2", "TOKEN": "secret-3", "PASSWORD": "secret-4"}
    config = loaded(
        """
        kvcached: {token: "${TOKEN}"}
        router: {api_key_env: CLIENTS}
        state: {url: "postgresql://me:${PASSWORD}@host/db"}
        instances:
          - model: a
            engine: sim
            api_key_env: ENGINE
            engine_env: ["A=${TOKEN}"]
            env: {B: "${TOKEN}"}
            engine_args: ["--hf-token ${TOKEN}"]
          - {model: b, command: "serve --token ${TOKEN}", kvcached_env: ["C=${TOKEN}"]}
        """,
        secrets,
    )
    assert config.api_key == "secret-1"
    assert config.instances[0].spec.api_key == "secret-2"
    assert config.state_url == "postgresql://me:secret-4@host/db"
    assert "secret" not in repr(config)
    assert "secret" not in str(config)


def test_a_configuration_cannot_be_changed(loaded: Load) -> None:
    """It is made once and handed around."""
    config = loaded("instances: [{model: a, engine: sim}]")
    changes: list[tuple[Any, str, type[Exception]]] = [
        (config, "digest", dataclasses.FrozenInstanceError),
        (config.instances[0], "name", dataclasses.FrozenInstanceError),
        (config.instances[0].spec, "port", dataclasses.FrozenInstanceError),
        (config.router, "router_port", pydantic.ValidationError),
        (config.sleep, "level", pydantic.ValidationError),
    ]
    for thing, name, error in changes:
        with pytest.raises(error):
            setattr(thing, name, 1)


def test_the_digest_is_of_the_text(loaded: Load) -> None:
    """Equal files have equal digests; a changed one has another."""
    text = "instances: [{model: a, engine: sim}]"
    assert loaded(text).digest == loaded(text).digest != loaded(text + "\n").digest


def test_the_process_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an environment handed in, variables come from the process."""
    monkeypatch.setenv("TORPOR_TEST_MODEL", "from/environment")
    file = tmp_path / "f.yaml"
    file.write_text("instances: [{model: '${TORPOR_TEST_MODEL}', engine: sim}]")
    assert load(str(file)).models == ("from/environment",)


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the command is run does not matter; ~ is the home folder, an absolute path stays."""
    folder, home = tmp_path / "conf", tmp_path / "home"
    for venv in (folder / "v", home / "v", tmp_path / "v", folder / "~nobody-here" / "v"):
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").touch()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    monkeypatch.setenv("HOME", str(home))
    expected: Mapping[str, Path] = {
        "v": folder / "v",
        "./v": folder / "v",
        "~/v": home / "v",
        str(tmp_path / "v"): tmp_path / "v",
        "~nobody-here/v": folder / "~nobody-here" / "v",
    }
    file = folder / "fleet.yaml"
    lines = [f"- {{model: m{i}, engine: vllm, using_venv: true, venv_path: {path}}}" for i, path in enumerate(expected)]
    file.write_text("launch: {log_dir: logs}\nstate: {url: sqlite:///s/my.db}\ninstances:\n" + "\n".join(lines))
    config = load(Path("../conf/fleet.yaml"), {})
    assert [instance.venv and instance.venv.resolve() for instance in config.instances] == list(expected.values())
    assert config.instances[0].spec.python.endswith("/v/bin/python")
    assert config.log_dir.resolve() == folder / "logs"
    assert Path(config.state_url.removeprefix("sqlite:///")).resolve() == folder / "s" / "my.db"


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("sqlite:///x.db", "sqlite:///{folder}/x.db"),
        ("sqlite:////var/x.db", "sqlite:////var/x.db"),
        ("sqlite+aiosqlite:///x.db", "sqlite+aiosqlite:///{folder}/x.db"),
        ("'sqlite:///:memory:'", "sqlite:///:memory:"),
        ("sqlite://", "sqlite://"),
        ("postgresql://u@h/db", "postgresql://u@h/db"),
    ],
)
def test_state_urls(written: str, url: str, loaded: Load, tmp_path: Path) -> None:
    """A relative SQLite file lies beside the YAML file; everything else stays as it is."""
    config = loaded(f"state: {{url: {written}}}\ninstances: [{{model: a, engine: sim}}]")
    assert config.state_url == url.replace("{folder}", str(tmp_path))
