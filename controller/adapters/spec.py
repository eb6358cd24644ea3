"""What somebody wants of one adapter: the fields of a ModelAdapter's ``spec``, checked, frozen and comparable."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel

from runtime.adapters import NAME_RULE, is_name
from runtime.downloads.errors import SourceInvalid
from runtime.downloads.source import LocalSource, parse

MODEL_LABEL = "model.aibrix.ai/name"
"""Says which model an instance serves. Every instance has it without being told."""
ENABLED_LABEL = "adapter.model.aibrix.ai/enabled"
"""Says that adapters may be loaded on an instance; the launcher then starts its engine so that they can be."""

ALL = "all"
API_KEY = "api-key"
REDACTED = "(hidden)"

LEAST_ADAPTERS, RANDOM, BIN_PACK, LEAST_LOAD = "least-adapters", "random", "binPack", "leastLoad"
SCHEDULERS = {
    LEAST_ADAPTERS: LEAST_ADAPTERS,
    "leastAdapters": LEAST_ADAPTERS,
    "default": LEAST_ADAPTERS,
    RANDOM: RANDOM,
    BIN_PACK: BIN_PACK,
    LEAST_LOAD: LEAST_LOAD,
}
"""Every spelling, and what it means."""


def adapter_name(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"must be {NAME_RULE}")
    return text


def _artifact(text: str) -> str:
    try:
        parse(text)
    except SourceInvalid as invalid:
        raise ValueError(str(invalid)) from None
    return text


def _scheduler(text: str) -> str:
    if text not in SCHEDULERS:
        raise ValueError(f"unknown scheduler {text[:60]!r}; there are {', '.join(SCHEDULERS)}")
    return SCHEDULERS[text]


def _replicas(value: Any) -> Any:
    if value is None:
        return ALL
    if isinstance(value, bool) or not (value == ALL or (isinstance(value, int) and value >= 1)):
        raise ValueError("must be a whole number above 0, or all")
    return value


Plain = Annotated[StrictStr, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]+$")]
Name = Annotated[StrictStr, AfterValidator(adapter_name)]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True
    )


class Selector(_Part):
    """Chooses instances by the ``labels`` they have in the YAML."""

    match_labels: dict[Plain, Plain] = {}
    """Labels that an instance must have, and their values."""


class SecretRef(_Part):
    """Credentials by their name: they are in the environment or in a file of their own, never here."""

    name: Name
    """What the set of credentials is called."""


class AdapterSpec(_Part):
    """One adapter. Written and read in the camelCase of the ModelAdapter resource."""

    base_model: Plain | None = None
    """The model it was made for, by any name that the YAML gives it."""
    artifact_url: Annotated[StrictStr, AfterValidator(_artifact)] = Field(alias="artifactURL")
    """Where it is: hf://, s3://, gs://, obs://, tos://, https://, file:// or a path."""
    replicas: Annotated[StrictInt | Literal["all"], BeforeValidator(_replicas)] = "all"
    """On how many instances."""
    pod_selector: Selector = Selector()
    """Which instances may have it; all of the base model's by default."""
    credentials_secret_ref: SecretRef | None = None
    """The set of credentials to fetch it with."""
    scheduler_name: Annotated[StrictStr, AfterValidator(_scheduler)] = LEAST_ADAPTERS
    """How instances are chosen: least-adapters, random, binPack or leastLoad."""
    additional_config: dict[Plain, StrictStr] = {}
    """api-key: what the engine asks for before it loads anything. Other keys have no effect."""

    @model_validator(mode="after")
    def _has_a_base(self) -> AdapterSpec:
        if not self.base:
            raise ValueError(f"baseModel is missing (or podSelector.matchLabels[{MODEL_LABEL!r}])")
        label = self.pod_selector.match_labels.get(MODEL_LABEL)
        if label and self.base_model and label != self.base_model:
            raise ValueError(f"baseModel is {self.base_model!r}, but podSelector asks for {MODEL_LABEL}={label!r}")
        return self

    @property
    def base(self) -> str:
        return self.base_model or self.pod_selector.match_labels.get(MODEL_LABEL, "")

    @property
    def unused(self) -> list[str]:
        """Keys of ``additionalConfig`` that manifests have and nobody reads, the original neither."""
        return sorted(self.additional_config.keys() - {API_KEY})

    @property
    def is_fetched(self) -> bool:
        """A path of this machine is used as it is."""
        return not isinstance(parse(self.artifact_url), LocalSource)

    @property
    def secret(self) -> str | None:
        return self.credentials_secret_ref.name if self.credentials_secret_ref else None

    def dump(self) -> dict[str, Any]:
        """As JSON, in camelCase."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def shown(self) -> dict[str, Any]:
        """As JSON that anybody may see: secrets are hidden, and so is what a URL has after its path."""
        found = self.dump()
        found["artifactURL"] = parse(self.artifact_url).shown if "?" in self.artifact_url else self.artifact_url
        found["additionalConfig"] = dict.fromkeys(self.additional_config, REDACTED)
        return found
