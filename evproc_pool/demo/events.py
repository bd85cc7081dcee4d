"""What the demo's handlers are told, and what they tell: events and records.

Everything here may cross from one process to another, so it is small and plain:
paths, names and numbers. Source text, tokens and syntax trees stay in `ev.proc`,
which stays in the process that handles the event.

Records are named tuples: they pickle without the names of their fields, and
compare and print by value.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from evproc import Event


class Settings(NamedTuple):
    """What every handler needs to know; travels as the events' `ctxt`.

    Attributes:
        top: How many functions of a file are kept for each list of the worst.
        complexity: The cyclomatic complexity above which a function is looked at again.
        max_bytes: The largest file that is read; a syntax tree may take a hundred
            times the memory of its source.
    """

    top: int = 10
    complexity: int = 15
    max_bytes: int = 4 << 20


class Function(NamedTuple):
    """A function and its figures.

    Attributes:
        name: Qualified by the classes and functions around it.
        line: Where its `def` is.
        lines: From the `def` to the end.
        complexity: Cyclomatic complexity, see `metrics.measure_function`.
        nesting: Compound statements inside each other, at the deepest place.
    """

    name: str
    line: int
    lines: int
    complexity: int
    nesting: int


class ComplexFunction(NamedTuple):
    """What the second look at a function found.

    Attributes:
        function: The function.
        cognitive: Cognitive complexity, see `metrics.weigh_function`.
        branch: The branches around the worst place, outermost first: ``for > if > while``.
        branch_line: Where the innermost of them is.
    """

    function: Function
    cognitive: int
    branch: str
    branch_line: int


class Module(NamedTuple):
    """A file as the import system sees it.

    Attributes:
        name: The dotted name; that of the package for an ``__init__.py``.
        package: What relative imports in it are relative to; empty for none.
        path: The file.
    """

    name: str
    package: str
    path: str


class FileReport(NamedTuple):
    """What the survey found in one file.

    Attributes:
        path: The file.
        module: Its dotted name.
        size_bytes: Its size.
        lines: All lines.
        code_lines: Lines with anything else than a comment on them.
        comment_lines: Lines with a comment on them.
        tokens: Tokens, without comments and layout.
        classes: Classes, at any depth.
        functions: Functions and methods, at any depth.
        too_complex: How many of these are above `Settings.complexity`.
        worst: The most complex, the longest and the most deeply nested functions.
        public: Public definitions, the module included.
        documented: How many of these have a docstring.
        imports: Import statements that run when the module is imported.
        deferred_imports: Import statements that do not.
        candidates: Siblings that may import this module back.
        complex: What the second look at complex functions found.
        cycles: Names of the siblings that do import this module back.
    """

    path: str
    module: str
    size_bytes: int
    lines: int
    code_lines: int
    comment_lines: int
    tokens: int
    classes: int
    functions: int
    too_complex: int
    worst: tuple[Function, ...]
    public: int
    documented: int
    imports: int
    deferred_imports: int
    candidates: tuple[Module, ...]
    complex: tuple[ComplexFunction, ...] = ()
    cycles: tuple[str, ...] = ()


class BadFile(NamedTuple):
    """A file that could not be surveyed, and why."""

    path: str
    reason: str


#: The value of a cascade.
Finding = FileReport | BadFile


class FileEvent(Event):
    """An event about one file. Its `ctxt` holds the `Settings`."""

    ctxt: Settings

    def __init__(self, path: str, settings: Settings) -> None:
        super().__init__(settings)
        self.path = path


class SourceFile(FileEvent):
    """A file is to be surveyed: the root event."""

    name: Final = "source-file"


class SecondLook(FileEvent):
    """A file deserves a second look: the follow-ups.

    The report so far travels along, because what a handler keeps in `ev.proc` is
    gone with its event, and the next event may be handled in another process. For
    the same reason a handler makes a new report and leaves this one as it is.
    """

    def __init__(self, report: FileReport, settings: Settings) -> None:
        super().__init__(report.path, settings)
        self.report = report


class ComplexFunctions(SecondLook):
    """A file has functions that are too complex.

    One event for all functions of a file: the file has to be read and parsed again.
    """

    name: Final = "complex-functions"


class CycleCandidates(SecondLook):
    """A file imports siblings that may import it back."""

    name: Final = "cycle-candidates"


def from_json(data: dict[str, Any]) -> SourceFile:
    """Make a root event from an object such as `{"name": "source-file", "path": "a.py"}`.

    For ``evproc run evproc_pool.demo.handlers --decode evproc_pool.demo.events:from_json``. Other
    members are those of `Settings`.

    Raises:
        ValueError: The name is another one, or a member is missing or unknown.
    """
    settings = dict(data)
    name, path = settings.pop("name", None), settings.pop("path", None)
    if name != SourceFile.name or not isinstance(path, str):
        raise ValueError(f'an event of the demo is {{"name": "{SourceFile.name}", "path": "..."}}')
    if unknown := settings.keys() - set(Settings._fields):
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    return SourceFile(path, Settings(**settings))
