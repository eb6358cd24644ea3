"""Object stores, with a real S3 server in this process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import obstore
import pytest
from moto.server import ThreadedMotoServer
from obstore.store import S3Store

from runtime import settings
from runtime.downloads import transfer
from runtime.downloads.credentials import Credentials, credentials_of
from runtime.downloads.errors import AccessDenied, CredentialsInvalid, NotFound, SourceInvalid, SourceUnreachable
from runtime.downloads.fetch import Progress, fetch
from runtime.downloads.object_store import stores
from runtime.downloads.source import ObjectSource
from runtime.settings import Settings, StoreKeys
from tests.runtime.downloads.stage import content, names
from tests.runtime.downloads.web_server import Web

pytestmark = pytest.mark.anyio

WEIGHTS = os.urandom(5 << 20)
ADAPTER = {"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS, "sub/a b%20ü+.txt": b"x"}


PUBLIC = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*", '
    '"Resource": ["arn:aws:s3:::models", "arn:aws:s3:::models/*"]}]}'
)


class Bucket:
    """A private one with an adapter below ``path/to/adapter``, and another object whose name begins the same."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        httpx2.put(f"{endpoint}/models").raise_for_status()
        options: Any = {"endpoint": endpoint, "client_options": {"allow_http": True}, "region": "us-east-1"}
        self.store = S3Store("models", access_key_id="a", secret_access_key="b", **options)
        for name, data in ADAPTER.items():
            self.put(f"path/to/adapter/{name}", data)
        self.put("path/to/adapter-2/other", b"other")

    def put(self, key: str, data: bytes) -> None:
        obstore.put(self.store, key, data)

    def credentials(self, **more: str) -> Credentials:
        return credentials_of({"access_key": "a", "secret_key": "b", "endpoint": self.endpoint} | more)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")  # every listing has several pages
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    httpx2.post(f"{s3}/moto-api/reset").raise_for_status()
    return Bucket(s3)


@pytest.mark.parametrize("source", ["s3://models/path/to/adapter", "s3://models/path/to/adapter/"])
async def test_a_prefix_is_the_folder_below_it(source: str, bucket: Bucket, tmp_path: Path) -> None:
    """All pages of it, in folders, and nothing that merely begins with the same letters."""
    told: list[Progress] = []
    artifact = await fetch(source, tmp_path / "out", bucket.credentials(), on_progress=told.append)
    assert content(artifact.path) == ADAPTER
    assert told[-1] == Progress(artifact.bytes, artifact.bytes, 3, 3)


@pytest.mark.parametrize("scheme", ["s3", "obs", "tos"])
async def test_stores_that_speak_s3(scheme: str, bucket: Bucket, tmp_path: Path) -> None:
    """With an endpoint they are all alike."""
    artifact = await fetch(f"{scheme}://models/path/to/adapter", tmp_path / "out", bucket.credentials())
    assert content(artifact.path) == ADAPTER
    assert artifact.source == f"{scheme}://models/path/to/adapter"


async def test_a_key_is_one_object(bucket: Bucket, tmp_path: Path) -> None:
    """In a folder of its own; with a slash after it, it is not there."""
    credentials = bucket.credentials()
    one = await fetch("s3://models/path/to/adapter-2/other", tmp_path / "out", credentials)
    assert content(one.path) == {"other": b"other"}
    for nothing in ("s3://models/path/to/adapter-2/other/", "s3://models/path/to/adap", "s3://nowhere/x"):
        with pytest.raises(NotFound):
            await fetch(nothing, tmp_path / "none", credentials)


async def test_a_whole_bucket(bucket: Bucket, tmp_path: Path) -> None:
    """No key is the prefix of all."""
    found = content((await fetch("s3://models", tmp_path / "out", bucket.credentials())).path)
    assert len(found) == 4
    assert found["path/to/adapter-2/other"] == b"other"


async def test_objects_that_stand_for_folders_are_none_of_the_files(bucket: Bucket, tmp_path: Path) -> None:
    """Consoles make them when somebody clicks on "new folder"."""
    for key in ("path/to/adapter/", "path/to/adapter/sub/"):
        httpx2.put(f"{bucket.endpoint}/models/{key}").raise_for_status()
    out = (await fetch("s3://models/path/to/adapter/", tmp_path / "out", bucket.credentials())).path
    assert content(out) == ADAPTER


@pytest.mark.parametrize("key", ["path/to/adapter/%2e%2e/up", "path/to/adapter/..%5cup", "path/to/adapter/a%7fb"])
async def test_a_key_that_could_lead_elsewhere_is_refused(key: str, bucket: Bucket, tmp_path: Path) -> None:
    """Whoever may write to the bucket may not write to this disk."""
    httpx2.put(f"{bucket.endpoint}/models/{key}", content=b"x").raise_for_status()
    with pytest.raises(SourceInvalid):
        await fetch("s3://models/path/to/adapter", tmp_path / "out", bucket.credentials())
    assert names(tmp_path) == []


async def test_a_changed_object_is_another_artefact(bucket: Bucket, tmp_path: Path) -> None:
    """Same names, same sizes: the ETags tell. Unchanged, nothing is fetched."""
    first = await fetch("s3://models/path/to/adapter", tmp_path / "out", bucket.credentials())
    inode = first.path.stat().st_ino
    assert await fetch("s3://models/path/to/adapter", tmp_path / "out", bucket.credentials()) == first
    assert first.path.stat().st_ino == inode
    bucket.put("path/to/adapter/adapter_config.json", b"[]")
    second = await fetch("s3://models/path/to/adapter", tmp_path / "out", bucket.credentials())
    assert second.revision != first.revision
    assert (second.path / "adapter_config.json").read_bytes() == b"[]"


async def test_an_object_that_changes_on_the_way_is_never_mixed(bucket: Bucket, tmp_path: Path) -> None:
    """It is replaced between the listing and the reading."""
    other = os.urandom(len(WEIGHTS))
    told: list[Progress] = []

    def replace_once(progress: Progress) -> None:
        if not told:
            bucket.put("path/to/adapter/adapter_model.safetensors", other)
        told.append(progress)

    out = await fetch("s3://models/path/to/adapter", tmp_path / "out", bucket.credentials(), on_progress=replace_once)
    assert content(out.path) == ADAPTER | {"adapter_model.safetensors": other}
    assert (await fetch("s3://models/path/to/adapter", tmp_path / "2", bucket.credentials())).revision == out.revision


async def test_what_failed_goes_on_from_there(bucket: Bucket, tmp_path: Path) -> None:
    """The first bytes of the second try are those that the first one brought."""

    class Enough(Exception):
        pass

    def enough(progress: Progress) -> None:
        if progress.done_bytes > 2 << 20:
            raise Enough

    with pytest.raises(Enough):
        await fetch("s3://models/path/to/adapter", tmp_path / "out", bucket.credentials(), on_progress=enough)
    told: list[Progress] = []
    source, target = "s3://models/path/to/adapter", tmp_path / "out"
    out = await fetch(source, target, bucket.credentials(), max_workers=1, on_progress=told.append)
    assert content(out.path) == ADAPTER
    assert told[1].done_bytes > 1 << 20
    assert told[-1].done_bytes == out.bytes


async def test_without_keys_a_public_bucket_is_read_and_a_private_one_says_so(bucket: Bucket, tmp_path: Path) -> None:
    """Nobody is asked for credentials that are not needed."""
    nobody = credentials_of({"endpoint": bucket.endpoint})
    with pytest.raises(AccessDenied) as denied:
        await fetch("s3://models/path/to/adapter", tmp_path / "out", nobody)
    assert "access is denied; default credentials: " in str(denied.value)
    assert not denied.value.retriable
    with pytest.raises(AccessDenied):
        await fetch("obs://models/path/to/adapter", tmp_path / "out", nobody)
    httpx2.put(f"{bucket.endpoint}/models?policy", content=PUBLIC).raise_for_status()
    assert content((await fetch("s3://models/path/to/adapter", tmp_path / "out", nobody)).path) == ADAPTER


async def test_default_credentials_are_those_of_the_environment(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the store's own library finds, where neither the request nor the settings have any."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    nobody = credentials_of({"endpoint": bucket.endpoint})
    assert content((await fetch("s3://models/path/to/adapter", tmp_path / "out", nobody)).path) == ADAPTER


@pytest.mark.parametrize("token", ["mine", None])
async def test_a_session_token_is_the_keys_own(
    token: str | None, site: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's, which the store's library would add, goes with the environment's keys only."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "another's")
    given = {"access_key": "a", "secret_key": "b", "session_token": token, "endpoint": site.url("")}
    with pytest.raises(NotFound):
        await fetch("s3://models/x", tmp_path / "out", credentials_of(given))
    assert site.asked
    assert {one.headers.get("x-amz-security-token") for one in site.asked} == {token}
    assert all("Credential=a/" in one.headers["authorization"] for one in site.asked)


async def test_the_profile_is_used_before_the_default_credentials(bucket: Bucket, tmp_path: Path) -> None:
    """What ``aws configure`` wrote."""
    (tmp_path / "profiles").write_text("[mine]\naws_access_key_id=a\naws_secret_access_key=b\n")
    environment = settings.read({"AWS_PROFILE": "mine", "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "profiles")})
    credentials = credentials_of({"endpoint": bucket.endpoint}, environment)
    assert content((await fetch("s3://models/path/to/adapter", tmp_path / "out", credentials)).path) == ADAPTER


async def test_nobody_listens(tmp_path: Path, bucket: Bucket) -> None:
    """Retriable."""
    with pytest.raises(SourceUnreachable):
        await fetch("s3://models/x", tmp_path / "out", bucket.credentials(endpoint="http://127.0.0.1:1"))


GIVEN = StoreKeys("a", "b")
PLACES: dict[str, tuple[str, dict[str, str], str | None]] = {
    "aws": ("s3", {"region": "eu-west-1"}, None),
    "minio": ("s3", {"endpoint": "http://minio:9000"}, "http://minio:9000"),
    "obs": ("obs", {"region": "cn-north-4"}, "https://models.obs.cn-north-4.myhuaweicloud.com"),
    "tos": ("tos", {"region": "cn-beijing"}, "https://models.tos-s3-cn-beijing.volces.com"),
    "tos by name": ("tos", {"endpoint": "tos-s3-x.volces.com"}, "https://models.tos-s3-x.volces.com"),
    "obs with its bucket": ("obs", {"endpoint": "https://models.obs.x.com"}, "https://models.obs.x.com"),
    "obs by address": ("obs", {"endpoint": "http://10.0.0.1:80"}, "http://10.0.0.1:80"),
}


@pytest.mark.parametrize("place", PLACES)
def test_where_a_bucket_is(place: str) -> None:
    """S3 by path where an endpoint is given; OBS and TOS by the bucket's own name, which is all that TOS takes."""
    scheme, config, endpoint = PLACES[place]
    (make,) = stores(ObjectSource(scheme, "models", "x"), credentials_of({"ak": "a", "sk": "b"} | config))
    store = make()
    assert isinstance(store, S3Store)
    assert store.config.get("endpoint") == endpoint
    assert store.config.get("region") == config.get("region", "us-east-1")


@pytest.mark.parametrize("scheme", ["obs", "tos"])
def test_stores_that_are_not_amazons_must_be_told_where_they_are(scheme: str) -> None:
    """Their keys are never sent to Amazon instead."""
    with pytest.raises(CredentialsInvalid, match="endpoint, or region"):
        stores(ObjectSource(scheme, "models", "x"), Credentials(given=GIVEN))


def test_the_environments_keys_are_used_for_what_they_are_for() -> None:
    """Without any, a bucket is asked without and then with the default credentials; Google's alike."""
    with_keys = Credentials(environment=Settings(aws=GIVEN))
    assert len(stores(ObjectSource("s3", "models", "x"), with_keys)) == 1
    assert len(stores(ObjectSource("s3", "models", "x"), Credentials())) == 2
    assert len(stores(ObjectSource("gs", "models", "x"), Credentials())) == 2
    assert len(stores(ObjectSource("gs", "models", "x"), credentials_of({"gcp_service_account_json": "{}"}))) == 1


async def test_googles_store_is_read_as_the_others_are(bucket: Bucket, tmp_path: Path) -> None:
    """Its XML API is S3's, so that the same server does: without keys where all may read, and with an account."""
    account = {"private_key": "", "private_key_id": "", "client_email": "x", "disable_oauth": True}
    with_account = {"gcp_service_account_json": json.dumps(account | {"gcs_base_url": bucket.endpoint})}
    httpx2.put(f"{bucket.endpoint}/models?policy", content=PUBLIC).raise_for_status()
    for number, config in enumerate(({}, with_account)):
        credentials = credentials_of({"endpoint": bucket.endpoint} | config)
        artifact = await fetch("gs://models/path/to/adapter", tmp_path / str(number), credentials)
        assert content(artifact.path) == ADAPTER
    with pytest.raises(CredentialsInvalid, match="missing field"):
        await fetch("gs://models/x", tmp_path / "out", credentials_of({"gcp_service_account_json": "{}"}))


def test_chunks_are_smaller_than_what_is_written_at_once() -> None:
    """Else a slow store would show no progress."""
    from runtime.downloads import object_store

    assert object_store.CHUNK < transfer.CHUNK
