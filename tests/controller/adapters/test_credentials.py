"""Named credentials: kept where only their owner reads them, and never shown."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from controller.adapters.credentials import Credentials, CredentialsUnusable, variable_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sub" / "c.json"


def test_what_is_kept_is_read(file: Path) -> None:
    """Beside the others, and by its owner alone."""
    credentials = Credentials(file, {})
    credentials.keep("a", {"k": "1"})
    credentials.keep("b", {"k": "2"})
    credentials.keep("a", {"k": "3"})
    assert (credentials.read("a"), credentials.read("b")) == ({"k": "3"}, {"k": "2"})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_many_writers_lose_nothing(file: Path) -> None:
    """The command line and the gateway may write at once."""
    writers = [threading.Thread(target=Credentials(file, {}).keep, args=(f"n{i}", {"k": str(i)})) for i in range(8)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert [Credentials(file, {}).read(f"n{i}")["k"] for i in range(8)] == [str(i) for i in range(8)]


def test_the_environment_wins(file: Path) -> None:
    """By a name in capitals."""
    assert variable_of("s3-keys.eu") == "TORPOR_CREDENTIALS_S3_KEYS_EU"
    credentials = Credentials(file, {"TORPOR_CREDENTIALS_A": '{"k": "env"}'})
    credentials.keep("a", {"k": "file"})
    assert credentials.read("a") == {"k": "env"}


BAD = [
    ("", "not valid JSON"),
    ("[]", "must be a JSON object: name"),
    ('{"a": ["hush"]}', "a must be a JSON object of texts"),
    ('{"a": {"k": 1}}', "a must be a JSON object of texts"),
    ("{}", "there are no credentials called 'a'"),
]


@pytest.mark.parametrize(("text", "problem"), BAD)
def test_a_file_that_cannot_be_used(text: str, problem: str, file: Path) -> None:
    """The message shows no value."""
    file.parent.mkdir()
    file.touch(mode=0o600)
    file.write_text(text)
    with pytest.raises(CredentialsUnusable, match=problem) as caught:
        Credentials(file, {}).read("a")
    assert "hush" not in str(caught.value)


def test_a_file_that_others_can_read(file: Path) -> None:
    """It is not used, and the message says what to do."""
    Credentials(file, {}).keep("a", {"k": "1"})
    file.chmod(0o644)
    with pytest.raises(CredentialsUnusable, match="chmod 600"):
        Credentials(file, {}).read("a")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """It says which."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(CredentialsUnusable, match="cannot be written"):
        Credentials(tmp_path / "taken" / "c.json", {}).keep("a", {})
