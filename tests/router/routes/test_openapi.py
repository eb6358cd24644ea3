"""The OpenAPI document is the route table, and the answers are as it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from router.app import endpoints
from router.reload import Reload
from tests.router.gateway import Gateway, Spec, replica_of, whole

pytestmark = pytest.mark.anyio

JSON = "application/json"


async def document(gateway: Gateway) -> dict[str, Any]:
    answer = await gateway.client.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def schema_of(document: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": document["components"]})


async def test_every_route_is_in_it_and_the_other_way_round(tmp_path: Path) -> None:
    """Path, method, parameters in the path, a body where one is taken; twenty engine paths at least."""
    async with whole(tmp_path, Spec("one")) as gateway:
        found = await document(gateway)
        table = endpoints(gateway.live, Reload(gateway.live), int)
        routes = {(one.method.lower(), re.sub(r"\{(\w+):\w+\}", r"{\1}", one.path)) for one in table}
        described = {(method, path) for path, item in found["paths"].items() for method in item}
    assert described == routes
    assert len(routes) == len(table)
    for path, item in found["paths"].items():
        for operation in item.values():
            named = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path))
            assert {"200", "default"} <= set(operation["responses"])
            assert operation["summary"]


async def test_it_is_openapi(tmp_path: Path) -> None:
    """3.1, every reference leads somewhere, every schema is a schema, parameters are of the kinds there are."""
    async with whole(tmp_path, Spec("one")) as gateway:
        found = await document(gateway)
    assert found["openapi"].startswith("3.1")
    assert found["info"]["title"]
    assert found["info"]["version"]
    assert set(found) <= {"openapi", "info", "paths", "components", "servers", "tags", "security"}
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(found)):
        assert reference.startswith("#/components/schemas/")
        assert reference.rpartition("/")[2] in found["components"]["schemas"]
    for schema in found["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for item in found["paths"].values():
        for operation in item.values():
            assert set(operation) <= {"summary", "tags", "parameters", "responses", "requestBody", "security"}
            for parameter in operation["parameters"]:
                assert parameter["in"] in ("path", "query")
                Draft202012Validator.check_schema(parameter["schema"])
            for response in operation["responses"].values():
                assert response["description"]


async def test_audio_takes_forms(tmp_path: Path) -> None:
    """Engine paths take JSON and forms; their model is a string in both."""
    async with whole(tmp_path, Spec("one")) as gateway:
        found = await document(gateway)
    for path in ("/v1/audio/transcriptions", "/v1/audio/translations"):
        content = found["paths"][path]["post"]["requestBody"]["content"]
        assert content["multipart/form-data"]["schema"]["required"] == ["model"]


async def test_key_is_part_of_it(tmp_path: Path) -> None:
    """With a key, every operation but /health asks for it."""
    headers = {"authorization": "Bearer k"}
    sections: dict[str, Any] = {"router": {"api_key_env": "K"}, "environment": {"K": "k"}}
    async with whole(tmp_path, Spec("one"), **sections) as gateway:
        found = (await gateway.client.get("/openapi.json", headers=headers)).json()
    assert found["components"]["securitySchemes"]
    for path, item in found["paths"].items():
        for operation in item.values():
            assert bool(operation.get("security")) == (path != "/health")


async def test_answers_are_as_it_says(tmp_path: Path) -> None:
    """Every documented answer in JSON, before and after traffic, awake and asleep; errors too."""
    replicas = replica_of("m/a", "one", aliases=["alias"]), replica_of("m/a", "two")
    adapters = [{"name": "sql", "baseModel": "m/a", "artifactURL": "/nowhere"}]
    async with whole(tmp_path, *replicas, Spec("b"), adapters=adapters) as gateway:
        found = await document(gateway)
        checked = 0
        for _ in range(2):
            for path, item in found["paths"].items():
                for method, operation in item.items():
                    checked += await _check(gateway, found, method, path, operation)
            await gateway.complete("alias")
            await gateway.complete("b", stream=True)
            await gateway.put_to_sleep("m/a")
        assert checked > 50


async def _check(gateway: Gateway, found: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> int:
    known = path.replace("{model}", "m/a").replace("{instance}", "two").replace("{name}", "sql")
    answer = await gateway.client.request(method, known, params={"history": "true"})
    described = operation["responses"].get(str(answer.status_code), operation["responses"]["default"])
    refused_without_body = operation["tags"] == ["adapters"] and method in ("put", "delete")
    not_ours = operation["tags"] == ["processes"] and answer.status_code == 409  # these engines run elsewhere
    of_engine = operation["tags"] == ["engines"]
    assert answer.status_code == 200 or of_engine or refused_without_body or not_ours, (method, path)
    if JSON not in described.get("content", {}):
        return 0
    schema_of(found, described["content"][JSON]["schema"]).validate(answer.json())
    missing = await gateway.client.request(method, path.replace("{model}", "nobody"))
    if "{model}" in path:
        assert missing.status_code == 404
        refused = operation["responses"].get("404", operation["responses"]["default"])
        schema_of(found, refused["content"][JSON]["schema"]).validate(missing.json())
    return 1


async def test_no_get_is_a_5xx(tmp_path: Path) -> None:
    """Whatever stands in its path and query."""
    async with whole(tmp_path, Spec("one", yaml={"aliases": ["a/b"]})) as gateway:
        found = await document(gateway)
        loop_paths = [path for path, item in found["paths"].items() if "get" in item]
        asked: list[tuple[str, dict[str, str]]] = []
        values = st.text(max_size=12) | st.sampled_from(["one", "a/b", "..", "%", "\x00", "0", "-1", "1e999", "nan"])
        texts = values.map(lambda text: text.encode(errors="replace").decode())
        queries = st.dictionaries(st.sampled_from(["window", "threshold", "history"]), texts)

        @settings(max_examples=150, suppress_health_check=list(HealthCheck), database=None)
        @given(st.sampled_from(loop_paths), texts, queries)
        def draw(path: str, name: str, query: dict[str, str]) -> None:
            asked.append((path.replace("{model}", quote(name, safe="")), query))

        draw()
        for path, query in asked:
            answer = await gateway.client.get(path, params=query)
            assert answer.status_code in (200, 400, 404), (path, query, answer.text)
