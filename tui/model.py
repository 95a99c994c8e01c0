"""The jobs as the front knows them: a snapshot that feed items are folded into. Pure: no Textual, no IO, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from ainfinity.schema.event import EventType
from ainfinity.schema.states import JobState
from ainfinity.schema.views import JobRow, Progress
from tui.looks import LOOKS, RANK, is_live

if TYPE_CHECKING:
    from ainfinity.client.port import FeedItem

_UNKNOWN_RANK: Final = RANK[JobState.PLANNING]
_QUEUED_RANK: Final = RANK[JobState.QUEUED]


class Change(NamedTuple):
    """What an update did: whether the visible list is another one, and whose rows look different."""

    reordered: bool
    ids: frozenset[str]


def sort_key(row: JobRow) -> tuple[int, float, float, str]:
    """Live jobs first, queued ones in the order in which they will run, all others newest first."""
    rank = RANK.get(row.state, _UNKNOWN_RANK)
    if rank == _QUEUED_RANK:
        return rank, -row.priority, row.submitted_at, row.id
    return rank, 0.0, -row.submitted_at, row.id


def newer(old: JobRow, new: JobRow) -> JobRow:
    """Merge two rows of one job: the later one by `seq`, with the later progress by `rev`."""
    row = old if new.seq < old.seq else new
    progress: Progress = old.progress if new.progress.rev < old.progress.rev else new.progress
    return row if row.progress is progress else replace(row, progress=progress)


class JobsModel:
    """All jobs, their order, and the part of them that fits the filter.

    `visible` is replaced, never changed, so that a view can tell by identity whether its list is another one.
    """

    def __init__(self, rows: Iterable[JobRow] = ()) -> None:
        self.rows: dict[str, JobRow] = {}
        self.counts: Counter[str] = Counter()
        self.filter = ""
        self.visible: list[str] = []
        self.cursor = 0
        self.rev = 0
        self._order: list[str] = []
        self._keys: dict[str, tuple[int, float, float, str]] = {}
        self._texts: dict[str, str] = {}
        self.replace(rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def live(self) -> int:
        """How many jobs are not over."""
        return sum(number for state, number in self.counts.items() if is_live(state))

    @property
    def many_owners(self) -> bool:
        """Whether the jobs are not all one person's."""
        return len({row.owner for row in self.rows.values()}) > 1

    @property
    def any_costs(self) -> bool:
        """Whether some job ran where machines cost, or may cost, money."""
        return any(row.attempt and row.infra != "local" for row in self.rows.values())

    def replace(self, rows: Iterable[JobRow]) -> Change:
        """Take a full list: jobs that are not in it are gone; rows that are newer here stay."""
        known = self.rows
        self.rows = {row.id: newer(known[row.id], row) if row.id in known else row for row in rows}
        self._keys = {job: sort_key(row) for job, row in self.rows.items()}
        self._order = sorted(self._keys, key=self._keys.__getitem__)
        self._texts.clear()
        self.counts = Counter(row.state for row in self.rows.values())
        for row in self.rows.values():
            self._advance(row)
        self._refilter()
        return Change(True, frozenset(self.rows))

    def apply(self, item: FeedItem) -> Change:
        """Fold in what changed since the last item."""
        changed: set[str] = set()
        moved = False
        for row in item.jobs:
            moved |= self._put(row, changed)
        for job, progress in item.progress.items():
            row = self.rows.get(job)
            if row is not None and progress.rev >= row.progress.rev and progress != row.progress:
                self.rows[job] = replace(row, progress=progress)
                changed.add(job)
        gone = [event.job_id for event in item.events if event.type == EventType.DELETED]
        removed = [self.remove(job).reordered for job in gone]
        self.cursor = max(self.cursor, item.cursor)
        self.rev = max(self.rev, item.rev)
        change = self._settle(moved, changed)
        return Change(change.reordered or any(removed), change.ids | set(gone))

    def put(self, rows: Iterable[JobRow]) -> Change:
        """Take single rows, as a command returns them."""
        changed: set[str] = set()
        moved = False
        for row in rows:
            moved |= self._put(row, changed)
        return self._settle(moved, changed)

    def remove(self, job: str) -> Change:
        """Forget a job whose record was deleted."""
        row = self.rows.pop(job, None)
        if row is None:
            return Change(False, frozenset())
        self.counts[row.state] -= 1
        del self._keys[job]
        self._texts.pop(job, None)
        self._order.remove(job)
        self._refilter()
        return Change(True, frozenset({job}))

    def set_filter(self, text: str) -> bool:
        """Show only jobs that hold every word of `text` (see `search_text`); return whether that is another filter."""
        words = " ".join(text.lower().split())
        if words == self.filter:
            return False
        self.filter = words
        self._refilter()
        return True

    def find(self, name: str) -> str | None:
        """Return the id of the job with this id, this name (the newest), or the only one that begins so."""
        if name in self.rows:
            return name
        named = [row for row in self.rows.values() if row.name == name]
        if named:
            return max(named, key=lambda row: (row.submitted_at, row.id)).id
        begun = {row.id for row in self.rows.values() if row.id.startswith(name) or row.name.startswith(name)}
        return begun.pop() if name and len(begun) == 1 else None

    def _put(self, row: JobRow, changed: set[str]) -> bool:
        """Store a row; whether the order may be another one."""
        old = self.rows.get(row.id)
        if old is not None:
            row = newer(old, row)
            if row == old:
                return False
            self.counts[old.state] -= 1
        self.rows[row.id] = row
        self.counts[row.state] += 1
        self._texts.pop(row.id, None)
        changed.add(row.id)
        self._advance(row)
        key = sort_key(row)
        moved = self._keys.get(row.id) != key
        self._keys[row.id] = key
        if old is None:
            self._order.append(row.id)
        return moved

    def _settle(self, moved: bool, changed: set[str]) -> Change:
        if moved:
            self._order.sort(key=self._keys.__getitem__)  # nearly sorted, so this is quick
        before = self.visible
        if moved or (self.filter and changed):
            self._refilter()
        return Change(self.visible is not before, frozenset(changed))

    def _advance(self, row: JobRow) -> None:
        self.cursor = max(self.cursor, row.seq)
        self.rev = max(self.rev, row.progress.rev)

    def _refilter(self) -> None:
        visible = list(self._order)
        if self.filter:
            texts = self._texts
            for job in self._order:
                if job not in texts:
                    texts[job] = search_text(self.rows[job])
            for word in self.filter.split():
                visible = [job for job in visible if word in texts[job]]
        if visible != self.visible:
            self.visible = visible


def search_text(row: JobRow) -> str:
    """What a filter looks through, in lower case, parts divided by a line end that no typed word holds."""
    look = LOOKS.get(row.state)
    label = look.label if look is not None else ""
    return "\n".join((row.name, row.state, label, row.model, *row.tags, row.owner, row.id)).lower()
