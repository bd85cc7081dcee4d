"""flake8's plug-ins and options in this process.

The program loads them once. A worker loads them by itself, from the same entry points, arguments
and configuration, as flake8's own workers do where they are spawned: options need not be picklable
then, and plug-ins keep options in their classes.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from flake8.options.parse_args import parse_args
from flake8.plugins.finder import Checkers, LoadedPlugin


class Loaded:
    """What is loaded.

    Args:
        argv: flake8's arguments.
        checkers: The plug-ins, by what they check.
        options: The options.

    Attributes:
        by_name: The plug-ins by the names of their handlers, in flake8's order.
    """

    def __init__(
        self, argv: Sequence[str], checkers: Checkers, options: argparse.Namespace
    ) -> None:
        self.argv = list(argv)
        self.checkers = checkers
        self.options = options
        self.by_name: dict[str, LoadedPlugin] = {}
        for plugin in (*checkers.tree, *checkers.logical_line, *checkers.physical_line):
            name = plugin.display_name
            if name in self.by_name:  # of two local ones, nothing else tells them apart
                name += f" {plugin.plugin.entry_point.value}"
            self.by_name[name] = plugin


_loaded: list[Loaded] = []


def loaded() -> Loaded:
    """What this process has loaded."""
    return _loaded[-1]


def use(found: Loaded) -> None:
    """Take what the program has loaded already."""
    _loaded[:] = [found]


def load(argv: Sequence[str]) -> None:
    """Load plug-ins and options, unless these are there; the initializer of a worker."""
    if _loaded and loaded().argv == list(argv):
        return
    log = logging.getLogger("flake8")
    before = list(log.handlers)
    plugins, options = parse_args(argv)
    # the program has them as well, and gets the records of workers
    log.handlers[:] = before
    use(Loaded(argv, plugins.checkers, options))
