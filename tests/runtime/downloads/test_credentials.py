"""Config objects of both seeds, and the environment that fills in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime import settings
from runtime.downloads.aws_profile import read_profile
from runtime.downloads.credentials import NAMES, credentials_of
from runtime.downloads.errors import CredentialsInvalid
from runtime.settings import StoreKeys

ENVIRON = {
    "HF_AUTH_TOKEN": "env-token",
    "HF_REVISION": "env-revision",
    "ACCESS_KEY": "generic",
    "SECRET_KEY": "generic-secret",
    "ENDPOINT": "http://generic",
    "AWS_ACCESS_KEY_ID": "aws",
    "AWS_SECRET_ACCESS_KEY": "aws-secret",
    "AWS_SESSION_TOKEN": "aws-session",
    "AWS_REGION": "aws-region",
    "TOS_ACCESS_KEY": "tos",
    "TOS_SECRET_KEY": "tos-secret",
    "TOS_ENDPOINT": "http://tos",
    "UNRELATED": "x",
}


def test_kthenas_keys() -> None:
    """As its documentation has them: an object, not the text of one."""
    found = credentials_of({"access_key": "a", "secret_key": "s", "endpoint": "http://e", "hf_token": "t"})
    keys = found.keys("s3")
    assert (keys.access_key, keys.secret_key, keys.endpoint, found.hf_token) == ("a", "s", "http://e", "t")


def test_aibrixs_keys() -> None:
    """Its secrets' keys, those of its samples too, in capitals or not."""
    found = credentials_of(
        {"aws_access_key_id": "a", "AWS_SECRET_ACCESS_KEY": "s", "aws_session_token": "x", "aws_region": "r"}
    )
    keys = found.keys("s3")
    assert (keys.access_key, keys.secret_key, keys.session_token, keys.region) == ("a", "s", "x", "r")
    assert credentials_of({"huggingface_token": "t"}).hf_token == "t"
    tos = credentials_of({"TOS_ACCESS_KEY": "a", "TOS_SECRET_KEY": "s", "tos_region": "r"}).keys("tos")
    assert (tos.access_key, tos.secret_key, tos.region) == ("a", "s", "r")


@pytest.mark.parametrize("form", [{"type": "service_account"}, json.dumps({"type": "service_account"}, indent=1)])
def test_googles_account_is_an_object_or_its_text(form: object) -> None:
    """In a Secret it is a text of many lines."""
    found = credentials_of({"gcp_service_account_json": form})
    assert json.loads(str(found.gcp_service_account_json)) == {"type": "service_account"}


@pytest.mark.parametrize("form", [{"Authorization": "Bearer x"}, '{"Authorization": "Bearer x"}'])
def test_headers_are_an_object_or_its_text(form: object) -> None:
    """AIBrix asks for an object where its API takes texts only."""
    assert credentials_of({"headers": form}).headers == {"Authorization": "Bearer x"}


WRONG: dict[str, tuple[dict[str, object], str]] = {
    "unknown": ({"acess_key": "SECRET"}, "unknown key 'acess_key'; there are access_key, "),
    "modelscope": ({"ms_token": "SECRET"}, "ModelScope is not supported"),
    "half a pair": ({"access_key": "SECRET"}, "go together"),
    "twice": ({"access_key": "SECRET", "aws_access_key_id": "b"}, "different things"),
    "number": ({"endpoint": 7}, "must be text"),
    "line break": ({"hf_token": "SECRET\nx"}, "without control characters"),
    "headers as list": ({"headers": ["SECRET"]}, "an object of texts"),
    "headers as text": ({"headers": "SECRET"}, "an object of texts"),
    "header of two lines": ({"headers": {"A": "SECRET\r\nHost: x"}}, "without control characters"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_told_without_their_values(case: str) -> None:
    """A secret under a wrong key is still one."""
    config, message = WRONG[case]
    with pytest.raises(CredentialsInvalid, match=message) as wrong:
        credentials_of(config)
    assert "SECRET" not in str(wrong.value)


def test_secrets_never_show() -> None:
    """Not in a ``repr``, whichever way they came."""
    environment = settings.read({name: f"SECRET-{name}" for name in ENVIRON if "REGION" not in name})
    kept = ("endpoint", "region", "hf_endpoint", "hf_revision")
    config = {name: "SECRET" for name, field in NAMES.items() if field not in (*kept, "headers")}
    shown = repr(credentials_of(config | {"headers": {"a": "SECRET"}}, environment))
    assert "SECRET-HF_REVISION" in shown
    assert {part.split("'")[0] for part in shown.split("SECRET-")[1:]} == {"HF_REVISION", "ENDPOINT", "TOS_ENDPOINT"}
    assert "'SECRET'" not in shown


def test_the_environment_fills_in() -> None:
    """Each store has its own part of it first; obs, which has none, the general one."""
    found = credentials_of({}, settings.read(ENVIRON))
    assert (found.hf_token, found.hf_revision) == ("env-token", "env-revision")
    assert [found.keys(scheme).access_key for scheme in ("s3", "tos", "obs")] == ["aws", "tos", "generic"]
    assert [found.keys(scheme).endpoint for scheme in ("s3", "tos", "obs")] == [
        "http://generic",
        "http://tos",
        "http://generic",
    ]
    assert credentials_of({}, settings.read({})).keys("s3") == settings.StoreKeys()


def test_keys_of_a_request_are_never_mixed_with_the_environments() -> None:
    """A session token belongs to its own key."""
    keys = credentials_of({"access_key": "a", "secret_key": "s"}, settings.read(ENVIRON)).keys("s3")
    assert (keys.access_key, keys.secret_key, keys.session_token, keys.region) == ("a", "s", None, "aws-region")


def test_the_environments_token_goes_to_no_hub_that_a_request_names() -> None:
    """Else whoever may ask for a download may have the token."""
    environment = settings.read(ENVIRON | {"HF_ENDPOINT": "http://ours"})
    assert credentials_of({}, environment).hf_token == "env-token"
    assert credentials_of({"hf_endpoint": "http://theirs"}, environment).hf_token is None
    assert credentials_of({"hf_endpoint": "http://theirs", "hf_token": "t"}, environment).hf_token == "t"


def test_an_empty_variable_is_none() -> None:
    assert settings.read({"HF_TOKEN": "", "HF_AUTH_TOKEN": "b"}).hf_token == "b"
    assert settings.read(dict.fromkeys(ENVIRON, "")) == settings.read({})


PROFILES = "[default]\naws_access_key_id = a\naws_secret_access_key = s%s\n[other]\naws_session_token = x\n"


@pytest.mark.parametrize(
    ("text", "profile", "keys"),
    [
        (PROFILES, "default", StoreKeys("a", "s%s")),
        (PROFILES, "other", StoreKeys()),
        (PROFILES, "none", StoreKeys()),
        (
            "[other]\naws_access_key_id=a\naws_secret_access_key=s\naws_session_token=x",
            "other",
            StoreKeys("a", "s", "x"),
        ),
        ("no file of profiles", "default", StoreKeys()),
        (None, "default", StoreKeys()),
    ],
)
def test_profiles_of_aws(text: str | None, profile: str, keys: StoreKeys, tmp_path: Path) -> None:
    """Whole pairs, with their session token; what cannot be read has none."""
    if text is not None:
        (tmp_path / "credentials").write_text(text)
    assert read_profile(tmp_path / "credentials", profile) == keys
