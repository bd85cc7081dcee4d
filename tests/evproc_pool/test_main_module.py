"""What is defined in `__main__` works in workers, and the script needs no guard."""

from __future__ import annotations

import multiprocessing
import sys
import textwrap
import zipapp
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import Script, install, run_script

_METHODS = multiprocessing.get_all_start_methods()

# The methods that would run the script again.
_NEW_PROCESSES = [method for method in _METHODS if method != "fork"]

_SCRIPT = """
import enum
from evproc import Event, StopProcessing, requires, want
from evproc_pool import PoolProcessor

print("main runs", flush=True)   # once, if workers do not run it again


class Colour(enum.Enum):
    RED = 1


class Value:
    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        return type(other) is Value and other.number == self.number


class OwnError(Exception):
    def __init__(self, value):
        super().__init__(value)
        self.value = value


class Base(Event):
    name = "base"

    def __init__(self, number):
        super().__init__()
        self.number = number


class Derived(Base):
    name = "derived"

    def doubled(self):
        return OFFSET + 2 * self.number


OFFSET = 100
calls = []


def is_even(ev):
    return ev.number % 2 == 0


@want("derived", is_even)
def even(proc, ev):
    ev.proc.even.seen = True


@want("derived")
def prepare(proc, ev):
    calls.append(ev.number)   # the worker's own list
    ev.proc.prepare.value = Value(ev.doubled())


@want("derived")
@requires("prepare")
def finish(proc, ev):
    assert isinstance(ev, Derived) and isinstance(ev, Base)
    assert hasattr(ev.proc.even, "seen") == (ev.number % 2 == 0)
    if ev.number == 3:
        raise OwnError(Value(3))
    if ev.number == 4:
        return [Base(ev.number)]
    raise StopProcessing((ev.proc.prepare.value, Colour.RED, Derived, OwnError))


@want("base", lambda ev: isinstance(ev, Base))
def base(proc, ev):
    raise StopProcessing([Base(5), Value(len(calls) >= 0)])


class Counter:
    def __init__(self):
        self.__name__ = "counter"

    def __call__(self, proc, ev):
        ev.number += 0


pool = PoolProcessor(workers=2, mp_context="METHOD")
for handler in (even, finish, prepare, base, Counter()):
    pool.register(handler)
pool.register(lambda proc, ev: None, "lambda")

values = pool.process_many([Derived(n) for n in range(6)], return_exceptions=True)
for number in (0, 1, 2, 5):
    assert values[number] == (Value(100 + 2 * number), Colour.RED, Derived, OwnError), values
assert type(values[3]) is OwnError and values[3].value == Value(3), values
event, value = values[4]
assert type(event) is Base and event.number == 5 and value == Value(True), values
try:
    pool.process(Derived(3))
except OwnError as error:
    assert error.args == (Value(3),)
else:
    raise AssertionError("no error")
assert pool.submit(Derived(1)).result()[2] is Derived
assert calls == []
# more
print("main ends", flush=True)
"""


# How the interpreter is given the script, for `Script`.
_WAYS: dict[str, dict[str, Any]] = {
    "file": {"how": "file"},
    "standard input": {"how": "stdin"},
    "-c": {"how": "-c"},
    "-m": {"python": ["-m", "script"]},  # what else `Script` says is left in sys.argv
}


def _run(code: str, folder: Path, methods: Sequence[str], way: str = "file") -> None:
    """With several methods at the same time, since most of it is waiting for processes."""
    with ExitStack() as stack:
        scripts = []
        for method in methods:
            (folder / method).mkdir()
            script = Script(code.replace("METHOD", method), folder / method, **_WAYS[way])
            scripts.append(stack.enter_context(script))
        for method, script in zip(methods, scripts, strict=True):
            assert script.finish() == (0, "main runs\nmain ends\n", "", []), method


@pytest.mark.parametrize("way", _WAYS)
def test_events_handlers_errors_and_values_of_a_script_without_a_guard(
    tmp_path: Path, way: str
) -> None:
    # a fork has the same __main__ however it came about
    _run(_SCRIPT, tmp_path, _METHODS if way == "file" else _NEW_PROCESSES, way)


def test_a_script_with_a_guard_works_as_well(tmp_path: Path) -> None:
    definitions, use = _SCRIPT.replace("METHOD", "spawn").split("\npool = ")
    guarded = textwrap.indent(f"pool = {use}", "    ")
    code = f"{definitions}\nif __name__ == '__main__':\n{guarded}"
    assert run_script(code, tmp_path) == "main runs\nmain ends\n"


def test_a_script_may_add_handlers_after_a_run(tmp_path: Path) -> None:
    more = """
@want("derived")
def first(proc, ev):
    raise StopProcessing("first of all")


pool = PoolProcessor(workers=2)
pool.register(first)
assert pool.process(Derived(1)) == "first of all"
pool.register(base)
assert pool.process(Base(1))[0].number == 5
"""
    code = _SCRIPT.replace("METHOD", "forkserver").replace("# more", more)
    assert run_script(code, tmp_path) == "main runs\nmain ends\n"


_GUARDLESS_DEATH = """
import os
from evproc import Event
from evproc_pool import PoolProcessor, WorkerLostError


class Die(Event):
    name = "die"


def handler(proc, ev):
    os._exit(4)


print("main runs", flush=True)
pool = PoolProcessor(workers=2, mp_context="METHOD")
pool.register(handler)
for _ in range(3):
    try:
        pool.process(Die())
    except WorkerLostError as error:
        assert error.exitcode == 4
    else:
        raise AssertionError("no error")
print("main ends", flush=True)
"""


def test_replacements_do_not_run_the_script_either(tmp_path: Path) -> None:
    _run(_GUARDLESS_DEATH, tmp_path, _NEW_PROCESSES)


def test_a_session_typed_line_by_line(tmp_path: Path) -> None:
    code = (
        "from evproc import Event, StopProcessing\n"
        "from evproc_pool import PoolProcessor\n"
        "class Ev(Event): name = 'ev'\n"
        "\n"
        "def handler(proc, ev): raise StopProcessing('typed')\n"
        "\n"
        "pool = PoolProcessor(workers=2)\n"
        "pool.register(handler)\n"
        "pool.process(Ev())\n"
        "pool.close()\n"
    )
    with Script(code, tmp_path, how="stdin", python=["-i", "-q"]) as script:
        finished = script.finish()
    assert (finished.code, finished.left) == (0, [])
    assert "'typed'" in finished.out
    assert "Traceback" not in finished.err


_AS_FROM_3_13_8 = """
    from multiprocessing import spawn

    real = spawn.get_preparation_data

    def with_main_path(name):
        data = real(name)
        if "init_main_from_path" in data:
            data["main_path"] = data["init_main_from_path"]
        return data

    if __name__ == "__main__":
        spawn.get_preparation_data = with_main_path
    print("runs as", __name__, flush=True)
    import multiprocessing
    from evproc import Event
    from evproc_pool import PoolProcessor

    class Ev(Event):
        name = "ev"

    def handler(proc, ev):
        pass

    with PoolProcessor(workers=2, mp_context="forkserver") as pool:
        pool.register(handler)
        pool.process_many([Ev(), Ev()])
    print(multiprocessing.forkserver._forkserver._preload_modules)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="there is no forkserver")
def test_a_forkserver_that_preloads_main_is_told_not_to(tmp_path: Path) -> None:
    # as from Python 3.13.8 on; see `start_methods.prepared`
    text = run_script(textwrap.dedent(_AS_FROM_3_13_8), tmp_path)
    assert text.splitlines() == ["runs as __main__", "['__main__']"]


_CHANGES_A_CLASS = """
from evproc import Event, StopProcessing, want
from evproc_pool import PoolProcessor

class Reading(Event):
    name = "reading"
    limit = 1

    def __init__(self, number):
        self.number = number

@want("reading")
def handle(proc, ev):
    raise StopProcessing(ev.limit)

with PoolProcessor(workers=2) as pool:
    pool.register(handle)
    for Reading.limit in (1, 2, 3, 2):
        for count in (3, 3000):
            print(set(pool.process_many([Reading(number) for number in range(count)])))
"""


_REGISTERS_CLASSES = """
from evproc import Event, StopProcessing
from evproc_pool import PoolProcessor

KINDS = {}

class Base(Event):
    def __init_subclass__(cls):
        KINDS[cls.__name__] = cls

class Reading(Base):
    name = "reading"

def handle(proc, ev):
    raise StopProcessing([ev, KINDS["Reading"].name])

with PoolProcessor(workers=2) as pool:
    pool.register(handle)
    for count in (1, 3, 40):
        for ev, name in pool.process_many([Reading() for _ in range(count)]):
            assert type(ev) is Reading and name == "reading"
            assert KINDS == {"Reading": Reading} and Reading.name == "reading"
print("well")
"""


def test_a_script_that_registers_its_classes_keeps_its_own(tmp_path: Path) -> None:
    assert run_script(_REGISTERS_CLASSES, tmp_path).split() == ["well"]


def test_a_class_of_the_script_is_in_workers_what_it_is_there(tmp_path: Path) -> None:
    out = run_script(_CHANGES_A_CLASS, tmp_path)
    assert out.split() == [f"{{{limit}}}" for limit in (1, 1, 2, 2, 3, 3, 2, 2)]


_DEFINES_ANEW = """
from evproc import Event, Processor, StopProcessing, want
from evproc_pool import PoolProcessor
from evproc_pool.testing import worker_pids

class Reading(Event):
    name = "reading"

    def __init__(self, number):
        self.number = number

    def scaled(self):
        return self.number * FACTOR

def helper(value):
    return value + 1

FACTOR = 1
made = 0

@want("reading")
def handle(proc, ev):
    raise StopProcessing((isinstance(ev, Reading), helper(ev.scaled()), type(ev).__doc__, ev.made))

Reading.made = 0
processor, pool = Processor(), PoolProcessor(workers=2)
for each in (processor, pool):
    each.register(handle)
old = [Reading(number) for number in range(5)]
seen = []

def compare(is_replaced):
    events = old + [Reading(number) for number in range(5)]
    expected = [processor.process(ev) for ev in events]
    before = worker_pids(pool)
    assert pool.process_many(events) == expected, (pool.process_many(events), expected)
    assert [pool.process(ev) for ev in events[:6]] == expected[:6]
    assert [pool.submit(ev).result() for ev in events[:6]] == expected[:6]
    assert [each.value for each in pool.stream(events)] == expected
    assert set(worker_pids(pool)).isdisjoint(before) == is_replaced, (before, worker_pids(pool))

compare(True)
compare(False)

class Reading(Event):
    '''The second.'''
    name = "reading"
    made = 2

    def __init__(self, number):
        self.number = number

    def scaled(self):
        return -self.number

compare(True)

def helper(value):
    return value + 10

compare(True)
FACTOR = 7
compare(False)                     # nothing uses it any more but the old class
Reading.made = 3                   # which goes with the events
compare(False)
made = 5                           # the handler has an attribute of that name
compare(False)
pool.close()
print("well")
"""


@pytest.mark.parametrize("way", ["file", "standard input"])
def test_what_is_defined_anew_is_what_handlers_use(tmp_path: Path, way: str) -> None:
    options: Any = {} if way == "file" else {"how": "stdin"}
    assert run_script(_DEFINES_ANEW, tmp_path, **options).split() == ["well"]


_DEFINES_WHILE_BUSY = """
import threading
from evproc import Event, StopProcessing
from evproc_pool import PoolProcessor

class Ask(Event):
    name = "ask"

def handle(proc, ev):
    raise StopProcessing(ANSWER)

ANSWER = 1
with PoolProcessor(workers=2) as pool:
    pool.register(handle)
    outcomes = pool.stream([Ask(), Ask()], buffersize=1)
    assert next(outcomes).value == 1
    ANSWER = 2
    assert pool.process(Ask()) == 1      # the stream has those workers yet
    assert next(outcomes).value == 1
    assert list(outcomes) == []
    assert pool.process(Ask()) == 2
print("well")
"""


def test_workers_that_are_in_use_are_not_replaced(tmp_path: Path) -> None:
    assert run_script(_DEFINES_WHILE_BUSY, tmp_path).split() == ["well"]


# What events and handlers of a script use in roundabout ways, and how it is defined anew.
_ROUNDABOUT = """
import enum, functools, types
from evproc import Event, Processor, StopProcessing, want
from evproc_pool import PoolProcessor
from evproc_pool.testing import worker_pids

FACTOR = 1

def plain(number=1):
    return number * FACTOR

@functools.lru_cache
def cached():
    return FACTOR

def decorate(function):
    def inner(*args):
        return function(*args) * FACTOR
    return inner

class Meta(type(Event)):
    @property
    def factor(cls):
        return FACTOR

class Descriptor:
    def __get__(self, instance, owner):
        return FACTOR

class Helper:
    part = functools.partial(plain, 1)
    descriptor = Descriptor()

    @functools.cached_property
    def property(self):
        return FACTOR

class WorkerRecord(enum.Enum):
    A = 1

class Number(int):
    pass

def settings(): ...

module = types.ModuleType("made here")
number, STEPS, TABLE = Number(1), (plain,), {"plain": plain}
module.x = settings.limit = WorkerRecord.A.w = number.w = 1

class Ev(Event, metaclass=Meta):
    name = "ev"
    steps = (plain,)
    helper = Helper
    member = WorkerRecord.A
    gone = None
    __table__ = {"x": 1}

    @functools.cached_property
    def cached(self):
        return FACTOR

    @decorate
    def decorated(self):
        return 1

    def values(self):
        return [
            self.steps[0](), self.helper.descriptor, Helper().property, self.cached,
            self.decorated(), type(self).factor, self.member.w, number.w, module.x,
            settings.limit, self.__table__["x"], getattr(self, "come", 1),
        ]

@want("ev")
def of_event(proc, ev):
    raise StopProcessing(ev.values())

@want("others")
def of_handler(proc, ev):
    cached.cache_clear()
    raise StopProcessing([
        cached(), STEPS[0](), TABLE["plain"](), Helper().property, Ev.factor, Helper.part(),
        functools.partial(plain)(), Helper.descriptor, decorate(plain)(),
    ])

class Others(Event):
    name = "others"

processor = Processor()
with PoolProcessor(workers=1) as pool:
    for each in (processor, pool):
        each.register(of_event)
        each.register(of_handler)
    for events in ([Ev()], [Others()], [Ev() for _ in range(40)]):
        for FACTOR in (1, 2):
            assert pool.process_many(events) == [processor.process(each) for each in events]
    module.x = settings.limit = WorkerRecord.A.w = number.w = Ev.__table__["x"] = 2
    del Ev.gone
    Ev.come = 2
    for _ in range(2):
        # (a cached property of the same event would be what it was)
        assert pool.process(Ev()) == processor.process(Ev()) == [2] * 12, pool.process(Ev())

def with_class_body(proc, ev):
    class Local:
        i = 0
        j = i + 1

with PoolProcessor(workers=1) as pool:
    pool.register(with_class_body)
    before = set()
    for i in range(4):  # which the handler does not use
        pool.process(Ev())
        before.update(worker_pids(pool))
    assert len(before) == 1, before

class Nested(Event):
    name = "ev"
    x, extra = 1, None

    def values(self):
        return self.x

class Of(Event):
    name = "ev"

    def values(self):
        return Nested.x

with PoolProcessor(workers=1) as pool:
    pool.register(of_event)
    for events, extra in (([Nested, Nested], lambda: 0), ([Nested, Of, Of], None)):
        for Nested.x, kind in zip((1, 2, 1, 2, 1), events * 2 + [Nested]):
            event = kind()
            event.extra = extra if Nested.x == 2 else None  # then all goes by value, another way
            assert pool.process(event) == Nested.x, (kind, Nested.x)
print("well")
"""


def test_what_is_used_in_roundabout_ways_is_seen_too(tmp_path: Path) -> None:
    assert run_script(_ROUNDABOUT, tmp_path).split() == ["well"]


_CANNOT_BE_SENT = """
import threading
from evproc import Event, StopProcessing
from evproc_pool import PoolProcessor, SerializationError
from evproc_pool.testing import worker_pids

class Ask(Event):
    name = "ask"

def handle(proc, ev):
    raise StopProcessing(type(used).__name__)

used = 1
with PoolProcessor(workers=1) as pool:
    pool.register(handle)
    for _ in range(2):
        assert pool.process(Ask()) == "int"
        used = threading.Lock()
        try:
            pool.process(Ask())
        except SerializationError as error:
            assert "handle" in str(error), error
        else:
            raise AssertionError("no error")
        used = 2
    assert len(worker_pids(pool)) == 0
print("well")
"""

_IMPORTS_LAZILY = """
lazy import colorsys
lazy from math import sqrt as root
lazy import os.path
lazy import there_is_no_such_module
lazy from json import there_is_no_such_name
import sys
from evproc import Event, StopProcessing, want
from evproc_pool import PoolProcessor

class Job(Event):
    name = "job"

    def __init__(self, number):
        super().__init__()
        self.number = number

@want("job", lambda ev: os.path.basename(colorsys.__name__) == "colorsys")
def work(proc, ev):
    errors = []
    for use in (lambda: there_is_no_such_module, lambda: there_is_no_such_name):
        try:
            use()
        except ImportError as error:
            errors.append(str(error).partition(" (")[0])
    raise StopProcessing((os.getpid(), root(ev.number), colorsys.__name__, errors))

with PoolProcessor(workers=1) as pool:
    pool.register(work)
    first, second = (pool.process(Job(number)) for number in (4, 9))
    assert first[0] == second[0], "the worker was replaced"
    assert first[0] != os.getpid()
    print(*first[1:], *second[1:3])
"""


@pytest.mark.skipif(sys.version_info < (3, 15), reason="imports are not lazy")
@pytest.mark.parametrize("python", [(), ("-X", "lazy_imports=all")], ids=["some", "all"])
def test_what_the_script_imports_lazily(tmp_path: Path, python: Sequence[str]) -> None:
    errors = ["No module named 'there_is_no_such_module'"]
    errors += ["cannot import name 'there_is_no_such_name' from 'json'"]
    out = run_script(_IMPORTS_LAZILY, tmp_path, python=python)
    assert out == f"2.0 colorsys {errors} 3.0 colorsys\n"


_USES_SENTINELS = """
from evproc import Event, StopProcessing, want
from evproc_pool import PoolProcessor

MISSING = sentinel("MISSING")
OTHER = sentinel("OTHER", repr="<other>")

class Job(Event):
    name = "job"

    def __init__(self, number):
        super().__init__()
        self.number = number
        self.value = MISSING

@want("job")
def work(proc, ev, default=MISSING):
    are_same = ev.value is MISSING and default is MISSING
    raise StopProcessing((are_same, repr(OTHER), OTHER if ev.number % 2 else ev.value))

with PoolProcessor(workers=2) as pool:
    pool.register(work)
    for count in (1, 2, 100):
        values = pool.process_many([Job(number) for number in range(count)])
        expected = [(True, "<other>", (MISSING, OTHER)[number % 2]) for number in range(count)]
        assert values == expected
    print(pool.process(Job(1))[2] is OTHER)
"""


@pytest.mark.skipif(sys.version_info < (3, 15), reason="there are no sentinels")
def test_a_sentinel_of_the_script_is_one_and_the_same(tmp_path: Path) -> None:
    assert run_script(_USES_SENTINELS, tmp_path) == "True\n"


_USES_TYPES = """
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Generic, NewType, ParamSpec, TypeVar, TypeVarTuple
from evproc import Event, StopProcessing, want
from evproc_pool import PoolProcessor

if TYPE_CHECKING:
    from nowhere import Nothing

Number = NewType("Number", int)
P = ParamSpec("P")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")
{more}

def decorated(function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)
    call.__annotations__ = {{"args": P.args, "kwargs": P.kwargs, "return": R}}
    return call

@dataclass
class Job(Event, Generic[*Ts]):
    name = "job"
    number: Number

@want("job")
@decorated
def work(proc, ev):
    raise StopProcessing((Number(ev.number), Number, P, Ts, {used}))

with PoolProcessor(workers=2) as pool:
    pool.register(work)
    for count in (1, 100):
        values = pool.process_many([Job(Number(number)) for number in range(count)])
        assert values == [(number, Number, P, Ts, {used}) for number in range(count)], values
    print({values})
"""

_ALIASES = """
type Row = list[float]
type Tree = dict[str, Tree] | Row
type Pair[T] = tuple[T, T]
type Vague = Nothing

def generic[**Q](function: Callable[Q, R]) -> Callable[Q, R]:
    def call(*args: Q.args, **kwargs: Q.kwargs) -> R:
        return function(*args, **kwargs)
    call.__annotations__ = {"args": Q.args, "kwargs": Q.kwargs, "return": R}
    return call

@dataclass
class Other(Event):
    name = "other"
    row: Row
    tree: Tree
    pair: Pair[int]
    vague: Vague

@want("other")
@generic
def other(proc, ev):
    names = str(Tree.__value__), str(Pair[int]), str(Pair.__value__), Tree.__module__
    raise StopProcessing((ev.tree, Row.__value__, Tree, *names))

pool = PoolProcessor(workers=1)
pool.register(other)
value = pool.process(Other([1.0], {"a": [2.0]}, (1, 2), None))
assert value == ({"a": [2.0]}, list[float], Tree, *value[3:]), value
"""


@pytest.mark.parametrize("python", [(3, 11), (3, 12)], ids=["all", "aliases"])
def test_types_that_the_script_gives_a_name(tmp_path: Path, python: tuple[int, int]) -> None:
    if python > sys.version_info:
        pytest.skip("there are no type aliases")
    more, used, values = "", "None", "'well'"
    if python > (3, 11):
        more, used, values = _ALIASES, "Row", "*value[3:], sep='; '"
    out = run_script(_USES_TYPES.format(more=more, used=used, values=values), tmp_path)
    expected = "dict[str, Tree] | Row; Pair[int]; tuple[T, T]; __main__" if more else "well"
    assert out.replace("__main__.", "").replace("~", "") == f"{expected}\n"


def test_a_variable_that_cannot_be_sent_is_an_error_that_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    assert run_script(_CANNOT_BE_SENT, tmp_path).split() == ["well"]


_DEFINES_BESIDE_THREADS = """
import threading
from evproc import Event, StopProcessing
from evproc_pool import PoolProcessor

class Ask(Event):
    name = "ask"

def handle(proc, ev):
    raise StopProcessing(ANSWER)

ANSWER, calls, is_over = 0, 0, False
failed = []
lock = threading.Lock()

def call(how):
    global calls
    last = 0
    while not is_over:
        try:
            answers = how()
        except BaseException as error:
            failed.append(error)
            return
        if min(answers) < last:
            failed.append((answers, last))
        last = max(answers)
        with lock:
            calls += 1

with PoolProcessor(workers=2) as pool:
    pool.register(handle)
    ways = [
        lambda: [pool.process(Ask())],
        lambda: pool.process_many([Ask() for _ in range(5)]),
        lambda: [pool.submit(Ask()).result()],
        lambda: [each.value for each in pool.stream([Ask(), Ask()])],
    ]
    threads = [threading.Thread(target=call, args=(way,)) for way in ways]
    for thread in threads:
        thread.start()
    while calls < 300 and not failed:
        ANSWER += 1
        threading.Event().wait(0.005)
    is_over = True
    for thread in threads:
        thread.join()
    assert not failed, failed
    assert pool.process(Ask()) == ANSWER
print("well")
"""


def test_calls_of_several_threads_go_on_while_workers_are_replaced(tmp_path: Path) -> None:
    assert run_script(_DEFINES_BESIDE_THREADS, tmp_path).split() == ["well"]


# --- wherever the main module is ---

_PLAIN = """
from evproc import Event, StopProcessing, want
from evproc_pool import PoolProcessor

class Job(Event):
    name = "job"

    def __init__(self, number):
        self.number = number

@want("job")
def double(proc, ev):
    raise StopProcessing(2 * ev.number)

with PoolProcessor(workers=1) as pool:
    pool.register(double)
    print(pool.process_many([Job(number) for number in range(3)]))
"""


def test_a_script_under_a_debugger(tmp_path: Path) -> None:
    # whose main module has no __spec__
    options = ["-m", "pdb", "-c", "continue", "-c", "quit"]
    assert "[0, 2, 4]" in run_script(_PLAIN, tmp_path, python=options)


def test_a_main_module_that_is_gone(tmp_path: Path) -> None:
    assert run_script(f"import sys; del sys.modules['__main__']{_PLAIN}", tmp_path) == "[0, 2, 4]\n"


@pytest.mark.parametrize(
    "run",
    ["run_path('plain.py', run_name='__main__')", "run_path('plain.py')", "run_module('plain')"],
)
def test_a_script_that_runpy_runs(tmp_path: Path, run: str) -> None:
    (tmp_path / "plain.py").write_text(_PLAIN, "utf-8")
    assert run_script(f"import runpy; runpy.{run}", tmp_path) == "[0, 2, 4]\n"


def test_an_archive_that_is_run(tmp_path: Path) -> None:
    application = tmp_path / "application"
    application.mkdir()
    more = "import more; pool.register(more.add_one); pool.register(double)"
    code = _PLAIN.replace("pool.register(double)", more)
    (application / "__main__.py").write_text(code, "utf-8")
    (application / "more.py").write_text("def add_one(proc, ev): ev.number += 1", "utf-8")
    zipapp.create_archive(application)
    code = "import runpy; runpy.run_path('application.pyz', run_name='__main__')"
    assert run_script(code, tmp_path) == "[2, 4, 6]\n"


_DOCTEST = '''
"""
>>> with PoolProcessor(workers=1) as pool:
...     _ = pool.register(of_module), pool.register(lambda proc, ev: [Job(ev.number)], "another")
...     print(pool.process_many([Job(1)]))
[2]
"""
from evproc import Event, StopProcessing
from evproc_pool import PoolProcessor

class Job(Event):
    name = "job"

    def __init__(self, number):
        self.number = number

def of_module(proc, ev):
    raise StopProcessing(2 * ev.number)
'''


def test_a_doctest_of_a_module_that_is_not_the_main_module(tmp_path: Path) -> None:
    # whose folder is not in sys.path any more when the example runs
    assert run_script(_DOCTEST, tmp_path, python=["-m", "doctest"]) == ""


_PICKLES = """
import dataclasses, pickle
from pathlib import Path
from evproc import Event, StopProcessing, want
from evproc_pool import PoolProcessor

@dataclasses.dataclass
class Result:
    number: int

def helper():
    return 7

class Job(Event):
    name = "job"

    def __init__(self, number):
        self.number = number

@want("job")
def work(proc, ev):
    file = Path(f"{ev.number}.pickle")
    if file.exists():
        raise StopProcessing(pickle.loads(file.read_bytes()))
    file.write_bytes(pickle.dumps([Result(ev.number), ev, helper]))

Path("0.pickle").write_bytes(pickle.dumps(Result(0)))
for is_new in (False, True):
    with PoolProcessor(workers=1, mp_context="METHOD") as pool:
        pool.register(work)
        print(*pool.process_many([Job(0), Job(1)]))
    print(pickle.loads(Path("1.pickle").read_bytes())[0])
    Path("1.pickle").unlink()

    @dataclasses.dataclass
    class Result:
        number: int
        is_new: bool = True
"""


@pytest.mark.parametrize("method", _METHODS)
def test_a_handler_pickles_classes_and_functions_of_the_script(tmp_path: Path, method: str) -> None:
    out = run_script(_PICKLES.replace("METHOD", method), tmp_path).splitlines()
    assert out[:2] == ["Result(number=0) None", "Result(number=1)"]
    new = [f"Result(number={number}, is_new=True)" for number in (0, 1)]
    assert out[2:] == [f"{new[0]} None", new[1]]


# --- frozen programs ---

# The program is its own interpreter, as with PyInstaller, whose hook is what `freeze_support` has.
_FROZEN = """
import multiprocessing, sys
from multiprocessing import spawn
from pathlib import Path

program = Path(__file__).with_name("program")
if not program.exists():
    program.write_text(f'#!/bin/sh\\nexec "{sys.executable}" "{__file__}" "$@"\\n')
    program.chmod(0o755)
sys.frozen, sys.executable = True, str(program)
multiprocessing.set_executable(str(program))

def freeze_support():
    if "-c" in sys.argv:
        at = sys.argv.index("-c")
        code = sys.argv[at + 1]
        del sys.argv[at : at + 1]
        exec(code)
        sys.exit()
    spawn.freeze_support()

# support
with Path(__file__).with_name("runs").open("a") as file:
    print("a run", file=file)
"""


@pytest.mark.parametrize("method", _NEW_PROCESSES)
def test_a_frozen_program_that_calls_freeze_support(tmp_path: Path, method: str) -> None:
    code = _FROZEN.replace("# support", "freeze_support()")
    code += _PLAIN.replace("workers=1", f"workers=1, mp_context={method!r}")
    assert run_script(code, tmp_path) == "[0, 2, 4]\n"
    assert (tmp_path / "runs").read_text("utf-8") == "a run\n"


@pytest.mark.parametrize("method", _NEW_PROCESSES)
def test_a_frozen_program_that_does_not_ends_with_an_error(tmp_path: Path, method: str) -> None:
    code = _FROZEN + _PLAIN.replace("workers=1", f"workers=1, mp_context={method!r}")
    with Script(code, tmp_path) as script:
        finished = script.finish()
    assert (finished.code, finished.out, finished.left) == (1, "", [])
    assert "a frozen program calls multiprocessing.freeze_support() first" in finished.err
    runs = (tmp_path / "runs").read_text("utf-8").splitlines()
    assert 1 < len(runs) < 10  # it is not run by each of its processes in turn


def test_a_module_that_starts_a_pool_when_it_is_imported_says_so(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(_PLAIN, "utf-8")
    with Script("import plain", tmp_path) as script:
        finished = script.finish()
    assert (finished.code, finished.out, finished.left) == (1, "", [])
    assert _STARTS_A_POOL in finished.err


_STARTS_A_POOL = "starts a pool when it is imported: start that pool in a function"

# Its depth is limited here where nothing else does it.
_NESTS = """
import os
from evproc import Event
from evproc_pool import PoolProcessor
from prepares import handler, prepare

class Ask(Event):
    name = "ask"

depth = int(os.environ.get("DEPTH", "0"))
print("depth", depth, flush=True)
assert depth < 3
os.environ["DEPTH"] = str(depth + 1)
with PoolProcessor(workers=1, mp_context={method!r}, {options}) as pool:
    pool.{registers}
    pool.process(Ask())
"""

_PREPARES = """
def handler(proc, ev): ...

def prepare():
    import nests
"""


@pytest.mark.parametrize("method", _NEW_PROCESSES)
@pytest.mark.parametrize(
    ("options", "registers"),
    [
        ("", "load_from('nests.group')"),
        ("preload=True", "load_from('nests.group')"),
        ("initializer=prepare", "register(handler)"),
    ],
)
def test_pools_do_not_nest_by_what_workers_import(
    tmp_path: Path, options: str, registers: str, method: str
) -> None:
    code = _NESTS.format(options=options, registers=registers, method=method)
    modules = {"nests": code, "prepares": _PREPARES}
    install(tmp_path, "nests", "1", modules, {"nests.group": {"handler": "nests:handler"}})
    with Script("import nests", tmp_path) as script:
        finished = script.finish()
    assert (finished.code, finished.left) == (1, []), finished
    assert set(finished.out.splitlines()) == {"depth 0", "depth 1"}
    assert _STARTS_A_POOL in finished.err


_PREPARES_WITH_A_POOL = """
from evproc import Event, StopProcessing
from evproc_pool import PoolProcessor

class Ask(Event):
    name = "ask"

answers = []

def prepare():
    with PoolProcessor(workers=1) as pool:
        pool.register(lambda proc, ev: (_ for _ in ()).throw(StopProcessing(7)), "answer")
        answers.append(pool.process(Ask()))

def handler(proc, ev):
    raise StopProcessing(answers)
"""


def test_an_initializer_may_use_a_pool(tmp_path: Path) -> None:
    (tmp_path / "prepares.py").write_text(_PREPARES_WITH_A_POOL, "utf-8")
    code = """
from prepares import Ask, PoolProcessor, handler, prepare
with PoolProcessor(workers=1, initializer=prepare) as pool:
    pool.register(handler)
    print(pool.process(Ask()))
"""
    assert run_script(code, tmp_path) == "[7]\n"
