"""Archives, file systems and firmware, nested in each other: made here, the same for a seed.

(But for the time at which they were made, which ext4 and lzo hold.)

A format is left out if what makes it is missing. Whether it can be extracted is for unblob to say.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

Members = dict[str, bytes]

#: How many inputs are whole for each one that is damaged.
_WHOLE: Final = 11

#: One in so many inputs is not nested. (Of others some cannot be extracted to their second level:
#: they are damaged, or a tool is missing.)
_FLAT: Final = 40

_WORDS: Final = (
    "alpha",
    "beta",
    "gamma",
    "kernel",
    "driver",
    "module",
    "network",
    "update",
    "boot",
)
_PAGE: Final = 4096
# of 2001; what makes file systems writes no present time then
_ENVIRONMENT: Final = {"SOURCE_DATE_EPOCH": "1000000000", "E2FSPROGS_FAKE_TIME": "1000000000"}


def levels_of(place: int, seed: int = 22) -> int:
    """How many levels of archives the input of this number has; with one it is not nested."""
    return 1 if place % _FLAT == 0 else random.Random(f"{seed} {place} levels").choice((2, 2, 3))


def make_inputs(folder: Path, number: int, seed: int = 22) -> list[Path]:
    """Make files, each with some levels of archives in it.

    Args:
        folder: They are written here.
        number: How many.
        seed: Another one makes others.
    """
    found = []
    formats = available()
    for place in range(number):
        rng = random.Random(f"{seed} {place}")
        suffix, content = _nested(rng, formats, levels_of(place, seed), is_root=True)
        if place % (_WHOLE + 1) == _WHOLE:
            content = _damaged(rng, content)
        found.append(folder / f"input-{place:03}.{suffix}")
        found[-1].write_bytes(content)
    return found


def available() -> list[str]:
    """Return the formats that can be made here."""
    return [name for name in (*_CONTAINERS, *_COMPRESSORS) if _is_available(name)]


def missing() -> list[str]:
    """Return those that cannot."""
    return sorted({*_CONTAINERS, *_COMPRESSORS}.difference(available()))


def _is_available(name: str) -> bool:
    needed = _NEEDS.get(name)
    if needed is None or shutil.which(needed) is not None:
        return True
    try:
        importlib.import_module(needed)
    except ImportError:
        return False
    return True


# --- what is in what ---


def _nested(
    rng: random.Random, formats: list[str], levels: int, *, is_root: bool = False
) -> tuple[str, bytes]:
    if levels == 0:
        return _plain(rng)
    if rng.random() < (0.3 if is_root else 0.1):
        return "firmware", _firmware(rng, formats, levels)
    name = rng.choice(formats)
    if name in _COMPRESSORS:
        return name, _COMPRESSORS[name](_nested(rng, formats, levels - 1)[1])
    members = {}
    for place in range(rng.randint(2, 4)):
        suffix, content = _nested(rng, formats, levels - 1 if place == 0 else 0)
        folder = rng.choice(("", "", "lib/", "lib/firmware/"))
        members[f"{folder}{rng.choice(_WORDS)}-{place}.{suffix}"] = content
    return name, _CONTAINERS[name](members)


def _firmware(rng: random.Random, formats: list[str], levels: int) -> bytes:
    """Put several archives one after the other, as a flash memory has them."""
    parts = [rng.randbytes(512)]
    for _ in range(rng.randint(2, 4)):
        parts.append(_nested(rng, formats, levels)[1])
        parts.append(b"\xff" * (_PAGE + -len(parts[-1]) % _PAGE))
    return b"".join(parts)


def _plain(rng: random.Random) -> tuple[str, bytes]:
    size = rng.randint(200, 30_000)
    if rng.random() < 0.3:
        return "bin", rng.randbytes(size)
    return "txt", " ".join(rng.choices(_WORDS, k=size // 6)).encode()


def _damaged(rng: random.Random, content: bytes) -> bytes:
    """Cut something off, or overwrite some of the middle."""
    if rng.random() < 0.5:
        return content[: max(1, len(content) * 2 // 3)]
    place = rng.randrange(len(content) // 2, len(content))
    return content[:place] + rng.randbytes(64) + content[place + 64 :]


# --- formats ---


def _tar(members: Members) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _zip(members: Members) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


def _cpio(members: Members) -> bytes:
    """Write the "new ASCII" format: a header of hexadecimal numbers, each part padded to four."""
    folders = sorted({str(each) for name in members for each in Path(name).parents} - {"."})
    entries = [(name, 0o040755, b"") for name in folders]
    entries += [(name, 0o100644, content) for name, content in members.items()]
    parts = []
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08x" % each for each in fields)
        parts += [header + name.encode() + b"\0", content]
    return b"".join(part + b"\0" * (-len(part) % 4) for part in parts)


def _ar(members: Members) -> bytes:
    parts = [b"!<arch>\n"]
    for place, content in enumerate(members.values()):
        fields = f"{f'member{place}/':16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(content):<10}`\n"
        parts += [fields.encode(), content, b"\n" * (len(content) % 2)]
    return b"".join(parts)


def _by_tool(*command: str, space: int | None = None) -> Callable[[Members], bytes]:
    """Make a format by a program, which is given a folder and the name of the output.

    Args:
        command: Its arguments, with `{folder}`, `{output}`, and `{blocks}` of 1 kB.
        space: The kB that a file system needs besides its files.
    """

    def make(members: Members) -> bytes:
        with tempfile.TemporaryDirectory() as work:
            folder, output = Path(work, "members"), Path(work, "output.img")
            folder.mkdir()
            for name, content in members.items():
                file = folder / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                os.utime(file, (0, 0))
            blocks = (space or 0) + sum(len(content) // 1000 + 8 for content in members.values())
            arguments = [
                each.format(folder=folder, output=output, blocks=blocks) for each in command
            ]
            subprocess.run(
                arguments,
                check=True,
                capture_output=True,
                cwd=folder,
                env={**os.environ, **_ENVIRONMENT},
            )
            return output.read_bytes()

    return make


def _through(*command: str) -> Callable[[bytes], bytes]:
    def compress(content: bytes) -> bytes:
        return subprocess.run(command, input=content, check=True, capture_output=True).stdout

    return compress


def _by_module(name: str) -> Callable[[bytes], bytes]:
    def compress(content: bytes) -> bytes:
        packed: bytes = importlib.import_module(name).compress(content)
        return packed

    return compress


_UUID: Final = "22222222-2222-2222-2222-222222222222"

_CONTAINERS: Final[dict[str, Callable[[Members], bytes]]] = {
    "tar": _tar,
    "zip": _zip,
    "cpio": _cpio,
    "ar": _ar,
    "7z": _by_tool("7z", "a", "-bd", "-mmt=1", "-mtm=off", "-t7z", "{output}", "."),
    "ext4": _by_tool(
        *("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-b", "1024", "-U", _UUID),
        *("-E", f"hash_seed={_UUID}", "-d", "{folder}", "{output}", "{blocks}"),
        space=256,
    ),
    "cramfs": _by_tool("mkfs.cramfs", "{folder}", "{output}"),
    "squashfs": _by_tool("mksquashfs", "{folder}", "{output}", "-quiet", "-all-root"),
}

_COMPRESSORS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gz": lambda content: gzip.compress(content, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda content: lzma.compress(content, format=lzma.FORMAT_ALONE),
    "zlib": zlib.compress,
    "lz4": _by_module("lz4.frame"),
    "zst": _by_module("zstandard"),
    "lzo": _through("lzop", "-c"),
}

#: The program, or the module, that makes a format.
_NEEDS: Final = {
    "7z": "7z",
    "ext4": "mke2fs",
    "cramfs": "mkfs.cramfs",
    "squashfs": "mksquashfs",
    "lz4": "lz4.frame",
    "zst": "zstandard",
    "lzo": "lzop",
}
