"""Text that is safe to print and measured in terminal cells.

Everything that a person, a model or a machine wrote passes through `clean` before it is drawn: an escape sequence, a
control character or a lone surrogate in a log line or a job's name must never reach the terminal as such.
"""

from __future__ import annotations

import re
from typing import Final

from rich.cells import cell_len, chop_cells, set_cell_size

#: A run of text and the tone it is drawn in (see `widgets.toned.TONES`); a line is a list of them.
Line = list[tuple[str, str]]

#: Invisible characters on whose width terminals disagree: joiners, variation selectors, soft hyphen, byte order mark.
_INVISIBLE: Final = "[\u00ad\u200b-\u200d\u2060\ufe00-\ufe0f\ufeff]"
_ESCAPES: Final = (
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor movement
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC: titles, links, the clipboard
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x9c]*(?:\x1b\\|\x9c)?"  # DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]?"
)
_TAB: Final = 8


def clean(text: str) -> str:
    """Return `text` as one printable line: no escapes, no control, bidi or invisible characters."""
    if text.isascii() and text.isprintable():
        return text
    if "\x1b" in text or not text.isprintable():
        text = re.sub(_ESCAPES, "", text)  # compiled when first met, and then kept by re
    text = re.sub(_INVISIBLE, "", text)
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else _stand_in(character) for character in text.expandtabs(_TAB)
    )


def _stand_in(character: str) -> str:
    code = ord(character)
    if code in (0x0A, 0x2028, 0x2029, 0x85):
        return "⏎"
    if code < 0x20:
        return chr(0x2400 + code)  # ␀ … ␟
    return "␡" if code == 0x7F else "�"


def width(text: str) -> int:
    """Cells that `text` takes."""
    return len(text) if text.isascii() else cell_len(text)


def crop(text: str, cells: int) -> str:
    """Return `text` in at most `cells` cells, ending with … where it was cut."""
    if cells <= 0:
        return ""
    if width(text) <= cells:
        return text
    if text.isascii():
        return text[: cells - 1] + "…"
    return set_cell_size(text, cells - 1).rstrip() + "…"


def fit(text: str, cells: int, *, right: bool = False) -> str:
    """Return `text` in exactly `cells` cells: cropped or padded, to the right if wished."""
    text = crop(text, cells)
    padding = " " * (cells - width(text))
    return padding + text if right else text + padding


def line_width(line: Line) -> int:
    """Cells that a line takes."""
    return sum(width(text) for text, _ in line)


def plain(line: Line) -> str:
    """Return a line without its tones."""
    return "".join(text for text, _ in line)


def centred(lines: list[Line], y: int, cells: int, rows: int) -> Line:
    """Return row `y` of a box in whose middle `lines` stand, aligned to each other."""
    index = y - max(0, (rows - len(lines)) // 2)
    if not 0 <= index < len(lines):
        return []
    indent = max(0, (cells - max(map(line_width, lines))) // 2)
    return [(" " * indent, "text"), *lines[index]]


def wrap(text: str, cells: int) -> list[str]:
    """Break cleaned text into rows of at most `cells` cells, between words where it can be."""
    cells = max(1, cells)
    rows: list[str] = []
    row = ""
    for word in text.split(" "):
        candidate = f"{row} {word}" if row else word
        if width(candidate) <= cells:
            row = candidate
            continue
        if row:
            rows.append(row)
        *full, row = chop_cells(word, cells) or [""]
        rows.extend(full)
    return [*rows, row]


def wrap_block(text: str, cells: int) -> list[str]:
    """Clean and wrap text that may hold several lines."""
    return [row for line in text.expandtabs(_TAB).splitlines() or [""] for row in wrap(clean(line), cells)]
