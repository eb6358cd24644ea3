"""What a changed YAML changes, and what of that can be so at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.config.load import load
from controller.config.model import Config
from controller.reload.differences import Change, Step, compare, in_force

BEFORE: Mapping[str, Any] = {
    "router": {"router_port": 8080},
    "instances": [
        {"name": "a", "model": "m/a", "engine": "sim", "aliases": ["x"], "engine_args": ["--enable-sleep-mode"]},
        {"name": "b", "model": "m/b", "url": "http://127.0.0.1:7001"},
        {"name": "c", "model": "m/b", "url": "http://127.0.0.1:7002"},
    ],
}
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., Config]:
    return lambda *edits, environment=None: written(tmp_path, *edits, environment=environment)


def written(folder: Path, *edits: Edit, environment: Mapping[str, str] | None = None) -> Config:
    document = copy.deepcopy(dict(BEFORE))
    for edit in edits:
        edit(document)
    file = folder / "fleet.yaml"
    file.write_text(yaml.safe_dump(document))
    return load(file, environment or {})


def section(name: str, **keys: Any) -> Edit:
    return lambda document: document.setdefault(name, {}).update(keys)


def instance(index: int, **keys: Any) -> Edit:
    return lambda document: document["instances"][index].update(keys)


@pytest.mark.parametrize(
    ("edit", "lines"),
    [
        (section("router", max_body_mb=1), ["router.max_body_mb: 64 -> 1"]),
        (section("router", timeouts={"idle": 9}), ["router.timeouts.idle: 300 -> 9"]),
        (
            section("router", router_port=9090),
            ["router.router_port: 8080 -> 9090 (when the gateway is started anew)"],
        ),
        (section("sleep_manager", auto_sleep_enabled=True), ["sleep_manager.auto_sleep_enabled: false -> true"]),
        (section("gpus", **{"0": {"memory_gib": 24}}), ["memory.gpu0: none -> 24 GiB"]),
        (section("host", memory_gib=99.5), ["memory.host: none -> 99.5 GiB"]),
        (section("residency", max_wait_seconds=9), ["residency.max_wait_seconds: 15 -> 9"]),
        (
            section("groups", either={"members": ["m/a", "m/b"], "exclusive": True}),
            ["groups.m/a: none -> m/b", "groups.m/b: none -> m/a"],
        ),
        (section("models", **{"m/b": {"max_in_flight": 2}}), ["models.m/b.max_in_flight: none -> 2"]),
        (instance(0, aliases=["x", "y"]), ["a: in place (aliases: x -> x, y)"]),
        (instance(1, weight=2), ["b: in place (weight: 1 -> 2)"]),
        (
            instance(0, sidecar=True, sidecar_port=9001),
            ["a: in place (sidecar: none -> http://127.0.0.1:9001)"],
        ),
        (
            instance(1, gpus=[0], memory_gib=30.5),
            [
                "b: in place (memory_gib.gpu0: none -> 30.5 GiB; asleep_memory_gib.gpu0: none -> 2 GiB; "
                "host_memory_gib: none -> 30.5 GiB)"
            ],
        ),
        (instance(1, labels={"site": 1}), ["b: in place (labels.site: none -> 1)"]),
        (instance(1, sleep_manager={"level": 2}), ["b: in place (sleep_manager.level: 1 -> 2)"]),
        (
            instance(1, url="http://127.0.0.1:7009"),
            ["b: in place (url: http://127.0.0.1:7001 -> http://127.0.0.1:7009)"],
        ),
        (instance(0, env={"SECRET": "hunter2"}), ["a: restart (variables: SECRET)"]),
        (
            instance(0, engine_args=["--enable-sleep-mode", "--api-key", "hunter2"]),
            ["a: restart (arguments: runs without --api-key sha256:f52fbd32b2b3b86f)"],
        ),
        (lambda document: document["instances"].pop(2), ["c: remove"]),
        (lambda document: document["instances"].append({"model": "new", "engine": "sim"}), ["new: add"]),
    ],
)
def test_what_has_changed_is_told_by_its_key(edited: Callable[..., Config], edit: Edit, lines: list[str]) -> None:
    """Each edit is found, and nothing else; what is secret is not shown."""
    assert compare(edited(), edited(edit)).lines() == lines


def test_a_key_is_never_shown(edited: Callable[..., Config]) -> None:
    """Neither the clients' nor an engine's: only that it is another one."""
    keyed = (section("router", api_key_env="K"), instance(1, api_key_env="E"))
    old = edited(*keyed, environment={"K": "one-secret", "E": "two-secret"})
    new = edited(*keyed, environment={"K": "other-secret", "E": "another-secret"})
    found = compare(old, new)
    assert found.settings == (Change("router.api_key_env", "a key", "another key"),)
    assert found.instances[0].changes == (Change("api_key_env", "a key", "another key"),)
    url = (section("state", url="postgresql://u:one-secret@h/db"), section("state", url="postgresql://u:two@h/db"))
    [(change)] = compare(edited(url[0]), edited(url[1])).gateway
    assert "secret" not in str(change)
    assert change.old != change.new


def test_an_engine_that_must_be_restarted_is_spoken_to_as_before(edited: Callable[..., Config]) -> None:
    """Its settings change at once, its address and its own names when it is renewed."""
    old = edited()
    new = edited(instance(0, port=12345, aliases=["y"], engine_args=["--served-model-name", "z"]))
    at_once = in_force(old, new).instances[0]
    assert at_once.spec == old.instances[0].spec
    assert set(at_once.names) == {"m/a", "y", "z"}
    assert in_force(old, new, ["a"]).instances[0] == new.instances[0]


EDITS: list[Edit] = [
    section("router", max_body_mb=3),
    section("router", router_port=9001),
    section("residency", min_awake_seconds=3),
    section("groups", either={"members": ["m/a", "m/b"], "exclusive": True}),
    section("sleep_manager", idle_threshold_seconds=5),
    section("models", **{"m/a": {"balancing": "random"}}),
    instance(0, port=12345),
    instance(0, env={"A": "1"}),
    instance(0, aliases=[]),
    instance(1, weight=3),
    instance(1, url="http://127.0.0.1:7009"),
    lambda document: document["instances"].append({"model": "new", "engine": "sim"}),
    lambda document: document["instances"].reverse(),
]


@settings(max_examples=30)
@given(st.sets(st.sampled_from(range(len(EDITS)))), st.sets(st.sampled_from(range(len(EDITS)))))
def test_what_is_applied_is_not_found_again(tmp_path: Path, before: set[int], after: set[int]) -> None:
    """After it was applied only restarts are left, and the gateway's own keys. Renewed, not even the restarts."""
    old = written(tmp_path, *(EDITS[number] for number in sorted(before)))
    new = written(tmp_path, *(EDITS[number] for number in sorted(after)))
    assert not compare(new, new)
    found, left = compare(old, new), compare(in_force(old, new), new)
    assert not left.settings
    assert left.gateway == found.gateway
    restarts = {change.name for change in found.instances if change.step is Step.RESTART}
    assert {change.name for change in left.instances} == restarts
    assert not compare(in_force(old, new, restarts), new).instances
