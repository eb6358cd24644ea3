"""Manifests in Kubernetes' shape, taken as they are; all mistakes at once, each with its line."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from controller.adapters.manifest import AdapterManifest, Manifest, SecretManifest, load_manifests, read_manifests
from controller.config.mistakes import ConfigError

FILE = Path("/work/adapter.yaml")

SEED = """\
apiVersion: v1
kind: Secret
metadata:
  name: s3-credentials
  namespace: default
type: Opaque
stringData:
  aws_access_key_id: "AKIAEXAMPLE"
  aws_region: "us-west-2"
---
apiVersion: model.aibrix.ai/v1alpha1
kind: ModelAdapter
metadata:
  name: sql-lora-s3
  labels: {model.aibrix.ai/name: sql-lora-s3}
spec:
  baseModel: llama-3
  podSelector:
    matchLabels:
      model.aibrix.ai/name: llama-3
  artifactURL: s3://my-company-bucket/lora-adapters/sql-adapter/
  credentialsSecretRef:
    name: s3-credentials
  replicas: 2
  schedulerName: default
"""


def read(text: str, **environment: str) -> list[Manifest]:
    return read_manifests(text, FILE, environment)


def test_the_documented_manifest() -> None:
    """A secret and an adapter in one file."""
    secret, adapter = read(SEED)
    assert secret == SecretManifest("s3-credentials", {"aws_access_key_id": "AKIAEXAMPLE", "aws_region": "us-west-2"})
    assert isinstance(adapter, AdapterManifest)
    assert (adapter.name, adapter.spec.replicas, adapter.spec.secret) == ("sql-lora-s3", 2, "s3-credentials")
    assert adapter.spec.scheduler_name == "least-adapters"
    assert "AKIA" not in repr(secret)


def test_a_secret_in_base64() -> None:
    """``stringData`` wins over ``data``, as Kubernetes has it."""
    encoded = base64.b64encode(b"hf_x").decode()
    text = f"apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\ndata: {{hf_token: {encoded}, b: {encoded}}}\n"
    assert read(text + "stringData: {b: '2'}") == [SecretManifest("s", {"hf_token": "hf_x", "b": "2"})]


def test_variables_are_filled_in() -> None:
    """A secret need not be written down."""
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {hf_token: '${TOKEN}'}"
    assert read(text, TOKEN="hf_y") == [SecretManifest("s", {"hf_token": "hf_y"})]


def mistakes(text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [(one.line, one.key, one.problem) for one in caught.value.mistakes]


def test_every_mistake_at_once_with_line_and_key() -> None:
    """Of all documents in the file."""
    text = """\
apiVersion: model.aibrix.ai/v1
kind: ModelAdapter
metadata:
  name: .hidden
spec:
  artifactURL: ftp://x
  replicas: 0
  surprise: 1
---
kind: Deployment
---
apiVersion: v1
kind: Secret
metadata: {name: s}
data:
  key: '***'
"""
    assert mistakes(text) == [
        (1, "apiVersion", "must be model.aibrix.ai/v1alpha1"),
        (4, "metadata.name", "must be 1 to 128 letters, digits, dots, dashes and underscores, and no dot at its start"),
        (
            6,
            "spec.artifactURL",
            "unknown scheme ftp://; there are hf://, huggingface://, s3://, gs://, obs://, tos://, pvc://, file://, "
            "http:// and https://, org/name and absolute paths",
        ),
        (7, "spec.replicas", "must be a whole number above 0, or all"),
        (8, "spec.surprise", "unknown key"),
        (10, "kind", "'Deployment' is not known"),
        (16, "data.key", "must be base64 of text"),
    ]


SHORT = "apiVersion: model.aibrix.ai/v1alpha1\nkind: ModelAdapter\n"
LABEL = "podSelector.matchLabels['model.aibrix.ai/name']"

BAD = [
    ("", (1, "", "the file is empty")),
    ("---\n---\n", (1, "", "the file is empty")),
    ("- a", (1, "", "must be a mapping with kind: ModelAdapter or kind: Secret")),
    ("a: [", (1, "", "not valid YAML: expected the node content, but found '<stream end>'")),
    (
        SHORT + "metadata: {name: 1}\nspec: {artifactURL: /a, baseModel: b}",
        (3, "metadata.name", "must be text; write it in quotes"),
    ),
    (SHORT + "metadata: {name: a}", (1, "spec.artifactURL", "is missing")),
    (SHORT + "metadata: {name: a}\nspec: {artifactURL: /a}", (4, "spec", f"baseModel is missing (or {LABEL})")),
    (SEED + "---\n" + SEED.partition("---\n")[2], (30, "metadata.name", "'sql-lora-s3' is in this file already")),
    ("apiVersion: v1\nkind: Secret\nmetadata: {name: s}", (1, "", "has neither stringData nor data")),
    ("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: 1}", (4, "stringData.a", "must be text")),
]


@pytest.mark.parametrize(("text", "mistake"), BAD, ids=[row[1][2][:30] for row in BAD])
def test_one_mistake(text: str, mistake: tuple[int, str, str]) -> None:
    """The right one, at the right place."""
    assert mistakes(text) == [mistake]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It says so."""
    with pytest.raises(ConfigError, match="no such file"):
        load_manifests(tmp_path / "missing.yaml", {})
