"""A plug-in of unblob's, as `--plugins-path` loads it: formats whose extraction goes wrong.

With the environment variable `UNBLOB_FAULTS=off` nothing goes wrong, and nothing is extracted.
"""

from __future__ import annotations

import os
import signal
import struct
import time
from pathlib import Path
from typing import Any

from unblob.models import Extractor, File, Handler, Regex, ValidChunk
from unblob.plugins import hookimpl

_MAGIC_BYTES = 8


def chunk(magic: str, payload: bytes) -> bytes:
    """Make a chunk of one of these formats."""
    return magic.encode() + struct.pack("<I", len(payload)) + payload


class _Tagged(Handler):  # type: ignore[misc]  # unblob's classes are untyped here
    """A magic text, the length of the payload, and the payload."""

    DOC = None

    def calculate_chunk(self, file: File, start_offset: int) -> ValidChunk:
        file.seek(start_offset + _MAGIC_BYTES)
        (size,) = struct.unpack("<I", file.read(4))
        return ValidChunk(start_offset=start_offset, end_offset=file.tell() + size)


class _Kills(Extractor):  # type: ignore[misc]  # likewise
    def extract(self, inpath: Path, outdir: Path) -> None:
        if os.environ.get("UNBLOB_FAULTS") != "off":
            os.kill(os.getpid(), signal.SIGKILL)


class _Hangs(Extractor):  # type: ignore[misc]  # likewise
    def extract(self, inpath: Path, outdir: Path) -> None:
        if os.environ.get("UNBLOB_FAULTS") != "off":
            time.sleep(1)  # an interrupted run is to have a report of other files
            print("an extraction hangs", flush=True)
            time.sleep(3600)


class _Writes(Extractor):  # type: ignore[misc]  # likewise
    def extract(self, inpath: Path, outdir: Path) -> None:
        (outdir / "payload").write_bytes(inpath.read_bytes()[_MAGIC_BYTES + 4 :])


class KillHandler(_Tagged):
    """Its extraction kills the process that extracts."""

    NAME = "evproc_kill"
    PATTERNS = [Regex("EVP-KILL")]  # noqa: RUF012 - as unblob declares it
    EXTRACTOR = _Kills()


class HangHandler(_Tagged):
    """Its extraction never ends."""

    NAME = "evproc_hang"
    PATTERNS = [Regex("EVP-HANG")]  # noqa: RUF012 - likewise
    EXTRACTOR = _Hangs()


class GoodHandler(_Tagged):
    """It works: plug-ins take part."""

    NAME = "evproc_good"
    PATTERNS = [Regex("EVP-GOOD")]  # noqa: RUF012 - likewise
    EXTRACTOR = _Writes()


@hookimpl  # type: ignore[untyped-decorator]  # likewise
def unblob_register_handlers() -> list[type[Any]]:
    """Name the handlers; unblob calls this."""
    return [KillHandler, HangHandler, GoodHandler]
