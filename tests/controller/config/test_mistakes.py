"""What is wrong with a file is told completely: where, which key, what is wrong, what would be right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from controller.config.load import MAX_BYTES, load
from controller.config.mistakes import ConfigError
from tests.controller.config.conftest import Load, Mistakes

TEN = """\
kvcached:
  kvcached_gpu_utilization: 0.95
router:
  enable_router: "yes"
  router_prot: 8080
sleep_manager:
  check_interval_seconds: 0
instances:
  - name: one
    model: org/a
    engine: vlm
    port: 9001
  - name: one
    model: org/b
    engine: vllm
    engine_args: --port 9001
    using_venv: true
    venv_path: nowhere
  - name: a.b
    model: org/c
    engine: sim
    env:
      - TOKEN
    gpus: [0, "1"]
  - name: a_b
    model: org/d
    engine: openai
  - model: org/e
    engine: vllm
    sleep_flags: false
    sleep_manager: {auto_sleep_enabled: true}
"""


def test_ten_mistakes_give_ten_messages(mistakes: Mistakes) -> None:
    """All at once, each at its line, none twice and none that only follows from another."""
    told = [(mistake.line, mistake.key, mistake.problem) for mistake in mistakes(TEN)]
    expected = [
        (4, "router.enable_router", "must be true or false"),
        (5, "router.router_prot", "unknown key"),
        (7, "sleep_manager.check_interval_seconds", "more than 0"),
        (11, "instances[0].engine", "unknown engine 'vlm'"),
        (13, "instances[1].name", "already used by instances[0]"),
        (16, "instances[1].engine_args", "port 9001 is already used by instances[0]"),
        (18, "instances[1].venv_path", "no virtual environment"),
        (23, "instances[2].env[0]", "KEY=VALUE"),
        (24, "instances[2].gpus[1]", "whole number"),
        (25, "instances[3].name", "becomes 'a_b'"),
        (27, "instances[3].engine", "cannot be started"),
        (31, "instances[4].sleep_manager.auto_sleep_enabled", "cannot"),
    ]
    assert [one[:2] for one in told] == [one[:2] for one in expected]
    for (_, _, problem), (_, _, words) in zip(told, expected, strict=True):
        assert words in problem


def test_the_text_of_the_error_is_one_line_for_each_mistake(tmp_path: Path) -> None:
    """file:line: key: what is wrong (what would be right), as editors and terminals link it."""
    file = tmp_path / "bad.yaml"
    file.write_text("router: {router_prot: 1}\ninstances: []\n")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert str(caught.value).splitlines() == [
        f"{file}:1: router.router_prot: unknown key (did you mean 'router_port'?)",
        f"{file}:2: instances: is empty (list at least one engine under instances:)",
    ]


ONE_INSTANCE = "instances:\n  - model: org/a\n    engine: sim\n"


@pytest.mark.parametrize(
    ("line", "key", "problem"),
    [
        ("port: 0", "port", "at least 1"),
        ("port: 70000", "port", "at most 65535"),
        ("port: '80'", "port", "a whole number without quotes, not the text '80'"),
        ("port: true", "port", "a whole number without quotes, not true"),
        ("port: 1.5", "port", "whole number"),
        ("port: ${PORT}", "port", "PORT is not set"),
        ("host: ''", "host", "not empty"),
        ("host: http://x", "host", "no host"),
        ("host: 127.0.0.1:80", "host", "no host"),
        ("engine_args: {port: 1}", "engine_args", "a list of arguments"),
        ("engine_args: [--a, {b: 1}]", "engine_args[1]", "text or a number"),
        ("engine_args: [--a, true]", "engine_args[1]", "text or a number"),
        ("engine_args: ['--a \"b']", "engine_args[0]", "close the quote"),
        ("engine_args: '--a \"b'", "engine_args", "close the quote"),
        ("engine_args: --port x", "engine_args", "--port 'x' is no port"),
        ("engine_args: --port 0", "engine_args", "--port '0' is no port"),
        ("args: --port 99999999999", "args", "is no port"),
        ("args: --host http://x", "args", "is no host"),
        ("env: [A]", "env[0]", "KEY=VALUE"),
        ("env: [A: b]", "env[0]", "KEY=VALUE"),
        ("env: {A: true}", "env.A", 'in quotes: "true"'),
        ("env: {A: }", "env.A", '"" if it is empty'),
        ("env: {A-B: x}", "env.A-B", "no name for an environment variable"),
        ("env: ['A B=c']", "env[0]", "no name for an environment variable"),
        ('env: {A: "x\\0y"}', "env.A", "no process can be given"),
        ("engine_env: 5", "engine_env", "a list of KEY=VALUE or a mapping"),
        ("kvcached_env: text", "kvcached_env", "a list of KEY=VALUE or a mapping"),
        ("gpus: 0", "gpus", "a list, not 0"),
        ("gpus: [-1]", "gpus[0]", "at least 0"),
        ("gpus: [1, 1]", "gpus", "twice"),
        ("aliases: one", "aliases", "a list"),
        ("aliases: ['']", "aliases[0]", "not empty"),
        ("aliases: [all]", "aliases", "taken by /health/all"),
        ("labels: [a]", "labels", "a mapping"),
        ("labels: {a: [b]}", "labels.a", "text or a number"),
        ("name: all", "name", "taken by /health/all"),
        ("name: frontend", "name", "the router's own session"),
        ("using_venv: 1", "using_venv", "true or false"),
        ("using_venv: true", "venv_path", "is missing"),
        ("sleep_manager: {level: 3}", "sleep_manager.level", "at most 2"),
        ("sleep_manager: {idle: 3}", "sleep_manager.idle", "unknown key"),
        ("sleep_manager: true", "sleep_manager", "a mapping"),
        ("url: host:80", "url", "must be an address such as"),
        ("url: http://h:99999", "url", "must be an address such as"),
        ("url: 'http://[::1'", "url", "must be an address such as"),
        ("url: http://:80", "url", "must be an address such as"),
        ("url: http://user:secret@h", "url", "must be an address such as"),
        ("url: http://h:80/v1", "url", "leave the path away"),
        ("command: [a, {b: c}]", "command[1]", "text or a number"),
        ("api_key_env: sk-123", "api_key_env", "not the key"),
        ("api_key_env: NO_SUCH", "api_key_env", "NO_SUCH is not set"),
        ("sleep_flags: maybe", "sleep_flags", "true or false"),
        ("sidecar: maybe", "sidecar", "true or false"),
        ("sidecar_port: 9001", "sidecar_port", "means nothing without sidecar"),
        ("router_port: 1", "router_port", "unknown key"),
    ],
)
def test_a_wrong_key_of_an_instance(line: str, key: str, problem: str, mistakes: Mistakes) -> None:
    """One mistake, at the line and key that has to be changed; a key that is missing has the line of its instance."""
    (mistake,) = mistakes(f"{ONE_INSTANCE}    {line}\n")
    assert mistake.key == f"instances[0].{key}"
    assert mistake.line == (2 if key == "venv_path" else 4)
    assert problem in mistake.problem


@pytest.mark.parametrize(
    ("lines", "key", "problem"),
    [
        (["url: http://h", "port: 80"], "port", "means nothing beside url"),
        (["url: http://h", "sidecar: true"], "sidecar", "means nothing beside url"),
        (["port: 9001", "sidecar: true", "sidecar_port: 9001"], "sidecar_port", "used by instances[0]"),
        (["url: http://h", "command: x"], "command", "means nothing beside url"),
        (["port: 80", "engine_args: --port 81"], "port", "80 here, but --port 81"),
        (["host: a", "engine_args: --host=b"], "host", "a here, but --host b"),
        (["args: --a", "engine_args: --b"], "args", "another name for engine_args"),
        (["engine_args: --a", "command: x"], "engine_args", "means nothing beside command"),
        (["gpus: [0]", "env: {CUDA_VISIBLE_DEVICES: '1'}"], "gpus", "CUDA_VISIBLE_DEVICES=1"),
    ],
)
def test_keys_that_contradict_each_other(lines: list[str], key: str, problem: str, mistakes: Mistakes) -> None:
    """Neither is taken silently."""
    (mistake,) = mistakes(ONE_INSTANCE + "".join(f"    {line}\n" for line in lines))
    assert mistake.key == f"instances[0].{key}"
    assert mistake.line == 4 + [line.partition(":")[0] for line in lines].index(key)
    assert problem in mistake.problem


@pytest.mark.parametrize(
    ("first", "second", "key", "problem"),
    [
        ("model: a, port: 9000", "model: b, port: 9000", "port", "port 9000 is already used by instances[0]"),
        ("model: a, port: 9000", "model: b, args: --port=9000", "args", "already used"),
        ("model: a, port: 9000, host: 0.0.0.0", "model: b, port: 9000, host: localhost", "port", "already used"),
        ("model: a, port: 9000", "model: b, url: 'http://127.0.0.1:9000'", "url", "already used"),
        ("model: a, port: 9000", "model: b, command: 'x --port 9000'", "command", "already used"),
        ("model: a", "model: b, port: 8080", "port", "already used by the router"),
        ("model: a", "model: a", "model", "the instance name 'a' is already used by instances[0]"),
        ("model: x/a", "model: y/a", "model", "already used by instances[0]"),
        ("model: a, name: v1.5", "model: b, name: v1:5", "name", "becomes 'v1_5'"),
        ("model: a", "model: b, aliases: [a]", "aliases", "belongs to the model 'a'"),
        ("model: a, aliases: [x]", "model: b, aliases: [x]", "aliases", "belongs to the model 'a'"),
        ("model: a, aliases: [x]", "model: b, engine_args: --served-model-name x", "engine_args", "belongs to"),
        ("model: a", "model: b, engine_args: --lora-modules a=/x", "engine_args", "belongs to the model 'a'"),
        ("model: a", "model: all, name: b", "model", "taken by /health/all"),
        ("model: a-runtime", "model: a, sidecar: true", "sidecar", "'a-runtime', as is that of instance"),
        ("model: a, port: 9000", "model: b, sidecar: true, sidecar_port: 9000", "sidecar_port", "used by instances[0]"),
        (
            "model: a, sidecar: true, sidecar_port: 9001",
            "model: b, sidecar: true, sidecar_port: 9001",
            "sidecar_port",
            "used by the sidecar of instances[0]",
        ),
    ],
)
def test_clashes_between_instances(first: str, second: str, key: str, problem: str, mistakes: Mistakes) -> None:
    """Told at the later of the two, with the name of the earlier."""
    text = f"""
        router: {{enable_router: true}}
        instances:
          - {{engine: sim, {first}}}
          - {{engine: sim, {second}}}
        """
    (mistake,) = mistakes(text)
    assert (mistake.line, mistake.key) == (5, f"instances[1].{key}")
    assert problem in mistake.problem


@pytest.mark.parametrize(
    ("text", "line", "key", "problem", "fix"),
    [
        ("", 1, "", "the file is empty", "example-config.yaml"),
        ("# only a comment\n", 1, "", "the file is empty", "example-config.yaml"),
        ("- a\n- b\n", 1, "", "must be a mapping", "example-config.yaml"),
        ("text", 1, "", "must be a mapping", "example-config.yaml"),
        ("router: {}\n", 1, "instances", "is missing", "at least one engine"),
        ("\ninstances:\n", 2, "instances", "is empty", "at least one engine"),
        ("\ninstances: {}\n", 2, "instances", "must be a list, not a mapping", ""),
        ("instances:\n- a\n", 2, "instances[0]", "must be a mapping (key: value), not the text 'a'", ""),
        ("instances:\n-\n", 2, "instances[0]", "must be a mapping (key: value), not nothing", ""),
        ("instances:\n- engine: sim\n", 2, "instances[0].model", "is missing", "meta-llama"),
        ("instances:\n- model: a\n", 2, "instances[0].engine", "is missing", "vllm, sglang, openai, sim"),
        ("instance:\n- model: a\n  engine: sim\n", 1, "instance", "unknown key", "did you mean 'instances'?"),
        ("instances:\n- modle: a\n  engine: sim\n", 2, "instances[0].modle", "unknown key", "did you mean 'model'?"),
        ("instances:\n- model: a\n  engin: sim\n", 3, "instances[0].engin", "unknown key", "did you mean 'engine'?"),
        ("instances:\n- model: a\n  urll: x\n  engine: sim\n", 3, "instances[0].urll", "unknown key", "'url'"),
        (f"router_port: 1\n{ONE_INSTANCE}", 1, "router_port", "unknown key", "it belongs under router:"),
        (f"launch:\n  instances: 1\n{ONE_INSTANCE}", 2, "launch.instances", "unknown key", "at the top of the file"),
        (f"foo: 1\n{ONE_INSTANCE}", 1, "foo", "unknown key", "the known ones are kvcached, router"),
        (f"kvcached: [a]\n{ONE_INSTANCE}", 1, "kvcached", "must be a mapping", ""),
        (f"kvcached:\n  a b: 1\n{ONE_INSTANCE}", 2, "kvcached.a b", "no name for", ""),
        (f"launch_delay_seconds: -1\n{ONE_INSTANCE}", 1, "launch_delay_seconds", "at least 0, not -1", ""),
        (f"launch_delay_seconds: .nan\n{ONE_INSTANCE}", 1, "launch_delay_seconds", "finite", ""),
        (f"launch:\n  ready_timeout_seconds: .inf\n{ONE_INSTANCE}", 2, "launch.ready_timeout_seconds", "finite", ""),
        (f"router: {{max_body_mb: .inf}}\n{ONE_INSTANCE}", 1, "router.max_body_mb", "finite", ""),
        (f"router: {{max_body_mb: 2000}}\n{ONE_INSTANCE}", 1, "router.max_body_mb", "more than max_buffered", "2000"),
        (f"router: {{max_buffered_mb: 1}}\n{ONE_INSTANCE}", 1, "router.max_buffered_mb", "less than max_body_mb", "64"),
        (f"launch: {{session_prefix: 'a.b'}}\n{ONE_INSTANCE}", 1, "launch.session_prefix", "letters, digits", ""),
        (f"state: {{url: nonsense}}\n{ONE_INSTANCE}", 1, "state.url", "sqlite:///", ""),
        (f"router: {{router_host: 'a b'}}\n{ONE_INSTANCE}", 1, "router.router_host", "no host", ""),
        (f"router: {{api_key_env: NO_SUCH}}\n{ONE_INSTANCE}", 1, "router.api_key_env", "NO_SUCH is not set", ""),
    ],
)  # fmt: skip
def test_a_wrong_file(text: str, line: int, key: str, problem: str, fix: str, mistakes: Mistakes) -> None:
    """One mistake says what is wrong with the whole, or with a section."""
    (mistake,) = mistakes(text)
    assert (mistake.line, mistake.key) == (line, key)
    assert problem in mistake.problem
    assert fix in mistake.fix


def test_mistakes_outside_the_instances_are_told_without_any(mistakes: Mistakes) -> None:
    """A missing list of instances hides nothing else."""
    found = mistakes("router: {router_port: x, api_key_env: NO_SUCH}\nlaunch: {a: 1}\n")
    assert [mistake.key for mistake in found] == ["instances", "router.api_key_env", "router.router_port", "launch.a"]


def test_several_wrong_items_are_each_told(mistakes: Mistakes) -> None:
    """In lists and mappings too, one message for each item at its own line."""
    found = mistakes(
        f"{ONE_INSTANCE}    env:\n      - A\n      - B=1\n      - C D=1\n    gpus:\n      - x\n      - y\n"
    )
    assert [(mistake.line, mistake.key) for mistake in found] == [
        (5, "instances[0].env[0]"),
        (7, "instances[0].env[2]"),
        (9, "instances[0].gpus[0]"),
        (10, "instances[0].gpus[1]"),
    ]


@pytest.mark.parametrize(
    "text",
    ["env: [hf_secret]", "env: [TOKEN: hf_secret]", "api_key_env: hf-secret", "url: 'http://u:hf_secret@h'"],
)
def test_messages_show_no_secret(text: str, mistakes: Mistakes) -> None:
    """What may be a secret is not repeated, even when it stands in the wrong place."""
    (mistake,) = mistakes(f"{ONE_INSTANCE}    {text}\n")
    assert not re.search("hf.secret", mistake.render(Path("f")))


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        (b"a: 1\nb: \xff\xfe\n", 2, "is not UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n\0\0", 1, "is not UTF-8 text"),
        (b"a" * (MAX_BYTES + 1), 1, "is larger than 1 MiB"),
        (b"a: \x00\n", 1, "not allowed"),
    ],
)
def test_bytes_that_are_no_text(content: bytes, line: int, problem: str, tmp_path: Path) -> None:
    """Garbage is a mistake like any other."""
    file = tmp_path / "f.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    (mistake,) = caught.value.mistakes
    assert mistake.line == line
    assert problem in mistake.problem


@pytest.mark.parametrize("name", ["missing.yaml", ".", "a\0b", "x" * 300])
def test_a_file_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    """No file, a folder, an impossible name: a ConfigError that says so."""
    with pytest.raises(ConfigError, match=r"no such file|cannot be read"):
        load(tmp_path / name, {})


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    """Some editors write one."""
    file = tmp_path / "f.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + ONE_INSTANCE.encode())
    assert load(file, {}).models == ("org/a",)


@pytest.mark.parametrize(
    ("engine", "lines", "possible"),
    [
        ("vllm", [], True),
        ("vllm", ["sleep_flags: false"], False),
        ("vllm", ["sleep_flags: false", "env: {VLLM_SERVER_DEV_MODE: 1}"], True),
        ("vllm", ["env: {VLLM_SERVER_DEV_MODE: 0}"], False),
        ("vllm", ["sleep_flags: false", "url: http://h"], True),
        ("vllm", ["sleep_flags: false", "command: x"], True),
        ("sglang", [], True),
        ("sglang", ["sleep_flags: false"], False),
        ("sglang", ["sleep_flags: false", "args: --enable-memory-saver"], True),
        ("openai", ["url: http://h"], False),
        ("sim", [], True),
    ],
)
def test_sleep_wanted_but_impossible(engine: str, lines: list[str], possible: bool, loaded: Load) -> None:
    """An engine that is told to sleep when idle must be able to."""
    own = ["sleep_manager: {auto_sleep_enabled: true}", *lines]
    text = f"instances:\n  - model: a\n    engine: {engine}\n" + "".join(f"    {line}\n" for line in own)
    if possible:
        assert loaded(text).instances[0].sleep.auto_sleep_enabled
        return
    with pytest.raises(ConfigError) as caught:
        loaded(text)
    (mistake,) = caught.value.mistakes
    assert mistake.key == "instances[0].sleep_manager.auto_sleep_enabled"
    assert "cannot" in mistake.problem
    assert "auto_sleep_enabled: false" in mistake.fix


def test_dev_mode_may_come_from_the_launchers_environment(loaded: Load) -> None:
    """Where we do not set it ourselves, the engine inherits it."""
    text = """
        sleep_manager: {auto_sleep_enabled: true}
        instances: [{model: a, engine: vllm, sleep_flags: false}]
        """
    assert loaded(text, {"VLLM_SERVER_DEV_MODE": "1"}).instances[0].sleep.auto_sleep_enabled
    with pytest.raises(ConfigError, match="cannot"):
        loaded(text, {"VLLM_SERVER_DEV_MODE": "0"})


def test_the_global_wish_to_sleep_spares_those_that_cannot(loaded: Load) -> None:
    """It is meant for the engines that can sleep."""
    config = loaded(
        """
        sleep_manager: {auto_sleep_enabled: true}
        instances: [{model: a, url: "http://h"}]
        """
    )
    assert config.sleep.auto_sleep_enabled
