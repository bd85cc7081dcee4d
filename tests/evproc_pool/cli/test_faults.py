"""Every command on a group with each kind of fault; `handlers` has tests of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.evproc_pool.cli.conftest import GROUP, Done
from tests.evproc_pool.cli.test_handlers import FAULTS, words

Run = Callable[..., Done]

#: What each fault is called in a sentence.
SAID = {
    "cycle": "requirement cycle: a -> b -> a",
    "missing": "handler 'a' requires 'nothing', which is not registered",
    "incompatible": "handler 'a' requires 'b' (@requires), which",
    "import": "cannot be imported: ModuleNotFoundError",
    "no handler": "cannot be a handler: a handler is a callable (proc, ev), not 5",
}

COMMANDS: dict[str, list[str]] = {
    "explain": ["in.json"],
    "graph": [],
    "run": ["in.json", "--workers", "1"],
    "bench": ["in.json", "--workers", "1"],
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_is_wrong_with_a_group(
    name: str, fault: str, make_group: Any, evproc: Run
) -> None:
    code, handlers, others, _ = FAULTS[fault]
    folder = make_group(code, *handlers, also=others)
    (folder / "in.json").write_text('{"name": "x"}\n')
    done = evproc(folder, name, GROUP, *COMMANDS[name])
    text = words(done.out + done.err)
    assert "Traceback" not in text
    if (name, fault) == ("bench", "incompatible"):
        # only events of one name fail
        assert (done.code, "1 of them failed" in text) == (0, True)
    else:
        assert done.code == 1
        assert SAID[fault] in text
