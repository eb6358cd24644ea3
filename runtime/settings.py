"""The environment, read once and in one place. Secrets never show in a ``repr``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoreKeys:
    """Keys for an object store, and where it is."""

    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """``generic``: for any S3-compatible store (ACCESS_KEY, SECRET_KEY, ENDPOINT)."""

    hf_token: str | None = field(default=None, repr=False)
    hf_endpoint: str | None = None
    hf_revision: str | None = None
    generic: StoreKeys = StoreKeys()
    aws: StoreKeys = StoreKeys()
    tos: StoreKeys = StoreKeys()
    aws_profile: str = "default"
    aws_credentials_file: Path | None = None


def read(environ: Mapping[str, str] = os.environ) -> Settings:
    """An empty variable counts as none."""

    def first(*names: str) -> str | None:
        return next((environ[name] for name in names if environ.get(name)), None)

    return Settings(
        hf_token=first("HF_TOKEN", "HF_AUTH_TOKEN"),
        hf_endpoint=first("HF_ENDPOINT"),
        hf_revision=first("HF_REVISION"),
        generic=StoreKeys(first("ACCESS_KEY"), first("SECRET_KEY"), None, first("ENDPOINT")),
        aws=StoreKeys(
            first("AWS_ACCESS_KEY_ID"),
            first("AWS_SECRET_ACCESS_KEY"),
            first("AWS_SESSION_TOKEN"),
            first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
            first("AWS_REGION", "AWS_DEFAULT_REGION"),
        ),
        tos=StoreKeys(
            first("TOS_ACCESS_KEY"),
            first("TOS_SECRET_KEY"),
            first("TOS_SESSION_TOKEN"),
            first("TOS_ENDPOINT"),
            first("TOS_REGION"),
        ),
        aws_profile=first("AWS_PROFILE") or "default",
        aws_credentials_file=Path(first("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"),
    )


def environment() -> Mapping[str, str]:
    """A copy of it, for a program that reads what it needs at its start."""
    return dict(os.environ)
