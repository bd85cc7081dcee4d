"""The plugin for pytest. pytest loads it wherever this distribution is installed.

So every project of an environment imports it, and it imports pytest only. `fixtures` does the work
of the fixtures. A test that asks for one of them imports it.

The entry point has the name of this module. pytest knows its plugins by name: so
``pytest_plugins = ["evproc_pool.testing.plugin"]`` in a test module is no second registration.

Rejected: a module beside both packages. It would spare pytest the import of `evproc`, which is
small, and would be a third name in ``site-packages``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from evproc_pool.pool import PoolProcessor

_SETTING = "evproc_workers"


class _Run:
    """This run of pytest.

    Attributes:
        is_interrupted: Whether somebody has pressed Ctrl-C.
    """

    is_interrupted = False


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the setting; see pytest."""
    parser.getgroup("evproc", "tests of evproc handlers").addoption(
        "--evproc-workers",
        metavar="N",
        help="worker processes of each pool of the fixtures assert_equal_outcomes and"
        " pool_processor, unless a test gives a number; the fixture evproc_workers is N. 0: none,"
        " whatever a test gives: handlers run in this process, where a debugger stops. Default:"
        " 2; beside pytest-xdist 1 if there are too few CPUs",
    )
    # pytest before 8.4 knows no numbers, and before 8.0 takes None for a default that is not given
    kind: Any = "int" if pytest.version_tuple >= (8, 4) else "string"
    parser.addini(_SETTING, "the default of --evproc-workers", type=kind, default="")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a bad number before the first test; see pytest."""
    _chosen_workers(config)
    _Run.is_interrupted = False


def pytest_keyboard_interrupt() -> None:
    """Have pools killed instead of closed; see pytest, which ends the fixtures after that."""
    _Run.is_interrupted = True


def _chosen_workers(config: pytest.Config) -> int | None:
    """Return the number from the option or else from the setting; None: there is neither."""
    # the option is unknown if a test module has asked for this plugin
    what, given = "--evproc-workers", config.getoption(_SETTING, None)
    try:
        if given is None:
            what = f"the setting {_SETTING}"
            given = config.getini(_SETTING)
            if given == "":
                return None
        number = int(given)
    except (TypeError, ValueError, pytest.UsageError):
        number = -1
    if number < 0:
        but = "" if given is None else f", not {given!r}"
        raise pytest.UsageError(f"{what} is the number of worker processes, or 0 for none{but}")
    return number


@pytest.fixture(scope="session", name="evproc_workers")
def _evproc_workers(pytestconfig: pytest.Config) -> int:
    """The number of workers by --evproc-workers, for ``PoolProcessor(workers=evproc_workers)``.

    0: a pool has no worker processes, and handlers run in the process of the test. A test that
    needs them may skip then.
    """
    chosen = _chosen_workers(pytestconfig)
    if chosen is not None:
        return chosen
    from evproc_pool.testing.fixtures import default_workers

    return default_workers()


@pytest.fixture(name="pool_processor")
def _pool_processor(evproc_workers: int) -> Iterator[Callable[..., PoolProcessor]]:
    """Make pools that are closed when the test ends: ``pool_processor("app.handlers")``.

    The first argument is an entry-point group, a list of handlers, or a callable that gets the pool
    and registers them. All options of `PoolProcessor` may follow. The number of workers is
    `evproc_workers`, unless the test gives ``workers=``; 0 holds for every pool.

    At the end of the test each pool finishes what was submitted. What takes longer than ten
    seconds is killed.
    """
    from evproc_pool.testing.fixtures import PoolMaker

    with PoolMaker(evproc_workers) as make:
        yield make
        if _Run.is_interrupted:
            make.terminate()


@pytest.fixture(name="assert_equal_outcomes")
def _assert_equal_outcomes(evproc_workers: int) -> Callable[..., None]:
    """Assert that handlers do the same in a pool: ``assert_equal_outcomes(handlers, events)``.

    See `evproc_pool.testing.assert_equal_outcomes`, whose arguments it takes. The number of
    worker processes is `evproc_workers`, unless the test gives ``workers=``; with 0 there are
    none, and simulated pools are compared only; a test that gives no seeds is skipped.
    """
    from evproc_pool.testing.fixtures import comparison

    return comparison(evproc_workers, pytest.skip)
