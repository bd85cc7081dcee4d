"""The demo's handlers, each named as an entry point in ``pyproject.toml``.

A handler leaves what it finds in the namespace of `ev.proc` that has its name,
for the handlers that require it. `@want` is by event name alone: filters run
in the coordinator, for every event, while all the workers wait for it.

A value comes out of a cascade through `StopProcessing(value)`. Here that is a
`BadFile` as soon as a file turns out to be one, and otherwise the `FileReport`
of whichever handler is the last to add to it.
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from evproc import Event, Processor, StopProcessing, requires, want
from evproc_pool.demo.events import (
    BadFile,
    ComplexFunctions,
    CycleCandidates,
    FileEvent,
    FileReport,
    Function,
    Module,
    Settings,
    SourceFile,
)
from evproc_pool.demo.metrics import (
    FunctionNode,
    Import,
    definitions,
    docstring_coverage,
    find_imports,
    measure_function,
    measure_size,
    weigh_function,
    worst_functions,
)
from evproc_pool.demo.sources import (
    SourceError,
    find_module,
    module_of,
    no_warnings,
    parse_source,
    read_bytes,
    read_source,
)

# --- the first look: a file ---


@want("source-file", "complex-functions")
def read(_proc: Processor, ev: FileEvent) -> None:
    """Read and decode the file."""
    try:
        ev.proc.read.source = read_source(ev.path, ev.ctxt.max_bytes)
    except SourceError as error:
        raise StopProcessing(BadFile(ev.path, str(error))) from error


@want("source-file", "complex-functions")
@requires("read")
def parse(_proc: Processor, ev: FileEvent) -> None:
    """Make the syntax tree."""
    try:
        ev.proc.parse.tree = parse_source(ev.proc.read.source.text)
    except SourceError as error:
        raise StopProcessing(BadFile(ev.path, str(error))) from error


@want("source-file")
@requires("parse")  # which has the better error messages
def tokenize_source(_proc: Processor, ev: SourceFile) -> None:
    """Count lines and tokens."""
    try:
        with no_warnings():
            ev.proc.tokenize.size = measure_size(ev.proc.read.source.text)
    except (tokenize.TokenError, SyntaxError) as error:
        raise StopProcessing(BadFile(ev.path, f"cannot be tokenized: {error}")) from error


@want("source-file")
@requires("parse")
def measure(_proc: Processor, ev: SourceFile) -> None:
    """Measure every function."""
    functions: list[Function] = []
    classes = 0
    for name, node in definitions(ev.proc.parse.tree):
        if isinstance(node, ast.ClassDef):
            classes += 1
        else:
            functions.append(measure_function(name, node))
    ev.proc.measure.functions = functions
    ev.proc.measure.classes = classes


@want("source-file")
@requires("parse")
def docstrings(_proc: Processor, ev: SourceFile) -> None:
    """Count docstrings."""
    ev.proc.docstrings.coverage = docstring_coverage(ev.proc.parse.tree)


@want("source-file")
@requires("parse")
def imports(_proc: Processor, ev: SourceFile) -> None:
    """Find the imports, and the siblings among them that may import this module back."""
    module = module_of(ev.path)
    found = find_imports(ev.proc.parse.tree, module.package)
    ev.proc.imports.module = module
    ev.proc.imports.found = found
    ev.proc.imports.candidates = tuple(_candidates(module, found.targets, ev.ctxt))


def _candidates(
    module: Module, targets: tuple[Import, ...], settings: Settings
) -> Iterator[Module]:
    """Modules of the same folder that are imported and at least mention this one."""
    last_name = re.escape(module.name.rpartition(".")[2].encode())
    # a package may be imported back without being named
    unnamed = rb"|\bfrom\s*\.+\s*import\b" if module.name == module.package else b""
    mention = re.compile(rb"\b" + last_name + rb"\b" + unnamed)
    siblings = dict.fromkeys(_sibling(module, target) for target in targets)
    for sibling in siblings:
        if sibling is None or sibling.name == module.name:
            continue
        try:
            # a look at the bytes is cheap, and spares most siblings a second look
            if mention.search(read_bytes(sibling.path, settings.max_bytes)):
                yield sibling
        except SourceError:
            continue  # for the report on that file to say


def _sibling(module: Module, target: Import) -> Module | None:
    """The module of the same folder that an import imports first, if there is one."""
    folder = Path(module.path).parent
    if module.package and target.module == module.package:
        # what is no module is a name that the package's __init__.py has to define
        sibling = find_module(folder, module.package, target.name) if target.name else None
        return sibling or find_module(folder, module.package, "__init__")
    prefix = f"{module.package}." if module.package else ""
    if not target.module.startswith(prefix):
        return None
    return find_module(folder, module.package, target.module[len(prefix) :].partition(".")[0])


@want("source-file")
@requires("tokenize", "measure", "docstrings", "imports")
def report(_proc: Processor, ev: SourceFile) -> list[Event]:
    """Put the report together, and say whether the file deserves a second look."""
    size = ev.proc.tokenize.size
    functions = ev.proc.measure.functions
    coverage = ev.proc.docstrings.coverage
    found = ev.proc.imports.found
    first_report = FileReport(
        path=ev.path,
        module=ev.proc.imports.module.name,
        size_bytes=ev.proc.read.source.size_bytes,
        lines=size.lines,
        code_lines=size.code_lines,
        comment_lines=size.comment_lines,
        tokens=size.tokens,
        classes=ev.proc.measure.classes,
        functions=len(functions),
        too_complex=sum(each.complexity > ev.ctxt.complexity for each in functions),
        worst=worst_functions(functions, ev.ctxt.top),
        public=coverage.public,
        documented=coverage.documented,
        imports=found.statements,
        deferred_imports=found.deferred,
        candidates=ev.proc.imports.candidates,
    )
    if first_report.too_complex:
        return [ComplexFunctions(first_report, ev.ctxt)]
    return _look_at_imports(first_report, ev.ctxt)


# --- the second look: follow-ups ---


@want("complex-functions")
@requires("parse")
def weigh(_proc: Processor, ev: ComplexFunctions) -> list[Event]:
    """Find out what makes the complex functions complex."""
    suspects = {
        (each.name, each.line): each
        for each in ev.report.worst
        if each.complexity > ev.ctxt.complexity
    }
    weighed = tuple(
        weigh_function(node, suspects[name, node.lineno])
        for name, node in definitions(ev.proc.parse.tree)
        if isinstance(node, FunctionNode) and (name, node.lineno) in suspects
    )
    return _look_at_imports(ev.report._replace(complex=weighed), ev.ctxt)


def _look_at_imports(so_far: FileReport, settings: Settings) -> list[Event]:
    """Go on to the last step, or end the cascade where there is no reason for it."""
    if so_far.candidates:
        return [CycleCandidates(so_far, settings)]
    raise StopProcessing(so_far)


@want("cycle-candidates")
def confirm(_proc: Processor, ev: CycleCandidates) -> None:
    """Parse the siblings that may import this module back, and end the cascade."""
    module = module_of(ev.path)
    cycles = tuple(
        sibling.name
        for sibling in ev.report.candidates
        if _imports_back(sibling, module, ev.ctxt.max_bytes)
    )
    raise StopProcessing(ev.report._replace(cycles=cycles))


def _imports_back(sibling: Module, module: Module, max_bytes: int) -> bool:
    try:
        tree = parse_source(read_source(sibling.path, max_bytes).text)
    except SourceError:
        return False  # what cannot be parsed imports nothing
    for target in find_imports(tree, sibling.package).targets:
        if f"{target.module}.{target.name}" == module.name:
            return True
        # from a package one may import another of its modules, which is no cycle
        if target.module == module.name and not _is_submodule(module, target.name):
            return True
    return False


def _is_submodule(module: Module, name: str) -> bool:
    if not name or module.name != module.package:
        return False
    return find_module(Path(module.path).parent, module.package, name) is not None
