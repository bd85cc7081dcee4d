"""Versions that a node must have."""

from __future__ import annotations

from typing import Any

import pytest

import evproc_pool
from evproc import Event, Processor
from evproc_pool.backends.agents import versions
from evproc_pool.backends.agents.versions import Version, differences, expected_versions


def _handler(proc: Any, ev: Event) -> None: ...


def test_this_process_has_what_it_expects() -> None:
    processor = Processor()
    processor.load_from("evproc_pool.demo.handlers")
    processor.register(_handler)  # of no distribution
    expected = expected_versions(processor.registry)
    assert differences(expected) == []
    names = {each.distribution for each in expected}
    assert names == {"Python", "evproc-pool"}
    assert any("'read'" in each.handlers for each in expected)


def test_a_function_is_known_by_its_top_level_module() -> None:
    processor = Processor()
    processor.register(pytest.importorskip, name="foreign")
    (found,) = [each for each in expected_versions(processor.registry) if each.handlers]
    assert (found.distribution, found.handlers) == ("pytest", "handler 'foreign'")


def test_a_difference_names_handler_and_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [Version("plugin", "1.4", "handler 'scan'"), Version("Python", "cpython 2.7")]
    monkeypatch.setattr(versions, "_python", lambda: "cpython 3.12")
    found = differences(expected)
    assert found == [
        "handler 'scan': plugin 1.4 in the pool's process, nothing on the node",
        "Python cpython 2.7 in the pool's process, cpython 3.12 on the node",
    ]
    assert evproc_pool.__version__ == versions.installed("evproc-pool")
