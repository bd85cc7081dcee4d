from __future__ import annotations

import ast
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evproc_pool.demo import sources
from evproc_pool.demo.events import BadFile, Module
from evproc_pool.demo.sources import SourceError
from tests.evproc_pool.demo.conftest import BAD, DEEP, GOOD

Write = Callable[[str, "str | bytes"], Path]

MAX_BYTES = 4 << 20

if sys.platform == "win32":
    # the texts of its errors are others, and links need a privilege
    pytest.skip("POSIX texts", allow_module_level=True)


@contextmanager
def forbidden(path: Path) -> Iterator[None]:
    """Take all permissions away for a while; skip the test where this does not matter."""
    before = path.stat().st_mode
    path.chmod(0)
    try:
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
        yield
    finally:
        path.chmod(before)


# --- finding ---


def test_files_are_found_once_and_in_order(bad_tree: Path) -> None:
    tree = str(bad_tree)
    listing = sources.find_files([tree, f"{tree}/pkg", f"{tree}/pkg/one.py"])
    assert listing.files == sorted(set(listing.files))
    assert {Path(path).name for path in listing.files} == GOOD | set(BAD)
    assert listing.unlisted == []


def test_hidden_and_skipped_folders_are_left_out(write: Write, tmp_path: Path) -> None:
    for name in ("a.py", ".hidden/b.py", "site-packages/c.py", "deep/site-packages/d.py", "e.txt"):
        write(name, "")
    found = sources.find_files([str(tmp_path / "tree")], frozenset({"site-packages"})).files
    assert found == [str(tmp_path / "tree" / "a.py")]


def test_a_file_may_have_any_name(write: Write) -> None:
    script = write("script", "a = 1\n")
    assert sources.find_files([str(script)]).files == [str(script)]


def test_relative_paths_become_absolute(good_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(good_tree)
    assert sources.find_files(["pkg/one.py"]).files == [str(good_tree / "pkg" / "one.py")]


def test_all_missing_paths_are_named(bad_tree: Path) -> None:
    missing = [str(bad_tree / "absent"), str(bad_tree / "bad" / "itself.py"), "a\0b"]
    with pytest.raises(SourceError) as raised:
        sources.find_files([*missing, str(bad_tree)])
    text = str(raised.value)
    assert "absent: No such file or directory; " in text
    assert "itself.py: Too many levels of symbolic links; " in text
    assert "a\0b: " in text


def test_a_folder_that_cannot_be_listed_is_a_finding(good_tree: Path) -> None:
    with forbidden(good_tree / "pkg"):
        listing = sources.find_files([str(good_tree)])
    assert listing.files == [str(good_tree / "tangled.py")]
    assert listing.unlisted == [
        BadFile(str(good_tree / "pkg"), "cannot be listed: Permission denied")
    ]


def test_largest_first_and_then_by_path(write: Write) -> None:
    paths = [str(write(name, "a" * size)) for name, size in (("b", 1), ("a", 1), ("c", 2))]
    gone = str(Path(paths[0]).with_name("gone"))
    assert sources.largest_first([*paths, gone]) == [paths[2], paths[1], paths[0], gone]


def test_the_standard_library_is_found() -> None:
    assert Path(sources.standard_library(), "ast.py").is_file()


# --- reading ---


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\xef\xbb\xbfa = 1\r\nb\r", "a = 1\nb\n"),
        (b"# coding: latin-1\n'\xe4'\n", "# coding: latin-1\n'\xe4'\n"),
        (b"#!/bin/sh\n# -*- coding: cp1252 -*-\n'\x80'\n", None),
        (b"", ""),
    ],
)
def test_source_is_decoded_as_it_says(write: Write, content: bytes, text: str | None) -> None:
    source = sources.read_source(str(write("a.py", content)), MAX_BYTES)
    assert source.text == ("#!/bin/sh\n# -*- coding: cp1252 -*-\n'€'\n" if text is None else text)
    assert source.size_bytes == len(content)


@pytest.mark.parametrize("name", sorted(BAD))
def test_what_is_wrong_with_a_file_is_said(bad_tree: Path, name: str) -> None:
    with pytest.raises(SourceError) as raised:
        sources.parse_source(sources.read_source(str(bad_tree / "bad" / name), MAX_BYTES).text)
    assert str(raised.value).startswith(BAD[name])


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read: not a regular file"):
        sources.read_bytes(str(tmp_path), MAX_BYTES)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(SourceError, match="not a regular file"):
        sources.read_bytes(str(tmp_path / "pipe.py"), MAX_BYTES)


def test_a_huge_file_is_not_read(write: Write) -> None:
    path = str(write("a.py", "12345"))
    assert sources.read_bytes(path, 5) == b"12345"
    with pytest.raises(SourceError, match="too large: more than 4 bytes"):
        sources.read_bytes(path, 4)


def test_a_file_without_permission(write: Write) -> None:
    path = write("a.py", "")
    with (
        forbidden(path),
        pytest.raises(SourceError, match="cannot be read: Permission denied"),
    ):
        sources.read_bytes(str(path), MAX_BYTES)


# --- parsing ---


def test_surrogates_cannot_be_parsed() -> None:
    with pytest.raises(SourceError, match=r"cannot be parsed: .*surrogates"):
        sources.parse_source("a = '\ud800'\n")


@pytest.mark.parametrize(
    "text", ["a" + ".b" * DEEP, "f" + "()" * DEEP, "not " * DEEP + "1", "1 if a else " * DEEP + "1"]
)
def test_no_nesting_is_too_deep_to_be_refused(text: str) -> None:
    with pytest.raises(SourceError, match="too deeply nested"):
        sources.parse_source(text)


def test_a_long_text_that_is_not_python_is_refused_for_that() -> None:
    with pytest.raises(SourceError, match="line 30001: "):
        sources.parse_source("a\n" * 30_000 + "b c\n")
    # which the compiler refuses and the parser does not
    assert sources.parse_source("a\n" * 30_000 + "return\n")


def test_parsing_warns_nobody() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tree = sources.parse_source("a = '\\d'\nb = 1 if 3or 1 else 2\n")
        filters = warnings.filters[:]
    assert isinstance(tree, ast.Module)
    assert caught == []
    assert filters[0][0] == "always"


def test_threads_leave_the_warning_filters_as_they_were() -> None:
    before, interval = warnings.filters[:], sys.getswitchinterval()
    start = threading.Barrier(4)

    def parse() -> None:
        start.wait()
        for _ in range(200):
            sources.parse_source("a = '\\d'\n")

    threads = [threading.Thread(target=parse) for _ in range(4)]
    sys.setswitchinterval(1e-6)  # or else each would be through before the next one begins
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert warnings.filters[:] == before


# --- modules ---


def test_modules_are_named_by_their_packages(write: Write) -> None:
    write("a/__init__.py", "")
    write("a/b/__init__.py", "")
    top = str(write("top.py", ""))
    package = str(write("a/b/__init__.py", ""))
    module = str(write("a/b/c.py", ""))
    stray = str(write("stray/__init__/d.py", ""))
    assert sources.module_of(top) == Module("top", "", top)
    assert sources.module_of(package) == Module("a.b", "a.b", package)
    assert sources.module_of(module) == Module("a.b.c", "a.b", module)
    assert sources.module_of(stray) == Module("d", "", stray)


def test_a_folder_that_cannot_be_imported_is_no_package(write: Write) -> None:
    write("not-a-name/__init__.py", "")
    module = str(write("not-a-name/a.py", ""))
    init = str(write("not-a-name/__init__.py", ""))
    assert sources.module_of(module) == Module("a", "", module)
    assert sources.module_of(init) == Module("__init__", "", init)


def test_modules_are_found_as_the_import_system_does(write: Write, tmp_path: Path) -> None:
    write("p/__init__.py", "")
    write("p/both.py", "")
    package = str(write("p/both/__init__.py", ""))
    module = str(write("p/one.py", ""))
    folder = tmp_path / "tree" / "p"
    assert sources.find_module(folder, "p", "both") == Module("p.both", "p.both", package)
    assert sources.find_module(folder, "p", "one") == Module("p.one", "p", module)
    assert sources.find_module(folder, "", "one") == Module("one", "", module)
    assert sources.find_module(folder, "p", "none") is None
    init = sources.find_module(folder, "p", "__init__")
    assert init == Module("p", "p", str(folder / "__init__.py"))


def test_what_cannot_be_looked_at_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    assert not sources.is_file(tmp_path / "a.py")
