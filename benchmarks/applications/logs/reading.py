"""What is done with a line, as plain functions: decode, enrich, classify.

They are the same for every side. `read` is the one that the peers map over the lines; the
plug-ins of `plugins` call its parts.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus

#: What comes out: user or client, when, category, route, status, bytes, zone, browser, findings.
Summary = tuple[str, float, str, str, int, int, str, str, tuple[str, ...]]

_REQUEST: Final = re.compile(r"(GET|HEAD|POST|PUT|PATCH|DELETE) ([^ ?]+)(?:\?(\S*))? HTTP/\d\.\d")
_USER: Final = re.compile(r'"client": "([^"]*)", "user": (?:null|"([^"]*)")')
_ROUTES: Final = tuple(
    (re.compile(pattern), route)
    for pattern, route in (
        (r"/static/.*", "/static/*"),
        (r"/products/\d+", "/products/{id}"),
        (r"/products/\d+/reviews", "/products/{id}/reviews"),
        (r"/search", "/search"),
        (r"/cart/\d+", "/cart/{id}"),
        (r"/cart/\d+/items", "/cart/{id}/items"),
        (r"/users/\d+", "/users/{id}"),
        (r"/users/\d+/orders", "/users/{id}/orders"),
        (r"/orders/\d+", "/orders/{id}"),
        (r"/orders/\d+/payment", "/orders/{id}/payment"),
        (r"/login", "/login"),
        (r"/logout", "/logout"),
        (r"/healthz", "/healthz"),
    )
)
_SYSTEMS: Final = tuple(
    (re.compile(pattern), system)
    for pattern, system in (
        (r"\biPhone|\biPad", "iOS"),
        (r"\bAndroid\b", "Android"),
        (r"\bWindows NT\b", "Windows"),
        (r"\bMac OS X\b", "macOS"),
        (r"\bLinux\b", "Linux"),
    )
)
# in this order, since most of them also call themselves what others are called
_BROWSERS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"(Edg|OPR|Firefox|Chrome)/(\d+)",
        r"Version/(\d+)\S* (?:Mobile/\S+ )?(Safari)",
        r"([A-Za-z][A-Za-z-]*bot|python-requests|curl)/(\d+)",
    )
)
_ZONES: Final = tuple(
    (ip_network(network), zone)
    for network, zone in (
        ("10.0.0.0/8", "office"),
        ("172.16.0.0/12", "cluster"),
        ("81.0.0.0/8", "europe"),
        ("93.0.0.0/8", "europe"),
    )
)

#: What is looked for, in the order of its weight: category, where, and what.
_CATEGORIES: Final = tuple(
    (category, member, re.compile(pattern, re.IGNORECASE))
    for category, member, pattern in (
        ("crawler", "agent", r"bot\b|crawl|spider|slurp"),
        ("script", "agent", r"^(?:python-requests|curl|wget|go-http-client|java)/"),
        ("health", "request", r"^GET /(?:healthz|livez|readyz)\b"),
        ("static", "request", r"\.(?:js|css|png|jpe?g|svg|woff2?|ico)(?:\?|\s)"),
        ("login", "request", r"^POST /(?:login|sessions?)\b"),
        ("payment", "request", r"^POST /orders/\d+/payment\b"),
        ("cart", "request", r"^(?:POST|PUT|DELETE) /cart/"),
        ("search", "request", r"^GET /search\b"),
        ("product", "request", r"^GET /products/\d+\b"),
        ("account", "request", r"^GET /users/\d+/"),
    )
)
_FINDINGS: Final = tuple(
    (finding, re.compile(pattern, re.IGNORECASE))
    for finding, pattern in (
        ("sql injection", r"'\s*(?:or|and)\s*'|union\s+select|;\s*drop\s+table"),
        ("path traversal", r"\.\./|%2e%2e|/etc/(?:passwd|shadow)"),
        ("script injection", r"<script|javascript:|onerror\s*="),
        ("secret files", r"/\.(?:env|git|aws|ssh)\b"),
        ("other people's software", r"/(?:wp-login|wp-admin|phpmyadmin|xmlrpc)\b"),
        ("command injection", r"[;|`]\s*(?:cat|ls|id|wget|curl)\b"),
    )
)
_FAULTS: Final = tuple(
    (finding, re.compile(pattern))
    for finding, pattern in (
        ("timeout", r"timed? ?out"),
        ("database", r"psycopg2|deadlock detected|could not connect"),
        ("bug", r"Traceback|Error: "),
    )
)


def user_of(text: str) -> str:
    """Find the user or client of a line without decoding it; "" if it has none."""
    found = _USER.search(text)
    return "" if found is None else found[2] or found[1]


def decode(text: str) -> dict[str, Any]:
    """Read the line, and the parts of the request.

    Raises:
        ValueError: It is no line of this log.
    """
    line: dict[str, Any] = json.loads(text)
    request = _REQUEST.match(line["request"])
    if request is None:
        raise ValueError(f"no request in {line['request']!r}")
    line["method"], line["path"], query = request.groups()
    line["query"] = dict(parse_qsl(query)) if query else {}
    line["time"] = datetime.fromisoformat(line["ts"]).timestamp()
    return line


def enrich(line: dict[str, Any]) -> None:
    """Add where it comes from, with what, and the route of the path."""
    line["zone"] = zone_of(line["client"])
    line["browser"] = browser_of(line["agent"])
    line["route"] = route_of(line["path"])


@lru_cache(maxsize=4096)
def zone_of(client: str) -> str:
    """Find the network that an address is in; most come again soon."""
    address = ip_address(client)
    return next((zone for network, zone in _ZONES if address in network), "elsewhere")


@lru_cache(maxsize=4096)
def browser_of(agent: str) -> str:
    """Say which browser it is, on which system; likewise."""
    matches = (pattern.search(agent) for pattern in _BROWSERS)
    browser = next((" ".join(match.groups()) for match in matches if match), "-")
    system = next((system for pattern, system in _SYSTEMS if pattern.search(agent)), "-")
    return f"{browser} on {system}"


def route_of(path: str) -> str:
    """Find the route, which is the path without what varies."""
    return next((route for pattern, route in _ROUTES if pattern.fullmatch(path)), "other")


def classify(line: dict[str, Any]) -> Summary:
    """Say what kind of a request it is, and what is remarkable about it."""
    target = unquote_plus(line["request"])
    findings = [finding for finding, pattern in _FINDINGS if pattern.search(target)]
    message = line.get("message")
    if message:
        findings += [finding for finding, pattern in _FAULTS if pattern.search(message)]
    category = next(
        (name for name, member, pattern in _CATEGORIES if pattern.search(line[member])), "other"
    )
    return (
        line["user"] or line["client"],
        line["time"],
        category,
        f"{line['method']} {line['route']}",
        line["status"],
        line["bytes"],
        line["zone"],
        line["browser"],
        tuple(findings),
    )


def read(text: str) -> Summary:
    """Do all three: the function for a pool that maps one over the lines.

    Raises:
        ValueError: See `decode`.
    """
    line = decode(text)
    enrich(line)
    return classify(line)
