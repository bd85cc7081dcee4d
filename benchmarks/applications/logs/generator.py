"""Log lines of a web shop, made from a seed: the same for the same number.

A line is a JSON object of some 300 bytes, as an access log in JSON has them: time, host, client,
user, request, status, size, seconds, referrer and user agent. Users come back in sessions and walk
through the shop, so what follows what says something; a part of the lines are crawlers, probes for
weak spots, health checks and errors of the application with a message.

::

    visitors at a time ──> each makes its next request ──> lines in the order of time
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

# Any will do; the same one each time makes the same lines.
_SEED: Final = 22

_BEGIN: Final = datetime(2024, 5, 13, tzinfo=UTC).timestamp()

# So many people and programs are at it at the same time.
_VISITORS: Final = 400

_USERS: Final = 20_000

_WEBKIT: Final = "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4"
_BLINK: Final = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0"
_BROWSERS: Final = (
    f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_BLINK} Safari/537.36",
    f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_WEBKIT} Safari/605.1.15",
    f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) {_WEBKIT} Mobile/15E148 Safari/604.1",
    f"Mozilla/5.0 (Linux; Android 14; Pixel 8) {_BLINK} Mobile Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0",
)
_CRAWLERS: Final = (
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "python-requests/2.31.0",
)
_PROBES: Final = (
    "/wp-login.php",
    "/.env",
    "/products/7?id=1%27%20OR%20%271%27=%271",
    "/static/../../etc/passwd",
    "/search?q=%3Cscript%3Ealert(1)%3C/script%3E",
    "/phpmyadmin/index.php",
)
_WORDS: Final = ("lamp", "red chair", "oak table", "sofa", "desk", "shelf", "rug", "mirror")
_ERRORS: Final = (
    "upstream timed out after 30000 ms while reading from payments:8443",
    "psycopg2.OperationalError: could not connect to server: Connection refused",
    "Traceback (most recent call last): KeyError: 'price'",
    "deadlock detected: process 4711 waits for ShareLock on transaction 99120",
)


class _Visitor:
    """Somebody who makes one request after the other, until it is somebody else's turn."""

    def __init__(self, chosen: random.Random) -> None:
        self._chosen = chosen
        kind = chosen.random()
        self.kind = "crawler" if kind < 0.12 else "probe" if kind < 0.15 else "user"
        number = chosen.randrange(_USERS)
        self.user = f"u{number:05}" if self.kind == "user" else None
        self.client = f"{chosen.choice((10, 81, 93, 172))}.{number % 251}.{number // 251}.7"
        self.agent = chosen.choice(_BROWSERS if self.kind == "user" else _CRAWLERS)
        self.steps = chosen.randrange(2, 40)
        self.last = "-"

    def request(self) -> tuple[str, str, int]:
        """Choose method, target and status of the next one."""
        chosen = self._chosen
        self.steps -= 1
        if self.kind == "probe":
            return "GET", chosen.choice(_PROBES), 404
        pick = chosen.random()
        if pick < 0.30 or self.kind == "crawler":
            return "GET", f"/products/{chosen.randrange(5000)}", 200 if pick > 0.01 else 404
        if pick < 0.45:
            word = chosen.choice(_WORDS).replace(" ", "+")
            return "GET", f"/search?q={word}&page={chosen.randrange(1, 5)}", 200
        if pick < 0.65:
            return "GET", f"/static/js/app.{chosen.randrange(9)}.js", 304
        if pick < 0.75:
            return "POST", f"/cart/{chosen.randrange(900)}/items", 201
        if pick < 0.82:
            return "POST", "/login", 302 if pick > 0.76 else 401
        if pick < 0.90:
            return "GET", f"/users/{chosen.randrange(_USERS)}/orders", 200
        if pick < 0.97:
            return "POST", f"/orders/{chosen.randrange(10**6)}/payment", 200 if pick > 0.91 else 502
        return "GET", "/healthz", 200


def make_lines(count: int) -> Iterator[str]:
    """Make so many lines, each with its line break."""
    chosen = random.Random(_SEED)
    visitors = [_Visitor(chosen) for _ in range(_VISITORS)]
    now = _BEGIN
    for _ in range(count):
        now += chosen.expovariate(8.0)
        place = chosen.randrange(_VISITORS)
        visitor = visitors[place]
        method, target, status = visitor.request()
        line = {
            "ts": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
            "host": f"web-{place % 6}",
            "client": visitor.client,
            "user": visitor.user,
            "request": f"{method} {target} HTTP/1.1",
            "status": status,
            "bytes": int(chosen.expovariate(1 / 8000)),
            "took": round(chosen.expovariate(20), 4),
            "referrer": visitor.last,
            "agent": visitor.agent,
        }
        if status >= 500:
            line["message"] = chosen.choice(_ERRORS)
        visitor.last = f"https://shop.example.org{target}"
        if not visitor.steps:
            visitors[place] = _Visitor(chosen)
        yield json.dumps(line) + "\n"


def write_lines(file: Path, count: int) -> None:
    """Write so many lines into a file."""
    with file.open("w", encoding="utf-8") as stream:
        stream.writelines(make_lines(count))
