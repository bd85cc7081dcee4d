"""The application in the pictures: handlers of a shop, in a module `app`."""

from __future__ import annotations

import hashlib
from typing import Any

import evproc


class Mail(evproc.Event):
    """A follow-up: the customer gets a mail."""

    name = "mail"

    def __init__(self, total: int) -> None:
        super().__init__()
        self.total = total


def compute(rounds: int) -> None:
    """Stand for work: some 40 ms for 100,000 rounds."""
    digest = b""
    for _ in range(rounds):
        digest = hashlib.sha256(digest).digest()


def is_large(ev: Any) -> bool:
    return bool(sum(ev.prices) > 900)


@evproc.want("order")
def check(proc: Any, ev: Any) -> None:
    if min(ev.prices) < 0:
        raise ValueError(f"a price of {min(ev.prices)}")


@evproc.want("order")
@evproc.requires("check")
def price(proc: Any, ev: Any) -> None:
    compute(200 * len(ev.prices))
    ev.proc.price.total = sum(ev.prices)


@evproc.want("order", is_large)
@evproc.requires("price")
def assess(proc: Any, ev: Any) -> None:
    compute(20_000)
    ev.emit("assessed")


@evproc.want("order")
@evproc.requires("price")
def bill(proc: Any, ev: Any) -> list[Mail]:
    ev.emit("billed")
    return [Mail(ev.proc.price.total)]


@evproc.want("mail")
def send(proc: Any, ev: Mail) -> None:
    compute(100)
    raise evproc.StopProcessing(ev.total)
