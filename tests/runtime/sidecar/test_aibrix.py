"""AIBrix Runtime's paths, and each thing that it gets wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.engines.sim.options import SimOptions
from runtime.settings import Settings
from tests.runtime.downloads.stage import names
from tests.runtime.engines.sim.stage import QUICK, SGLANG
from tests.runtime.sidecar.stage import Side, beside, options_for, running

pytestmark = pytest.mark.anyio

each_dialect = pytest.mark.parametrize("sim", [QUICK, SGLANG], ids=["vllm", "sglang"])
LOAD, UNLOAD = "/v1/lora_adapter/load", "/v1/lora_adapter/unload"


def is_error(body: dict[str, Any], code: int) -> bool:
    """AIBrix's shape, and that of its delegated calls."""
    shape = {"object", "message", "type", "param", "code", "error"}
    return body.keys() == shape and body["object"] == "error" and body["code"] == code and bool(body["message"])


@each_dialect
async def test_direct_load(sim: SimOptions, tmp_path: Path) -> None:
    """Plain text, and the adapter is there; SGLang too, which made the original crash at its start."""
    async with beside(sim, tmp_path) as side:
        path = side.adapter("v1.0")
        answer = await side.post(LOAD, {"lora_name": "v1.0", "lora_path": path})
        assert answer.text == f"Success: LoRA adapter 'v1.0' loaded successfully from '{path}'."
        assert answer.headers["content-type"].startswith("text/plain")
        assert await side.loaded() == {"v1.0": path}
        unloaded = await side.post(UNLOAD, {"lora_name": "v1.0", "lora_int_id": 1})
        assert (unloaded.status_code, unloaded.text) == (200, "Success: LoRA adapter 'v1.0' removed successfully.")
        again = await side.post(UNLOAD, {"lora_name": "v1.0", "lora_int_id": 1})
        assert is_error(again.json(), 404 if sim.dialect == "vllm" else 400)
        assert names(Path(path)) == ["adapter_config.json", "adapter_model.safetensors"]


@each_dialect
async def test_delegated_load(sim: SimOptions, tmp_path: Path) -> None:
    """The path that the engine was given is told; once more is as good as once, also after the engine was restarted."""
    async with beside(sim, tmp_path) as side:
        body = {"lora_name": "sql", "artifact_url": side.adapter("sql"), "credentials": {"aws_region": "us-west-2"}}
        answer = await side.post(LOAD, body)
        told = answer.json()
        assert answer.status_code == 200
        assert (told["status"], told["message"]) == ("success", "Successfully loaded adapter sql")
        assert await side.loaded() == {"sql": told["local_path"]}
        assert told["local_path"].startswith(str(tmp_path / "adapters/sql"))
        assert "message" in told["engine_response"] or told["engine_response"]["success"]
        assert (await side.post(LOAD, body)).json()["local_path"] == told["local_path"]
        side.sim.engine.adapters.drop("sql")  # as a restart would
        assert (await side.post(LOAD, body)).json()["local_path"] == told["local_path"]
        assert await side.loaded() == {"sql": told["local_path"]}


@each_dialect
async def test_another_url_is_another_adapter(sim: SimOptions, tmp_path: Path) -> None:
    """The stale files are not served, and go when the new ones are loaded."""
    async with beside(sim, tmp_path) as side:
        first = await side.post(LOAD, {"lora_name": "a", "artifact_url": side.adapter("one")})
        second = await side.post(LOAD, {"lora_name": "a", "artifact_url": side.adapter("two")})
        assert first.json()["local_path"] != second.json()["local_path"]
        assert await side.loaded() == {"a": second.json()["local_path"]}
        assert names(tmp_path / "adapters/a") == [Path(second.json()["local_path"]).name]


@each_dialect
async def test_a_changed_artefact_is_loaded_from_another_path(sim: SimOptions, tmp_path: Path) -> None:
    """The URL is the same; from the same path, an engine would go on answering from what it has cached."""
    async with beside(sim, tmp_path) as side:
        body = {"lora_name": "a", "artifact_url": side.adapter("a")}
        first = await side.post(LOAD, body)
        side.adapter("a", r=4)
        second = await side.post(LOAD, body)
        assert second.status_code == 200, second.text
        assert first.json()["local_path"] != second.json()["local_path"]
        assert await side.loaded() == {"a": second.json()["local_path"]}
        assert names(tmp_path / "adapters/a") == [Path(second.json()["local_path"]).name]


@each_dialect
async def test_unload_deletes_what_was_downloaded(sim: SimOptions, tmp_path: Path) -> None:
    """When the engine has let go of it; told otherwise, the files stay. An adapter that is not there is unloaded."""
    async with beside(sim, tmp_path) as side:
        body = {"lora_name": "a", "artifact_url": side.adapter("a"), "local_dir": str(tmp_path / "mine")}
        for home in (tmp_path / "mine", tmp_path / "adapters"):
            await side.post(LOAD, body)
            kept = await side.post(UNLOAD, {"lora_name": "a", "cleanup_local": False})
            assert kept.json() == {"status": "success", "message": "Successfully unloaded adapter a"}
            assert len(names(home / "a")) == 1
            await side.post(LOAD, body)
            assert (await side.post(UNLOAD, {"lora_name": "a"})).status_code == 200
            assert names(home) == []
            body.pop("local_dir", None)
        assert (await side.post(UNLOAD, {"lora_name": "a"})).status_code == 200
        assert await side.loaded() == {}


async def test_a_refused_unload_keeps_the_files_and_says_so(tmp_path: Path) -> None:
    """The original answers 200 and deletes what the engine still uses."""
    async with beside(QUICK, tmp_path) as side:
        await side.post(LOAD, {"lora_name": "a", "artifact_url": side.adapter("a")})
        await side.sim.fault(fail_unload={"status": 500, "times": 1})
        refused = await side.post(UNLOAD, {"lora_name": "a"})
        assert is_error(refused.json(), 500)
        assert len(names(tmp_path / "adapters/a")) == 1
        assert list(await side.loaded()) == ["a"]


@each_dialect
async def test_the_engines_errors_are_told_as_they_are(sim: SimOptions, tmp_path: Path) -> None:
    """Its status, 504 when it is late: what a controller needs to know whether to try again."""
    async with beside(sim, tmp_path, environ={"REQUEST_TIMEOUT": "0.2"}) as side:
        for body in (
            {"lora_name": "a", "lora_path": side.adapter("a")},
            {"lora_name": "b", "artifact_url": side.adapter("b")},
        ):
            await side.sim.fault(fail_load={"status": 503, "times": 1, "body": "service unavailable"})
            refused = await side.post(LOAD, body)
            assert is_error(refused.json(), 503)
            assert "service unavailable" in refused.json()["message"]
            await side.sim.fault(slow_load={"seconds": 60, "times": 1})
            assert is_error((await side.post(LOAD, body)).json(), 504)
            assert (await side.post(LOAD, body)).status_code == 200


async def test_files_of_others_stay(tmp_path: Path) -> None:
    """What was not downloaded here is not deleted here, whatever its folder is called."""
    async with beside(QUICK, tmp_path) as side:
        (tmp_path / "sources").mkdir()
        path = side.adapter("a/a")
        await side.post(LOAD, {"lora_name": "a", "lora_path": path})
        assert (await side.post(UNLOAD, {"lora_name": "a"})).status_code == 200
        assert names(Path(path)) == ["adapter_config.json", "adapter_model.safetensors"]


MISTAKES: list[tuple[str, dict[str, Any], int]] = [
    (LOAD, {"lora_name": "a"}, 400),
    (LOAD, {"lora_name": "a", "lora_path": "/etc/x"}, 400),
    (LOAD, {"lora_name": "../a", "artifact_url": "hf://o/a"}, 400),
    (LOAD, {"lora_name": "a", "lora_path": "{root}/nowhere"}, 404),
    (LOAD, {"lora_name": "a", "lora_path": "/x", "more": 1}, 400),
    (LOAD, {"lora_name": "a", "artifact_url": "ftp://x/y"}, 400),
    (LOAD, {"lora_name": "a", "artifact_url": "/etc"}, 400),
    (LOAD, {"lora_name": "a", "artifact_url": "{root}/nowhere"}, 404),
    (LOAD, {"lora_name": "a", "artifact_url": "hf://o/a", "local_dir": "/etc"}, 400),
    (LOAD, {"lora_name": "a", "artifact_url": "hf://o/a", "credentials": {"aws_access_key_id": "x"}}, 400),
    (LOAD, {"lora_name": "a", "artifact_url": "hf://o/a", "credentials_secret": "../x"}, 400),
    (LOAD, {"lora_name": "a", "artifact_url": "hf://o/a", "credentials_secret": "absent"}, 404),
    (UNLOAD, {}, 400),
    (UNLOAD, {"lora_name": "a", "cleanup_local": "no"}, 400),
    (UNLOAD, {"lora_name": "a"}, 502),
    ("/v1/model/download", {}, 400),
    ("/v1/model/download", {"model_uri": "org/m", "model_name": "a/b"}, 400),
    ("/v1/model/download", {"model_uri": "org/m", "download_extra_config": {"nope": 1}}, 400),
    ("/v1/model/download", {"model_uri": "org/m", "download_extra_config": {"num_threads": 0}}, 400),
    ("/v1/model/download", {"model_uri": "org/m", "local_dir": "/etc"}, 400),
    ("/v1/model/download", {"model_uri": "{root}/nowhere"}, 404),
]


@pytest.mark.parametrize(("path", "body", "code"), MISTAKES)
async def test_each_mistake_has_its_status(path: str, body: dict[str, Any], code: int, tmp_path: Path) -> None:
    """And AIBrix's shape."""
    body = {
        key: value.format(root=tmp_path) if isinstance(value, str) and "{root}" in value else value
        for key, value in body.items()
    }
    options = replace(options_for("http://127.0.0.1:9", "vllm", tmp_path), secrets_dir=tmp_path)
    async with running(options) as client:
        answer = await client.post(path, json=body)
        assert answer.status_code == code, answer.text
        assert is_error(answer.json(), code)


async def test_credentials_by_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a mounted secret, below those of the request, below additional_config; none of them is shown."""
    asked: list[Any] = []
    folder = tmp_path / "secrets" / "s3-credentials"
    folder.mkdir(parents=True)
    (folder / "aws_access_key_id").write_text("AKIA\n")
    (folder / "aws_secret_access_key").write_text("SECRET\n")
    (folder / "aws_region").write_text("mounted")
    (folder / "..data").mkdir()

    async def fetch(source: str, target: Path, credentials: Any, **_: Any) -> None:
        asked.append(credentials.keys("s3"))
        raise RuntimeError("seen")

    monkeypatch.setattr("runtime.sidecar.loading.fetch_keyed", fetch)
    async with beside(QUICK, tmp_path, secrets_dir=tmp_path / "secrets") as side:
        body = {
            "lora_name": "sql-lora-s3",
            "artifact_url": "s3://my-company-bucket/lora-adapters/sql-adapter/",
            "credentials_secret": "s3-credentials",
            "credentials": {"aws_region": "request"},
            "additional_config": {"endpoint": "http://127.0.0.1:9", "api-key": "for the engine", "rank": "16"},
        }
        answer = await side.post(LOAD, body)
    assert answer.status_code == 500
    assert "SECRET" not in answer.text
    [keys] = asked
    assert (keys.access_key, keys.secret_key, keys.region) == ("AKIA", "SECRET", "request")
    assert keys.endpoint == "http://127.0.0.1:9"


async def test_the_key_of_additional_config_goes_to_the_engine(tmp_path: Path) -> None:
    """As does the caller's Authorization, which the original keeps to itself."""
    async with beside(replace(QUICK, api_keys=("sekret",)), tmp_path) as side:
        body: dict[str, Any] = {"lora_name": "a", "artifact_url": side.adapter("a")}
        assert (await side.post(LOAD, body)).status_code == 401
        assert (await side.post(LOAD, body | {"additional_config": {"api-key": "sekret"}})).status_code == 200
        answer = await side.post(UNLOAD, {"lora_name": "a"}, headers={"authorization": "Bearer sekret"})
        assert answer.status_code == 200


async def download(side: Side, **more: Any) -> dict[str, Any]:
    answer = await side.post("/v1/model/download", {"model_uri": side.adapter("m"), "model_name": "m"} | more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_model_is_downloaded_and_listed(tmp_path: Path) -> None:
    """Asked again it is asked after; the list knows what is whole."""
    root = str(tmp_path / "models" / "m")
    card = {"model_name": "m", "model_root_path": root, "source": "file", "model_status": "downloaded"}
    async with beside(QUICK, tmp_path) as side:
        assert (await side.get("/v1/model/list")).json() == {"object": "list", "data": []}
        assert await download(side) == card
        assert await download(side) == card
        assert (await side.get("/v1/model/list")).json() == {"object": "list", "data": [card]}
        there = str(tmp_path / "there")
        moved = await download(side, local_dir=there, download_extra_config={"hf_token": "x", "num_threads": 4})
        assert moved["model_root_path"] == f"{there}/m"
        (tmp_path / "there" / "half").mkdir()
        listed = await side.client.request("GET", "/v1/model/list", json={"local_dir": there})
        assert [one["model_name"] for one in listed.json()["data"]] == ["m"]


async def test_a_failed_download_is_told_once(tmp_path: Path) -> None:
    """Then it is tried again."""
    async with beside(QUICK, tmp_path, Settings()) as side:
        body = {"model_uri": str(tmp_path / "late"), "model_name": "m"}
        assert (await side.post("/v1/model/download", body)).status_code == 404
        (tmp_path / "late").symlink_to(side.adapter("x"))
        assert (await side.post("/v1/model/download", body)).json()["model_status"] == "downloaded"


@each_dialect
async def test_direct_load_in_place(sim: SimOptions, tmp_path: Path) -> None:
    """From elsewhere, which is refused without it; and from the same path, where the engine's refusal is told."""
    async with beside(sim, tmp_path) as side:
        one, other = ({"lora_name": "a", "lora_path": side.adapter(name)} for name in ("one", "other"))
        assert (await side.post(LOAD, one)).status_code == 200
        assert (await side.post(LOAD, other)).status_code >= 400
        assert (await side.post(LOAD, other | {"load_inplace": True})).status_code == 200
        assert await side.loaded() == {"a": other["lora_path"]}
        side.sim.engine.faults.add({"fail_load": {"times": 1, "status": 503}})
        assert (await side.post(LOAD, other | {"load_inplace": True})).status_code == 503
        again = await side.post(LOAD, other | {"load_inplace": True})
        assert (again.status_code, await side.loaded()) == (200, {"a": other["lora_path"]})
