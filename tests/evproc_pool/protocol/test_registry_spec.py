"""Fingerprints distinguish registries, and a spec makes the same registry again."""

from __future__ import annotations

import functools
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest

from evproc import Processor, StopProcessing
from evproc_pool.protocol.registry_spec import (
    Fingerprint,
    HandlerPrint,
    LoadFrom,
    Register,
    RegistrySpec,
    describe_difference,
    fingerprint,
)
from tests.support.helpers import installed


def first(proc: object, ev: object) -> None: ...


def second(proc: object, ev: object) -> None: ...


class CallsNothing:
    """A handler that has no qualified name of its own."""

    def __call__(self, proc: object, ev: object) -> None: ...

    def method(self, proc: object, ev: object) -> None: ...


def _print(*handlers: tuple[Any, str | None]) -> Fingerprint:
    processor = Processor()
    for func, name in handlers:
        processor.register(func, name)
    return fingerprint(processor.registry)


def test_equal_registries_have_equal_fingerprints() -> None:
    handlers = [(first, None), (second, "other")]
    assert _print(*handlers) == _print(*handlers)
    assert describe_difference(_print(*handlers), _print(*handlers)) == ""


@pytest.mark.parametrize(
    "other",
    [
        [],
        [(first, None)],
        [(second, "second"), (first, "first")],
        [(first, "first"), (second, "zweiter")],
        [(first, "first"), (first, "second")],
        [(first, None), (second, None), (first, "third")],
    ],
    ids=["none", "one less", "order", "name", "function", "one more"],
)
def test_a_difference_is_detected_and_named(other: list[tuple[Any, str | None]]) -> None:
    mine, theirs = _print((first, None), (second, None)), _print(*other)
    assert mine != theirs
    difference = describe_difference(mine, theirs)
    assert "here" in difference
    assert "in the worker" in difference
    for place, each in enumerate(mine):
        if place >= len(theirs) or each != theirs[place]:
            assert str(each) in difference


def test_the_description_of_many_differences_is_short() -> None:
    many = _print(*((first, f"handler {number}") for number in range(100)))
    text = describe_difference(many, ())
    assert "and 95 more" in text
    assert text.count("in the worker") == 5


@pytest.mark.parametrize("field", HandlerPrint._fields)
def test_each_part_of_a_handlers_print_counts(field: str) -> None:
    mine = HandlerPrint("name", "module.function", "distribution", "1.0")
    theirs = mine._replace(**{field: "2.0"})
    difference = describe_difference((mine,), (theirs,))
    assert str(mine) in difference
    assert str(theirs) in difference


def test_a_print_holds_distribution_and_version(tmp_path: Path) -> None:
    code = "def handle(proc, ev): ..."
    with installed(
        tmp_path,
        "recipe_dist",
        "3.2",
        {"recipe_mod": code},
        {"recipes": {"h": "recipe_mod:handle"}},
    ):
        processor = Processor()
        processor.load_from("recipes")
        assert fingerprint(processor.registry) == (
            HandlerPrint("h", "recipe_mod.handle", "recipe_dist", "3.2"),
        )


class _CallsAnObject:
    """A handler whose `__call__` is an object, and has no name."""

    __call__ = CallsNothing()


class _HasAName:
    """A handler that is an object with a name, so that it can be registered without one."""

    __name__ = "has_a_name"

    def __call__(self, proc: object, ev: object) -> None: ...


@pytest.mark.parametrize(
    "make",
    [
        lambda: functools.partial(first),
        CallsNothing,
        lambda: CallsNothing().method,
        lambda: lambda proc, ev: None,
        lambda: functools.partial(CallsNothing()),
        _CallsAnObject,
        _HasAName,
        lambda: functools.partial(_HasAName()),
    ],
    ids=[
        "partial",
        "object",
        "bound method",
        "lambda",
        "partial of object",
        "object in object",
        "object with a name",
        "partial of object with a name",
    ],
)
def test_a_fingerprint_is_the_same_in_every_process(make: Any) -> None:
    # no address in it: what is equal but another object has the same print
    assert _print((make(), "name")) == _print((make(), "name"))


def test_a_fingerprint_can_be_pickled() -> None:
    prints = _print((first, None), (lambda proc, ev: None, "lambda"))
    assert pickle.loads(pickle.dumps(prints)) == prints


def test_a_spec_makes_the_registry_again(tmp_path: Path) -> None:
    code = "def a(proc, ev): ...\ndef b(proc, ev): ..."
    entries = {"recipes": {"z": "recipe_mod:a", "y": "recipe_mod:b", "bad": "no_such_module:c"}}
    with installed(tmp_path, "recipe_dist", "1", {"recipe_mod": code}, entries):
        calls: list[Any] = []
        steps = (Register(first, None), LoadFrom("recipes", skip=True), Register(second, "last"))
        processor = RegistrySpec(calls.append, (7,), steps).make_processor()
        assert calls == [7]
        assert list(processor.nodes) == ["first", "y", "z", "last"]
        with pytest.raises(Exception, match="no_such_module"):
            RegistrySpec(None, (), (LoadFrom("recipes", skip=False),)).make_processor()


def test_a_worker_does_not_log_what_the_coordinator_has_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        RegistrySpec(None, (), (LoadFrom("no.such.group", skip=True),)).make_processor()
        assert not caplog.records
        # and afterwards the logger is as it was
        Processor().load_from("no.such.group", on_error="skip")
        assert len(caplog.records) == 1


def test_the_initializer_comes_before_the_handlers() -> None:
    with pytest.raises(StopProcessing):
        RegistrySpec(_raises, (), (LoadFrom("no.such.group", skip=False),)).make_processor()


def _raises() -> None:
    raise StopProcessing
