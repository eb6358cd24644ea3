"""The schema for editors, the example and the page keep up with the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from controller.config.json_schema import render
from controller.config.load import load
from tests.controller.config.test_load import KVCACHED
from tests.controller.config.test_mistakes import ONE_INSTANCE, TEN

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "example-config.yaml"
SCHEMA: dict[str, Any] = json.loads(render())


def keys() -> list[tuple[str, str]]:
    sections = {"": SCHEMA, **SCHEMA["$defs"]}
    return [(name, key) for name, section in sections.items() for key in section.get("properties", {})]


def is_valid(text: str) -> bool:
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(yaml.safe_load(text))


def test_the_schema_file_is_as_the_code_makes_it() -> None:
    """Else: python -m controller.config.json_schema > config-schema.json"""
    assert (ROOT / "config-schema.json").read_text(encoding="utf-8") == render()


def test_the_schema_is_one() -> None:
    """It follows the JSON Schema it names."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"].endswith("2020-12/schema")


@pytest.mark.parametrize(("section", "key"), keys())
def test_every_key_has_help(section: str, key: str) -> None:
    """An editor shows a sentence for it."""
    properties = (SCHEMA["$defs"][section] if section else SCHEMA)["properties"]
    assert properties[key]["description"].endswith(".")


@pytest.mark.parametrize("key", sorted({key for _, key in keys()}))
def test_every_key_is_in_the_example_and_on_the_page(key: str) -> None:
    """Both document all keys."""
    assert re.search(rf"\b{key}:", EXAMPLE.read_text(encoding="utf-8"))
    assert f"`{key}`" in (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_the_example_loads_without_any_environment() -> None:
    """It runs as it is: only simulated engines, no key, no GPU, and its models sleep soon."""
    config = load(EXAMPLE, {})
    assert {instance.spec.kind for instance in config.instances} == {"sim"}
    assert config.router.enable_router
    assert config.router.router_port == 8080
    assert config.sleep.auto_sleep_enabled
    assert len(config.models) == 3
    assert len(config.instances_of("demo/chat")) == 2
    assert any("sglang" in instance.spec.args for instance in config.instances)


def test_the_example_fits_its_schema() -> None:
    """And tells the editor where the schema is."""
    text = EXAMPLE.read_text(encoding="utf-8")
    assert text.splitlines()[0] == "# yaml-language-server: $schema=config-schema.json"
    assert is_valid(text)


def test_the_examples_comments_are_right_too(tmp_path: Path) -> None:
    """With every commented key in use, the file still loads, and shows each of its keys at work."""
    head, _, rest = EXAMPLE.read_text(encoding="utf-8").partition("\n# More instances, to copy.")
    _, _, rest = rest.partition("\n#\n")
    sections = r"kvcached|kvcached_\w+|state|url|api_key_env|log_dir"
    in_use = re.sub(rf"(?m)^(\s*)# (\s*(?:{sections}):)", r"\1\2", head)
    more = re.sub(r"(?m)^# ?", " ", rest)
    for venv in ("vllm-venv", "sglang-venv"):
        (tmp_path / venv / "bin").mkdir(parents=True)
        (tmp_path / venv / "bin" / "python").touch()
    (tmp_path / "conf").mkdir()
    file = tmp_path / "conf" / "all.yaml"
    file.write_text(f"{in_use}\n{more}", encoding="utf-8")
    environment = {"TORPOR_API_KEY": "a", "LLAMA_KEY": "b", "ELSEWHERE_KEY": "c", "DB_PASSWORD": "d"}
    config = load(file, environment)
    assert [instance.spec.kind for instance in config.instances[4:]] == ["vllm", "sglang", "openai", "openai"]
    assert config.api_key == "a"
    assert config.state_url.startswith("postgresql://torpor:d@")
    assert config.log_dir.name == "logs"
    assert config.instances[0].spec.env["KVCACHED_LOG_LEVEL"] == "INFO"
    assert is_valid(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "text",
    [
        KVCACHED,
        ONE_INSTANCE,
        f"kvcached:\nrouter:\nsleep_manager:\nlaunch:\nstate:\n{ONE_INSTANCE}",
        f"router:\n  router_port: ${{PORT:-8080}}\n  enable_router: ${{ON:-true}}\n{ONE_INSTANCE}",
        f"{ONE_INSTANCE}    engine_args: [--a, 1, [b, 2]]\n    env: {{A: 1, B: x}}\n    gpus: [0]\n",
        f"{ONE_INSTANCE}    engine_args:\n    args:\n    env:\n    gpus:\n    aliases:\n    labels:\n",
        f"{ONE_INSTANCE}    env: [A=b]\n    labels: {{a: 1}}\n    sleep_manager: {{idle_threshold_seconds: 1.5}}\n",
        f"{ONE_INSTANCE}    sleep_manager:\n",
        f"{ONE_INSTANCE}    name:\n    port:\n    host:\n    url:\n    api_key_env:\n    venv_path:\n",
    ],
)
def test_the_schema_takes_what_the_loader_takes(text: str, tmp_path: Path) -> None:
    """An editor marks nothing that works."""
    file = tmp_path / "f.yaml"
    file.write_text(text)
    assert load(file, {}).instances
    assert is_valid(text)


@pytest.mark.parametrize(
    "text",
    [
        TEN,
        "{}",
        "instances: []",
        "instances: [{engine: sim}]",
        "instances: [{model: a, engine: vlm}]",
        "instances: [{model: a, prot: 1}]",
        "instances: [{model: a, port: 70000}]",
        "instances: [{model: a, gpus: [x]}]",
        "instances: [{model: a, env: [A]}]",
        "instances: [{model: a, sleep_manager: {level: 3}}]",
    ],
)
def test_the_schema_marks_what_is_wrong(text: str) -> None:
    """What an editor can know, it shows while one types."""
    assert not is_valid(text)
