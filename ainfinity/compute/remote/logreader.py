"""What of a stream is new: a log is read from its start again and again, and each of its lines counts once.

A place in a log is how many lines were taken and a digest of them. A reading that comes by the same lines goes on after
them; one that does not is of another log, as after a recovery on a new machine, and all of it is new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from ainfinity.compute.remote.prefix import Spoken, read_line

#: Digests are kept after each of the first lines and then after powers of two: another log shows soon.
_EACH: Final = 64
#: Lines of another log that are held while they are equal to the known one's; beyond, it must be read once more.
_HELD: Final = 8192
#: SkyPilot's own lines come again with each reading and are shown once a log.
_MOST_SHOWN: Final = 256


@dataclass(slots=True)
class Place:
    """How far one log was read: lines taken, the digest of all, and digests after some numbers of them."""

    lines: int = 0
    digest: str = ""
    marks: dict[int, str] = field(default_factory=dict[int, str])
    shown: list[str] = field(default_factory=list[str])
    #: Whether the source has no more to say.
    done: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        marks = [[count, digest] for count, digest in self.marks.items()]
        return {
            "lines": self.lines,
            "digest": self.digest,
            "marks": marks,
            "shown": self.shown,
            "done": self.done,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Place:
        """Return what `as_json` gave. Errors: KeyError, TypeError, ValueError."""
        marks = {int(count): str(digest) for count, digest in data["marks"]}
        shown = [str(text) for text in data["shown"]]
        return cls(int(data["lines"]), str(data["digest"]), marks, shown, bool(data["done"]))


class LogReader:
    """One reading of a stream. `place` moves on with it. With `framed`, the log begins at SkyPilot's line for that."""

    def __init__(self, place: Place, *, framed: bool) -> None:
        self.place = place
        #: The status in which the job ended, if the last lines say so.
        self.end = ""
        #: Whether too much of another log went by, so that the stream must be opened once more, for another reader.
        self.must_read_again = False
        self._framed = framed
        self._rest = ""
        self._prefix = ""
        self._read = 0
        self._hash = _new_hash()
        self._behind = False
        self._held: list[str] | None = None
        self._inside = False
        if not framed:
            self._begin()

    def feed(self, pieces: Iterable[str]) -> str:
        """Take the next pieces of the stream and return what of them is new, in whole lines."""
        text = self._rest + "".join(pieces)
        if "\r" in text:
            # A carriage return at the end may be half of a line's end.
            keep = "\r" if text.endswith("\r") else ""
            text = text.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n") + keep
        end = text.rfind("\n") + 1
        self._rest = text[end:]
        return self._take(text[:end]) if end else ""

    def finish(self) -> str:
        """Return the last line if it has no end, where a stream ends so."""
        rest, self._rest = self._rest.removesuffix("\r"), ""
        return self._take(f"{rest}\n") if rest else ""

    def _take(self, text: str) -> str:
        taken: list[str] = []
        if self._take_alike(text, taken):
            new = taken[0]
        else:
            for line in text.split("\n"):
                if line:
                    self._take_line(line, taken)
            new = "".join(f"{line}\n" for line in taken)
        self._note()
        return new

    def _note(self) -> None:
        if self._inside and not self._behind:
            self.place.lines, self.place.digest = self._read, self._hash.hexdigest()

    def _take_alike(self, text: str, taken: list[str]) -> bool:
        """Take lines that all have the prefix of the last one, as nearly all have; False if these have not."""
        prefix, count = self._prefix, text.count("\n")
        # A power of two must be stopped at, for its digest.
        if self._behind or not prefix or self._read + count >= _next_mark(self._read) or self._read <= _EACH:
            return False
        if not text.startswith(prefix) or text.count(f"\n{prefix}") != count - 1:
            return False
        body = text[len(prefix) :].replace(f"\n{prefix}", "\n")
        if "\x1b" in body:
            return False
        self._hash.update(text.encode(errors="replace"))
        self._read += count
        self.end = ""
        taken.append(body)
        return True

    def _take_line(self, line: str, taken: list[str]) -> None:
        if self.must_read_again:
            return
        spoken = read_line(line)
        if self._framed and spoken.begins:
            self._note()
            self._begin()
        elif spoken.framing or not self._inside:
            self._take_framing(spoken, taken)
            return
        self.end = ""
        self._read += 1
        self._hash.update(f"{line}\n".encode(errors="replace"))
        if self._behind:
            self._compare(line, taken)
            return
        if self._read <= _EACH or self._read & (self._read - 1) == 0:
            self.place.marks[self._read] = self._hash.hexdigest()
        taken.append(spoken.text)
        self._prefix = line.removesuffix(spoken.text) if spoken.own and line.endswith(spoken.text) else ""

    def _begin(self) -> None:
        self._inside = True
        self._read = 0
        self._hash = _new_hash()
        self._behind = self.place.lines > 0
        self._held = [] if self._behind else None
        self._prefix = ""

    def _take_framing(self, spoken: Spoken, taken: list[str]) -> None:
        if self._framed:  # what SkyPilot says up to the beginning of the next log is no part of this one
            self._note()
            self._inside = False
        place = self.place
        self.end = spoken.end or self.end
        mark = hashlib.blake2b(spoken.text.encode(errors="replace"), digest_size=4).hexdigest()
        if spoken.text and mark not in place.shown:
            place.shown = [*place.shown, mark][-_MOST_SHOWN:]
            taken.append(spoken.text)

    def _compare(self, line: str, taken: list[str]) -> None:
        """Go past a line that was taken before, if it was that."""
        place = self.place
        if self._held is not None:
            self._held.append(line)
            if len(self._held) > _HELD:
                self._held = None
        known = place.digest if self._read == place.lines else place.marks.get(self._read)
        if known is None:
            return
        if known == self._hash.hexdigest():
            if self._read == place.lines:
                self._behind, self._held = False, None
            return
        _forget(place)
        held = self._held
        if held is None:
            self.must_read_again = True
            return
        self._begin()
        for one in held:
            # A held line that begins a log was the first of them, and has begun it.
            self._take_line(one, taken)


def _forget(place: Place) -> None:
    place.lines, place.digest, place.marks, place.shown = 0, "", {}, []


def _next_mark(count: int) -> int:
    return 1 << count.bit_length()


def _new_hash() -> Any:
    return hashlib.blake2b(digest_size=8)
