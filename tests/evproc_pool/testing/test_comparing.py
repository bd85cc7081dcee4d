"""`evproc_pool.testing.assert_equal_outcomes`: what differs is found, and told."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from evproc import Event, StopProcessing, want
from evproc_pool import PoolProcessor
from evproc_pool.testing import assert_equal_outcomes, comparing
from tests.support import actions
from tests.support.actions import Do
from tests.support.helpers import ROOT, installed, register_all

pytest_plugins = ["evproc_pool.testing.plugin"]


class Item(Event):
    name = "item"

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@want("item")
def sound(proc: Any, ev: Item) -> list[Event] | None:
    if ev.number % 3 == 0:
        raise StopProcessing(ev.number)
    if ev.number % 3 == 1:
        return [Item(ev.number + 1)]
    if ev.number % 5 == 0:
        raise ArithmeticError(ev.number)
    return None


def _is_here() -> bool:
    """Whether a handler is neither in a worker process nor in a simulated worker."""
    return not actions.in_worker() and threading.current_thread() is threading.main_thread()


@want("item")
def unsound(proc: Any, ev: Item) -> None:
    """Does something else in a worker, from event 3 on."""
    if ev.number >= 3:
        _differ(ev, is_here=_is_here())


def _differ(ev: Item, *, is_here: bool) -> None:
    what = getattr(ev, "what", "value")
    if what == "value":
        raise StopProcessing([ev.number, is_here])
    if what == "stop":
        raise StopProcessing(None) if is_here else StopProcessing()
    if what == "type":
        raise ValueError("text") if is_here else TypeError("text")
    if what == "text":
        raise ValueError(f"{is_here}")
    if what == "raises" and not is_here:
        raise ArithmeticError("only there")


def _items(what: str = "value", count: int = 6) -> list[Event]:
    events: list[Event] = [Item(number) for number in range(count)]
    for ev in events:
        ev.what = what  # type: ignore[attr-defined]  # for `_differ`
    return events


def _registers(*handlers: Callable[..., Any]) -> Callable[[PoolProcessor], None]:
    def set_up(pool: PoolProcessor) -> None:
        register_all(pool, handlers)

    return set_up


def test_sound_handlers_pass() -> None:
    assert_equal_outcomes(_registers(sound), _items(count=40))


def test_options_are_for_all_of_them() -> None:
    assert_equal_outcomes(
        _registers(sound),
        _items(),
        workers=1,
        seeds=[3],
        max_retries=1,
        retry_backoff=0,
        mp_context="spawn",
        max_worker_memory_bytes=1 << 40,
        key=lambda ev: ev.number,
    )


@pytest.mark.parametrize(
    ("what", "serially", "pooled"),
    [
        ("value", "stops with [3, True]", "stops with [3, False]"),
        ("stop", "stops with None", "ends without a value"),
        ("type", "fails with ValueError: text, in", "fails with TypeError: text, in"),
        ("text", "fails with ValueError: True, in", "fails with ValueError: False, in"),
        ("raises", "ends without a value", "fails with ArithmeticError: only there, in"),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_event_that_differs_is_named(
    what: str, serially: str, pooled: str, workers: int
) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_equal_outcomes(_registers(unsound), _items(what), workers=workers, seeds=[5])
    head, here, there, which, again = str(caught.value).splitlines()
    assert head.startswith(f"event 3 ('item' ({__name__}.Item)) of 6 ends differently")
    assert here.startswith(f"  with Processor: {serially}")
    # of two pools that differ the one that does the same again
    assert there.startswith(f"  with simulated_pool(2, seed=5): {pooled}")
    assert which.endswith(": 2 worker processes, seed 5" if workers else ": seed 5")
    assert again == "  to run it again: assert_equal_outcomes(..., workers=0, seeds=[5])"


#: What the handlers of this process share, and what those of other processes do not.
_last: list[int] = [0]


@want("item")
def remembers(proc: Any, ev: Item) -> None:
    """Depends on which event it was called with before."""
    last, _last[0] = _last[0], ev.number
    if last > ev.number:
        raise StopProcessing((last, ev.number))


def test_handlers_that_depend_on_the_order_of_events_are_found_without_processes() -> None:
    with pytest.raises(AssertionError, match=r"simulated_pool\(2, seed="):
        assert_equal_outcomes(_registers(remembers), _items(count=50), workers=0, seeds=range(20))


def test_pools_that_do_not_differ_are_told_from_those_that_do() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_equal_outcomes([differs_in_processes], _items(), seeds=[4, 5], ordering="unordered")
    *_, there, which, again = str(caught.value).splitlines()
    assert there.startswith("  with 2 worker processes: ")
    assert which == "  pools that differ: 2 worker processes; that do not: seed 4, seed 5"
    assert "assert_equal_outcomes(..., workers=2, seeds=())" in again


def test_what_runs_a_pool_of_another_size_again_names_the_size() -> None:
    with pytest.raises(AssertionError, match=r"again: assert_equal_out.*workers=1, seeds=\[7\]"):
        assert_equal_outcomes([unsound], _items(), workers=1, seeds=[7])
    with pytest.raises(AssertionError, match=r"\n  with 1 worker process: "):
        assert_equal_outcomes([unsound], _items(), workers=1, seeds=())


@want("item")
def differs_in_processes(proc: Any, ev: Item) -> None:
    raise StopProcessing(actions.in_worker())


# --- values ---


class _Plain:
    """Is equal to itself only."""

    def __init__(self, number: int) -> None:
        self.number = number


@want("item")
def gives_plain(proc: Any, ev: Item) -> None:
    raise StopProcessing(_Plain(ev.number))


def test_values_may_be_compared_by_something_else() -> None:
    with pytest.raises(AssertionError, match=r"event 0 .* give equal="):
        assert_equal_outcomes(_registers(gives_plain), _items(), workers=0)
    assert_equal_outcomes(
        _registers(gives_plain), _items(), workers=0, equal=lambda a, b: a.number == b.number
    )


def test_a_comparison_that_fails_is_told() -> None:
    def fails(a: object, b: object) -> bool:
        raise LookupError("cannot tell")

    with pytest.raises(AssertionError, match="equal= raised LookupError: cannot tell"):
        assert_equal_outcomes(_registers(gives_plain), _items(), workers=0, equal=fails)


@want("item")
def gives_much(proc: Any, ev: Item) -> None:
    raise StopProcessing(["x" * 1000, _is_here()])


@want("item")
def gives_much_at_last(proc: Any, ev: Item) -> None:
    raise StopProcessing([_is_here(), "x" * 1000])


@want("item")
def gives_bad_repr(proc: Any, ev: Item) -> None:
    raise StopProcessing(_Unshown())


class _Unshown:
    def __repr__(self) -> str:
        raise LookupError


def test_values_are_shown_in_short() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_equal_outcomes(_registers(gives_much), _items(), workers=0)
    text = str(caught.value)
    assert len(text) < 1000
    # what differs is shown, also at the end of a long value
    assert re.search(r"with Processor: stops with \['xx+ \.\.\. x+', True\]\n", text)
    assert re.search(r"seed=0\): stops with \['xx+ \.\.\. x+', False\]\n", text)
    with pytest.raises(AssertionError, match=r"stops with \[True, 'x+\.\.\.\n"):
        assert_equal_outcomes([gives_much_at_last], _items(), workers=0)
    with pytest.raises(AssertionError, match="a _Unshown whose repr raises LookupError"):
        assert_equal_outcomes(_registers(gives_bad_repr), _items(), workers=0)


# --- every event ---


class Part(Event):
    """A follow-up that fails, stops or emits where its number says so."""

    name = "part"

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what


class Ignored(Event):
    name = "ignored"


class _Differs:
    """Handlers that do something else in the first pool than in the second one.

    Args:
        there: What the parts of an item do in the first pool; see `Part`.
        here: Likewise, in the second one.
    """

    def __init__(self, there: list[str], here: list[str]) -> None:
        self._runs = iter([there, here])

    def __call__(self, pool: PoolProcessor) -> None:
        whats = next(self._runs)
        pool.register(want("item")(lambda proc, ev: self._split(whats)), name="split")
        pool.register(act_on_part, name="act_on_part")

    @staticmethod
    def _split(whats: list[str]) -> list[Event]:
        return [Ignored() if what == "ignored" else Part(what) for what in whats]


@want("part")
def act_on_part(proc: Any, ev: Part) -> None:
    if ev.what.startswith("emit"):
        ev.emit(ev.what)
    if ev.what == "fail":
        raise ValueError(ev.what)
    if ev.what.startswith("stop"):
        raise StopProcessing(ev.what)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both pools have no workers: what is told does not depend on who runs the events."""

    def pools(processes: int, simulated: int, seeds: object, options: dict[str, Any]) -> Any:
        yield comparing._How("there", "there", "again", is_sure=True), PoolProcessor(0, **options)

    monkeypatch.setattr(comparing, "_pools", pools)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("there", "here", "options", "text"),
    [
        (
            ["a"],
            ["a", "fail"],
            {"errors": "continue"},
            "event 0 .*with Processor: fails with ValueE",
        ),
        (
            ["fail"],
            ["fail"] * 2,
            {"errors": "continue"},
            "2 events fail with Processor, 1 in the pool",
        ),
        (["emit a"], ["emit b"], {}, "is 'emit b' with Processor, 'emit a' in the pool"),
        (["a"], ["emit b"], {}, "1 values are emitted with Processor, 0 in the pool"),
        (["a"], ["a", "a"], {"every_event": True}, "3 handlers are called with Processor, 2 in"),
        (["a", "ignored"], ["a"], {"every_event": True}, r"follow-up \(0, 1\) .* handled there"),
        (
            ["a"],
            ["a", "ignored"],
            {"every_event": True},
            r"\(0, 1\) .* with Processor, and not there",
        ),
        (
            ["fail", "a"],
            ["a", "fail"],
            {"every_event": True, "errors": "continue"},
            r"follow-up \(0, 0\) \('part' .*\) ends differently",
        ),
        (["stop a"], ["stop b"], {"ordering": "unordered"}, "with Processor: stops with 'stop b'"),
        (["stop"], ["a"], {"ordering": "unordered"}, "with Processor: ends without a value"),
    ],
    ids=str,
)
def test_what_differs_in_a_cascade_is_told(
    there: list[str], here: list[str], options: dict[str, Any], text: str
) -> None:
    with pytest.raises(AssertionError, match=f"(?s){text}"):
        assert_equal_outcomes(_Differs(there, here), [Item(0)], **options)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("there", "here", "options"),
    [
        (["emit a", "stop", "ignored"], ["emit a", "stop", "a"], {"every_event": True}),
        (["stop"], ["a", "emit b", "stop"], {"ordering": "unordered"}),
        (["fail"], ["a", "emit b", "fail"], {"ordering": "unordered"}),
        (["stop"], ["fail", "stop"], {"ordering": "unordered", "errors": "continue"}),
    ],
    ids=str,
)
def test_what_a_cascade_did_not_come_to_is_not_compared(
    there: list[str], here: list[str], options: dict[str, Any]
) -> None:
    assert_equal_outcomes(_Differs(there, here), [Item(0)], **options)


# --- events ---


def test_events_that_cannot_be_pickled_differ() -> None:
    with pytest.raises(AssertionError, match=r"event 1 [\s\S]*SerializationError"):
        assert_equal_outcomes(
            _registers(actions.act), [Do(), Do("nothing", threading.Lock())], workers=0
        )


@want("item")
def spoils(proc: Any, ev: Item) -> None:
    ev.number += 1
    raise StopProcessing(ev.number)


def test_pools_get_events_as_they_were() -> None:
    # each of them would see what those before have left behind
    assert_equal_outcomes(_registers(spoils), iter(_items()), workers=1)


def test_events_may_be_made_anew() -> None:
    made: list[list[Event]] = []

    def make() -> list[Event]:
        made.append(_items())
        return made[-1]

    assert_equal_outcomes(_registers(spoils), make, workers=1, seeds=range(3))
    assert len(made) == 5


def test_events_that_come_out_differently_are_told() -> None:
    counts = iter([6, 7])
    with pytest.raises(AssertionError, match="7 events with Processor, and 6 with simulated_pool"):
        assert_equal_outcomes(
            _registers(spoils), lambda: _items(count=next(counts)), workers=0, seeds=[1]
        )


# --- handlers ---


def test_handlers_may_be_entry_points(tmp_path: Path) -> None:
    code = "def a(proc, ev): ...\n"
    entries = {"compared": {"one": "compared_mod:a"}}
    with installed(tmp_path, "compared_dist", "1", {"compared_mod": code}, entries):
        assert_equal_outcomes("compared", _items(), workers=1, seeds=[1])


def test_handlers_may_be_a_list_or_any_iterable() -> None:
    assert_equal_outcomes([sound], _items(), workers=1, seeds=[1])
    assert_equal_outcomes(iter([sound]), _items(), workers=0)
    with pytest.raises(AssertionError, match="event 3"):
        assert_equal_outcomes(iter([unsound]), _items(), workers=0, seeds=[1, 2])


def test_a_handler_alone_belongs_into_a_list() -> None:
    with pytest.raises(
        TypeError, match=r"\.sound takes something else; a handler goes into a list"
    ):
        assert_equal_outcomes(cast("Any", sound), _items())
    with pytest.raises(TypeError, match=r"set_up is a list of handlers.* it is 5"):
        assert_equal_outcomes(cast("Any", 5), _items())


class _Unreadable:
    """A set-up of which nobody knows what it takes."""

    __signature__ = 5

    def __init__(self) -> None:
        self.pools: list[PoolProcessor] = []

    def __call__(self, *pools: PoolProcessor) -> None:
        self.pools += pools


def test_a_set_up_whose_signature_cannot_be_read_is_called() -> None:
    set_up = _Unreadable()
    assert_equal_outcomes(set_up, _items(), workers=0, seeds=[1])
    assert len(set_up.pools) == 2


def test_what_the_set_up_raises_is_raised() -> None:
    def set_up(pool: PoolProcessor) -> None:
        raise LookupError("set up")

    with pytest.raises(LookupError, match="set up"):
        assert_equal_outcomes(set_up, _items())


# --- the plugin ---


def test_the_fixture_is_the_function(
    assert_equal_outcomes: Callable[..., None],
) -> None:
    assert_equal_outcomes(_registers(sound), _items(), workers=0, seeds=[1])
    with pytest.raises(AssertionError, match="event 3"):
        assert_equal_outcomes(_registers(unsound), _items(), workers=0, seeds=[1])


def test_a_test_that_uses_the_fixture_shows_what_differs_and_where(tmp_path: Path) -> None:
    (tmp_path / "app_handlers.py").write_text(
        "import threading\n"
        "from evproc import Event, StopProcessing\n"
        "class Order(Event):\n"
        "    name = 'order'\n"
        "def check(proc, ev):\n"
        "    raise StopProcessing(threading.current_thread().name)\n",
        "utf-8",
    )
    (tmp_path / "test_app.py").write_text(
        "from app_handlers import Order, check\n"
        "pytest_plugins = ['evproc_pool.testing.plugin']\n"
        "def test_orders(assert_equal_outcomes):\n"
        "    assert_equal_outcomes(lambda pool: pool.register(check), [Order()], workers=0)\n",
        "utf-8",
    )
    done = _python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_app.py")
    assert done.returncode == 1, done.stdout
    assert "AssertionError: event 0 ('order' (app_handlers.Order)) of 1 ends differ" in done.stdout
    assert "test_app.py:4: AssertionError" in done.stdout  # not in here
    assert "comparing.py" not in done.stdout


def test_the_rest_of_the_package_needs_no_pytest(tmp_path: Path) -> None:
    done = _python(
        tmp_path, "-c", "import evproc_pool.testing, sys; print('pytest' in sys.modules)"
    )
    assert done.stdout.strip() == "False", done.stderr


def test_the_pool_does_not_import_what_tests_it(tmp_path: Path) -> None:
    done = _python(
        tmp_path, "-c", "import evproc_pool, sys; print('evproc_pool.testing' in sys.modules)"
    )
    assert done.stdout.strip() == "False", done.stderr


def _python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="neither workers nor seeds"):
        assert_equal_outcomes([unsound], _items(), workers=0, seeds=())
