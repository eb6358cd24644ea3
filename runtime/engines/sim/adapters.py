"""LoRA adapters the engine has loaded, and what it says when it cannot load one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runtime.engines.sim.errors import ApiError


@dataclass(frozen=True)
class Adapter:
    name: str
    path: str


class NoAdapter(Exception):
    """Nothing at this path."""


class RankTooHigh(Exception):
    def __init__(self, rank: int) -> None:
        super().__init__(str(rank))
        self.rank = rank


def inspect(path: str, max_rank: int) -> None:
    """A folder must hold an adapter of a rank the engine takes; `org/name` is taken as a name on a hub."""
    folder = Path(path)
    if not folder.exists() and not folder.is_absolute() and path.count("/") == 1 and path[0] not in "./~":
        return
    try:
        rank = json.loads((folder / "adapter_config.json").read_text()).get("r", 0)
    except (OSError, ValueError) as error:
        raise NoAdapter(path) from error
    if rank > max_rank:
        raise RankTooHigh(rank)


class Adapters:
    def __init__(self, loaded: Iterable[tuple[str, str]], *, base_names: tuple[str, ...], max_rank: int) -> None:
        self._loaded = {name: Adapter(name, path) for name, path in loaded}
        self._base_names = base_names
        self.max_rank = max_rank

    def __contains__(self, name: object) -> bool:
        return name in self._loaded

    def all(self) -> tuple[Adapter, ...]:
        return tuple(self._loaded.values())

    def put(self, name: str, path: str) -> None:
        self._loaded[name] = Adapter(name, path)

    def drop(self, name: str) -> None:
        del self._loaded[name]

    def load(self, name: str, path: str, *, inplace: bool) -> None:
        """Load with vLLM's errors."""
        if not name or not path:
            raise ApiError(400, "Both 'lora_name' and 'lora_path' must be provided.", "InvalidUserInput")
        if name in self._base_names:
            raise ApiError(400, f"The lora adapter '{name}' conflicts with a served base model.", "InvalidUserInput")
        if name in self._loaded and not inplace:
            message = (
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, "
                "set 'load_inplace' to True."
            )
            raise ApiError(400, message, "InvalidUserInput")
        try:
            inspect(path, self.max_rank)
        except NoAdapter as error:
            raise ApiError(404, f"Loading lora {name} failed: No adapter found for <path>", "NotFoundError") from error
        except RankTooHigh as error:
            message = (
                "Call to add_lora method failed: Worker failed with error "
                f"'LoRA rank {error.rank} is greater than max_lora_rank {self.max_rank}.'"
            )
            raise ApiError(500, message, "InternalServerError") from error
        self.put(name, path)

    def unload(self, name: str) -> None:
        """Unload with vLLM's errors."""
        if not name:
            raise ApiError(400, "'lora_name' needs to be provided to unload a LoRA adapter.", "InvalidUserInput")
        if name not in self._loaded:
            raise ApiError(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        self.drop(name)
