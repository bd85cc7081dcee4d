"""What this package uses of how pickles are written.

Checked with CPython 3.11.7 and 3.13.0. The opcodes are public names of `pickle`. This is not:

=================  ============================================================================
internal           use; fallback; what a free-threaded build would break
=================  ============================================================================
a large string or  The pickler writes it by a call of its own, behind the opcode that gives its
bytes are a chunk  length, so `pickling` need not search it for references into ``__main__``.
                   Fallback: contents that are not recognized are searched, which takes longer.
                   A mention of ``__main__`` in them costs a pickle by value, with the same
                   result. Free-threaded: nothing, a pickler belongs to one thread.
=================  ============================================================================
"""

from __future__ import annotations

import pickle
from typing import Final

#: Only contents that are larger are chunks by themselves, beginning with twice as much.
LARGE_CONTENT: Final = 1 << 15


def announcements(size_bytes: int) -> tuple[bytes, ...]:
    """The opcodes that announce so much content: as bytes, as a string, or a bytearray."""
    long = size_bytes.to_bytes(8, "little")
    return (
        pickle.BINBYTES8 + long,
        pickle.BINUNICODE8 + long,
        pickle.BYTEARRAY8 + long,
        *(
            opcode + long[:4]
            for opcode in (pickle.BINBYTES, pickle.BINUNICODE)
            if size_bytes < 1 << 32
        ),
    )
