"""Runs commands in a pseudo-terminal, and draws what it shows as SVG.

::

    command --sh--> pseudo-terminal --bytes--> pyte's screen --draw--> SVG

`pyte` is a terminal emulator: it wraps long lines, and moves the cursor as progress bars ask for.
Each word group of the SVG has its own place and width (`textLength`), so columns stay aligned with
any font. The SVG needs nothing from elsewhere, which GitHub would not load.

Rejected: `export_svg` of rich (it shows what is printed, not what a terminal makes of it, and its
template loads fonts from the web).
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import termios
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

import pyte

# Of one character and one line, in pixels, and the margin of the picture.
COLUMN: Final = 8.4
LINE: Final = 19
MARGIN: Final = 16

_ROWS: Final = 60
_MOST_BYTES: Final = 1 << 16
_FONTS: Final = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_PROMPT: Final = "\x1b[32m$\x1b[0m \x1b[1m{}\x1b[0m\r\n"

# On a light background; pyte gives other colours as six digits.
_INK: Final = "#24292f"
_COLOURS: Final = {
    "default": _INK,
    "black": _INK,
    "red": "#cf222e",
    "green": "#1a7f37",
    "brown": "#9a6700",
    "blue": "#0969da",
    "magenta": "#8250df",
    "cyan": "#1b7c83",
    "white": "#6e7781",
    "brightblack": "#57606a",
}


def show(
    commands: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    *,
    columns: int,
    until: str = "",
) -> pyte.Screen:
    """Run commands one after another, and return the screen that they leave.

    Args:
        commands: For `sh`; each is shown behind a prompt.
        folder: The working folder.
        environment: All of the environment.
        columns: The width of the terminal.
        until: A regular expression: once the screen shows it, nothing more is shown or begun.
    """
    screen = pyte.Screen(columns, _ROWS)
    stream = pyte.ByteStream(screen)
    is_complete = False
    for command in commands:
        stream.feed(_PROMPT.format(command).encode())
        for data in _run(command, folder, environment, columns):
            if not is_complete:
                stream.feed(data)
                is_complete = bool(until and re.search(until, "\n".join(screen.display)))
        if is_complete:
            break
    return screen


def _run(
    command: str, folder: Path, environment: Mapping[str, str], columns: int
) -> Iterator[bytes]:
    """Yield what a command writes; all of it comes, so that it never waits."""
    terminal, other = os.openpty()
    termios.tcsetwinsize(other, (_ROWS, columns))
    try:
        process = subprocess.Popen(
            ["sh", "-c", command],
            stdin=other,
            stdout=other,
            stderr=other,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
        )
    finally:
        os.close(other)
    try:
        while data := _read(terminal):
            yield data
    finally:
        os.close(terminal)
        process.wait()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, _MOST_BYTES)
    except OSError:  # how Linux says that nobody is at the other end
        return b""


def draw(screen: pyte.Screen, title: str, *, most_lines: int | None = None) -> str:
    """Return a picture of the first lines of a screen.

    Args:
        screen: The screen.
        title: For readers who do not see the picture.
        most_lines: How many lines; None: all that have text.
    """
    used = [number for number, line in enumerate(screen.display) if line.strip()]
    lines = min(max(used) + 1, most_lines or _ROWS)
    width, height = screen.columns * COLUMN + 2 * MARGIN, lines * LINE + 2 * MARGIN
    texts = "\n".join(
        text for number in range(lines) for text in _texts(number, screen.buffer[number], screen)
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height}" role="img">
<title>{escape(title)}</title>
<rect x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1}" rx="6" fill="#ffffff" \
stroke="#d0d7de"/>
<g font-family="{_FONTS}" font-size="14" fill="{_INK}">
{texts}
</g>
</svg>
"""


def _texts(number: int, row: Mapping[int, Any], screen: pyte.Screen) -> Iterator[str]:
    """Yield the elements of a line: one for each group of words in one style."""
    y = MARGIN + number * LINE + LINE * 0.75
    places = range(screen.columns)
    for style, run in itertools.groupby(places, lambda place: _style(row[place])):
        first, *others = run
        text = "".join(row[place].data for place in (first, *others))
        for words in re.finditer(r"\S+(?: \S+)*", text):
            x = MARGIN + (first + words.start()) * COLUMN
            length = len(words[0]) * COLUMN
            yield (
                f'<text x="{x:.1f}" y="{y:g}" textLength="{length:.1f}"{style}>'
                f"{escape(words[0])}</text>"
            )


def _style(cell: Any) -> str:
    colour = _COLOURS.get(cell.fg, f"#{cell.fg}")
    fill = "" if colour == _INK else f' fill="{colour}"'
    return f'{fill} font-weight="bold"' if cell.bold else fill
