"""How these tests load a configuration: from text, in a folder of its own, in an environment of its own."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from controller.config.load import load
from controller.config.mistakes import ConfigError, Mistake
from controller.config.model import Config

Load = Callable[..., Config]
Mistakes = Callable[..., tuple[Mistake, ...]]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    def load_text(text: str, environment: Mapping[str, str] | None = None) -> Config:
        file = tmp_path / "torpor.yaml"
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return load(file, environment or {})

    return load_text


@pytest.fixture
def mistakes(loaded: Load) -> Mistakes:
    """Load a text that is expected to be wrong, and give what is wrong with it."""

    def mistakes_of(text: str, environment: Mapping[str, str] | None = None) -> tuple[Mistake, ...]:
        with pytest.raises(ConfigError) as caught:
            loaded(text, environment)
        assert len(str(caught.value).splitlines()) == len(caught.value.mistakes)
        return caught.value.mistakes

    return mistakes_of
