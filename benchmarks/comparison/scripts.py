"""The scripts whose start is measured: a pool, one event, as a user of each system writes it.

No adapters: these would import more than the script needs.
"""

from __future__ import annotations

from typing import Final

from benchmarks.pool.processes import WORKERS, start_method

_OURS: Final = """\
from benchmarks.comparison.handlers import register_all
from benchmarks.pool.handlers import Order
from evproc_pool import PoolProcessor

if __name__ == "__main__":
    with PoolProcessor({workers}, mp_context="{method}") as pool:
        register_all(pool)
        pool.process(Order(0))
        print("done", flush=True)
"""

# The others differ in what they import, make, call and close.
_PEER: Final = """\
{imports}

from benchmarks.comparison.handlers import handle
from benchmarks.pool.handlers import Order

if __name__ == "__main__":
    {make}
    {call}
    print("done", flush=True)
    {close}
"""

_DASK: Final = """\
dask.config.set({{
        "distributed.worker.multiprocessing-method": "{method}",
        "temporary-directory": sys.argv[1],
    }})
    cluster = distributed.LocalCluster(
        n_workers={workers}, threads_per_worker=1, dashboard_address=None, silence_logs=50
    )
    pool = distributed.Client(cluster)"""

_RAY: Final = """\
ray.init(
        num_cpus={workers},
        include_dashboard=False,
        log_to_driver=False,
        logging_level=40,
        _temp_dir=sys.argv[1],
    )"""

_PEERS: Final = {
    "multiprocessing.Pool": (
        "import multiprocessing",
        'pool = multiprocessing.get_context("{method}").Pool({workers})',
        "pool.apply(handle, (Order(0),))",
        "pool.terminate()",
    ),
    "ProcessPoolExecutor": (
        "import multiprocessing\nfrom concurrent.futures import ProcessPoolExecutor",
        'pool = ProcessPoolExecutor({workers}, mp_context=multiprocessing.get_context("{method}"))',
        "pool.submit(handle, Order(0)).result()",
        "pool.shutdown()",
    ),
    "loky": (
        "import loky",
        "pool = loky.ProcessPoolExecutor({workers})",
        "pool.submit(handle, Order(0)).result()",
        "pool.shutdown()",
    ),
    "joblib": (
        "import joblib",
        "pool = joblib.Parallel({workers})",
        "pool([joblib.delayed(handle)(Order(0))])",
        "del pool",
    ),
    "mpire": (
        "import mpire",
        'pool = mpire.WorkerPool({workers}, start_method="{method}")',
        "pool.apply(handle, (Order(0),))",
        "pool.terminate()",
    ),
    "pebble": (
        "import multiprocessing\nimport pebble",
        'pool = pebble.ProcessPool({workers}, context=multiprocessing.get_context("{method}"))',
        "pool.schedule(handle, args=(Order(0),)).result()",
        "pool.stop(); pool.join()",
    ),
    "deadpool": (
        "import deadpool",
        'pool = deadpool.Deadpool(max_workers={workers}, mp_context="{method}")',
        "pool.submit(handle, Order(0)).result()",
        "pool.shutdown()",
    ),
    "Dask": (
        "import sys, dask, distributed",
        _DASK,
        "pool.submit(handle, Order(0)).result()",
        "pool.close(); cluster.close()",
    ),
    "Ray": (
        "import sys, ray",
        _RAY,
        "ray.get(ray.remote(handle).remote(Order(0)))",
        "ray.shutdown()",
    ),
}


def first_result(label: str) -> str:
    """The script for a system. It is given the path of an empty folder."""
    if label not in _PEERS:
        return _OURS.format(workers=WORKERS, method=start_method())
    imports, make, call, close = (
        part.format(workers=WORKERS, method=start_method()) for part in _PEERS[label]
    )
    return _PEER.format(imports=imports, make=make, call=call, close=close)


#: Fed to ``python -``: classes of the main script, without a guard. It prints, as JSON, the
#: seconds per event of each class in each repeat; its arguments are events and repeats.
MAIN: Final = """\
import json
import sys

from benchmarks.comparison.handlers import register_all
from benchmarks.pool.loads import make_orders
from benchmarks.pool.processes import WORKERS, start_method
from benchmarks.pool.samples import Sample
from benchmarks.timing import interleaved
from evproc import Event
from evproc_pool import PoolProcessor


class Local(Event):
    name = "order"

    def __init__(self, number):
        self.number = number
        self.state = "new"
        self.line = {"article": number, "pieces": 1}


def make_local(count):
    return [Local(number) for number in range(count)]


count, repeats = map(int, sys.argv[1:])
with PoolProcessor(WORKERS, mp_context=start_method()) as pool:
    register_all(pool)
    samples = {
        "importable": Sample(make_orders, count, pool.process_many),
        "__main__": Sample(make_local, count, pool.process_many),
    }
    for sample in samples.values():
        sample.warm_up()
    print(json.dumps(interleaved(samples, repeats)))
"""
