"""What an application has to say: printed as it comes, and the same as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.model import Benchmark, Note, Result, Row, Settings
from benchmarks.report import as_json, count_verdicts, render


@dataclass(frozen=True, slots=True)
class Check:
    """Something that is right or wrong, and no matter of time.

    Attributes:
        text: What is to hold.
        holds: Whether it does.
        detail: What was seen.
    """

    text: str
    holds: bool
    detail: str = ""

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return f"{'ok' if self.holds else 'WRONG'}: {self.text}{detail}"


@dataclass(frozen=True, slots=True)
class Table:
    """Words in rows and columns, as Markdown has them.

    Attributes:
        title: What it is about.
        headings: Of the columns.
        rows: The cells, as many in each row.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        return f"{self.title}:\n\n{markdown(self.headings, self.rows)}"


#: What a suite yields.
Part = Check | Row | Note | Table


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table as Markdown has it."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


@dataclass(slots=True)
class Report:
    """All that a suite has yielded.

    Attributes:
        name: Of the application.
        title: One line that says what is measured.
        settings: What it was run with.
        parts: In order.
    """

    name: str
    title: str
    settings: Settings
    parts: list[Part] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """What was timed."""
        return [part for part in self.parts if isinstance(part, Row)]

    @property
    def all_holds(self) -> bool:
        """Whether every check holds."""
        return all(part.holds for part in self.parts if isinstance(part, Check))

    @property
    def missed(self) -> int:
        """How many bars were missed."""
        return count_verdicts([self.result])["missed"]

    @property
    def result(self) -> Result:
        """The rows and notes as those of any other benchmark."""
        benchmark = Benchmark(self.name, self.title, _runs_elsewhere)
        notes = tuple(part for part in self.parts if isinstance(part, Note))
        return Result(benchmark, self.settings, tuple(self.rows), notes)

    def text(self) -> str:
        """Lay it out: what is right, the times, the tables."""
        checks = [str(part) for part in self.parts if isinstance(part, Check)]
        tables = [str(part) for part in self.parts if isinstance(part, Table)]
        return "\n\n".join(filter(None, ["\n".join(checks), render(self.result), *tables]))

    def data(self, machine: dict[str, Any], when: str) -> dict[str, Any]:
        """Put it into plain data; see `benchmarks.report.as_json`."""
        found = as_json([self.result], machine, when)
        found["checks"] = [
            {"text": part.text, "holds": part.holds, "detail": part.detail}
            for part in self.parts
            if isinstance(part, Check)
        ]
        found["tables"] = [
            {"title": part.title, "headings": part.headings, "rows": part.rows}
            for part in self.parts
            if isinstance(part, Table)
        ]
        return found


def _runs_elsewhere(settings: Settings) -> Any:
    raise NotImplementedError("an application is run by benchmarks.applications.command")
