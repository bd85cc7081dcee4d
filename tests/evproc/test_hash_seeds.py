"""The order of handlers is the same in every process, whatever strings hash to there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.sizes import BARS

ROOT = Path(__file__).parents[2]
SEEDS = range(20 if BARS else 5)

# Many handlers: some in a partial order that leaves much open, some behind
# filters, some in cycles of which one has to be chosen to be printed.
_CODE = """
import json, random, sys
import evproc

class Ev(evproc.Event):
    def __init__(self, name, number):
        super().__init__(number)
        self._name = name
    name = property(lambda self: self._name)

called = []

def make(name):
    def handler(proc, ev):
        called.append(name)
        if ev.name == "root":
            return [Ev(each, ev.ctxt) for each in ("alpha", "beta", "gamma")]
    handler.__name__ = name
    return handler

rng = random.Random(7)
proc = evproc.Processor()
names = ["".join(rng.choices("abcdefghijklmnop", k=6)) for _ in range(120)]
for place, name in enumerate(names):
    handler = make(name)
    if place % 3 == 0 and place < 99:
        handler = evproc.requires(rng.choice(names[place + 1 : 100]))(handler)
    if place % 4 == 1 and place < 100:
        handler = evproc.required_by(rng.choice(names[:place]), "absent", "missing")(handler)
    if place >= 100:
        handler = evproc.want("alpha", "beta", "gamma", lambda ev, place=place: place % ev.ctxt)(
            evproc.want("root", "delta")(handler)
        )
    proc.register(handler)
for number in (1, 2, 3):
    proc.process(Ev("root", number))
# two handlers that fail for each name of a set
proc.register(evproc.want("delta", "epsilon", "zeta")(evproc.requires("declines")(make("needs"))))
proc.register(evproc.want("eta")(make("declines")))
report = proc.check()

cyclic = evproc.Processor()
for name, required in {"one": "two", "two": "three", "three": "one", "four": "five"}.items():
    cyclic.register(evproc.requires(required, "two", "four")(make(name)))
cyclic.register(evproc.required_by("four", "one")(evproc.requires("four")(make("five"))))
errors = []
for ask in (cyclic.check, lambda: cyclic.process(Ev("root", 1))):
    try:
        ask()
    except evproc.IncompatibleRequirementsException as error:
        errors.append(str(error))

print(json.dumps({"hash": hash("a"), "result": [called, str(report), errors]}))
"""


def _run(seed: int) -> tuple[int, list[object]]:
    done = subprocess.run(
        [sys.executable, "-S", "-c", _CODE],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        stdout=subprocess.PIPE,
        check=True,
    )
    said = json.loads(done.stdout)
    return said["hash"], said["result"]


def test_the_order_is_the_same_under_every_hash_seed() -> None:
    hashes, results = zip(*map(_run, SEEDS), strict=True)
    assert len(set(hashes)) == len(SEEDS)  # strings did hash differently
    first = results[0]
    called, report, errors = first
    assert isinstance(called, list)
    assert len(called) > 3 * 4 * 100  # the follow-ups are handled as well
    assert isinstance(report, str)
    assert "absent" in report
    assert report.count("conflict: event") == 3
    assert isinstance(errors, list)
    assert all("cycle" in error for error in errors)
    for seed, result in zip(SEEDS, results, strict=True):
        assert result == first, f"under hash seed {seed}"
