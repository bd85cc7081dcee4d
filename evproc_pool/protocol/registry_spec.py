"""How a worker fills its registry, and how two registries are compared."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from evproc import Processor
from evproc.decorator import default_name, describe_callable
from evproc.registry import Registry
from evproc_pool.errors import SerializationError
from evproc_pool.protocol.frame import Data
from evproc_pool.protocol.path_modules import names_in
from evproc_pool.serialization.basics import ThisProcess

if TYPE_CHECKING:
    import logging

    from evproc.annotations import HandlerFunc, Unmatched
    from evproc_pool.protocol.process_state import ProcessState
    from evproc_pool.serialization.code_snapshot import CodeSnapshot

# The most differences that an error lists.
_MOST_LINES: Final = 5


class Register(NamedTuple):
    """A call of `register`."""

    func: HandlerFunc
    name: str | None
    replace: bool = False  # it replaces a handler that an entry point names


class Unregister(NamedTuple):
    """A call of `unregister`, for a handler of an entry-point group."""

    name: str


class LoadFrom(NamedTuple):
    """A call of `load_from`, for an entry-point group."""

    group: str
    skip: bool  # skip entry points that cannot be loaded


#: A change to the registry.
Step = Register | LoadFrom | Unregister


def registered(steps: list[Step], step: Register) -> None:
    """Note a call of `register`, with the handler's name, and with `replace` if that was taken.

    Changes `steps` in place. Handlers that the call replaces are not sent to workers any more.
    """
    place = _place_of(steps, step.name)
    if place is None:
        steps.append(step)
    else:
        steps[place] = step._replace(replace=_replaces(steps[place]))


def unregistered(steps: list[Step], name: str) -> None:
    """Note a call of `unregister`; see `registered`."""
    place = _place_of(steps, name)
    # None: an entry point names the handler
    if place is None or _replaces(steps.pop(place)):
        steps.append(Unregister(name))


def _place_of(steps: list[Step], name: str | None) -> int | None:
    for place, step in enumerate(steps):
        if isinstance(step, Register) and step.name == name:
            return place
    return None


def _replaces(step: Step) -> bool:
    return isinstance(step, Register) and step.replace


#: A change to a filled registry, which must not change its fingerprint.
Change = Callable[[Registry], object]


class RegistrySpec(NamedTuple):
    """How a worker prepares itself, in this order."""

    initializer: Callable[..., object] | None  # called first: handlers may need what it sets up
    initargs: tuple[Any, ...]
    steps: tuple[Step, ...]  # the calls that fill the registry
    changes: tuple[Change, ...] = ()  # applied to the filled registry; for tests
    unmatched: Unmatched = "ignore"  # the `Processor`'s, for handlers that call `process`
    finalizer: Callable[[], object] | None = None  # called when the worker is asked to end

    def make_processor(self, is_set_up: Callable[[], object] | None = None) -> Processor:
        """Run the initializer and fill a new `Processor`. Raises what that or an import raises.

        `is_set_up` is called after the initializer.
        """
        if self.initializer is not None:
            self.initializer(*self.initargs)
        if is_set_up is not None:
            is_set_up()
        processor = Processor(unmatched=self.unmatched)
        with loading_handlers(is_true=ThisProcess.is_worker):
            self._fill(processor)
        return processor

    def _fill(self, processor: Processor) -> None:
        for step in self.steps:
            if isinstance(step, Register):
                processor.register(step.func, step.name, replace=step.replace)
            elif isinstance(step, Unregister):
                processor.unregister(step.name)
            elif step.skip:
                with _silence():
                    processor.load_from(step.group, on_error="skip")
            else:
                processor.load_from(step.group)
        for change in self.changes:
            change(processor.registry)


class Config(NamedTuple):
    """What a new worker gets: its first frame, and what only a starting process can take over."""

    frame: bytes
    shared: Sequence[Any] = ()


def make_config(spec: RegistrySpec, state: ProcessState, *more: object) -> Config:
    """Pickle what workers need to start. Raises a `SerializationError` if that fails."""
    from evproc_pool.serialization import pickling

    cause: BaseException | None = None
    if not pickling.has_shared((spec.initargs, spec.initializer)):
        try:
            return Config(pickling.dumps((state, pickling.dumps(spec), *more)))
        except Exception as error:
            cause = error
    from evproc_pool.serialization import by_value  # slow to import

    try:
        data, shared = by_value.dumps_sharing(spec)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise cannot_send(spec, cause or error) from (cause or error)
    return Config(pickling.dumps((state, data, *more)), shared)


def load_config(
    frame: Data, shared: Sequence[Any], set_up: Callable[[Any], object] | None = None
) -> tuple[Any, ...]:
    """Give this process the state that a `Config` has, and return the spec and the rest.

    `set_up` gets the last part before modules of handlers are imported.
    """
    from evproc_pool.serialization import pickling

    state, data, *more = pickling.loads(frame)
    state.apply()
    if set_up is not None:
        set_up(more[-1])
    return load_spec(data, shared), *more


def load_spec(data: bytes, shared: Sequence[Any]) -> RegistrySpec:
    """Unpickle the spec of a `Config`, which imports the handlers' modules."""
    from evproc_pool.serialization import pickling

    with loading_handlers(is_true=ThisProcess.is_worker):  # and no simulated one
        spec: RegistrySpec
        if not shared:
            spec = pickling.loads(data)
            return spec
        from evproc_pool.serialization import by_value

        spec = by_value.loads(data, (), shared)
        return spec


@contextlib.contextmanager
def loading_handlers(*, is_true: bool = True) -> Iterator[None]:
    """Let `is_loading_handlers` return that meanwhile."""
    ThisProcess.is_loading = is_true
    try:
        yield
    finally:
        ThisProcess.is_loading = False


def is_loading_handlers() -> bool:
    """Whether this process imports modules for workers, so that none of them may start a pool.

    Its workers would import the same modules, and so on without end. An initializer may start a
    pool by itself, but not by an import.
    """
    if ThisProcess.is_loading or not ThisProcess.is_worker:
        return ThisProcess.is_loading
    import inspect  # slow to import; few workers start a pool

    is_import = False
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not RegistrySpec.make_processor.__code__:
        is_import = is_import or frame.f_code.co_name == "<module>"
        frame = frame.f_back
    return is_import and frame is not None


class MainScriptCode:
    """The code of the main script that the workers have."""

    def __init__(self, snapshot: CodeSnapshot) -> None:
        self._snapshot = snapshot  # that code, as it was sent
        self._shell = _shell()
        self._cell = self._cell_number

    @property
    def is_up_to_date(self) -> bool:
        """Whether the main script has redefined nothing of it.

        Checked at every call. In-place changes are detected only in IPython, once for each cell:
        there it is common to add methods to a class in a later cell.
        """
        if not self._snapshot.names_are_unchanged:
            return False
        if self._shell is None:
            return True
        cell = self._cell_number
        if cell != self._cell:
            if not self._snapshot.is_up_to_date:
                return False
            self._cell = cell
        return True

    @property
    def _cell_number(self) -> object:
        return getattr(self._shell, "execution_count", None)


def _shell() -> object:
    """The shell of IPython, as in a notebook; None: this is not IPython."""
    # not of `IPython` itself, which may import it at the first use
    get_ipython = names_in(sys.modules.get("IPython.core.getipython")).get("get_ipython")
    return get_ipython() if callable(get_ipython) else None


def main_script_code(functions: Iterable[object]) -> MainScriptCode | None:
    """The code of the main script in the functions that workers get; None: no such code."""
    from evproc_pool.serialization.basics import lives_in_main

    in_main = [function for function in functions if lives_in_main(function)]
    if not in_main:
        return None
    from evproc_pool.serialization.code_snapshot import CodeSnapshot

    # A class is sent with its events, as it is at that time. So its data may change: it may count
    # its instances.
    return MainScriptCode(CodeSnapshot(*in_main, with_data=False))


def cannot_send(spec: RegistrySpec, cause: BaseException) -> SerializationError:
    """Make the error that names which part of a spec cannot be pickled."""
    from evproc_pool.serialization import diagnosis  # slow to import

    what = "what workers need to start"
    value: object = spec
    move = ", or move the function into a module that workers import"
    more = ""
    parts: list[tuple[str, object, str]] = [
        ("the initializer", spec.initializer, move),
        ("an argument of the initializer", spec.initargs, ""),
        ("the finalizer", spec.finalizer, move),
    ]
    for step in spec.steps:
        if isinstance(step, Register):
            origin = describe_callable(step.func)
            name = step.name or default_name(step.func)
            parts.append((f"handler {name!r} ({origin})", step.func, move))
    for name, part, advice in parts:
        if not diagnosis.can_pickle(part):
            what, value, more = name, part, advice
            break
    in_each = "make it in each worker (in the handler, or in an initializer)"
    return diagnosis.cannot_pickle(what, value, cause, in_each, more)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Log no skipped entry points: the coordinator has logged them already."""
    import logging  # slow to import, and few workers need it

    logger = logging.getLogger("evproc")
    logger.addFilter(_is_not_skip)
    try:
        yield
    finally:
        logger.removeFilter(_is_not_skip)


def _is_not_skip(record: logging.LogRecord) -> bool:
    return record.msg != "skipped: %s"


class HandlerPrint(NamedTuple):
    """Identifies a handler across processes."""

    name: str
    function: str
    distribution: str
    version: str

    def __str__(self) -> str:
        origin = f", {self.distribution} {self.version}" if self.distribution else ""
        return f"{self.name!r} ({self.function}{origin})"


Fingerprint = tuple[HandlerPrint, ...]


def fingerprint(registry: Registry) -> Fingerprint:
    """The handlers in order: name, function, distribution and its version."""
    prints = []
    for handler in registry.handlers:
        origin = handler.origin
        package = (origin.distribution, origin.version) if origin else ("", "")
        prints.append(HandlerPrint(handler.name, describe_callable(handler.func), *package))
    return tuple(prints)


def describe_difference(expected: Fingerprint, actual: Fingerprint) -> str:
    """Say how two registries differ; empty if they are equal."""
    pairs = itertools.zip_longest(expected, actual, fillvalue="nothing")
    lines = [
        f"handler {place}: {mine} here, {theirs} in the worker"
        for place, (mine, theirs) in enumerate(pairs)
        if mine != theirs
    ]
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"and {len(lines) - _MOST_LINES} more"]
    return "; ".join(lines)
