"""Whatever is sent, the answer is JSON with a reason, and never a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from runtime.settings import Settings
from runtime.sidecar.app import create_app
from tests.runtime.sidecar.stage import options_for

PATHS = (
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/v1/download_model",
    "/v1/lora_adapter/load",
    "/v1/lora_adapter/unload",
    "/v1/model/download",
)
FIELDS = (
    *("lora_name", "source", "output_dir", "config", "max_workers", "async_download", "lora_path", "artifact_url"),
    *("credentials_secret", "credentials", "additional_config", "local_dir", "cleanup_local", "lora_int_id"),
    *("model_uri", "model_name", "download_extra_config"),
)
texts = st.text(st.characters(codec=None), max_size=12) | st.sampled_from(["a", "/x", "~/x", "{}", "org/x", "s3://b/k"])
scalars = st.none() | st.booleans() | st.integers(-1, 99) | texts
values = scalars | st.dictionaries(texts, scalars, max_size=2) | st.lists(scalars, max_size=2)
bodies = st.dictionaries(st.sampled_from(FIELDS) | texts, values, max_size=6) | values


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Beside an engine that is down; downloads go nowhere: no source is below the root, no host is asked."""
    app = create_app(options_for("http://127.0.0.1:9", "vllm", tmp_path_factory.mktemp("root")), Settings())
    with TestClient(app, raise_server_exceptions=True) as client:
        yield client


@settings(max_examples=150)
@given(st.sampled_from(PATHS), bodies)
def test_any_json_has_its_answer(client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str, body: Any) -> None:
    """A reason in the shape of its path."""

    async def nowhere(*_: object, **__: object) -> None:
        raise OSError("no download in this test")

    monkeypatch.setattr("runtime.sidecar.loading.fetch", nowhere)
    monkeypatch.setattr("runtime.sidecar.loading.fetch_keyed", nowhere)
    answer = client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    told = answer.json()
    assert told.get("detail") or told.get("message")
    if answer.status_code == 500:
        assert "The sidecar has a bug" in (told.get("detail") or told["message"])  # the download of this test
        assert {"source", "artifact_url", "model_uri"} & set(body)
    else:
        assert answer.status_code in (202, 400, 404, 409, 502)


def test_paths_of_any_kind(client: TestClient, tmp_path: Path) -> None:
    """Names of jobs and paths too."""
    for path in ("/v1/jobs/%ff", "/v1/jobs/%00", "/v1/jobs/..%2f..", "/%f0%9f", "/v1/jobs/" + "x" * 5000):
        assert client.get(path).status_code == 404


def test_half_a_character(client: TestClient) -> None:
    """JSON can hold what UTF-8 cannot; the reason that quotes it is sent all the same."""
    bodies: list[tuple[str, dict[str, Any]]] = [
        (path, body | {name: "x", "\ud800": "\ud800"})
        for path in PATHS
        for name in FIELDS
        for body in ({}, {"lora_name": "a"}, {"model_uri": "org/x"}, {"source": "org/x", "output_dir": "/x"})
    ]
    bodies += [(path, {name: "\ud800"} | {"lora_name": "a"}) for path in PATHS for name in FIELDS]
    bodies += [(path, {"lora_name": "\ud800", "config": {"\ud800": 1}}) for path in PATHS]
    for path, body in bodies:
        answer = client.post(path, content=json.dumps(body))
        assert answer.status_code != 500, (path, body)
