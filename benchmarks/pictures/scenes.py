"""What the pictures show, and the folder in which it runs."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]


class Scene(NamedTuple):
    """A picture.

    Attributes:
        title: What it shows, in a few words.
        commands: The commands that a user types.
        columns: The width of the terminal.
        most_lines: Where the picture ends.
        until: See `terminal.show`.
        file: The picture that the commands draw themselves, in place of the terminal.
        is_steady: Whether every run prints the same.
    """

    title: str
    commands: tuple[str, ...]
    columns: int = 100
    most_lines: int | None = None
    until: str = ""
    file: str = ""
    is_steady: bool = False


SCENES: Final[Mapping[str, Scene]] = {
    "handlers": Scene(
        "A table of the handlers of a group",
        ("evproc handlers app.handlers",),
        columns=80,
        is_steady=True,
    ),
    "explain": Scene(
        "The handlers that an event runs, and those that it does not run",
        ("cat order.json", "evproc explain app.handlers order.json"),
        is_steady=True,
    ),
    "graph": Scene(
        "The order of the handlers as a tree",
        ("evproc graph app.handlers",),
        columns=48,
        is_steady=True,
    ),
    "graph-file": Scene(
        "The order of the handlers as a drawing",
        ("evproc graph app.handlers -o handlers.svg",),
        file="handlers.svg",
    ),
    "run": Scene(
        "Orders as JSON lines, what comes of them, and the statistics of a run",
        (
            "head -n 2 orders.jsonl",
            "head -n 2 orders.jsonl | evproc run app.handlers",
            "evproc run app.handlers orders.jsonl -o done.jsonl --stats",
        ),
        most_lines=28,
    ),
    "bench": Scene(
        "The times of handlers and pools, and a verdict",
        ("evproc bench app.handlers orders.jsonl",),
    ),
    "progress": Scene(
        "A bar with roots, events, failures, rate and times, while orders run",
        ("evproc run app.handlers orders.jsonl -o done.jsonl",),
        until=r"\([4-7]\d %\)",
    ),
    "statistics": Scene("The statistics of a pool", ("python divisors.py",), most_lines=16),
    "logs": Scene("What handlers log in workers", ("python orders.py",), columns=80),
}

#: Programs of scenes: the block of README.md that has this text.
PROGRAMS: Final = {"divisors.py": "print(pool.statistics())", "orders.py": "checked order"}

_METADATA: Final = "Metadata-Version: 2.1\nName: shop\nVersion: 1.4\n"
_HANDLERS: Final = ("check", "price", "assess", "bill", "send")


def furnish(folder: Path) -> None:
    """Put into a working folder what the commands need."""
    shutil.copy(Path(__file__).with_name("shop.py"), folder / "app.py")
    dist_info = folder / "shop-1.4.dist-info"
    dist_info.mkdir()
    (dist_info / "METADATA").write_text(_METADATA, "utf-8")
    entries = [f"{name} = app:{name}\n" for name in _HANDLERS]
    (dist_info / "entry_points.txt").write_text("[app.handlers]\n" + "".join(entries), "utf-8")
    rng = random.Random(1)
    orders = [
        {"name": "order", "prices": rng.sample(range(5, 500), rng.randint(1, 4))}
        for _ in range(500)
    ]
    orders[0]["prices"] = [45]  # fits into a line, however it is shown
    orders[12]["prices"] = [-5]  # fails
    (folder / "orders.jsonl").write_text(
        "".join(f"{json.dumps(each)}\n" for each in orders), "utf-8"
    )
    (folder / "order.json").write_text(f"{json.dumps(orders[0])}\n", "utf-8")
    for name, text in PROGRAMS.items():
        (folder / name).write_text(readme_block(text), "utf-8")


def readme_block(text: str) -> str:
    """Return the block of Python in README.md that has a text."""
    readme = (ROOT / "README.md").read_text("utf-8")
    blocks: list[str] = re.findall(r"^```python\n([\s\S]*?)^```$", readme, re.MULTILINE)
    (block,) = [each for each in blocks if text in each]
    return block
