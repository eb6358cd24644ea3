"""Chunks that a read brought whole and alone: most pieces of a stream are.

The parser need not see such a chunk if it stands between two: it would be at the same place afterwards. And to a client
that gets chunks as well it goes as it came.
"""

from __future__ import annotations

from struct import Struct

LIMIT = 2048
"""Frames are shorter; what parsing costs is little beside a longer one."""

END = b"\r\n"


def _shape(size: int) -> tuple[Struct, tuple[bytes, ...]]:
    """How a frame of ``size`` bytes is cut into head, chunk and end, and what its head is. Some sizes have none."""
    for digits in (1, 2, 3):
        chunk = size - digits - 2 * len(END)
        if chunk > 0 and len(f"{chunk:x}") == digits:
            return Struct(f"{digits + len(END)}s{chunk}s{len(END)}s"), (b"%x\r\n" % chunk, b"%X\r\n" % chunk)
    return Struct(f"{size}s0s0s"), ()


SHAPES = tuple((struct.unpack, heads) for struct, heads in map(_shape, range(LIMIT)))
"""By size. Only as nearly all engines write them: no leading zeros, no extensions; and not the last, empty one."""
