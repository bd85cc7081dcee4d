"""Plug-ins as nobody should write them, for flake8's section ``[flake8:local-plugins]``.

They do it to files of the name `CULPRIT`, and to no other.
"""

from __future__ import annotations

import ast
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Final

#: The file's name.
CULPRIT: Final = "culprit.py"

#: What `hangs` prints before it hangs.
HANGING: Final = "a plug-in hangs"

Finding = tuple[int, int, str, type[Any]]


def exits(tree: ast.AST, filename: str) -> list[Finding]:
    """End the process."""
    if Path(filename).name == CULPRIT:
        os._exit(3)
    return []


def exits_at_a_line(logical_line: str, filename: str) -> None:
    """End the process in the middle of the walk over the lines."""
    if Path(filename).name == CULPRIT and logical_line:
        os._exit(3)


def hangs(tree: ast.AST, filename: str) -> list[Finding]:
    """Never return."""
    if Path(filename).name == CULPRIT:
        print(HANGING, file=sys.stderr, flush=True)
        while True:
            time.sleep(60)
    return []


class NotPickled(Exception):
    """An error that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("cannot be pickled")
        self.function = lambda: None

    def __repr__(self) -> str:
        return "NotPickled()"


def raises(tree: ast.AST, filename: str) -> list[Finding]:
    """Raise an ordinary error."""
    if Path(filename).name == CULPRIT:
        raise ValueError("no good")
    return []


def raises_unpicklable(tree: ast.AST, filename: str) -> list[Finding]:
    """Raise an error that stays in its process."""
    if Path(filename).name == CULPRIT:
        raise NotPickled
    return []


class Remembers:
    """Reports functions of a name that it has seen before, also in another file."""

    seen: ClassVar[set[str]] = set()

    def __init__(self, tree: ast.AST) -> None:
        self._tree = tree

    def run(self) -> Iterator[Finding]:
        """Yield what was found."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.FunctionDef):
                if node.name in self.seen:
                    yield node.lineno, node.col_offset, f"X100 {node.name} again", type(self)
                self.seen.add(node.name)


def configuration(plugin: str) -> str:
    """The text of a configuration file that has one of these."""
    root = Path(__file__).parents[3]
    return f"""\
[flake8:local-plugins]
extension =
    X1 = {__name__}:{plugin}
paths = {root}
"""
