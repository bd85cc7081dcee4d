"""The handlers of a file.

====================  ============================================================================
`read`                reads the file; ends here if it cannot, or if the file asks to be left alone
`parse`               makes the syntax tree; ends here if there is none
a plug-in for trees   checks the tree
a plug-in for lines   joins the walk over the lines
`walk`                goes through the tokens once, and calls these plug-ins for each line
====================  ============================================================================

flake8 calls all plug-ins for lines at a line before it goes on to the next one: they read the
state of one tokenizer, and the order of findings at the same place follows from it. So these
plug-ins cannot run one after another, and share one walk.

What handlers leave for each other is a `FileInParts` and the plug-ins that have joined, in
``ev.proc.flake8``. The value is what flake8's own workers return for a file.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

from flake8.checker import FileChecker
from flake8.plugins.finder import Checkers, LoadedPlugin

import evproc
from benchmarks.applications.flake8.plugins import Loaded, loaded

#: The name of the events.
FILE = "flake8.file"


class File(evproc.Event):
    """A file to check."""

    name = FILE

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def __repr__(self) -> str:
        return f"File({self.path!r})"


class FileInParts(FileChecker):  # type: ignore[misc]  # flake8 is Any if not installed
    """flake8's checker of a file, whose `run_checks` does one part of the work at a time.

    So flake8 decides what becomes of a broken file, and whether there is anything to do.
    """

    def run_part(self, part: Callable[[], object], checkers: Checkers) -> None:
        """Run a part of the work with some plug-ins only.

        Raises:
            evproc.StopProcessing: The file is done with, for instance since it is broken.
        """
        self._part, self.plugins, self._is_over = part, checkers, True
        value = self.run_checks()
        if self._is_over:
            raise evproc.StopProcessing(value)

    def run_ast_checks(self) -> None:
        """Do the part, as `run_checks` asks for the first half of its work."""
        self._part()

    def process_tokens(self) -> None:
        """Note that `run_checks` goes on to the second half, so that the part did not fail."""
        self._is_over = False

    check_tree = FileChecker.run_ast_checks
    walk = FileChecker.process_tokens


@evproc.want(FILE)
def read(proc: evproc.AnyProcessor, ev: File) -> None:
    """Read the file."""
    here = loaded()
    file = FileInParts(filename=ev.path, plugins=here.checkers, options=here.options)
    ev.proc.flake8.file = file
    ev.proc.flake8.joined = []
    file.run_part(lambda: None, here.checkers)


@evproc.want(FILE)
@evproc.requires("read")
def parse(proc: evproc.AnyProcessor, ev: File) -> None:
    """Make the syntax tree, once for all plug-ins."""
    file = ev.proc.flake8.file
    file.processor.build_ast = functools.cache(file.processor.build_ast)
    file.run_part(file.processor.build_ast, Checkers([], [], []))


@evproc.want(FILE)
@evproc.requires("parse")
def check_tree(name: str, proc: evproc.AnyProcessor, ev: File) -> None:
    """Run a plug-in on the syntax tree."""
    file = ev.proc.flake8.file
    file.run_part(file.check_tree, Checkers([loaded().by_name[name]], [], []))


@evproc.want(FILE)
@evproc.requires("parse")
@evproc.required_by("walk")
def join(name: str, proc: evproc.AnyProcessor, ev: File) -> None:
    """Let a plug-in take part in the walk."""
    ev.proc.flake8.joined.append(loaded().by_name[name])


@evproc.want(FILE)
@evproc.requires("parse")
def walk(proc: evproc.AnyProcessor, ev: File) -> None:
    """Go through the lines, and give back what was found."""
    file, joined, all_checkers = ev.proc.flake8.file, ev.proc.flake8.joined, loaded().checkers

    def those(kind: list[LoadedPlugin]) -> list[LoadedPlugin]:
        return [plugin for plugin in kind if plugin in joined]

    logical, physical = those(all_checkers.logical_line), those(all_checkers.physical_line)
    file.run_part(file.walk, Checkers([], logical, physical))
    # flake8 does so before it prints. pep8-naming goes through a set, so each process has an order
    file.results.sort(key=operator.itemgetter(1, 2))
    raise evproc.StopProcessing((file.display_name, file.results, file.statistics))


def register(processor: evproc.AnyProcessor, found: Loaded) -> None:
    """Register the handlers, in the order in which flake8 runs its plug-ins."""
    processor.register(read)
    processor.register(parse)
    for name, plugin in found.by_name.items():
        handler: Callable[..., None] = check_tree if plugin in found.checkers.tree else join
        processor.register(functools.partial(handler, name), name)
    processor.register(walk)
