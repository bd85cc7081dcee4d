"""Finding, reading and parsing Python files; whatever is wrong with one is a `SourceError`.

`find_files` runs in the coordinator and does not open a file. The rest is for
handlers.
"""

from __future__ import annotations

import ast
import io
import os
import stat
import sysconfig
import threading
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from evproc_pool.demo.events import BadFile, Module


class SourceError(Exception):
    """A file cannot be surveyed; the text says why, the same in every process."""


class Source(NamedTuple):
    """A file, read."""

    text: str
    size_bytes: int


# --- finding ---


class Listing(NamedTuple):
    """What there is to survey.

    Attributes:
        files: Absolute paths, in alphabetical order, each once.
        unlisted: Folders that could not be listed.
    """

    files: list[str]
    unlisted: list[BadFile]


def standard_library() -> str:
    """The folder of the running interpreter's standard library."""
    return sysconfig.get_path("stdlib")


def find_files(paths: Sequence[str], skip: frozenset[str] = frozenset()) -> Listing:
    """List files, and the ``*.py`` below folders.

    Links to folders are not followed, so a link that leads back is no trouble;
    hidden folders are left out.

    Args:
        paths: Files, whatever their names, and folders.
        skip: Names of folders to leave out.

    Raises:
        SourceError: Some of `paths` do not exist; the text names them all.
    """
    files: dict[str, None] = {}
    unlisted: list[BadFile] = []
    missing: list[str] = []

    def cannot_list(error: OSError) -> None:
        unlisted.append(BadFile(str(error.filename), f"cannot be listed: {error.strerror}"))

    for path in map(Path.absolute, map(Path, paths)):
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except (OSError, ValueError) as error:
            missing.append(f"{path}: {getattr(error, 'strerror', None) or error}")
            continue
        if not is_folder:
            files[str(path)] = None
            continue
        for folder, subfolders, names in os.walk(path, onerror=cannot_list):
            subfolders[:] = [
                name for name in subfolders if not name.startswith(".") and name not in skip
            ]
            files.update((str(Path(folder, name)), None) for name in names if is_python(name))
    if missing:
        raise SourceError("; ".join(missing))
    return Listing(sorted(files), sorted(unlisted))


def is_python(name: str) -> bool:
    """Whether a file in a folder is to be surveyed, by its name."""
    return name.endswith(".py")


def largest_first(files: Sequence[str]) -> list[str]:
    """Order files for a run over several workers.

    A file that takes long leaves the other workers idle if it comes last, and
    the time a file takes goes by its size.
    """
    return sorted(files, key=lambda path: (-_size(path), path))


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0  # the handler that cannot read it will say why


# --- reading ---


def read_bytes(path: str, max_bytes: int) -> bytes:
    """Read a file.

    Raises:
        SourceError: It is no regular file, cannot be read, or is too large.
    """
    try:
        # not only a folder: to open a pipe would wait for somebody to write to it
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise SourceError("cannot be read: not a regular file")
        with Path(path).open("rb") as file:
            data = file.read(max_bytes + 1)  # the file may grow while it is read
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}") from error
    if len(data) > max_bytes:
        raise SourceError(f"too large: more than {max_bytes:,} bytes")
    return data


def read_source(path: str, max_bytes: int) -> Source:
    """Read a file and decode it as PEP 263 says.

    Raises:
        SourceError: See `read_bytes`; or the encoding is unknown or not the file's.
    """
    data = read_bytes(path, max_bytes)
    if b"\0" in data:  # what says so, and of what, differs from Python to Python
        raise SourceError("cannot be parsed: source code cannot contain null bytes")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = io.TextIOWrapper(io.BytesIO(data), encoding).read()
    except Exception as error:  # the file chooses the codec, and codecs raise what they like
        raise SourceError(f"cannot be decoded: {error}") from error
    return Source(text, len(data))


# --- parsing ---


def parse_source(text: str) -> ast.Module:
    """Parse source code.

    Raises:
        SourceError: It is not Python, or too deeply nested for the parser.
    """
    try:
        with no_warnings():
            return ast.parse(text)
    except SyntaxError as error:
        raise SourceError(f"cannot be parsed: line {error.lineno}: {error.msg}") from error
    except (RecursionError, MemoryError) as error:
        # the parser says MemoryError when its own stack is full
        raise SourceError("cannot be parsed: too deeply nested") from error
    except ValueError as error:  # lone surrogates
        raise SourceError(f"cannot be parsed: {error}") from error


_warnings_lock = threading.Lock()


@contextmanager
def no_warnings() -> Iterator[None]:
    """Keep what the parser has to say about other people's escape sequences to itself.

    Python's warning filters belong to the whole process. In a worker nobody else
    is there to mind. Elsewhere there may be threads: the lock keeps two of them
    from restoring each other's filters, and a thread that does something else can
    at worst miss a warning while one file is parsed.
    """
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --- modules ---


def module_of(path: str) -> Module:
    """Say which module a file is, by the ``__init__.py`` in the folders above it."""
    file = Path(path)
    parts: list[str] = []
    for folder in file.parents:
        if not (folder.name.isidentifier() and is_file(folder / "__init__.py")):
            break
        parts.insert(0, folder.name)
    package = ".".join(parts)
    if file.name == "__init__.py" and package:
        return Module(package, package, path)
    return Module(".".join([*parts, file.stem]), package, path)


def find_module(folder: Path, package: str, name: str) -> Module | None:
    """Find a module of a package by its last name; ``__init__`` is the package itself."""
    full_name = f"{package}.{name}" if package else name
    if is_file(path := folder / name / "__init__.py"):
        return Module(full_name, full_name, str(path))
    if is_file(path := folder / f"{name}.py"):
        return Module(package if name == "__init__" else full_name, package, str(path))
    return None


def is_file(path: Path) -> bool:
    """Whether it is a file that can be seen; in a folder without permission it cannot."""
    try:
        return path.is_file()
    except OSError:
        return False
