"""The order of handlers: the same under every hash seed, in the coordinator and in every worker."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from evproc import Processor
from evproc_pool import PoolProcessor
from tests.support import actions
from tests.support.helpers import Script, installed, register_all
from tests.support.sizes import BARS

# Of the handlers that may run next the first that was registered, each time.
_EXPECTED = ["birch", "ash", "pine", "oak", "fir", "maple", "yew", "alder", "beech", "elm", "last"]

_PLAY = """
import json, multiprocessing, os
os.environ["PYTHONHASHSEED"] = {workers_seed!r}   # for what is started from here on
from evproc_pool import PoolProcessor
from tests.support.actions import Ordered, act, ordered_handlers
from tests.support.helpers import Gate, warm

# workers of a forkserver need not import it again
multiprocessing.set_forkserver_preload(["evproc_pool.worker.main", "tests.support.actions"])
with PoolProcessor(workers=2, mp_context={method!r}) as pool, Gate() as gate:
    pool.register(act)
    for handler in ordered_handlers():
        pool.register(handler)
    warm(pool)
    futures, pids = [], set()
    while len(pids) < 2:   # an event in each worker at the same time
        futures.append(pool.submit(Ordered(gate.address)))
        pids.add(gate.arrival().pid)
    gate.close()
    orders = [future.result() for future in futures]
    registered = list(pool.nodes)
    print(json.dumps([hash("text"), registered, pool.explain(Ordered()).order, orders]))
"""

# So many coordinators, each with a seed of its own, and with workers of another seed:
# by default 6 seeds in all. A few at a time, since a script waits most of its time.
_COORDINATORS = 20 if BARS else 3
_AT_ONCE = 5 if BARS else 3


@pytest.mark.parametrize("first", range(0, _COORDINATORS, _AT_ONCE))
def test_the_order_is_the_same_under_every_hash_seed(tmp_path: Path, first: int) -> None:
    with ExitStack() as stack:
        scripts = [
            stack.enter_context(_play(tmp_path / str(seed), seed))
            for seed in range(first, first + _AT_ONCE)
        ]
        for script in scripts:
            finished = script.finish()
            assert (finished.code, finished.err, finished.left) == (0, "", []), finished
            hash_here, registered, explained, orders = json.loads(finished.out)
            assert registered == ["act", *_names()]
            assert explained == _EXPECTED
            assert [order for _, _, order in orders] == [_EXPECTED] * len(orders)
            assert len({pid for pid, _, _ in orders}) == 2
            # the workers have a seed of their own, and the same one
            hashes_there = {hash_there for _, hash_there, _ in orders}
            assert len(hashes_there) == 1
            assert hash_here not in hashes_there


def _play(folder: Path, seed: int) -> Script:
    folder.mkdir()
    method = "spawn" if seed % _AT_ONCE == 0 else "forkserver"
    code = _PLAY.format(workers_seed=str(seed + 1_000), method=method)
    return Script(code, folder, environment={"PYTHONHASHSEED": str(seed)})


def _names() -> list[str]:
    return [handler.__name__ for handler in actions.ordered_handlers()]


def test_the_expected_order_leaves_ties_to_registration() -> None:
    processor: Processor = register_all(Processor(), actions.ordered_handlers())
    assert processor.process(actions.Ordered())[2] == _EXPECTED
    # neither by name nor by registration alone
    assert sorted(_EXPECTED) != _EXPECTED
    assert _names() != _EXPECTED
    assert sorted(_names()) == sorted(_EXPECTED)


def test_the_order_here_is_the_order_there(shared_pool: PoolProcessor) -> None:
    assert shared_pool.explain(actions.Ordered()).order == tuple(_EXPECTED)
    orders = shared_pool.process_many([actions.Ordered() for _ in range(200)])
    assert {tuple(order) for _, _, order in orders} == {tuple(_EXPECTED)}


# --- registries filled in other ways ---

_MODULE = """
from evproc import requires, want
from tests.support.actions import Notes

zeta, alpha, mid = (want("ordered")(Notes(name)) for name in ("zeta", "alpha", "mid"))
last = requires("zeta", "alpha", "mid")(want("ordered")(Notes("last")))
"""

_ENTRIES = {
    "pool_tests.order": {name: f"order_module:{name}" for name in ("zeta", "last", "alpha", "mid")}
}


def test_handlers_from_entry_points_run_in_workers_in_the_order_of_a_processor(
    tmp_path: Path,
) -> None:
    with installed(tmp_path, "order_dist", "1.0", {"order_module": _MODULE}, _ENTRIES):
        processor = Processor()
        with PoolProcessor(workers=2) as pool:
            for each in (processor, pool):
                assert each.load_from("pool_tests.order") == ("alpha", "last", "mid", "zeta")
            expected = processor.process(actions.Ordered())[2]
            assert expected == ["alpha", "mid", "zeta", "last"]
            orders = pool.process_many([actions.Ordered() for _ in range(20)])
    assert {tuple(order) for _, _, order in orders} == {tuple(expected)}


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
@pytest.mark.filterwarnings(
    # from Python 3.12 on; other tests may have left threads in native libraries
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)
def test_registered_and_loaded_handlers_mix(tmp_path: Path, method: str) -> None:
    with installed(tmp_path, "order_dist", "1.0", {"order_module": _MODULE}, _ENTRIES):
        processor = Processor()
        with PoolProcessor(workers=1, mp_context=method) as pool:
            for each in (processor, pool):
                each.register(actions.Notes("before"))
                each.load_from("pool_tests.order")
                each.register(actions.Notes("after"))
            expected = processor.process(actions.Ordered())[2]
            assert pool.process(actions.Ordered())[2] == expected
            assert expected[0] == "before"


def test_handlers_loaded_after_a_run_are_there_in_the_next(tmp_path: Path) -> None:
    with (
        installed(tmp_path, "order_dist", "1.0", {"order_module": _MODULE}, _ENTRIES),
        PoolProcessor(workers=1) as pool,
    ):
        pool.register(actions.act)
        assert pool.process(actions.Do("stop", 1)) == 1
        pool.load_from("pool_tests.order")
        assert pool.process(actions.Ordered())[2] == ["alpha", "mid", "zeta", "last"]


def test_an_entry_point_that_is_skipped_here_is_skipped_there(tmp_path: Path) -> None:
    entries = {"pool_tests.order": {**_ENTRIES["pool_tests.order"], "bad": "no_such_module:x"}}
    with installed(tmp_path, "order_dist", "1.0", {"order_module": _MODULE}, entries):
        for on_error in ("skip", lambda error: None):
            with PoolProcessor(workers=1) as pool:
                names = pool.load_from("pool_tests.order", on_error=on_error)
                assert names == ("alpha", "last", "mid", "zeta")
                assert pool.process(actions.Ordered())[2] == ["alpha", "mid", "zeta", "last"]
