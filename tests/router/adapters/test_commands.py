"""The steps of a ModelAdapter's documentation on the command line, against a gateway that runs."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cli import main
from tests.router.adapters.stage import LORA, artifact, loaded, phase, record
from tests.router.gateway import Gateway, Spec, text_of, until, whole

pytestmark = pytest.mark.anyio

KEY = "clients-key"


@contextlib.asynccontextmanager
async def running(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Gateway, Path]]:
    """A gateway, and a YAML file that tells the command line where it is."""
    monkeypatch.setenv("TORPOR_API_KEY", KEY)
    async with whole(folder, Spec("base", LORA)) as gateway:
        file = folder / "torpor.yaml"
        written = yaml.safe_load(file.read_text())
        written["router"] = {
            "router_port": int(gateway.url.rpartition(":")[2].rstrip("/")),
            "api_key_env": "TORPOR_API_KEY",
        }
        file.write_text(yaml.safe_dump(written))
        yield gateway, file


async def torpor(file: Path, *words: str) -> int:
    return await asyncio.to_thread(main, ["--config", str(file), *words])


def manifest(name: str, source: str, **spec: Any) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "model.aibrix.ai/v1alpha1",
            "kind": "ModelAdapter",
            "metadata": {"name": name, "labels": {"model.aibrix.ai/name": name}},
            "spec": {
                "baseModel": "base",
                "podSelector": {"matchLabels": {"model.aibrix.ai/name": "base"}},
                "artifactURL": source,
                "schedulerName": "default",
                **spec,
            },
        }
    )


SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: s3}\nstringData: {aws_access_key_id: AKIA, b: 'sec\"ret'}\n"


async def test_apply_describe_use_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As kubectl would: a secret and an adapter in one file, the description with its phases, a request, the end."""
    async with running(tmp_path, monkeypatch) as (gateway, file):
        adapter = tmp_path / "adapter.yaml"
        source = artifact(tmp_path, "sql")
        adapter.write_text(SECRET + "---\n" + manifest("sql", source, credentialsSecretRef={"name": "s3"}))
        assert await torpor(file, "--apply", str(adapter)) == 0
        await phase(gateway, "sql", "Running")
        kept = tmp_path / "torpor.credentials.json"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert capsys.readouterr().out.splitlines()[-1].startswith("modeladapter sql applied (")
        assert await torpor(file, "--get", "adapters") == 0
        assert capsys.readouterr().out.splitlines() == [
            "NAME  BASE MODEL  PHASE    READY  INSTANCES",
            "sql   base        Running  1/1    base",
        ]
        await until(lambda: not record(gateway, "sql").untold_events)
        assert await torpor(file, "--describe", "adapter", "sql") == 0
        told = capsys.readouterr().out
        for line in (
            "Name:         sql",
            "Kind:         ModelAdapter",
            "  baseModel:  base",
            "    Message:               ModelAdapter default/sql has selected 1 pods for scheduling: [base]",
            "    Reason:                ModelAdapterAvailable",
            "  Phase:  Running",
            "  Instances:",
        ):
            assert line in told.splitlines()
        assert [line.split()[:2] for line in told.splitlines()[-2:]] == [["Normal", "Scheduled"], ["Normal", "Loaded"]]
        assert "AKIA" not in told
        text_of(await gateway.complete("sql"))
        assert await torpor(file, "--delete", "adapter", "sql") == 0
        await until(lambda: not gateway.live.adapters.records)
        assert loaded(gateway, "base") == {}
        capsys.readouterr()
        assert await torpor(file, "--get", "adapters") == 0
        assert capsys.readouterr().out == "No adapters found.\n"


async def test_what_goes_wrong_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake in a manifest is 2, a refusal of the gateway 1; nothing is applied of a file with a mistake."""
    async with running(tmp_path, monkeypatch) as (gateway, file):
        adapter = tmp_path / "adapter.yaml"
        adapter.write_text(manifest("ok", "/a") + "---\n" + manifest(".no", "ftp://x"))
        assert await torpor(file, "--apply", str(adapter)) == 2
        lines = capsys.readouterr().err.splitlines()
        assert [line.partition(": ")[2].partition(":")[0] for line in lines] == ["metadata.name", "spec.artifactURL"]
        assert gateway.live.adapters.records == {}
        adapter.write_text(manifest("sql", "/a", baseModel="nobody", podSelector={}))
        assert await torpor(file, "--apply", str(adapter)) == 1
        assert "no instance serves the model 'nobody'; the models here are base (400)" in capsys.readouterr().err
        assert await torpor(file, "--describe", "adapter", "sql") == 1
        assert "there is no adapter 'sql' (404)" in capsys.readouterr().err


async def test_no_gateway(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says where it looked."""
    file = tmp_path / "torpor.yaml"
    file.write_text("router: {router_port: 1}\ninstances: [{model: a, engine: sim}]\n")
    assert await torpor(file, "--get", "adapters") == 1
    assert "no gateway answers at http://127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--delete", "model", "x"], ["--get", "models"], ["--get", "adapters", "--status"]])
def test_words_that_mean_nothing(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """argparse's own exit."""
    with pytest.raises(SystemExit, match="2"):
        main(words)


async def test_manifests_with_more_than_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As AIBrix's own samples have: applied, and told what is without effect, and not kept."""
    async with running(tmp_path, monkeypatch) as (gateway, file):
        sample = manifest("sql", artifact(tmp_path, "sql"), additionalConfig={"rank": "16", "timeout": "120s"})
        await asyncio.to_thread((tmp_path / "a.yaml").write_text, sample)
        assert await torpor(file, "--apply", str(tmp_path / "a.yaml")) == 0
        assert "additionalConfig: rank, timeout: without effect" in capsys.readouterr().out
        await phase(gateway, "sql", "Running")
        assert record(gateway, "sql").spec.additional_config == {}
        assert await torpor(file, "--describe", "adapter", "sql") == 0
        assert "ConfigIgnored" in capsys.readouterr().out
