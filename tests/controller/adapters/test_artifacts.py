"""Folders that adapters are loaded from: one for each source, and gone when nobody uses them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from controller.adapters.artifacts import Artifacts
from controller.adapters.credentials import Credentials, CredentialsUnusable
from controller.adapters.spec import AdapterSpec
from runtime.adapters import UnfitAdapter
from runtime.downloads.credentials import Credentials as StoreCredentials
from runtime.downloads.fetch import Artifact
from runtime.downloads.keyed import fetch_keyed
from runtime.downloads.progress import OnProgress
from runtime.settings import Settings
from tests.runtime.downloads.web_server import Page, web

pytestmark = pytest.mark.anyio


def spec(source: str, secret: str | None = None) -> AdapterSpec:
    return AdapterSpec.model_validate(
        {"baseModel": "b", "artifactURL": source} | ({"credentialsSecretRef": {"name": secret}} if secret else {})
    )


class Fetched:
    """Makes the folder, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, StoreCredentials]] = []

    async def __call__(
        self, source: str, root: Path, credentials: StoreCredentials, *, on_progress: OnProgress
    ) -> Artifact:
        self.asked.append((source, credentials))
        folder = root / source.rpartition("/")[2]
        await asyncio.to_thread(make, folder)
        return Artifact(folder, source, None, 1, 8)


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8}))


@pytest.fixture
def fetched() -> Fetched:
    return Fetched()


@pytest.fixture
def artifacts(tmp_path: Path, fetched: Fetched) -> Artifacts:
    return Artifacts(tmp_path / "kept", fetched, Credentials(tmp_path / "c.json", {}), Settings())


async def test_each_source_has_a_folder_of_its_own(artifacts: Artifacts, tmp_path: Path) -> None:
    """An engine never sees one change under it; a path of this machine is used as it is."""
    one, two = await artifacts.get("sql", spec("hf://o/one")), await artifacts.get("sql", spec("hf://o/two"))
    assert one != two and Path(one).parent == Path(two).parent == tmp_path / "kept" / "sql"
    assert await artifacts.get("sql", spec("/models/sql")) == "/models/sql"
    assert artifacts.owns(one) and not artifacts.owns("/models/sql") and not artifacts.owns(None)


async def test_a_source_that_has_changed_has_another_folder(tmp_path: Path) -> None:
    """An engine knows blocks in its prefix cache by the path: it must not find other weights there."""
    artifacts = Artifacts(tmp_path / "kept", fetch_keyed, Credentials(tmp_path / "c.json", {}), Settings())
    async with web() as site:
        site.pages["/adapter_config.json"] = Page(b'{"r": 8}', etag='"1"')
        wanted = spec(site.url("/adapter_config.json"))
        first = await artifacts.get("sql", wanted)
        assert await artifacts.get("sql", wanted) == first
        site.pages["/adapter_config.json"] = Page(b'{"r": 4}', etag='"2"')
        second = await artifacts.get("sql", wanted)
    assert second != first
    await artifacts.check(second, (), 4)
    with pytest.raises(UnfitAdapter, match="rank 8"):
        await artifacts.check(first, (), 4)


async def test_what_nobody_uses_is_deleted(artifacts: Artifacts, tmp_path: Path) -> None:
    """Of this adapter alone; the last one takes the folder with it."""
    one, two = await artifacts.get("sql", spec("hf://o/one")), await artifacts.get("sql", spec("hf://o/two"))
    other = await artifacts.get("chat", spec("hf://o/one"))
    await artifacts.discard("sql", {two})
    assert [await artifacts.is_whole(folder) for folder in (one, two, other)] == [False, True, True]
    await artifacts.discard("sql", set())
    await artifacts.discard("sql", set())
    assert [entry.name for entry in (tmp_path / "kept").iterdir()] == ["chat"]


async def test_named_credentials_are_given(artifacts: Artifacts, fetched: Fetched, tmp_path: Path) -> None:
    """Those in the file; without them nothing is asked."""
    Credentials(tmp_path / "c.json", {}).keep("s3", {"aws_access_key_id": "AKIA", "aws_secret_access_key": "s"})
    await artifacts.get("sql", spec("s3://bucket/sql/", "s3"))
    assert fetched.asked[0][1].given.access_key == "AKIA"
    with pytest.raises(CredentialsUnusable):
        await artifacts.get("sql", spec("s3://bucket/other/", "none"))
    assert len(fetched.asked) == 1


async def test_an_unfit_one(artifacts: Artifacts) -> None:
    """By its own description."""
    folder = await artifacts.get("sql", spec("hf://o/one"))
    await artifacts.check(folder, ("b",), 8)
    with pytest.raises(UnfitAdapter, match="rank 8 is above"):
        await artifacts.check(folder, ("b",), 4)
