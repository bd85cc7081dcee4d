from __future__ import annotations

import ast
import sys
import tokenize

import pytest

from evproc_pool.demo import metrics
from evproc_pool.demo.events import Function
from evproc_pool.demo.metrics import Coverage, Import, Imports, Size


def only_function(source: str) -> metrics.FunctionNode:
    (node,) = [each for _, each in metrics.definitions(ast.parse(source)) if not is_class(each)]
    assert isinstance(node, metrics.FunctionNode)
    return node


def is_class(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef)


def measured(source: str) -> Function:
    return metrics.measure_function("f", only_function(source))


def weighed(source: str) -> tuple[int, str, int]:
    found = metrics.weigh_function(only_function(source), Function("f", 1, 1, 1, 0))
    return found.cognitive, found.branch, found.branch_line


# --- size ---


def test_size_counts_each_kind_of_line() -> None:
    text = '# one\n\nx = """a\nb"""  # two\n\n\ndef f(): pass\n'
    # tokens: x = """...""" | def f ( ) : pass
    assert metrics.measure_size(text) == Size(lines=7, code_lines=3, comment_lines=2, tokens=9)


def test_size_of_nothing() -> None:
    assert metrics.measure_size("") == Size(0, 0, 0, 0)


def test_size_of_what_is_not_python() -> None:
    with pytest.raises((tokenize.TokenError, SyntaxError)):
        metrics.measure_size("f(\n")


# --- definitions ---


def test_definitions_are_named_and_in_source_order() -> None:
    source = """\
if a:
    class A:
        def f(self):
            def g(): pass
else:
    async def h(): pass
try:
    pass
except E:
    def i(): pass
match a:
    case 1:
        def j(): pass
"""
    names = [name for name, _ in metrics.definitions(ast.parse(source))]
    assert names == ["A", "A.f", "A.f.g", "h", "i", "j"]


# --- functions ---


def test_a_function_without_branches() -> None:
    assert measured("def f():\n    a\n    with b: pass\n") == Function("f", 1, 3, 1, 1)


def test_every_kind_of_decision_counts_once() -> None:
    source = """\
def f(a, b):
    if a and b and c:      # 1 and 2
        for x in a:        # 1
            pass
    elif b or c:           # 1 and 1
        while x:           # 1
            pass
    else:
        try:
            assert a
        except E:          # 1
            pass
    return [y for y in a if y if b] if a else 0   # 1 and 2 and 1
"""
    assert measured(source) == Function("f", 1, 13, 1 + 3 + 1 + 2 + 1 + 1 + 4, 2)


def test_a_case_that_always_matches_is_no_decision() -> None:
    source = """\
def f(a):
    match a:
        case 1 | 2: pass
        case [x, y]: pass
        case x if x: pass
        case _: pass
"""
    assert measured(source) == Function("f", 1, 6, 4, 1)


def test_an_elif_does_not_nest_and_an_if_in_an_else_does() -> None:
    chain = "def f():\n if a:\n  pass\n elif b:\n  pass\n elif c:\n  pass\n"
    nested = "def f():\n if a:\n  pass\n else:\n  if b:\n   pass\n"
    assert (measured(chain).complexity, measured(chain).nesting) == (4, 1)
    assert (measured(nested).complexity, measured(nested).nesting) == (3, 2)


def test_functions_inside_are_measured_on_their_own() -> None:
    tree = ast.parse("def f():\n if a:\n  def g():\n   if b: pass\n  class C:\n   x = a or b\n")
    figures = {
        name: metrics.measure_function(name, node)
        for name, node in metrics.definitions(tree)
        if isinstance(node, metrics.FunctionNode)
    }
    assert (figures["f"].complexity, figures["f"].nesting) == (2, 1)
    assert (figures["f.g"].complexity, figures["f.g"].nesting) == (2, 1)


def test_try_star_is_a_try() -> None:
    source = "def f():\n try:\n  pass\n except* E:\n  if a: pass\n"
    assert (measured(source).complexity, measured(source).nesting) == (3, 2)


def test_a_deep_expression_needs_no_deep_stack() -> None:
    node = only_function("def f():\n return " + "-" * 900 + "1\n")
    limit = sys.getrecursionlimit()
    depth = len(list(iter_frames()))
    sys.setrecursionlimit(depth + 60)
    try:
        assert metrics.measure_function("f", node).complexity == 1
        assert metrics.weigh_function(node, Function("f", 1, 1, 1, 0)).cognitive == 0
    finally:
        sys.setrecursionlimit(limit)


def iter_frames() -> list[object]:
    frames: list[object] = []
    frame = sys._getframe()
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back  # type: ignore[assignment]  # the last one has none
    return frames


def test_worst_functions_are_the_worst_by_any_figure() -> None:
    complex_one = Function("complex", 1, 2, 9, 0)
    long_one = Function("long", 5, 99, 1, 0)
    deep_one = Function("deep", 3, 2, 2, 7)
    dull_one = Function("dull", 9, 3, 3, 1)
    functions = [complex_one, deep_one, long_one, dull_one]
    assert metrics.worst_functions(functions, 1) == (complex_one, deep_one, long_one)
    assert metrics.worst_functions(functions, 9) == tuple(functions)
    assert metrics.worst_functions([], 9) == ()


def test_of_equal_functions_the_first_are_kept() -> None:
    functions = [Function(f"f{line}", line, 1, 1, 0) for line in range(1, 9)]
    assert metrics.worst_functions(functions, 2) == (functions[0], functions[1])


# --- cognitive complexity ---


def test_cognitive_complexity_of_the_papers_loops() -> None:
    source = """\
def f(limit):
    for i in limit:            # 1
        for j in i:            # 2
            if not i % j:      # 3
                break
"""
    assert weighed(source) == (6, "for > for > if", 4)


def test_cognitive_complexity_of_the_papers_try() -> None:
    source = """\
def f():
    try:
        if a:                  # 1
            for b in a:        # 2
                while c:       # 3
                    pass
    except E:                  # 1
        if b:                  # 2
            pass
"""
    assert weighed(source) == (9, "if > for > while", 5)


def test_cognitive_complexity_of_the_papers_switch() -> None:
    source = "def f(a):\n match a:\n  case 1: return 1\n  case 2: return 2\n  case _: return 3\n"
    assert weighed(source) == (1, "match", 2)


def test_else_and_elif_cost_one_wherever_they_are() -> None:
    source = """\
def f():
    if a:                      # 1
        if b and c or d:       # 2, and 2 for two kinds of operator
            pass
        elif e:                # 1
            pass
        else:                  # 1
            pass
    for x in y:                # 1
        pass
    else:                      # 1
        pass
"""
    assert weighed(source) == (9, "if > if", 3)


def test_conditional_expressions_and_lambdas_nest() -> None:
    source = "def f():\n return lambda: (1 if a else (2 if b else 3))\n"
    assert weighed(source) == (5, "lambda > if-else > if-else", 2)


def test_the_condition_of_a_branch_is_not_inside_it() -> None:
    assert weighed("def f():\n while (1 if a else 2):\n  pass\n") == (2, "while", 2)


def test_no_branch_no_place() -> None:
    assert weighed("def f():\n return a and b\n") == (1, "", 1)


# --- docstrings ---


def test_docstring_coverage() -> None:
    source = '''\
"""Module: 1 of 1."""
class A:                       # 1 of 2
    """Yes."""
    def method(self): pass     # 1 of 3
    def _private(self): pass
    @property
    def size(self):            # 2 of 4
        """Yes."""
    @size.setter
    def size(self, value): pass
    @overload
    def over(self): pass
    @typing.overload
    def over(self, a): pass
    class _Hidden:
        def shown(self): pass
    class Inner:               # 2 of 5
        def deep(self):        # 3 of 6
            """Yes."""
            def local(): pass
if a:
    async def b(): pass        # 3 of 7
'''
    assert metrics.docstring_coverage(ast.parse(source)) == Coverage(public=7, documented=4)


# --- imports ---


def test_imports_that_run_and_imports_that_do_not() -> None:
    source = """\
import a, b.c as d
from . import e
from .f import g, h
from ..i import j
from ... import beyond
if TYPE_CHECKING:
    import k
else:
    import l
if typing.TYPE_CHECKING:
    from m import n
try:
    import o
except ImportError:
    import a
class C:
    import p
    def f(self):
        import q
        class D:
            import r
"""
    assert metrics.find_imports(ast.parse(source), "pkg.sub") == Imports(
        statements=9,
        deferred=4,
        targets=(
            Import("a", ""),
            Import("b.c", ""),
            Import("pkg.sub", "e"),
            Import("pkg.sub.f", "g"),
            Import("pkg.sub.f", "h"),
            Import("pkg.i", "j"),
            Import("l", ""),
            Import("o", ""),
            Import("p", ""),
        ),
    )


def test_relative_imports_outside_a_package_lead_nowhere() -> None:
    assert metrics.find_imports(ast.parse("from . import a\n"), "") == Imports(1, 0, ())
