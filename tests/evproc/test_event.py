"""Events, their `proc`, and its namespaces."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
import threading
import typing
from typing import Any

import pytest

import evproc
from evproc.event import (
    Namespace,
    ProcessorData,
    class_name,
    describe_event,
    module_of,
    qualname,
)
from tests.support.processors import Named


def spaces(ev: evproc.Event) -> Any:
    """`ev.proc` for a type checker that does not know what handlers left in there."""
    return ev.proc


PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class ByAttribute(evproc.Event):
    name = "by attribute"


class ByProperty(evproc.Event):
    @property
    def name(self) -> str:
        return "by property"


class NoInit(evproc.Event):
    name = "no init"

    def __init__(self) -> None:  # without super().__init__()
        pass


@dataclasses.dataclass(frozen=True)
class Frozen(evproc.Event):
    name = "frozen"
    number: int


@dataclasses.dataclass
class Thawed(evproc.Event):
    name = "thawed"
    number: int


@dataclasses.dataclass(slots=True)
class Slotted(evproc.Event):
    name = "slotted"
    number: int


class Twin(evproc.Event):
    name = "twin"


# --- Event ---


def test_event_is_abstract_without_a_name() -> None:
    class Nameless(evproc.Event):
        pass

    with pytest.raises(TypeError, match=r"abstract.*name"):
        evproc.Event()  # type: ignore[abstract]  # what is tested
    with pytest.raises(TypeError, match=r"abstract.*name"):
        Nameless()  # type: ignore[abstract]  # likewise


def test_name_may_be_a_class_attribute_or_a_property() -> None:
    assert ByAttribute().name == "by attribute"
    assert ByProperty().name == "by property"


def test_ctxt_is_none_unless_given_and_can_be_set() -> None:
    assert ByAttribute().ctxt is None
    ev = ByAttribute({"user": 1})
    assert ev.ctxt == {"user": 1}
    ev.ctxt = 5
    assert ev.ctxt == 5
    assert ByAttribute(ctxt=7).ctxt == 7


def test_a_subclass_need_not_call_init() -> None:
    ev = NoInit()
    assert ev.ctxt is None
    ev.proc.tests.value = 1
    assert spaces(ev).tests.value == 1
    # and what one event is given is its own
    ev.ctxt = 5
    assert NoInit().ctxt is None
    assert not hasattr(NoInit().proc.tests, "value")


def test_proc_is_made_when_it_is_first_touched_and_stays() -> None:
    ev = ByAttribute()
    assert vars(ev) == {"ctxt": None}
    made = ev.proc
    assert isinstance(made, ProcessorData)
    assert ev.proc is made
    assert set(vars(ev)) == {"ctxt", "_proc"}


def test_proc_cannot_be_replaced() -> None:
    ev = ByAttribute()
    with pytest.raises(AttributeError):
        ev.proc = ProcessorData()  # type: ignore[misc]  # what is tested


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_untouched_event_pickles_to_the_bytes_of_a_plain_object(
    protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ev = Twin()
    ev.ctxt = {"user": 1}
    with_event = pickle.dumps(ev, protocol)
    # an object with the same attributes, of a class with the same name that
    # derives from nothing
    plain_class: Any = type("Twin", (), {"__module__": __name__})
    monkeypatch.setattr(sys.modules[__name__], "Twin", plain_class)
    plain = plain_class()
    plain.ctxt = {"user": 1}
    assert with_event == pickle.dumps(plain, protocol)


def test_namespaces_that_were_touched_are_pickled() -> None:
    ev = Twin()
    before = pickle.dumps(ev)
    ev.proc.tests.value = 1
    assert len(pickle.dumps(ev)) > len(before)


@pytest.mark.parametrize(
    ("ev", "protocol"),
    [
        pytest.param(ev, protocol, id=f"{type(ev).__name__} {protocol}")
        for ev in (ByAttribute([1]), ByProperty(), NoInit(), Frozen(3), Thawed(4), Named("x"))
        for protocol in PROTOCOLS
    ]
    # Python itself pickles no slots before protocol 2
    + [pytest.param(Slotted(5), protocol, id=f"Slotted {protocol}") for protocol in PROTOCOLS[2:]],
)
def test_events_and_their_namespaces_survive_pickle(ev: evproc.Event, protocol: int) -> None:
    ev = copy.deepcopy(ev)  # the parameters are shared by the tests
    untouched = pickle.loads(pickle.dumps(ev, protocol))
    assert type(untouched) is type(ev)
    assert untouched.name == ev.name
    assert vars(untouched) == vars(ev)
    assert "_proc" not in vars(untouched)

    ev.proc.tests.value = [1, {"two": 2}]
    ev.proc.tests.itself = ev.proc.tests
    ev.proc.empty  # noqa: B018 - reading makes it
    loaded = pickle.loads(pickle.dumps(ev, protocol))
    assert loaded.ctxt == ev.ctxt
    assert loaded.proc.tests.value == [1, {"two": 2}]
    assert loaded.proc.tests.itself is loaded.proc.tests
    assert set(vars(loaded.proc)) == {"tests", "empty"}
    # what was loaded keeps the rules
    with pytest.raises(AttributeError):
        loaded.proc.tests = 1
    with pytest.raises(AttributeError):
        loaded.proc.tests._value = 1
    loaded.proc.tests.more = 1
    assert not hasattr(ev.proc.tests, "more")


def test_deepcopy_separates_the_namespaces_and_copy_shares_them() -> None:
    ev = ByAttribute([1])
    ev.proc.tests.value = [1]
    deep, shallow = copy.deepcopy(ev), copy.copy(ev)
    spaces(ev).tests.value.append(2)
    ev.proc.tests.more = 1
    assert deep.ctxt is not ev.ctxt
    assert spaces(deep).tests.value == [1]
    assert not hasattr(deep.proc.tests, "more")
    assert shallow.proc is ev.proc


def test_copies_of_an_untouched_event_get_a_proc_each() -> None:
    ev = ByAttribute()
    first, second = copy.copy(ev), copy.copy(ev)
    first.proc.tests.value = 1
    assert not hasattr(second.proc.tests, "value")
    assert vars(ev) == {"ctxt": None}


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_namespaces_and_processor_data_can_be_copied_by_themselves(copied: Any) -> None:
    ev = ByAttribute()
    ev.proc.tests.value = 1
    assert copied(ev.proc).tests.value == 1
    namespace = copied(ev.proc.tests)
    namespace.value = 2
    assert spaces(ev).tests.value == 1


def test_a_frozen_dataclass_is_an_event_and_equal_by_its_fields() -> None:
    ev, twin = Frozen(1), Frozen(1)
    ev.proc.tests.value = 1
    assert ev == twin
    assert hash(ev) == hash(twin)
    assert ev.ctxt is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        ev.number = 2  # type: ignore[misc]  # what is tested
    assert not hasattr(twin.proc.tests, "value")


def test_threads_that_touch_proc_first_together_get_the_same_namespace() -> None:
    for _ in range(50):
        ev = ByAttribute()
        found = _in_threads(lambda ev=ev: (ev.proc, ev.proc.tests))
        assert len({id(data) for data, _ in found}) == 1
        assert len({id(space) for _, space in found}) == 1


def test_a_proc_that_another_thread_made_meanwhile_is_the_one_that_counts() -> None:
    class Racing(dict[str, Any]):
        """What an instance dictionary looks like to the thread that comes second."""

        def __getitem__(self, key: str) -> Any:
            raise KeyError(key)

    first = ProcessorData()
    racing = Racing(_proc=first)

    class Ev(evproc.Event):
        name = "racing"
        __dict__ = racing  # what the other thread wrote to

    assert Ev().proc is first


def test_a_namespace_that_another_thread_made_meanwhile_is_the_one_that_counts() -> None:
    data = ProcessorData()
    first = data.tests
    # what the thread does that did not find it a moment ago
    assert data.__getattr__("tests") is first


def _in_threads(function: Any, count: int = 4) -> list[Any]:
    found: list[Any] = []
    barrier = threading.Barrier(count)

    def run() -> None:
        barrier.wait()
        found.append(function())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


# --- ProcessorData and Namespace ---


def test_a_namespace_is_made_when_it_is_first_read_and_stays() -> None:
    data = ProcessorData()
    assert vars(data) == {}
    made = data.tests
    assert isinstance(made, Namespace)
    assert data.tests is made
    assert data.others is not made


def test_attributes_of_proc_cannot_be_set_or_deleted() -> None:
    data = ProcessorData()
    data.tests.value = 1
    for name in ("tests", "others", "_private", "__dict__"):
        with pytest.raises(AttributeError, match=f"can't set attribute '{name}'"):
            setattr(data, name, {})
        with pytest.raises(AttributeError, match=f"can't delete attribute '{name}'"):
            delattr(data, name)
    assert vars(data.tests) == {"value": 1}
    assert set(vars(data)) == {"tests"}


def test_the_error_of_setting_a_namespace_says_what_to_write() -> None:
    with pytest.raises(AttributeError, match=r"ev\.proc\.billing\.tests = "):
        ProcessorData().tests = 1


@pytest.mark.parametrize("name", ["_tests", "__tests", "__setstate__", "__deepcopy__", "_"])
def test_proc_has_no_namespace_of_an_internal_name(name: str) -> None:
    data = ProcessorData()
    with pytest.raises(AttributeError, match=f"'ProcessorData' object has no attribute '{name}'"):
        getattr(data, name)
    assert vars(data) == {}


def test_attributes_of_a_namespace_can_be_set_read_and_deleted() -> None:
    namespace: Any = Namespace()
    namespace.value = 1
    assert namespace.value == 1
    namespace.value = 2
    assert namespace.value == 2
    del namespace.value
    assert not hasattr(namespace, "value")


def test_an_attribute_that_is_not_there_is_named_in_the_error() -> None:
    namespace: Any = Namespace()
    with pytest.raises(AttributeError, match="'Namespace' object has no attribute 'value'"):
        namespace.value  # noqa: B018 - what is tested
    with pytest.raises(AttributeError, match="value"):
        del namespace.value


@pytest.mark.parametrize("name", ["_value", "__value", "__class__", "__dict__", "_"])
def test_internal_attributes_of_a_namespace_are_refused(name: str) -> None:
    namespace: Any = Namespace()
    with pytest.raises(AttributeError, match=f"can't set internal attribute '{name}'"):
        setattr(namespace, name, {})
    with pytest.raises(AttributeError, match=f"can't delete internal attribute '{name}'"):
        delattr(namespace, name)
    assert vars(namespace) == {}
    assert type(namespace) is Namespace


def test_an_unknown_internal_attribute_of_a_namespace_cannot_be_read() -> None:
    with pytest.raises(AttributeError, match="_value"):
        getattr(Namespace(), "_value")  # noqa: B009 - a type checker knows that it is not there


def test_what_is_in_the_namespaces_can_be_printed() -> None:
    ev = ByAttribute()
    ev.proc.tests.value = 1
    ev.proc.tests.text = "two"
    ev.proc.empty  # noqa: B018 - reading makes it
    tests = "Namespace(value=1, text='two')"
    assert repr(ev.proc.tests) == tests
    assert repr(ev.proc) == f"ProcessorData(tests={tests}, empty=Namespace())"


# --- names of classes ---


class _NoNames(type):
    def __getattribute__(cls, name: str) -> Any:
        raise LookupError(name)


def test_the_names_of_a_class_come_from_the_class_itself() -> None:
    made: Any = _NoNames("Made", (dict,), {"__module__": "some"})
    assert qualname(made) == "Made"
    assert class_name(made) == "some.Made"
    assert describe_event(made()) == "some.Made"


def test_a_class_without_the_name_of_a_module_has_a_name_all_the_same() -> None:
    space: dict[str, Any] = {}
    exec("Made = type('Made', (), {})", space)
    assert module_of(space["Made"]) == "builtins"
    assert class_name(type("Made", (), {"__module__": 5})) == "<unknown>.Made"


# --- describe_event ---


def test_an_event_is_described_by_its_name_and_class() -> None:
    assert describe_event(ByAttribute()) == f"'by attribute' ({__name__}.ByAttribute)"


def test_a_name_that_raises_leaves_the_class() -> None:
    class Odd(evproc.Event):
        @property
        def name(self) -> str:
            raise RuntimeError("no name today")

    assert describe_event(Odd()).endswith("<locals>.Odd")
    assert describe_event(object()) == "builtins.object"


def test_a_name_whose_repr_raises_leaves_the_class() -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise RuntimeError("no repr today")

    assert describe_event(Named(Unprintable())) == f"{Named.__module__}.Named"


def test_a_long_name_is_cut() -> None:
    whole = describe_event(Named("x" * 78))
    assert whole.startswith("'" + "x" * 78 + "' (")
    cut = describe_event(Named("x" * 79))
    assert cut.startswith("'" + "x" * 76 + "... (")


def test_the_types_of_an_events_attributes_can_be_asked_for() -> None:
    class Typed(evproc.Event):
        name = "typed"
        number: int

    class Stop(evproc.StopProcessing):
        reason: str

    assert typing.get_type_hints(Typed) == {"number": int}
    assert typing.get_type_hints(Stop) == {"reason": str}


# --- names that each event has for itself ---


@dataclasses.dataclass
class NamedByField(evproc.Event):
    name: str
    number: int = 0


@dataclasses.dataclass(frozen=True)
class NamedByDefault(evproc.Event):
    name: str = "default"


@dataclasses.dataclass
class NamedLater(evproc.Event):
    name: str = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.name = "later"


@dataclasses.dataclass
class NamedByFactory(evproc.Event):
    name: str = dataclasses.field(default_factory=lambda: "made")


@dataclasses.dataclass
class NeverNamed(evproc.Event):
    name: str = dataclasses.field(init=False)


class Annotated(evproc.Event):
    name: str

    def __init__(self, name: str) -> None:
        self.name = name


@pytest.mark.parametrize(
    ("ev", "name"),
    [
        (NamedByField("field"), "field"),
        (NamedByField("other"), "other"),
        (NamedByDefault(), "default"),
        (NamedByDefault("given"), "given"),
        (NamedLater(), "later"),
        (NamedByFactory(), "made"),
        (Annotated("own"), "own"),
    ],
    ids=repr,
)
def test_a_name_may_be_a_field_or_an_attribute_of_the_event(ev: evproc.Event, name: str) -> None:
    def handler(proc: Any, ev: Any) -> None:
        raise evproc.StopProcessing(ev.name)

    proc = evproc.Processor()
    proc.register(evproc.want(name)(handler))
    assert ev.name == name
    assert proc.process(ev) == name
    assert pickle.loads(pickle.dumps(ev)).name == name


def test_a_name_in_the_instance_dictionary_is_the_name() -> None:
    """As Pydantic leaves it, which removes what the class says."""

    class Model(evproc.Event):
        name = "of the class"

    del Model.name
    ev = Model.__new__(Model)
    ev.__dict__["name"] = "of the event"
    assert ev.name == "of the event"


def test_an_event_that_has_got_no_name_says_so() -> None:
    with pytest.raises(AttributeError, match=r"an event of class .*\.NeverNamed has no name"):
        evproc.Processor().process(NeverNamed())


def test_the_error_of_a_class_without_a_name_says_what_to_write() -> None:
    class Base(evproc.Event):
        pass

    class Derived(Base):
        pass

    for kind in (evproc.Event, Base, Derived):
        with pytest.raises(TypeError, match=r'name \(write name = "\.\.\." in the class\)'):
            kind()  # type: ignore[abstract]  # what is tested

    class Fine(Derived):
        name = "fine"

    assert Fine().name == "fine"


# --- how an event is named in an error ---


class Shown(evproc.Event):
    name = "shown"

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class Unshowable(evproc.Event):
    name = "unshowable"

    def __repr__(self) -> str:
        raise RuntimeError("no repr today")


def test_an_event_is_named_by_its_name_its_class_and_its_own_repr() -> None:
    here = __name__
    assert describe_event(NoInit()) == f"'no init' ({here}.NoInit)"
    assert describe_event(Shown("Shown(n=777)")) == f"'shown' ({here}.Shown: Shown(n=777))"
    assert describe_event(NamedByField("f", 7)) == (
        f"'f' ({here}.NamedByField: NamedByField(name='f', number=7))"
    )
    assert describe_event(Unshowable()) == f"'unshowable' ({here}.Unshowable)"
    assert describe_event(5) == "builtins.int: 5"


def test_the_name_of_an_event_in_an_error_is_one_short_line() -> None:
    for text in ("x" * 1000, "line\n" * 1000):
        said = describe_event(Shown(text))
        assert len(said) == 120
        assert len(said.splitlines()) == 1
        assert said.endswith("...)")
    # something of it is seen, however long the rest is
    said = describe_event(NamedByField("n" * 1000))
    assert ".NamedByField: NamedByField(name...)" in said
    assert len(said) < 200
