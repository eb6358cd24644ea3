"""Adapters in the YAML file."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.config.load import load
from controller.config.mistakes import ConfigError

INSTANCES = """\
instances:
- {name: a, model: org/base, engine: vllm, aliases: [base], labels: {gpu: h200}}
- {name: b, model: org/base, engine: vllm}
- {name: c, model: other, engine: vllm, labels: {adapter.model.aibrix.ai/enabled: "true"}}
- {name: d, model: third, engine: vllm, engine_args: "--lora-modules taken=/x"}
"""


def write(folder: Path, adapters: str) -> Path:
    file = folder / "f.yaml"
    file.write_text(f"adapters:\n{adapters}\n{INSTANCES}")
    return file


def test_declared_adapters(tmp_path: Path) -> None:
    """By name; engines on which they may be loaded are started for it, and so is one that is labelled."""
    file = write(
        tmp_path,
        "- name: sql\n  baseModel: base\n  artifactURL: hf://o/x\n  podSelector: {matchLabels: {gpu: h200}}\n"
        "- {name: v1.0, baseModel: third, artifactURL: /x, replicas: 2}\n",
    )
    config = load(file, {"TORPOR_CREDENTIALS_S3": "{}", "OTHER": "x"})
    assert {name: spec.replicas for name, spec in config.adapters.items()} == {"sql": "all", "v1.0": 2}
    assert [one.spec.takes_adapters for one in config.instances] == [True, False, True, True]
    assert config.adapters_folder == tmp_path / "f.adapters"
    assert config.credentials_file == tmp_path / "f.credentials.json"
    assert config.credentials == {"TORPOR_CREDENTIALS_S3": "{}"}
    assert "TORPOR" not in repr(config)


def test_every_mistake_at_once(tmp_path: Path) -> None:
    """Each with its line and key."""
    file = write(
        tmp_path,
        "- {name: .x, baseModel: base, artifactURL: 'ftp://x', replicas: 0}\n"
        "- {name: other, baseModel: base, artifactURL: /x}\n"
        "- {name: ok, baseModel: nobody, artifactURL: /x}\n"
        "- {name: ok, baseModel: base, artifactURL: /x}\n"
        "- {name: taken, baseModel: base, artifactURL: /x}\n"
        "- {name: y, baseModel: base, artifact: /x}\n",
    )
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert [(one.line, one.key) for one in caught.value.mistakes] == [
        (2, "adapters[0].artifactURL"),
        (2, "adapters[0].name"),
        (2, "adapters[0].replicas"),
        (3, "adapters[1].name"),
        (4, "adapters[2].baseModel"),
        (5, "adapters[3].name"),
        (6, "adapters[4].name"),
        (7, "adapters[5].artifact"),
    ]
    told = [one.problem for one in caught.value.mistakes]
    assert "no instance serves the model 'nobody'" in told
    assert "'taken' is the name of an adapter that an engine loads at its start already" in told
    assert caught.value.mistakes[-1].fix == "did you mean 'artifactURL'?"
