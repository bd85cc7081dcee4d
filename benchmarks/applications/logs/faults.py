"""What each side does when something goes wrong: every fault and side in an interpreter of its own.

What happened is said in words that come from what was seen: how the program ended, whether there
is a result and how many lines it has, and which processes were left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.applications import programs
from benchmarks.applications.logs import fragile, generator, program, sides
from benchmarks.applications.programs import Ending
from benchmarks.applications.report import Check, Table

#: What goes wrong.
EXITS: Final = "a line's handler exits the process"
HANGS: Final = "a line's handler never returns"
INTERRUPTED: Final = "Ctrl-C in the middle"
FULL: Final = "no space left for the result"
UNWRITABLE: Final = "the result's folder is not there"
FAULTS: Final = (EXITS, HANGS, INTERRUPTED, FULL, UNWRITABLE)

#: The sides that are tried.
TRIED: Final = (sides.OURS, *sides.PEERS)

# Programs that hang wait; so several run at a time.
_AT_A_TIME: Final = 3

_LINES: Final = re.compile(r"^lines in the result: (\d+)$", re.MULTILINE)
_LEFT_OUT: Final = re.compile(r"^event \d+ is left out: (\w+)", re.MULTILINE)
_ERROR: Final = re.compile(
    r"^(?:[\w.]*\.)?(\w*(?:Error|Pool|Interrupt|Exit)\w*)(?::|$)", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a side did.

    Attributes:
        ending: How its program ended.
        has_result: Whether there is a result file.
        has_half: Whether there is a part of one.
    """

    ending: Ending
    has_result: bool
    has_half: bool

    @property
    def lines(self) -> int:
        """How many lines are in the result; 0 without one."""
        found = _LINES.search(self.ending.output)
        return int(found[1]) if found and self.has_result else 0

    @property
    def left_out(self) -> list[str]:
        """The errors of the lines that are not in it."""
        return _LEFT_OUT.findall(self.ending.output)

    @property
    def error(self) -> str:
        """The error that ended the program, by the last traceback; "" if there is none."""
        found: list[str] = _ERROR.findall(self.ending.output)
        return found[-1] if found else ""

    def words(self, total: int) -> str:
        """Say it in a cell of a table."""
        ending = self.ending
        words = []
        if ending.code is None:
            return f"**hangs** (killed after {ending.seconds:.0f} s), no result"
        if ending.code == 0:
            words.append(f"goes on: {self.lines:,} of {total:,} lines")
            words += [f"the other: `{error}`" for error in self.left_out]
        else:
            error = f"`{self.error}`" if self.error else f"status {ending.code}"
            after = (
                f"{ending.interrupted:.1f} s after it"
                if ending.interrupted is not None
                else f"after {ending.seconds:.1f} s"
            )
            words.append(f"ends with {error} {after}")
        if not self.has_result:
            words.append("no result")
        if self.has_half:
            words.append("**half a result**")
        if ending.orphans:
            words.append(f"**{ending.orphans} processes left**")
        return ", ".join(words)


def try_all(
    folder: Path, lines: int, limit_seconds: float, timeout: float, tried: tuple[str, ...] = TRIED
) -> dict[tuple[str, str], Seen]:
    """Try every fault with every side.

    Args:
        folder: For logs and results.
        lines: The length of the logs.
        limit_seconds: Who runs that long hangs.
        timeout: What a line may take, for those that can be told.
        tried: The sides.

    Returns:
        What was seen, by fault and side.
    """
    logs = {fault: folder / f"{place}.jsonl" for place, fault in enumerate(FAULTS)}
    for fault, log in logs.items():
        generator.write_lines(log, lines * 10 if fault == INTERRUPTED else lines)
    fragile.spoil(logs[EXITS], lines // 2, fragile.EXIT)
    fragile.spoil(logs[HANGS], lines // 2, fragile.HANG)
    cases = [(fault, side) for fault in FAULTS for side in tried]

    def run(case: tuple[str, str]) -> Seen:
        fault, side = case
        own = folder / f"results-{cases.index(case)}"
        return _try(fault, side, logs[fault], own, limit_seconds, timeout)

    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        return dict(zip(cases, threads.map(run, cases), strict=True))


def _try(fault: str, side: str, log: Path, own: Path, limit_seconds: float, timeout: float) -> Seen:
    result = own / "result.jsonl"
    half = own / "result.jsonl.new"
    if fault != UNWRITABLE:
        own.mkdir()
    if fault == FULL:
        half.symlink_to("/dev/full")
    arguments = ["-m", program.__name__, side, str(log), str(result)]
    if fault == HANGS:
        arguments += ["--timeout", str(timeout)]
    interrupt_at = program.READY if fault == INTERRUPTED else None
    ending = programs.run(arguments, limit_seconds, interrupt_at=interrupt_at)
    if side == sides.OURS:
        programs.show_if_it_hung(ending, f"{side}, {fault}")
    return Seen(ending, result.exists(), half.exists())


def table(seen: Mapping[tuple[str, str], Seen], lines: int) -> Table:
    """Lay it out: a row for each fault, a column for each side."""
    tried = tuple(dict.fromkeys(side for _, side in seen))
    rows = tuple((fault, *(seen[fault, side].words(lines) for side in tried)) for fault in FAULTS)
    return Table("when something goes wrong", ("", *tried), rows)


def checks(seen: Mapping[tuple[str, str], Seen], lines: int) -> Iterator[Check]:
    """Check what the pool promises."""
    expected = {EXITS: "WorkerLostError", HANGS: "EventTimeoutError"}
    for fault, error in expected.items():
        ours = seen[fault, sides.OURS]
        yield Check(
            f"{fault}: costs this line only",
            ours.ending.code == 0 and ours.lines == lines - 1 and ours.left_out == [error],
            ours.words(lines),
        )
    expected = {
        INTERRUPTED: "KeyboardInterrupt",
        FULL: "OSError",
        UNWRITABLE: "FileNotFoundError",
    }
    for fault, error in expected.items():
        ours = seen[fault, sides.OURS]
        # this very error: a program that did not even begin ends, too
        ended = ours.error == error and ours.ending.code not in {0, None}
        ended = ended and not ours.ending.orphans
        if fault == INTERRUPTED:
            ended = ended and ours.ending.interrupted is not None
        yield Check(
            f"{fault}: the program ends, with no result and no process left",
            ended and not ours.has_result and not ours.has_half,
            ours.words(lines),
        )
