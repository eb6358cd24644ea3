"""What users write, and what it means."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.downloads.errors import SourceInvalid
from runtime.downloads.source import HubSource, LocalSource, ObjectSource, Source, WebSource, parse

READ: dict[str, Source] = {
    "hf://org/name": HubSource("org/name"),
    "HF://org/name": HubSource("org/name"),
    "hf://org/name@main": HubSource("org/name", "main"),
    "hf://org/name@refs/pr/1": HubSource("org/name", "refs/pr/1"),
    "hf://gpt2": HubSource("gpt2"),
    "huggingface://org/name-1.5_b/": HubSource("org/name-1.5_b"),
    "org/name": HubSource("org/name"),
    "org/name@v1.0": HubSource("org/name", "v1.0"),
    "s3://bucket/path/to/adapter": ObjectSource("s3", "bucket", "path/to/adapter"),
    "s3://bucket/path/to/": ObjectSource("s3", "bucket", "path/to/"),
    "s3://bucket": ObjectSource("s3", "bucket", ""),
    "s3://bucket/": ObjectSource("s3", "bucket", ""),
    "s3://bucket/a?b#c%20d": ObjectSource("s3", "bucket", "a?b#c%20d"),
    "obs://bucket/a": ObjectSource("obs", "bucket", "a"),
    "tos://bucket/a": ObjectSource("tos", "bucket", "a"),
    "gs://bucket/a": ObjectSource("gs", "bucket", "a"),
    "gcs://bucket/a": ObjectSource("gs", "bucket", "a"),
    "https://Host:444/a.zip?sig=x#frag": WebSource("https://Host:444/a.zip?sig=x", "https://host:444/a.zip"),
    "http://host": WebSource("http://host", "http://host/"),
    "pvc://models/a": LocalSource(Path("/models/a")),
    "pvc:///models/a": LocalSource(Path("/models/a")),
    "file:///models/a%20b": LocalSource(Path("/models/a b")),
    "file://localhost/models/a": LocalSource(Path("/models/a")),
    "/models/a%20b": LocalSource(Path("/models/a%20b")),
}


@pytest.mark.parametrize(("text", "source"), READ.items())
def test_what_is_understood(text: str, source: Source) -> None:
    """Every scheme of both seeds, org/name alone, absolute paths."""
    assert parse(text) == source


REFUSED = {
    "": "empty",
    " org/name": "spaces",
    "org/na\nme": "control",
    "name": "no org/name",
    "./models/a": "no org/name",
    "a/b/c": "no org/name",
    "../a": "no org/name",
    "hf://": "write hf://org/name",
    "hf://a/b/c": "write hf://org/name",
    "hf://org/..": "write hf://org/name",
    "hf://org/name@": "no branch, tag or commit",
    "hf://org/name@../x": "no branch, tag or commit",
    "s3://": "write s3://bucket",
    "s3://b@d/x": "write s3://bucket",
    "s3://bucket/../x": r"\.\. are not taken",
    "s3://bucket//x": "empty parts",
    "https://": "no host",
    "https://user:PASSWORD@host/a": "put them into config: headers",
    "https://host:99999/a": "cannot be read",
    "file://host/a": "write file:///absolute/path",
    "file:///a/%2e%2e/etc": r"without \.\.",
    "pvc://../etc": r"without \.\.",
    "/": "one folder or file",
    "/models/../etc": r"without \.\.",
    "file:///a%00b": "one folder or file",
    "ms://org/name": "ModelScope",
    "ftp://host/a": "unknown scheme ftp://; there are hf://",
}


@pytest.mark.parametrize(("text", "message"), REFUSED.items())
def test_what_is_not_says_why(text: str, message: str) -> None:
    """A typo never becomes the name of somebody's repository."""
    with pytest.raises(SourceInvalid, match=message) as refused:
        parse(text)
    assert "PASSWORD" not in str(refused.value)


@given(st.text(max_size=60) | st.sampled_from(list(READ)).flatmap(lambda text: st.just(text + "/..") | st.just(text)))
def test_any_text_is_a_source_or_an_error(text: str) -> None:
    """Nothing else is raised, and what is shown can be read again as the same."""
    with contextlib.suppress(SourceInvalid):
        source = parse(text)
        assert source.shown
        if not isinstance(source, WebSource):
            assert parse(source.shown) == source


def test_a_signature_shows_nowhere() -> None:
    """Neither where the source is shown nor in its ``repr``."""
    source = parse("https://host/a?X-Amz-Signature=SECRET")
    assert "SECRET" not in repr(source) + source.shown
    assert "SECRET" in source.identity
