"""Sessions of each user, from summaries in the order of the log; and the result file.

What is kept of a user depends on the order of the user's lines, and on nothing else: a session
ends after half an hour without a line, steps are counted from one category to the next, failed
logins in a row are. So lines of different users may come in any order.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.applications.logs.reading import Summary

_PAUSE_SECONDS: Final = 1800.0


@dataclass(slots=True)
class User:
    """What is known of one."""

    sessions: int = 0
    lines: int = 0
    sent: int = 0
    first: float = 0.0
    last: float = float("-inf")
    category: str = ""
    entries: list[str] = field(default_factory=list)
    steps: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    failed_in_a_row: int = 0
    most_failed_in_a_row: int = 0


class Sessions:
    """All users."""

    def __init__(self) -> None:
        self._users: dict[str, User] = {}

    def add(self, summary: Summary) -> None:
        """Take in the next line of a user."""
        name, when, category, route, status, sent, zone, browser, findings = summary
        user = self._users.get(name)
        if user is None:
            user = self._users[name] = User(first=when)
        if when - user.last > _PAUSE_SECONDS:
            user.sessions += 1
            user.entries.append(f"{route} from {zone} with {browser}")
        elif category != user.category:
            user.steps[f"{user.category} > {category}"] += 1
        user.lines += 1
        user.sent += sent
        user.last = when
        user.category = category
        if findings:
            user.findings.update(findings)
        if category == "login":
            user.failed_in_a_row = user.failed_in_a_row + 1 if status == 401 else 0
            user.most_failed_in_a_row = max(user.most_failed_in_a_row, user.failed_in_a_row)

    def rows(self) -> Iterator[dict[str, Any]]:
        """What is written of each user, by name."""
        for name, user in sorted(self._users.items()):
            yield {
                "user": name,
                "sessions": user.sessions,
                "lines": user.lines,
                "bytes": user.sent,
                "seconds": round(user.last - user.first, 3),
                "entries": user.entries,
                "steps": dict(sorted(user.steps.items())),
                "findings": dict(sorted(user.findings.items())),
                "failed logins in a row": user.most_failed_in_a_row,
            }


def write(result: Path, summaries: Iterable[Summary]) -> int:
    """Take in all summaries, and write the result: a file that is whole, or none.

    Returns:
        How many lines there were.
    """
    sessions = Sessions()
    count = 0
    new = result.with_name(result.name + ".new")
    try:
        # opened first: a folder that cannot be written to is found before the work is done
        with new.open("w", encoding="utf-8") as stream:
            for summary in summaries:
                sessions.add(summary)
                count += 1
            stream.writelines(json.dumps(row) + "\n" for row in sessions.rows())
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(result)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    return count
