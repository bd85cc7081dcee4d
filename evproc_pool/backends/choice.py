"""What `executor=` stands for, and which options it leaves without a promise.

Nothing is imported to find that out: an engine's client is known by the name of its class, and an
address by how it begins. A new engine is a line of `ENGINES`, and a case of
`calls.starters.starter_of`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from evproc_pool.backends.promises import AGENTS, CALLS, CALLS_OF_FACTORY, Promises
from evproc_pool.internals.stdlib_executors import workers_of

#: The kinds of `Choice` that are not engines.
INSTANCE: Final = "instance"
FACTORY: Final = "factory"


class Engine(NamedTuple):
    """An engine that has a backend of its own.

    Attributes:
        kind: Its name.
        extra: The extra of this distribution that installs it.
        module: What is imported for it.
        clients: Modules and qualified names of classes, instances of which are `executor=`.
        addresses: How a text begins that is `executor=`.
        words: Texts that are `executor=`, too.
        accepts: These two in words.
        promises: What it promises.
    """

    kind: str
    extra: str
    module: str
    clients: frozenset[str]
    addresses: tuple[str, ...]
    accepts: str
    promises: Promises
    words: tuple[str, ...] = ()


#: Dask: its client, or the address of its scheduler.
DASK_ENGINE: Final = Engine(
    "dask",
    "dask",
    "distributed",
    frozenset(("distributed.client.Client",)),
    ("tcp://", "tls://"),
    "a Client of Dask, the address of its scheduler (tcp://host:port)",
    AGENTS,
)

#: Ray: the cluster that this process is connected to, or that `ray.init` finds or starts; or the
#: address of one.
RAY_ENGINE: Final = Engine(
    "ray",
    "ray",
    "ray",
    frozenset(),
    ("ray:",),
    '"ray" or the address of a Ray cluster (ray:host:port)',
    AGENTS,
    words=("ray",),
)

#: The engines that this version knows.
ENGINES: Final[list[Engine]] = [DASK_ENGINE, RAY_ENGINE]


class Choice(NamedTuple):
    """A checked `executor=`.

    Attributes:
        kind: `INSTANCE`, `FACTORY`, or that of an `Engine`.
        value: What was given.
        promises: What is promised with it.
    """

    kind: str
    value: Any
    promises: Promises

    @property
    def workers(self) -> int | None:
        """How many workers it has; None: not known."""
        return workers_of(self.value) if self.kind == INSTANCE else None


def choose(value: object) -> Choice:
    """Check `executor=`.

    Raises:
        TypeError: It is none of what is allowed.
        ValueError: It is a text that is no address.
        ImportError: Its engine is not installed.
    """
    from concurrent.futures import Executor  # slow to import; few pools need it

    if isinstance(value, str):
        for engine in ENGINES:
            if value.startswith(engine.addresses) or value in engine.words:
                return _engine(engine, value)
        raise ValueError(f"executor is {_allowed()}, and not the text {value!r}")
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(value).__mro__}
    for engine in ENGINES:
        if names & engine.clients:
            return _engine(engine, value)
    if isinstance(value, Executor):
        return Choice(INSTANCE, value, CALLS)
    if callable(value):
        return Choice(FACTORY, value, CALLS_OF_FACTORY)
    raise TypeError(f"executor is {_allowed()}, and not {value!r}")


def _engine(engine: Engine, value: object) -> Choice:
    if importlib.util.find_spec(engine.module) is None:
        raise ImportError(
            f"executor={value!r} needs {engine.module}, which is not installed:"
            f" pip install 'evproc-pool[{engine.extra}]'",
            name=engine.module,
        )
    return Choice(engine.kind, value, engine.promises)


def _allowed() -> str:
    more = "".join(f", {engine.accepts}" for engine in ENGINES)
    return f"a concurrent.futures.Executor, a callable without arguments that makes one{more}"


#: Options that need a promise, and why they come to nothing without it.
_NEED: Final[Mapping[str, tuple[str, str]]] = {
    "event_timeout": ("hang_limit", "nothing tells how long a call runs"),
    "event_soft_timeout": ("starts_processes", "it cannot interrupt a call"),
    "max_worker_memory_bytes": ("memory_limit", "its processes have no limit"),
    "max_tasks_per_child": ("replaces_workers", "it decides when its processes end"),
    "mp_context": ("starts_processes", "it starts its own processes"),
    "preload": ("starts_processes", "it starts its own processes"),
    "native_threads": ("starts_processes", "it starts its own processes"),
    "worker_output": ("starts_processes", "the output of its processes is its own"),
}


def check_options(choice: Choice, workers: int | None, given: Mapping[str, object]) -> None:
    """Refuse options that the choice cannot keep; `given` has those that are not None.

    Raises:
        ValueError: There is one.
    """
    if workers == 0:
        raise ValueError("workers=0 runs handlers in this process, and executor= elsewhere")
    for name, (promise, why) in _NEED.items():
        if given.get(name) is not None and not getattr(choice.promises, promise):
            raise ValueError(
                f"{name}= cannot be kept with executor={choice.value!r}: {why}; leave it out, or"
                " set up the executor itself"
            )
