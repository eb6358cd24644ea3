"""What may be said of an adapter, and what is said of what may not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from controller.adapters.selector import selects
from controller.adapters.spec import ENABLED_LABEL, MODEL_LABEL, AdapterSpec
from controller.config.load import load
from controller.config.model import Config

GOOD: dict[str, Any] = {"baseModel": "base", "artifactURL": "hf://org/lora"}


def spec(**more: Any) -> AdapterSpec:
    return AdapterSpec.model_validate(GOOD | more)


def test_defaults() -> None:
    """On all instances of the base, by the fewest adapters."""
    assert spec().dump() == {
        "baseModel": "base",
        "artifactURL": "hf://org/lora",
        "replicas": "all",
        "podSelector": {"matchLabels": {}},
        "schedulerName": "least-adapters",
        "additionalConfig": {},
    }
    assert spec(replicas=None) == spec()


@pytest.mark.parametrize("written", ["least-adapters", "leastAdapters", "default"])
def test_a_scheduler_has_many_spellings(written: str) -> None:
    """They are one and the same spec."""
    assert spec(schedulerName=written) == spec()


def test_a_label_names_the_base() -> None:
    """As the originals' manifests have it."""
    only_label = {"artifactURL": "/models/x", "podSelector": {"matchLabels": {MODEL_LABEL: "base"}}}
    assert AdapterSpec.model_validate(only_label).base == "base"


BAD = [
    ({"artifactURL": "ftp://x/y"}, "unknown scheme"),
    ({"artifactURL": "https://me:secret@x/y"}, "user or password"),
    ({"artifactURL": "/a/../b"}, "without .."),
    ({"baseModel": ""}, "at least 1 character"),
    ({"baseModel": None}, "baseModel is missing"),
    ({"replicas": 0}, "above 0, or all"),
    ({"replicas": True}, "above 0, or all"),
    ({"replicas": "some"}, "above 0, or all"),
    ({"schedulerName": "best"}, "there are least-adapters"),
    ({"credentialsSecretRef": {"name": "../x"}}, "letters, digits"),
    ({"credentialsSecretRef": "x"}, "credentialsSecretRef"),
    ({"additionalConfig": {"rank": 16}}, "additionalConfig"),
    ({"podSelector": {"matchExpressions": []}}, "matchExpressions"),
    ({"podSelector": {"matchLabels": {MODEL_LABEL: "another"}}}, "asks for"),
    ({"surprise": 1}, "surprise"),
]


@pytest.mark.parametrize(("more", "problem"), BAD)
def test_mistakes(more: dict[str, Any], problem: str) -> None:
    """Each is named, and no secret is shown."""
    with pytest.raises(ValidationError) as caught:
        spec(**more)
    text = str(caught.value.errors(include_url=False, include_input=False))
    assert problem in text
    assert "secret@" not in text


def test_what_manifests_have_and_nobody_reads() -> None:
    """It is known by name."""
    assert spec(additionalConfig={"rank": "16", "api-key": "sk-1", "alpha": "32"}).unused == ["alpha", "rank"]


def test_what_is_secret_is_not_shown() -> None:
    """Neither a key nor a signature in a URL."""
    found = spec(additionalConfig={"api-key": "sk-1"}, artifactURL="https://h/a.tgz?X-Signature=abc").shown()
    assert "sk-1" not in str(found) and "abc" not in str(found)
    assert found["artifactURL"] == "https://h/a.tgz"


@pytest.fixture
def config(tmp_path: Any) -> Config:
    file = tmp_path / "torpor.yaml"
    file.write_text(
        "instances:\n"
        "- {name: a, model: org/base, engine: sim, aliases: [base], labels: {gpu: h200}}\n"
        "- {name: b, model: org/base, engine: sim, aliases: [base], labels: {gpu: l4, "
        f"{ENABLED_LABEL}: 'false'}}}}\n"
        "- {name: c, model: other, engine: sim, labels: {gpu: h200}}\n"
    )
    return load(file, {})


SELECTORS: list[tuple[dict[str, str], str]] = [
    ({}, "ab"),
    ({MODEL_LABEL: "base"}, "ab"),
    ({"gpu": "h200"}, "a"),
    ({"gpu": "none"}, ""),
    ({"zone": "x"}, ""),
    ({ENABLED_LABEL: "true"}, "a"),
]


@pytest.mark.parametrize(("labels", "names"), SELECTORS)
def test_instances_are_selected_by_labels(labels: dict[str, str], names: str, config: Config) -> None:
    """Of the base model alone, by any of its names; two labels need not be written."""
    wanted = spec(podSelector={"matchLabels": labels})
    assert "".join(one.name for one in config.instances if selects(wanted, one.names, one.labels)) == names
