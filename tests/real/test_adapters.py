"""LoRAs on a real vLLM: applied, used, replaced, given back after a sleep, taken away; all through the gateway.

The launcher starts the engine so that it takes them: its instance has the label for it, and nothing else says LoRA.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from openai import NotFoundError, OpenAI

from controller.adapters.spec import ENABLED_LABEL
from tests.real.conftest import FAST, LORA, VENV, Fleet, engine, launched, until

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


def write(file: Path, ports: dict[str, int]) -> None:
    document = {
        "router": {"enable_router": True, "router_port": ports["frontend"]},
        "sleep_manager": {"min_sleep_duration": 0},
        "launch": {"ready_timeout_seconds": 300},
        "instances": [engine("fast", ports["fast"], FAST, labels={ENABLED_LABEL: "true"})],
    }
    file.write_text(yaml.safe_dump(document, sort_keys=False))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with launched(tmp_path_factory.mktemp("adapters"), ("fast", "frontend"), write) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def other_lora(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("loras") / "other"
    maker = Path(__file__).with_name("tiny_model.py")
    command = [str(VENV / "bin" / "python"), str(maker), "lora", str(folder), "--base", FAST, "--seed", "7"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return str(folder)


def apply(fleet: Fleet, folder: str) -> None:
    """As a user does, with a manifest as Kubernetes has it."""
    manifest = fleet.file.with_name("adapter.yaml")
    document = {
        "apiVersion": "model.aibrix.ai/v1alpha1",
        "kind": "ModelAdapter",
        "metadata": {"name": "sql"},
        "spec": {"baseModel": "fast", "artifactURL": folder},
    }
    manifest.write_text(yaml.safe_dump(document))
    done = fleet.launch("--apply", str(manifest))
    assert done.returncode == 0, done.stdout + done.stderr


def phase(fleet: Fleet) -> str:
    answer = fleet.http.get(f"{fleet.url('frontend')}/adapters/sql")
    return str(answer.json()["status"]["phase"]) if answer.status_code == 200 else "gone"


def loaded(fleet: Fleet) -> dict[str, str]:
    """The engine's own word: name and folder."""
    cards = fleet.http.get(f"{fleet.url('fast')}/v1/models").json()["data"]
    return {card["id"]: card["root"] for card in cards if card["parent"]}


def text(client: OpenAI, model: str) -> str:
    answer = client.completions.create(model=model, prompt="Once upon a time", max_tokens=16, temperature=0)
    return answer.choices[0].text


def test_load_use_replace_sleep_delete(fleet: Fleet, other_lora: str, client: OpenAI) -> None:
    """Base and both adapters say different things; each step is seen in the engine's own list."""
    apply(fleet, LORA)
    until(lambda: phase(fleet) == "Running", 60)
    assert loaded(fleet) == {"sql": LORA}
    cards = {card.id: card for card in client.models.list()}
    assert (cards["sql"].model_extra or {})["parent"] == FAST
    base, first = text(client, "fast"), text(client, "sql")
    assert base != first

    apply(fleet, other_lora)
    until(lambda: loaded(fleet) == {"sql": other_lora}, 60)
    until(lambda: phase(fleet) == "Running", 60)
    second = text(client, "sql")
    assert len({base, first, second}) == 3

    assert fleet.sleep("fast").status_code == 200
    assert text(client, "sql") == second
    assert fleet.state("fast") == "ready"

    told = fleet.launch("--describe", "adapter", "sql").stdout
    for phrase in ("ModelAdapterAvailable", "Phase:  Running", "Successfully loaded adapter on pod fast"):
        assert phrase in told
    assert fleet.launch("--delete", "adapter", "sql").returncode == 0
    until(lambda: phase(fleet) == "gone", 60)
    assert loaded(fleet) == {}
    with pytest.raises(NotFoundError):
        text(client, "sql")
    assert text(client, "fast") == base


def test_what_the_engine_would_refuse(fleet: Fleet, tmp_path: Path) -> None:
    """A folder without an adapter fails at once, with the reason."""
    apply(fleet, str(tmp_path))
    until(lambda: phase(fleet) == "Failed", 60)
    told = fleet.launch("--describe", "adapter", "sql").stdout
    assert "no LoRA adapter in" in told
    assert loaded(fleet) == {}
