"""Keys from the file that ``aws configure`` writes. Blocks."""

from __future__ import annotations

import configparser
from pathlib import Path

from runtime.settings import StoreKeys


def read_profile(file: Path, name: str) -> StoreKeys:
    """Those of one profile; none where the file, the profile or its keys are not there, or the file cannot be read."""
    found = configparser.RawConfigParser()
    try:
        found.read_string(file.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, configparser.Error):
        return StoreKeys()
    profile = dict(found.items(name)) if found.has_section(name) else {}
    keys = profile.get("aws_access_key_id"), profile.get("aws_secret_access_key")
    return StoreKeys(*keys, profile.get("aws_session_token")) if all(keys) else StoreKeys()
