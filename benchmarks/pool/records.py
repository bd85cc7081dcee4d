"""A dataclass, as applications have them for values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Record:
    """What is known about an order."""

    number: int
    name: str
    price: float
    is_paid: bool
