"""A small tree of Python files, good and bad, with figures known by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

# Far above what a parser can nest.
DEEP = 200_000

COMPLEX = '''\
"""A module with a function that is too complex."""


def tangle(rows):
    """Untangle."""
    for row in rows:
        if row:
            while row and rows:
                if row > 1:
                    row -= 1
                elif row:
                    row = 0
                else:
                    break
    return [row for row in rows if row]


class Plain:
    def method(self):
        pass
'''


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file below the test's own folder."""

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


@pytest.fixture
def good_tree(write: Callable[[str, str | bytes], Path], tmp_path: Path) -> Path:
    """Four modules: a complex one, two that import each other, a package."""
    write("tangled.py", COMPLEX)
    write("pkg/__init__.py", '"""A package."""\n')
    write("pkg/one.py", "from pkg import two\n\n\ndef f():\n    '''Documented.'''\n")
    write("pkg/two.py", "from . import one\nimport json\n\n\ndef g(a):\n    return a and 1\n")
    return tmp_path / "tree"


@pytest.fixture
def bad_tree(good_tree: Path, write: Callable[[str, str | bytes], Path]) -> Path:
    """The good files and every kind of bad one that needs no permissions."""
    write("bad/syntax.py", "def f(:\n    pass\n")
    write("bad/python2.py", "print 'x'\n")
    write("bad/not_utf8.py", b"name = '\xff'\n")
    write("bad/unknown_coding.py", "# coding: no-such\n")
    write("bad/bytes_coding.py", "# coding: rot13\n")
    write("bad/null.py", b"a = 1\0\n")
    write("bad/indent.py", "if a:\npass\n")
    write("bad/deep_minus.py", "-" * DEEP + "1\n")
    write("bad/deep_sum.py", "1" + "+1" * DEEP + "\n")
    write("bad/deep_elif.py", "if a:\n pass\n" + "elif a:\n pass\n" * 20_000)
    write("bad/warns.py", "pattern = '\\d'\n")
    write("bad/empty.py", "")
    (good_tree / "folder.py").mkdir()
    (good_tree / "bad" / "dangling.py").symlink_to("nowhere.py")
    (good_tree / "bad" / "itself.py").symlink_to("itself.py")
    (good_tree / "bad" / "up").symlink_to("..")
    return good_tree


#: What `bad_tree` has to report, by file name: the beginning of the reason.
BAD = {
    "syntax.py": "cannot be parsed: line 1: ",
    "python2.py": "cannot be parsed: line 1: Missing parentheses",
    "not_utf8.py": "cannot be decoded: ",
    "unknown_coding.py": "cannot be decoded: unknown encoding: no-such",
    "bytes_coding.py": "cannot be decoded: 'rot13' is not a text encoding",
    "null.py": "cannot be parsed: ",
    "indent.py": "cannot be parsed: line 2: expected an indented block",
    "deep_minus.py": "cannot be parsed: too deeply nested",
    "deep_sum.py": "cannot be parsed: too deeply nested",
    "deep_elif.py": "cannot be parsed: too deeply nested",
    "dangling.py": "cannot be read: No such file or directory",
    "itself.py": "cannot be read: Too many levels of symbolic links",
}

#: The names of the files in `bad_tree` that can be surveyed.
GOOD = {"tangled.py", "__init__.py", "one.py", "two.py", "warns.py", "empty.py"}
