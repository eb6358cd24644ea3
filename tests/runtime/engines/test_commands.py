"""How each kind of engine is started, and what its arguments tell."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from runtime.engines.control import open_client
from runtime.engines.kinds import KINDS, command
from runtime.engines.spec import Capabilities, EngineSpec


def spec(kind: str, args: str = "", **others: Any) -> EngineSpec:
    values: dict[str, Any] = {
        "name": "one",
        "model": "org/m",
        "host": "127.0.0.1",
        "port": 9000,
        "base_url": "http://127.0.0.1:9000",
        "served_names": ("org/m",),
        "python": "/venv/bin/python",
        "args": tuple(args.split()),
    }
    return EngineSpec(kind=kind, **{**values, **others})


VLLM = "/venv/bin/python -m vllm.entrypoints.openai.api_server --model org/m"
SGLANG = "/venv/bin/python -m sglang.launch_server --model-path org/m"
SIM = f"{sys.executable} -P -m runtime.engines.sim --model org/m"
HERE = "--host 127.0.0.1 --port 9000"
DEV = {"VLLM_SERVER_DEV_MODE": "1"}


@pytest.mark.parametrize(
    ("engine", "argv", "env"),
    [
        (spec("vllm"), f"{VLLM} {HERE} --enable-sleep-mode", DEV),
        (spec("vllm", "--x 1"), f"{VLLM} --x 1 {HERE} --enable-sleep-mode", DEV),
        (spec("vllm", "--port=1 --host h"), f"{VLLM} --port=1 --host h --enable-sleep-mode", DEV),
        (spec("vllm", "--host h"), f"{VLLM} --host h --port 9000 --enable-sleep-mode", DEV),
        (spec("vllm", "--enable-sleep-mode"), f"{VLLM} --enable-sleep-mode {HERE}", DEV),
        (spec("vllm", "--enable_sleep_mode"), f"{VLLM} --enable_sleep_mode {HERE}", DEV),
        (spec("vllm", "--no-enable-sleep-mode"), f"{VLLM} --no-enable-sleep-mode {HERE}", DEV),
        (spec("vllm", sleep_flags=False), f"{VLLM} {HERE}", {}),
        (spec("vllm", sleep_flags=False, api_key="k"), f"{VLLM} {HERE}", {"VLLM_API_KEY": "k"}),
        (spec("sglang"), f"{SGLANG} {HERE} --enable-memory-saver", {}),
        (spec("sglang", "--enable-memory-saver"), f"{SGLANG} --enable-memory-saver {HERE}", {}),
        (spec("sglang", sleep_flags=False), f"{SGLANG} {HERE}", {}),
        (spec("sglang", sleep_flags=False, api_key="k"), f"{SGLANG} {HERE} --api-key k", {}),
        (spec("sglang", "--api-key o", sleep_flags=False, api_key="k"), f"{SGLANG} --api-key o {HERE}", {}),
        (spec("sim", "--ttft 1"), f"{SIM} --ttft 1 {HERE}", DEV),
        (spec("sim", sleep_flags=False, api_key="k"), f"{SIM} {HERE}", {"SIM_API_KEY": "k"}),
        (spec("openai", command=("serve", "it")), "serve it", {}),
        (spec("vllm", command=("docker", "run")), "docker run", {}),
    ],
    ids=lambda value: f"{value.kind} {' '.join(value.args)}" if isinstance(value, EngineSpec) else "",
)
def test_commands(engine: EngineSpec, argv: str, env: dict[str, str]) -> None:
    """The user's arguments as they are; host, port, key and what sleeping needs only where they do not say it."""
    made = command(engine)
    assert " ".join(made.argv) == argv
    assert made.env == env


def test_the_users_variables_win() -> None:
    """Over what the kind adds, and over the GPUs."""
    made = command(spec("vllm", gpus=(0, 2), env={"VLLM_SERVER_DEV_MODE": "0", "A": "b"}))
    assert made.env == {
        "VLLM_SERVER_DEV_MODE": "0",
        "A": "b",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "0,2",
    }


def test_a_command_of_ones_own_gets_the_gpus_too() -> None:
    """And nothing else that was not asked for."""
    assert command(spec("vllm", command=("x",), gpus=(1,))).env == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "1",
    }


def test_an_unknown_server_cannot_be_started() -> None:
    """The configuration tells it before; here it is a plain error."""
    with pytest.raises(ValueError, match="needs a command or a url"):
        command(spec("openai"))


@pytest.mark.parametrize(
    ("kind", "args", "names", "adapters"),
    [
        ("vllm", [], ("org/m",), {}),
        ("vllm", ["--served-model-name", "a", "b"], ("a", "b"), {}),
        ("vllm", ["--served-model-name=a"], ("a",), {}),
        ("vllm", ["--lora-modules", "l=/x", '{"name": "k", "path": "/y"}'], ("org/m",), {"l": "l", "k": "k"}),
        ("vllm", ["--lora-modules", "{broken", "[]", "/x"], ("org/m",), {}),
        ("vllm", ["--lora-modules", '{"name": ["k"]}', "{}"], ("org/m",), {}),
        ("sglang", ["--lora-paths", "l=/x", "k=/y"], ("org/m",), {"l": "org/m:l", "k": "org/m:k"}),
        ("sglang", ["--served-model-name", "s", "--lora-paths", "l=/x"], ("s",), {"l": "s:l"}),
        ("sglang", ["--lora-paths", '{"lora_name": "l", "lora_path": "/x"}', "{"], ("org/m",), {"l": "org/m:l"}),
        ("sim", ["--lora-modules", "l=/x"], ("org/m",), {"l": "l"}),
        ("sim", ["--dialect", "sglang", "--lora-paths", "l=/x"], ("org/m",), {"l": "org/m:l"}),
        ("sim", ["--dialect=sglang", "--lora-paths", "l=/x"], ("org/m",), {"l": "org/m:l"}),
        ("openai", ["--served-model-name", "s"], ("s",), {}),
    ],
)
def test_names_an_engine_answers_to(
    kind: str, args: list[str], names: tuple[str, ...], adapters: dict[str, str]
) -> None:
    """Its own, and for each adapter from its start the name that it wants to be asked by."""
    facts = KINDS[kind].facts("org/m", args)
    assert facts.served_names == names
    assert facts.adapters == adapters


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("args", "host", "port"), [("--host h --port=1", "h", "1"), ("--x", None, None)])
def test_where_an_engine_listens(kind: str, args: str, host: str | None, port: str | None) -> None:
    """All kinds have the same two flags for it."""
    facts = KINDS[kind].facts("m", args.split())
    assert (facts.host, facts.port) == (host, port)


@pytest.mark.parametrize(
    ("kind", "args", "env", "sleep_flags", "obstacle"),
    [
        ("vllm", "", {}, True, None),
        ("vllm", "", {}, False, "VLLM_SERVER_DEV_MODE"),
        ("vllm", "", {"VLLM_SERVER_DEV_MODE": "1"}, False, None),
        ("vllm", "", {"VLLM_SERVER_DEV_MODE": "0"}, True, "VLLM_SERVER_DEV_MODE"),
        ("sglang", "", {}, True, None),
        ("sglang", "", {}, False, "--enable-memory-saver"),
        ("sglang", "--enable-memory-saver", {}, False, None),
        ("openai", "", {}, True, "no way to sleep"),
        ("sim", "", {}, True, None),
        ("sim", "", {}, False, "VLLM_SERVER_DEV_MODE"),
        ("sim", "--enable-sleep-mode", {}, False, None),
        ("sim", "--dialect sglang", {}, False, None),
    ],
)
def test_what_keeps_an_engine_from_sleeping(
    kind: str, args: str, env: dict[str, str], sleep_flags: bool, obstacle: str | None
) -> None:
    """None when it can; else a reason that names what is missing."""
    found = KINDS[kind].sleep_obstacle(args.split(), env, sleep_flags)
    assert (found is None) if obstacle is None else (found is not None and obstacle in found)


@pytest.mark.parametrize(
    ("kind", "words", "levels"),
    [
        ("vllm", "", (1, 2)),
        ("sglang", "--enable-memory-saver", (2,)),
        ("sglang", "--enable-weights-cpu-backup", (1,)),
        ("sim", "", (1, 2)),
        ("sim", "--dialect sglang", (2,)),
        ("sim", "--dialect sglang --enable-weights-cpu-backup", (1,)),
    ],
)
@pytest.mark.anyio
async def test_at_which_levels_an_engine_can_sleep(kind: str, words: str, levels: tuple[int, ...]) -> None:
    """Whether SGLang keeps its weights is decided when it is started: by its arguments, or within a command."""
    async with open_client() as client:
        for one in (spec(kind, words), spec(kind, command=("serve", *words.split()))):
            assert KINDS[kind].capabilities(one).levels == levels
            assert KINDS[kind].connect(one, client, 1.0).capabilities == KINDS[kind].capabilities(one)


@pytest.mark.parametrize(
    ("levels", "wished", "possible"), [((1, 2), 1, (1, 2)), ((1, 2), 2, (2,)), ((2,), 1, (2,)), ((1,), 2, (1,))]
)
def test_the_level_that_is_wished_for_or_the_nearest(
    levels: tuple[int, ...], wished: int, possible: tuple[int, ...]
) -> None:
    can = Capabilities(sleep=True, tells_sleep=True, adapters=False, levels=levels)
    assert can.levels_from(wished) == possible


LORA = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
SGLANG_LORA = "--enable-lora --max-lora-rank 64 --lora-target-modules all"


@pytest.mark.parametrize(
    ("kind", "args", "argv", "env"),
    [
        ("vllm", "", f"{VLLM} {HERE} --enable-lora", LORA),
        ("vllm", "--enable-lora --max-loras 2", f"{VLLM} --enable-lora --max-loras 2 {HERE}", LORA),
        ("sglang", "", f"{SGLANG} {HERE} {SGLANG_LORA}", {}),
        (
            "sglang",
            "--max-lora-rank 8",
            f"{SGLANG} --max-lora-rank 8 {HERE} --enable-lora --lora-target-modules all",
            {},
        ),
        ("sim", "", f"{SIM} {HERE} --enable-lora", {}),
    ],
)
def test_engines_that_are_to_take_adapters(kind: str, args: str, argv: str, env: dict[str, str]) -> None:
    """They get the flags and variables they need, unless the user has given them."""
    made = command(spec(kind, args, sleep_flags=False, takes_adapters=True))
    assert (" ".join(made.argv), made.env) == (argv, env)


@pytest.mark.parametrize(
    ("kind", "args", "limits"),
    [
        ("vllm", "", (None, None, None)),
        ("vllm", "--max-lora-rank 8 --max-loras=2 --max_cpu_loras 4", (8, 2, 4)),
        ("vllm", "--max-lora-rank x", (None, None, None)),
        ("sglang", "--max-lora-rank 8 --max-loras-per-batch 2 --max-loaded-loras 4", (8, 2, 4)),
        ("sim", "--dialect sglang --max-loras-per-batch 2", (None, 2, None)),
    ],
)
def test_what_arguments_say_of_adapters(kind: str, args: str, limits: tuple[int | None, ...]) -> None:
    """Nothing is assumed where nothing is said."""
    found = KINDS[kind].facts("org/m", args.split()).lora
    assert (found.max_rank, found.slots, found.most) == limits
