"""The figures: pure functions over source text and syntax trees.

Every walk keeps its own stack. A recursive one would need as many Python frames
as the tree is deep, and whether they are to be had depends on how deep the
caller stands, which is not the same in a worker as in the main program.
"""

from __future__ import annotations

import ast
import heapq
import io
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Final, NamedTuple, TypeGuard

from evproc_pool.demo.events import ComplexFunction, Function

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

# as sets of types: a syntax tree has no subclasses of these, and most of its
# nodes are none of them
_FUNCTIONS: Final = frozenset({ast.FunctionDef, ast.AsyncFunctionDef})
_DEFINITIONS: Final = _FUNCTIONS | {ast.ClassDef}
_TRY: Final = frozenset({ast.Try, getattr(ast, "TryStar", ast.Try)})  # TryStar is new in 3.11
_NESTING: Final = _TRY | {
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Match,
}
_DECISIONS: Final = frozenset(
    {ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler}
)

# --- size ---

_LAYOUT: Final = frozenset(
    {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
)


class Size(NamedTuple):
    """See the fields of the same names in `FileReport`."""

    lines: int
    code_lines: int
    comment_lines: int
    tokens: int


def measure_size(text: str) -> Size:
    """Count lines and tokens.

    Raises:
        tokenize.TokenError: It is not Python.
        SyntaxError: Likewise.
    """
    tokens = 0
    code: set[int] = set()
    comments: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in _LAYOUT:
            tokens += 1
            code.update(range(token.start[0], token.end[0] + 1))
    return Size(len(text.splitlines()), len(code), len(comments), tokens)


# --- definitions ---


def statements_in(node: ast.AST) -> Iterator[ast.AST]:
    """The statements directly in a statement, with `except` and `case` clauses."""
    for field in ("body", "handlers", "cases", "orelse", "finalbody"):
        yield from getattr(node, field, ())


def definitions(tree: ast.Module) -> Iterator[tuple[str, Definition]]:
    """Every function and class, at any depth, in source order, with its qualified name."""
    stack: list[tuple[str, ast.AST]] = [("", tree)]
    while stack:
        prefix, node = stack.pop()
        if isinstance(node, Definition):
            name = prefix + node.name
            yield name, node
            prefix = f"{name}."
        stack += [(prefix, child) for child in reversed([*statements_in(node)])]


# --- functions ---


def measure_function(name: str, function: FunctionNode) -> Function:
    """Measure one function; functions and classes inside it are measured on their own.

    The complexity is McCabe's ("A Complexity Measure", 1976): 1, and 1 for every
    `if`, `elif`, conditional expression, loop, `except`, `for` and `if` of a
    comprehension, further operand of `and` and `or`, and `case` that may not match.
    """
    complexity = 1
    deepest = 0
    stack: list[tuple[ast.AST, int]] = [(statement, 0) for statement in function.body]
    while stack:
        node, depth = stack.pop()
        kind = type(node)
        if kind in _DEFINITIONS:
            continue
        complexity += _decisions(node)
        if kind in _NESTING:
            depth += 1
            deepest = max(deepest, depth)
        stack += [
            (child, depth - 1 if is_elif(node, child) else depth)
            for child in ast.iter_child_nodes(node)
        ]
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    return Function(name, function.lineno, lines, complexity, deepest)


def _decisions(node: ast.AST) -> int:
    """By how much a node alone raises the cyclomatic complexity."""
    if type(node) in _DECISIONS:
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, ast.match_case):
        pattern = node.pattern
        anything = isinstance(pattern, ast.MatchAs) and pattern.pattern is None
        return 0 if anything and node.guard is None else 1
    return 0


def is_elif(parent: ast.AST, child: ast.AST) -> bool:
    """Whether an `if` is the `elif` of another.

    In the tree it looks like an `if` alone in an `else`, but stands in the same column.
    """
    return (
        isinstance(child, ast.If)
        and isinstance(parent, ast.If)
        and parent.orelse == [child]
        and parent.col_offset == child.col_offset
    )


def worst_functions(functions: Sequence[Function], top: int) -> tuple[Function, ...]:
    """Those of a file that can be among the `top` of all files by any figure, in source order."""
    kept: dict[Function, None] = {}
    for figure in ("complexity", "lines", "nesting"):
        # ties fall to the one that comes first
        kept.update(dict.fromkeys(heapq.nlargest(top, functions, key=attrgetter(figure))))
    return tuple(sorted(kept, key=attrgetter("line")))


# --- the second look at a function ---

_BRANCHES: Final[dict[type[ast.AST], str]] = {
    ast.If: "if",
    ast.IfExp: "if-else",
    ast.For: "for",
    ast.AsyncFor: "for",
    ast.While: "while",
    ast.ExceptHandler: "except",
    ast.Match: "match",
}
_NESTED_FIELDS: Final = frozenset({"body", "orelse", "cases"})
_ELSE: Final = frozenset({ast.If, ast.For, ast.AsyncFor, ast.While})


class _Branch(NamedTuple):
    """A node on the way, and the branches around it, outermost first."""

    node: ast.AST
    around: tuple[str, ...] = ()
    is_elif: bool = False


def weigh_function(function: FunctionNode, figures: Function) -> ComplexFunction:
    """Find out how hard a function is to read, and where it is hardest.

    Cognitive complexity is that of G. A. Campbell ("Cognitive Complexity",
    SonarSource, 2018): 1 for every branch and 1 more for each branch around it, 1
    for every `else` and `elif`, 1 for every sequence of `and` or of `or`. Recursion
    is not counted, comprehensions neither, and functions inside are on their own.
    """
    total = 0
    worst: tuple[int, int, str] = (0, -function.lineno, "")
    stack = [_Branch(statement) for statement in function.body]
    while stack:
        here = stack.pop()
        kind = _BRANCHES.get(type(here.node))
        if kind is not None:
            path = (*here.around, kind)
            cost = 1 if here.is_elif else len(path)
            total += cost + _has_else(here.node)
            # the earlier line of two that cost the same
            worst = max(worst, (cost, -_line(here.node), " > ".join(path)))
        elif isinstance(here.node, ast.BoolOp):
            total += 1
        if type(here.node) not in _DEFINITIONS:
            stack += _inside(here)
    return ComplexFunction(figures, total, worst[2], -worst[1])


def _inside(here: _Branch) -> Iterator[_Branch]:
    """What is in a node, with the branches around that."""
    kind = _BRANCHES.get(type(here.node)) or ("lambda" if isinstance(here.node, ast.Lambda) else "")
    deeper = (*here.around, kind) if kind else here.around
    for field, value in ast.iter_fields(here.node):
        around = deeper if field in _NESTED_FIELDS else here.around
        for child in value if isinstance(value, list) else [value]:
            if is_elif(here.node, child):
                yield _Branch(child, here.around, is_elif=True)
            elif isinstance(child, ast.AST):
                yield _Branch(child, around)


def _has_else(node: ast.AST) -> bool:
    """Whether a branch ends in an `else` of its own, not in an `elif`."""
    orelse: list[ast.AST] = getattr(node, "orelse", [])
    return type(node) in _ELSE and bool(orelse) and not is_elif(node, orelse[0])


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))


# --- docstrings ---


class Coverage(NamedTuple):
    """See the fields of the same names in `FileReport`."""

    public: int
    documented: int


def docstring_coverage(tree: ast.Module) -> Coverage:
    """Count public definitions, and those with a docstring.

    Public are the module, and the classes, functions and methods in it without
    an underscore in front of their own or an outer name. Not counted are overloads,
    setters and deleters, and what is defined in a function.
    """
    public = 1
    documented = int(ast.get_docstring(tree, clean=False) is not None)
    stack: list[ast.AST] = [tree]
    while stack:
        for node in statements_in(stack.pop()):
            if not isinstance(node, Definition):
                stack.append(node)
            elif not node.name.startswith("_") and not _is_variant(node):
                public += 1
                documented += ast.get_docstring(node, clean=False) is not None
                if isinstance(node, ast.ClassDef):
                    stack.append(node)
    return Coverage(public, documented)


def _is_variant(node: Definition) -> bool:
    """Whether it is decorated as one more form of something that has its docstring elsewhere."""
    names = [
        getattr(decorator, "attr", None) or getattr(decorator, "id", None)
        for decorator in node.decorator_list
    ]
    return any(name in ("setter", "deleter", "overload") for name in names)


# --- imports ---


class Import(NamedTuple):
    """``from module import name``, or ``import module`` with an empty name."""

    module: str
    name: str


class Imports(NamedTuple):
    """The import statements of a module.

    Attributes:
        statements: How many run when the module is imported.
        deferred: How many do not: those in functions and under ``if TYPE_CHECKING:``.
        targets: What the former import, absolute, each once, in source order.
    """

    statements: int
    deferred: int
    targets: tuple[Import, ...]


def find_imports(tree: ast.Module, package: str) -> Imports:
    """Find the import statements of a module.

    Args:
        tree: The module.
        package: What its relative imports are relative to.
    """
    counts = [0, 0]
    targets: dict[Import, None] = {}
    stack: list[tuple[ast.AST, bool]] = [(tree, False)]
    while stack:
        node, deferred = stack.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            counts[deferred] += 1
            if not deferred:
                targets.update(dict.fromkeys(_targets(node, package)))
        deferred = deferred or type(node) in _FUNCTIONS
        # the body of an `if` comes before its `else`, which does run
        unchecked = len(node.body) if _is_type_checking(node) else 0
        inside = enumerate(statements_in(node))
        stack += reversed([(child, deferred or place < unchecked) for place, child in inside])
    return Imports(counts[False], counts[True], tuple(targets))


def _is_type_checking(node: ast.AST) -> TypeGuard[ast.If]:
    test = node.test if isinstance(node, ast.If) else None
    return "TYPE_CHECKING" in (getattr(test, "id", None), getattr(test, "attr", None))


def _targets(node: ast.Import | ast.ImportFrom, package: str) -> Iterable[Import]:
    if isinstance(node, ast.Import):
        return [Import(alias.name, "") for alias in node.names]
    module = node.module or ""
    if node.level:
        parts = package.split(".") if package else []
        if node.level > len(parts):
            return []  # beyond the top: it fails when it is run
        module = ".".join([*parts[: len(parts) - node.level + 1], *module.split(".")]).rstrip(".")
    return [Import(module, alias.name) for alias in node.names]
