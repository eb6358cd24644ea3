"""Who asks, and where: the ``config`` object of a request, filled in from the environment. Pure; secrets never show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from runtime.downloads.errors import CredentialsInvalid
from runtime.settings import Settings, StoreKeys

NAMES: Mapping[str, str] = {
    "access_key": "access_key",
    "secret_key": "secret_key",
    "session_token": "session_token",
    "endpoint": "endpoint",
    "region": "region",
    "ak": "access_key",
    "sk": "secret_key",
    "aws_access_key_id": "access_key",
    "aws_secret_access_key": "secret_key",
    "aws_session_token": "session_token",
    "aws_endpoint_url": "endpoint",
    "aws_region": "region",
    "tos_access_key": "access_key",
    "tos_secret_key": "secret_key",
    "tos_session_key": "session_token",
    "tos_endpoint": "endpoint",
    "tos_region": "region",
    "gcp_service_account_json": "gcp_service_account_json",
    "hf_token": "hf_token",
    "huggingface_token": "hf_token",
    "hf_endpoint": "hf_endpoint",
    "hf_revision": "hf_revision",
    "headers": "headers",
}
"""Config keys, in small letters, and what each sets."""
UNSUPPORTED = frozenset({"ms_token", "ms_revision", "ms_endpoint"})


@dataclass(frozen=True, slots=True)
class Credentials:
    """``hf_token`` is one that may be sent to ``hf_endpoint``. ``headers`` go to the host of a web source only."""

    given: StoreKeys = StoreKeys()
    environment: Settings = Settings()
    hf_token: str | None = field(default=None, repr=False)
    hf_endpoint: str | None = None
    hf_revision: str | None = None
    gcp_service_account_json: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def keys(self, scheme: str) -> StoreKeys:
        """What to use for ``s3``, ``obs`` or ``tos``: what the request gave, else its own part of the environment."""
        sources = [self.environment.tos if scheme == "tos" else self.environment.aws, self.environment.generic]
        if scheme == "obs":
            sources = [self.environment.generic]
        owners = [self.given, *sources]
        owner = next((owner for owner in owners if owner.access_key and owner.secret_key), StoreKeys())
        return StoreKeys(
            owner.access_key,
            owner.secret_key,
            owner.session_token,
            next((owner.endpoint for owner in owners if owner.endpoint), None),
            next((owner.region for owner in owners if owner.region), None),
        )


def credentials_of(config: Mapping[str, object], environment: Settings = Settings()) -> Credentials:
    """Keys may be written in capitals; empty values count as absent. Raises ``CredentialsInvalid``; it shows no value.

    The environment's hub token goes to the environment's hub only, never to an ``hf_endpoint`` that a request names.
    """
    found: dict[str, object] = {}
    for key, value in config.items():
        name = _name(key)
        if value in (None, "", {}):
            continue
        if name in found and found[name] != value:
            raise CredentialsInvalid(f"config: {key} and another key say different things about the same")
        found[name] = value
    headers = _headers(found.pop("headers", {}))
    texts = {name: _text(name, value) for name, value in found.items()}
    given = StoreKeys(**{name: texts.get(name) for name in StoreKeys.__dataclass_fields__})
    if bool(given.access_key) != bool(given.secret_key):
        raise CredentialsInvalid("config: an access key and its secret key go together; one of them is missing")
    own_hub = texts.get("hf_endpoint")
    return Credentials(
        given=given,
        environment=environment,
        hf_token=texts.get("hf_token") or (None if own_hub else environment.hf_token),
        hf_endpoint=own_hub or environment.hf_endpoint,
        hf_revision=texts.get("hf_revision") or environment.hf_revision,
        gcp_service_account_json=texts.get("gcp_service_account_json"),
        headers=headers,
    )


def is_key(name: str) -> bool:
    """Whether a config may have it."""
    return name.lower() in NAMES


def _name(key: str) -> str:
    name = key.lower()
    if name in UNSUPPORTED:
        raise CredentialsInvalid(f"config: {key}: ModelScope is not supported")
    if name not in NAMES:
        raise CredentialsInvalid(f"config: unknown key {key[:60]!r}; there are {', '.join(sorted(NAMES))}")
    return NAMES[name]


def _text(name: str, value: object) -> str:
    if name == "gcp_service_account_json" and isinstance(value, Mapping):
        return json.dumps(value)
    if not isinstance(value, str) or (not value.isprintable() and name != "gcp_service_account_json"):
        raise CredentialsInvalid(f"config: {name} must be text without control characters")
    return value


def _headers(value: object) -> Mapping[str, str]:
    """An object, or the text of one: an API that has only texts cannot carry the object."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise CredentialsInvalid("config: headers must be an object of texts, or the JSON of one") from None
    if not isinstance(value, Mapping):
        raise CredentialsInvalid("config: headers must be an object of texts, or the JSON of one")
    for name, text in value.items():
        if not isinstance(text, str) or not text.isprintable() or not name.isascii() or not name.isprintable():
            raise CredentialsInvalid(f"config: the header {str(name)[:60]!r} must be text without control characters")
    return dict(value)
