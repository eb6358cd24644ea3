"""Commands and environments as they may be shown and kept: without what is secret."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

HIDDEN = "***"
SECRET_NAME = re.compile(
    r"(?:(?:^|[_-])(?:keys?|token|auth|pwd)|apikeys?|password|passwd|passphrase|secret|credentials?)[_-]?\d*$",
    re.IGNORECASE,
)
WORKING_FOLDERS = frozenset({"PWD", "OLDPWD"})
URL_PASSWORD = re.compile(r"(?<=://)[^/@\s]+(?=@)")


@dataclass(frozen=True, slots=True)
class Mask:
    """``secrets``: values known to be secret, wherever they turn up."""

    secrets: tuple[str, ...] = field(default=(), repr=False)

    def value(self, name: str, content: str) -> str:
        secret = name not in WORKING_FOLDERS and SECRET_NAME.search(name)
        return HIDDEN if content and secret else self._text(content, HIDDEN)

    def words(self, argv: Sequence[str]) -> tuple[str, ...]:
        """An argv to show. What follows a flag such as ``--api-key`` is hidden up to the next flag."""
        return tuple(self._words(argv, digested=False))

    def kept(self, argv: Sequence[str]) -> list[str]:
        """An argv to keep: in place of each secret its digest, so that another secret makes another argv."""
        return list(self._words(argv, digested=True))

    def _words(self, argv: Sequence[str], *, digested: bool) -> Iterable[str]:
        hiding = False
        for word in argv:
            if word.startswith("-"):
                flag, equals, content = word.partition("=")
                hiding = bool(SECRET_NAME.search(flag))
                yield (
                    f"{flag}={_stand_in(content, digested)}"
                    if hiding and equals
                    else self._text(word, _stand_in(word, digested))
                )
                hiding = hiding and not equals
            else:
                stand_in = _stand_in(word, digested)
                yield stand_in if hiding else self._text(word, stand_in)

    def _text(self, text: str, stand_in: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, stand_in)
        return URL_PASSWORD.sub(stand_in, text)


def _stand_in(text: str, digested: bool) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}" if digested else HIDDEN
