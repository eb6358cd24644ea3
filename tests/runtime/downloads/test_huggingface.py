"""Repositories of a hub: the real huggingface_hub speaks to a hub on this machine."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime import settings
from runtime.downloads.credentials import Credentials, credentials_of
from runtime.downloads.errors import AccessDenied, ChecksumMismatch, NotFound, SourceInvalid, SourceUnreachable
from runtime.downloads.fetch import Progress, corruption, fetch
from tests.runtime.downloads.hub import Hub
from tests.runtime.downloads.stage import content, names
from tests.runtime.downloads.web_server import Web, web

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("impatient")]

WEIGHTS = os.urandom(3 << 20)
FILES = {"README.md": b"# x\n", "adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS, "a b/c.txt": b"c"}


@pytest.fixture
async def hub(site: Web) -> AsyncIterator[Hub]:
    async with web() as network:
        yield Hub(site, network)


def ours(hub: Hub, **config: str) -> Credentials:
    return credentials_of({"hf_endpoint": hub.endpoint} | config)


@pytest.mark.parametrize("source", ["hf://org/lora", "huggingface://org/lora", "org/lora", "org/lora@main"])
async def test_a_repository_is_its_folder(source: str, hub: Hub, tmp_path: Path) -> None:
    """Large files come from the content network; the revision is the commit."""
    commit = hub.publish("org/lora", FILES)
    told: list[Progress] = []
    artifact = await fetch(source, tmp_path / "out", ours(hub), on_progress=told.append)
    assert content(artifact.path) == FILES
    assert artifact.revision == commit
    assert told[-1] == Progress(artifact.bytes, artifact.bytes, 4, 4)
    assert await corruption(artifact.path) is None


async def test_the_environment_says_where_the_hub_is(hub: Hub, tmp_path: Path) -> None:
    """HF_ENDPOINT and HF_TOKEN, as everywhere."""
    hub.publish("org/lora", FILES, token="secret")
    environment = settings.read({"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "secret"})
    await fetch("org/lora", tmp_path / "out", credentials_of({}, environment))
    with pytest.raises(NotFound):
        await fetch("org/lora", tmp_path / "none", credentials_of({"hf_endpoint": hub.endpoint}, environment))


async def test_a_branch_that_moved_on_is_another_artefact(hub: Hub, tmp_path: Path) -> None:
    """A reload after a restart gets the folder again and not some cache's; the commit it had can still be asked for."""
    first = hub.publish("org/lora", FILES)
    await fetch("org/lora", tmp_path / "out", ours(hub))
    asked = len(hub.network.asked)
    again = await fetch("org/lora", tmp_path / "out", ours(hub))
    assert again.path == tmp_path / "out"
    assert len(hub.network.asked) == asked
    second = hub.publish("org/lora", FILES | {"adapter_config.json": b"[]"})
    assert (await fetch("org/lora", tmp_path / "out", ours(hub))).revision == second
    assert (tmp_path / "out" / "adapter_config.json").read_bytes() == b"[]"
    assert (await fetch(f"org/lora@{first}", tmp_path / "out", ours(hub))).revision == first
    assert content(tmp_path / "out") == FILES


async def test_a_revision_from_the_config_is_used_where_the_source_has_none(hub: Hub, tmp_path: Path) -> None:
    """The source's own wins."""
    hub.publish("org/lora", FILES)
    old = hub.publish("org/lora", {"a": b"1"}, revisions=("v1",))
    older = hub.publish("org/lora", {"a": b"0"}, revisions=("refs/pr/1",))
    credentials = ours(hub, hf_revision="v1")
    assert (await fetch("org/lora", tmp_path / "a", credentials)).revision == old
    hub.site.pages["/api/models/org/lora/revision/refs%2Fpr%2F1"] = hub.site.pages[
        "/api/models/org/lora/revision/refs/pr/1"
    ]
    assert (await fetch("org/lora@refs/pr/1", tmp_path / "b", credentials)).revision == older


async def test_a_token_is_for_the_hub_and_not_for_its_network(hub: Hub, tmp_path: Path) -> None:
    """Every question to the hub has it; the content network never sees it."""
    hub.publish("org/lora", FILES, token="secret")
    await fetch("org/lora", tmp_path / "out", ours(hub, hf_token="secret"))
    assert {one.headers.get("authorization") for one in hub.site.asked} == {"Bearer secret"}
    assert hub.network.asked
    assert all("authorization" not in one.headers for one in hub.network.asked)
    assert "secret" not in (tmp_path / "out" / ".torpor-artifact.json").read_text()


async def test_what_the_hub_refuses_is_told_apart(hub: Hub, tmp_path: Path) -> None:
    """Missing or private, gated, no such revision, a bad token, a hub in trouble."""
    hub.publish("org/lora", FILES)
    with pytest.raises(NotFound, match="private and the hf_token is missing"):
        await fetch("org/none", tmp_path / "out", ours(hub))
    hub.refuse("/api/models/org/lora/revision/nope", 404, "RevisionNotFound")
    with pytest.raises(NotFound, match="no revision nope"):
        await fetch("org/lora@nope", tmp_path / "out", ours(hub))
    hub.refuse("/api/models/org/gated", 403, "GatedRepo")
    with pytest.raises(AccessDenied, match="gated"):
        await fetch("org/gated", tmp_path / "out", ours(hub))
    hub.refuse("/api/models/org/token", 403, "")
    with pytest.raises(AccessDenied, match="hf_token is wrong") as denied:
        await fetch("org/token", tmp_path / "out", ours(hub, hf_token="SECRET"))
    assert "SECRET" not in str(denied.value)
    hub.refuse("/api/models/org/ill", 500, "")
    with pytest.raises(SourceUnreachable) as ill:
        await fetch("org/ill", tmp_path / "out", ours(hub))
    assert ill.value.retriable
    with pytest.raises(SourceUnreachable):
        await fetch("org/lora", tmp_path / "out", credentials_of({"hf_endpoint": "http://127.0.0.1:1"}))
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
async def test_bytes_that_are_not_the_promised_ones_are_no_artefact(name: str, hub: Hub, tmp_path: Path) -> None:
    """The hub's own digests tell, for large files and small; it is tried once more from the start."""
    commit = hub.publish("org/lora", FILES)
    page = hub.site.pages[f"/org/lora/resolve/{commit}/{name}"]
    if page.location:
        (page,) = hub.network.pages.values()
    page.body = FILES[name][:-1] + bytes([FILES[name][-1] ^ 1])
    with pytest.raises(ChecksumMismatch) as wrong:
        await fetch("org/lora", tmp_path / "out", ours(hub))
    assert wrong.value.retriable
    assert not (tmp_path / "out").exists()
    page.body = FILES[name]
    assert content((await fetch("org/lora", tmp_path / "out", ours(hub))).path) == FILES


async def test_a_cut_file_is_taken_up_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    """Also when the next try is another process's: its checksum covers what was there."""
    hub.publish("org/lora", FILES)
    (page,) = hub.network.pages.values()
    page.cuts = [1 << 20, *[0] * 20]
    with pytest.raises(SourceUnreachable):
        await fetch("org/lora", tmp_path / "out", ours(hub))
    page.cuts = []
    assert content((await fetch("org/lora", tmp_path / "out", ours(hub))).path) == FILES
    assert hub.network.asked[-1].headers["range"] == f"bytes={1 << 20}-"


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a//b", "a\\b"])
async def test_a_tree_that_leads_elsewhere_is_refused(name: str, hub: Hub, tmp_path: Path) -> None:
    """A hub may be anyone's."""
    hub.publish("org/lora", {name: b"x"})
    with pytest.raises(SourceInvalid):
        await fetch("org/lora", tmp_path / "out", ours(hub))
    assert names(tmp_path) == []
