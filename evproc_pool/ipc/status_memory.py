"""The status words in memory that two processes share; see `protocol.status_words`.

The memory is an anonymous file that only the two processes hold.
"""

from __future__ import annotations

import mmap
import sys
from typing import Final

from evproc_pool.ipc.descriptors import InheritedDescriptor, anonymous_file
from evproc_pool.protocol.status_words import NONE, PLACE, UNSENT, WORDS, StatusWords

_BYTES: Final = 8 * WORDS


class StatusMemory(StatusWords, InheritedDescriptor):
    """Status words that a worker writes and the coordinator reads."""

    words: memoryview

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._map = mmap.mmap(fd, _BYTES)
        self.words = memoryview(self._map).cast("q")

    @classmethod
    def create(cls) -> StatusMemory:
        """Create the words; they name no batch yet."""
        made = cls(anonymous_file(_BYTES))
        made.words[PLACE] = made.words[UNSENT] = NONE
        return made

    def close(self) -> None:
        """Unmap and close the memory."""
        self.words.release()
        self._map.close()
        super().close()


#: Whether a process of any start method can inherit a descriptor. If not (Windows), a dead worker's
#: first unreported event counts as the one that was running.
IS_SUPPORTED: Final = sys.platform != "win32"
