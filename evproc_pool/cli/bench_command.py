"""`evproc bench`: from a group and a file to tables and a verdict."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from evproc import Processor
from evproc_pool import PoolProcessor
from evproc_pool.cli.bench_measure import measure, most_seconds, read_lines, take_sample
from evproc_pool.cli.bench_verdict import Measured, Verdict, decide, duration
from evproc_pool.cli.json_event import BadInputError, decoder
from evproc_pool.cli.line_input import open_input
from evproc_pool.cli.output import counted, printable, say, to_standard_output
from evproc_pool.cli.problems import STANDARD_INPUT, CommandError
from evproc_pool.cli.run_loop import output_file
from evproc_pool.cli.tables import Table, print_table


def bench(  # noqa: PLR0917 - one for each argument of the command
    group: str, file: str, decode: str | None, workers: int | None, most: int, seconds: float
) -> int:
    """Measure, and print tables and the verdict; return the exit status."""
    make = decoder(decode)
    processor = Processor()
    processor.load_from(group)
    processor.check()
    cpus = PoolProcessor().workers
    descriptor = open_input(file)
    bad: list[str] = []

    def note_bad(number: int, error: BadInputError) -> None:
        bad.append(f"line {number}: {error}")

    # what handlers print must not come between the tables
    with output_file(None):
        try:
            most_time = duration(most_seconds(seconds, workers or cpus))
            say(f"this takes about {most_time} at most; --seconds makes it shorter or longer")
            sample = take_sample(
                read_lines(descriptor), make, processor, most=most, seconds=seconds, bad=note_bad
            )
        finally:
            if file != STANDARD_INPUT:
                os.close(descriptor)
        if not sample.lines:
            where = "standard input" if file == STANDARD_INPUT else file
            raise CommandError(f"{where}: {bad[0] if bad else 'no event in it'}")
        measured = measure(
            group, sample, workers=workers or cpus, cpus=cpus, seconds=seconds, tell=say
        )
    with to_standard_output():
        show(measured, decide(measured), sys.stdout, bad)
    return 0


def show(measured: Measured, verdict: Verdict, out: TextIO, bad: Sequence[str] = ()) -> None:
    """Print the times and the verdict; `bad` says which lines made no event."""
    failed = f", {measured.failed:,} of them failed" if measured.failed else ""
    size = f", {measured.event_bytes:,.0f} bytes each" if measured.event_bytes else ""
    print(f"Sample: the first {counted(measured.events, 'event')}{size}{failed}", file=out)
    if measured.failure:
        print(f"The first that failed: {printable(measured.failure)}", file=out)
    if bad:
        print(f"Left out: {counted(len(bad), 'bad line')}. {printable(bad[0])}", file=out)
    print(file=out)
    print_table(runs_table(measured), out)
    print(file=out)
    print_table(handlers_table(measured), out)
    print(file=out)
    for line in verdict.lines:
        print(printable(line), file=out)


def runs_table(measured: Measured) -> Table:
    """Return the table of runs."""
    runs = [("one process", measured.serial, "", "")]
    runs += [
        (
            counted(number, "worker"),
            each.seconds,
            duration(each.sending / measured.events),
            duration(each.start),
        )
        for number, each in measured.pools.items()
    ]
    return Table(
        ("run", ">seconds", ">events/s", ">times as fast", ">sending an event", ">start"),
        [
            (
                name,
                f"{seconds:.3f}",
                f"{measured.events / seconds:,.0f}",
                f"{measured.serial / seconds:.2f}",
                sending,
                start,
            )
            for name, seconds, sending, start in runs
        ],
    )


def handlers_table(measured: Measured) -> Table:
    """Return the table of handlers, the slowest one first."""
    total = sum(each.seconds for each in measured.handlers) or 1.0
    return Table(
        ("handler", ">calls", ">share", ">mean", ">longest"),
        [
            (
                each.name,
                f"{each.calls:,}",
                f"{each.seconds / total:.0%}",
                duration(each.seconds / each.calls) if each.calls else "-",
                duration(each.longest) if each.calls else "-",
            )
            for each in sorted(measured.handlers, key=lambda each: -each.seconds)
        ],
    )
