r"""Log lines: mixed loads as applications have them, with a value for each line.

A line is a JSON object of about 200 bytes. `read_line` parses it, finds what its message
is about by regular expressions, and gives a tuple: some 10 us. `judge_line` asks 120 rules
besides, as a scanner of logs does: some 100 us. The lines of a count are always the
same. They are made from some hundred patterns: to choose every word of 500,000 lines
anew takes longer than to read them.
"""

from __future__ import annotations

import json
import random
import re
from functools import lru_cache
from typing import Any, Final

from evproc import Event

# Any will do; the same one each time makes the same lines for every side.
_SEED: Final = 17

_PATTERNS: Final = 500

# A prime, so that a pattern has another time each time it comes.
_MILLISECONDS: Final = 997

_LEVELS: Final = ("DEBUG", "INFO", "INFO", "INFO", "WARNING", "ERROR")
_SERVICES: Final = ("checkout", "search", "login", "images", "billing")
_METHODS: Final = ("GET", "GET", "GET", "POST", "PUT", "DELETE")
_PATHS: Final = ("/orders", "/orders/{id}/lines", "/users/{id}", "/static/app.js", "/search")
_CODES: Final = (200, 200, 200, 201, 304, 400, 404, 500, 503)

_REQUEST: Final = re.compile(r"([A-Z]+) (/[^ ?]*)(?:\?(\S*))? -> (\d{3}) in ([\d.]+) ms")
_ADDRESS: Final = re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b")
_NUMBER: Final = re.compile(r"(?<=/)\d+(?=/|$)")
_PARAMETER: Final = re.compile(r"([a-z_]+)=([^&]*)")
_USER: Final = re.compile(r"user=(\w+)@([\w.]+)")
_VARIABLE: Final = re.compile(r"\bu\d+@|\b\d[\d.]*")

# What a scanner looks for: a service, a method, a class of status, and how long it took.
_RULES: Final = tuple(
    (
        f"{service} {method} {status}xx {took}",
        re.compile(
            rf'"service": "{service}".*"msg": ".*\b{method} \S+ -> {status}\d\d in {digits}\.',
            re.IGNORECASE,
        ),
    )
    for service in _SERVICES
    for method in ("GET", "POST", "PUT", "DELETE")
    for status in "345"
    for took, digits in (("slow", r"\d\d"), ("very slow", r"\d{3,}"))
)

#: When, how grave, who, what was asked for, how it ended, how long it took, for whom, with
#: how many parameters, and the message without what varies.
Read = tuple[str, str, str, str, int, float, "str | None", int, str]


@lru_cache(maxsize=1)
def _patterns() -> list[str]:
    """Lines with a place for their number in two places."""
    chosen = random.Random(_SEED)
    return [_pattern(chosen) for _ in range(_PATTERNS)]


def _pattern(chosen: random.Random) -> str:
    path = chosen.choice(_PATHS).replace("{id}", "%(number)d")
    query = f"?page={chosen.randrange(90)}&sort=asc" if chosen.random() < 0.5 else ""
    address = ".".join(str(chosen.randrange(1, 255)) for _ in range(4))
    user = f" user=u{chosen.randrange(10**4)}@example.org" if chosen.random() < 0.7 else ""
    took = f"{chosen.expovariate(0.05):.2f}"
    message = (
        f"{address} {chosen.choice(_METHODS)} {path}{query} -> {chosen.choice(_CODES)}"
        f" in {took} ms{user}"
    )
    line = {
        "ts": f"2024-05-{chosen.randrange(1, 31):02}T{chosen.randrange(24):02}:07:11.%(milli)03dZ",
        "level": chosen.choice(_LEVELS),
        "service": chosen.choice(_SERVICES),
        "pid": chosen.randrange(100, 32_000),
        "tags": [chosen.choice(_SERVICES), f"zone-{chosen.randrange(3)}"],
        "msg": message,
    }
    return json.dumps(line)


def make_lines(count: int) -> list[str]:
    """Make so many lines."""
    patterns = _patterns()
    return [
        patterns[number % _PATTERNS] % {"number": number, "milli": number % _MILLISECONDS}
        for number in range(count)
    ]


def read_line(text: str) -> Read:
    """Read a line: the plain function that users of a pool map over their lines.

    Raises:
        ValueError: It is none.
    """
    line: dict[str, Any] = json.loads(text)
    message: str = line["msg"]
    request = _REQUEST.search(message)
    if request is None:
        raise ValueError(f"no request in {message!r}")
    method, path, query, code, took = request.groups()
    route = _NUMBER.sub("{id}", path)
    parameters = dict(_PARAMETER.findall(query)) if query else {}
    user = _USER.search(message)
    address = _ADDRESS.search(message)
    return (
        line["ts"],
        line["level"],
        f"{line['service']}/{'/'.join(line['tags'])}",
        f"{method} {route}",
        int(code),
        float(took),
        None if user is None else f"{user[1]} at {address[0] if address else '-'}",
        len(parameters),
        _VARIABLE.sub("#", message),
    )


def judge_line(text: str) -> tuple[Read, str]:
    """Read a line, and say which rules it meets; likewise."""
    return read_line(text), ", ".join(name for name, rule in _RULES if rule.search(text))


class LogLine(Event):
    """A line of a log, for a handler to read.

    It stands here and not beside the handlers: scripts whose start is measured import these.
    """

    name = "log line"

    def __init__(self, text: str) -> None:
        self.text = text

    def read(self) -> Read:
        """Read it; see `read_line`."""
        return read_line(self.text)


class JudgedLine(LogLine):
    """A line for a handler to judge."""

    name = "judged line"

    def judge(self) -> tuple[Read, str]:
        """Judge it; see `judge_line`."""
        return judge_line(self.text)
