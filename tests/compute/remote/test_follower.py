"""Logs come home whole: each line once, whatever breaks, whoever dies, and however full the disk is."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ainfinity.compute.remote import follower as follower_module
from ainfinity.compute.remote import following as following_module
from ainfinity.compute.remote.follower import Followers
from ainfinity.compute.remote.following import Following
from ainfinity.compute.remote.journal import Journal
from ainfinity.compute.remote.logreader import LogReader, Place
from ainfinity.compute.remote.rows import LogEnd, LogSource
from ainfinity.core import redact
from tests.compute.remote.streams import LOST, Streams, ended, own

CLUSTER = LogSource("cluster", "", "ain-x", 1)
MANAGED = LogSource("managed", "", "", 5)
FRAME = ["INFO: Waiting 1s for the logs to be written...", "├── Waiting for task resources on 1 node."]
STARTED = "└── Job started. Streaming logs... (Ctrl-C to exit)"
DONE = "✓ Job finished (status: SUCCEEDED)."


def numbered(count: int, start: int = 0) -> list[str]:
    return [f'{{"ainfinity":1,"seq":{number},"kind":"step","at":1.5}}' for number in range(start, start + count)]


def wait(condition: Callable[[], object], seconds: float = 60) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it took too long"
        time.sleep(0.01)


def lines_of(folder: Path) -> list[str]:
    try:
        return (folder / "log.txt").read_text().splitlines()
    except FileNotFoundError:
        return []


def own_lines(folder: Path) -> list[str]:
    return [line for line in lines_of(folder) if line.startswith("{")]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "_BEAT", 0.02)
    monkeypatch.setattr(follower_module, "_FIRST_PAUSE", 0.02)
    monkeypatch.setattr(follower_module, "_LAST_PAUSE", 0.05)
    monkeypatch.setattr(following_module, "_FULL", 0.02)
    monkeypatch.setattr(following_module, "_SAVE", 0.05)


@pytest.fixture
def streams() -> Iterator[Streams]:
    made = Streams()
    yield made
    made.close()


@pytest.fixture
def followers(streams: Streams, tmp_path: Path) -> Iterator[Followers]:
    made = Followers(streams, tmp_path, turn=0.05)
    yield made
    made.close()


def test_lines_come_while_the_job_runs_and_its_end_last(streams: Streams, followers: Followers, tmp_path: Path) -> None:
    streams.launch = ["Launching…\n", "\x1b[32mup\x1b[0m\n", "no end"]
    followers.follow("a", LogSource("cluster", "r1", "ain-x"))
    wait(lambda: lines_of(tmp_path / "a") == ["Launching…", "up", "no end"])
    followers.follow("a", LogSource("cluster", "r1", "ain-x", 1))
    streams.write("one")
    wait(lambda: lines_of(tmp_path / "a")[3:] == [*FRAME, STARTED, "one"])
    streams.write("two", "three")
    wait(lambda: lines_of(tmp_path / "a")[6:] == ["one", "two", "three"])
    assert followers.ended("a") is None
    streams.finish()
    wait(lambda: followers.ended("a"))
    assert followers.ended("a") == LogEnd("SUCCEEDED", 0)
    assert lines_of(tmp_path / "a")[6:] == ["one", "two", "three", DONE]


@pytest.mark.parametrize(
    ("status", "code"), [("SUCCEEDED", 0), ("FAILED", 100), ("FAILED_SETUP", 100), ("CANCELLED", 103)]
)
def test_how_it_ended_is_told_and_remembered(
    streams: Streams, followers: Followers, tmp_path: Path, status: str, code: int
) -> None:
    streams.write("one")
    streams.finish(status)
    followers.follow("a", CLUSTER)
    wait(lambda: followers.ended("a"))
    assert followers.ended("a") == LogEnd(status, code)
    followers.close()
    later, opened = Followers(streams, tmp_path), streams.opened
    later.follow("a", CLUSTER)
    assert later.ended("a") == LogEnd(status, code)
    later.close()
    assert streams.opened == opened


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("nodes", [1, 8])
def test_a_stream_that_breaks_anywhere_loses_and_doubles_nothing(tmp_path: Path, seed: int, nodes: int) -> None:
    streams = Streams(random.Random(seed))
    streams.breaks = 0.004
    wanted: list[str] = []
    for number in range(900):
        node = number % nodes
        who = "head, rank=0, pid=1" if node == 0 else f"worker{node}, rank={node}, pid=2, ip=10.0.0.{node}"
        streams.write(f"line {number}", who=who)
        wanted.append(f"line {number}" if node == 0 else f"[{node}] line {number}")
    streams.finish()
    one = Following(tmp_path / "a", streams)
    one.source = CLUSTER
    for _ in range(3000):
        one.read(follow=True)
        if one.end is not None:
            break
    assert one.end == LogEnd("SUCCEEDED", 0)
    assert [line for line in lines_of(tmp_path / "a") if "line" in line] == wanted
    assert streams.opened > 1


@pytest.mark.parametrize("seed", range(25))
def test_a_worker_killed_between_any_two_writes_leaves_no_gap_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Killing is the loss of all that is in memory: each life ends at a random write or account."""
    chance = random.Random(seed)
    streams = Streams()
    wanted = numbered(400)
    streams.write(*wanted)
    streams.finish()
    monkeypatch.setattr(following_module, "_PIECES", 16)
    monkeypatch.setattr(following_module, "_SAVE", 0.0)
    folder = tmp_path / "a"

    class Killed(BaseException):
        pass

    real_write, real_record, real_open = os.write, Journal.save, Journal.open
    dead = False

    def dying_write(descriptor: int, data: memoryview) -> int:
        nonlocal dead
        if not dead and chance.random() < 0.05:
            real_write(descriptor, bytes(data)[: chance.randrange(len(data) + 1)])
            dead = True
        if dead:
            raise Killed
        return real_write(descriptor, data)

    def dying_save(self: Journal, end: LogEnd | None = None) -> bool:
        nonlocal dead
        dead = dead or chance.random() < 0.05
        if dead:
            raise Killed
        return real_record(self, end)

    monkeypatch.setattr("ainfinity.compute.remote.journal.os.write", dying_write)
    monkeypatch.setattr(Journal, "save", dying_save)
    lives = 0
    for _ in range(500):
        lives += 1
        one = Following(folder, streams)
        one.source = CLUSTER
        opened: list[Journal] = []
        monkeypatch.setattr(Journal, "open", lambda path, opened=opened: opened.append(real_open(path)) or opened[0])
        try:
            one.read(follow=True)
        except Killed:
            opened[0].close()  # the dead hold no lock
        dead = False
        if one.end is not None:
            break
    assert one.end is not None
    assert own_lines(folder) == wanted
    assert seed > 3 or lives > 1


def test_a_recovery_begins_another_log_and_is_no_reading_again(
    streams: Streams, followers: Followers, tmp_path: Path
) -> None:
    followers.follow("a", MANAGED)
    streams.write("setting up", *numbered(300))
    wait(lambda: len(own_lines(tmp_path / "a")) == 300)
    streams.recover()
    streams.write("setting up", *numbered(120, 1000))  # shorter, and equal at first
    wait(lambda: len(own_lines(tmp_path / "a")) == 420)
    streams.finish()
    wait(lambda: followers.ended("a"))
    assert own_lines(tmp_path / "a") == numbered(300) + numbered(120, 1000)
    assert lines_of(tmp_path / "a").count("setting up") == 2


@pytest.mark.parametrize("equal", [0, 1, 63, 64, 65, 200, 9000])
def test_a_recovery_that_nobody_saw_is_told_from_the_log_itself(tmp_path: Path, equal: int) -> None:
    streams = Streams()
    streams.write(*numbered(equal), *numbered(10_000, 20_000))
    one = Following(tmp_path / "a", streams)
    one.source = MANAGED
    one.read(follow=False)
    streams.recover()
    streams.write(*numbered(equal), *numbered(10_000, 50_000))
    streams.finish()
    for _ in range(3):
        one.read(follow=True)
    assert one.end == LogEnd("SUCCEEDED", 0)
    first = numbered(equal) + numbered(10_000, 20_000)
    assert own_lines(tmp_path / "a") == first + numbered(equal) + numbered(10_000, 50_000)


def test_the_machine_may_only_seem_lost(streams: Streams, tmp_path: Path) -> None:
    """SkyPilot says the same when its own connection breaks, and begins the same log again."""
    streams.write(*numbered(100))
    pieces = [*streams._tail(follow=False), LOST, *streams._tail(follow=False), own("more"), ended("SUCCEEDED")]
    place = Place()
    text = LogReader(place, framed=True).feed(pieces)
    assert [line for line in text.splitlines() if line.startswith("{")] == numbered(100)
    assert text.splitlines()[-2:] == ["more", DONE]


@pytest.mark.parametrize("seed", range(10))
def test_pieces_may_be_cut_anywhere(seed: int) -> None:
    chance = random.Random(seed)
    raw = "".join([*Streams()._tail(follow=False), *map(own, ["10%\r20%\r\n30%", "ä", *numbered(300)])])
    raw = raw.replace("\n", "\r\n") if seed % 2 else raw
    pieces, rest = [], raw
    while rest:
        size = chance.randrange(1, 60)
        pieces.append(rest[:size])
        rest = rest[size:]
    whole, reader = LogReader(Place(), framed=True).feed([raw]), LogReader(Place(), framed=True)
    assert "".join(reader.feed([piece]) for piece in pieces) == whole
    assert "10%\n20%\n30%\nä\n" in whole


def test_a_full_disk_is_waited_for(
    streams: Streams, followers: Followers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, room = os.write, 2000

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal room
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = real(descriptor, bytes(data)[:room])
        room -= count
        return count

    monkeypatch.setattr("ainfinity.compute.remote.journal.os.write", write)
    followers.follow("a", CLUSTER)
    streams.write(*numbered(1000))
    wait(lambda: room == 0)
    streams.write(*numbered(1000, 1000))
    assert followers.ended("a") is None
    room = 10_000_000
    streams.finish()
    wait(lambda: followers.ended("a"))
    assert own_lines(tmp_path / "a") == numbered(2000)


def test_two_workers_never_write_one_log(streams: Streams, followers: Followers, tmp_path: Path) -> None:
    followers.follow("a", CLUSTER)
    streams.write(*numbered(10))
    wait(lambda: len(own_lines(tmp_path / "a")) == 10)
    other = Followers(streams, tmp_path)
    other.follow("a", CLUSTER)
    streams.write(*numbered(10, 10))
    wait(lambda: len(own_lines(tmp_path / "a")) == 20)
    assert Journal.open(tmp_path / "a") is None
    followers.close()  # and the other one goes on
    streams.write(*numbered(10, 20))
    streams.finish()
    wait(lambda: other.ended("a"))
    other.close()
    assert own_lines(tmp_path / "a") == numbered(30)


def test_more_logs_than_streams_are_read_in_turn(streams: Streams, tmp_path: Path) -> None:
    followers = Followers(streams, tmp_path, most=2, turn=0.02)
    names = [f"job-{number}" for number in range(9)]
    for name in names:
        followers.follow(name, CLUSTER)
    streams.write(*numbered(50))
    wait(lambda: all(len(own_lines(tmp_path / name)) == 50 for name in names))
    streams.write(*numbered(50, 50))
    assert streams.most_open <= 3
    streams.finish()
    wait(lambda: all(followers.ended(name) for name in names))
    followers.close()
    assert all(own_lines(tmp_path / name) == numbered(100) for name in names)
    assert streams.most_open <= 3  # two followed, and one in its turn


def test_a_managed_job_is_over_only_for_those_who_follow_it(streams: Streams, tmp_path: Path) -> None:
    streams.write("one")
    streams.finish("FAILED")
    one = Following(tmp_path / "a", streams)
    one.source = MANAGED
    one.read(follow=False)
    assert (one.end, one.is_nearly_over) == (None, True)
    one.read(follow=True)
    assert one.end == LogEnd("FAILED", 100)


def test_a_log_that_can_no_longer_be_had_ended_without_a_word(
    streams: Streams, followers: Followers, tmp_path: Path
) -> None:
    streams.gone = True
    followers.follow("a", CLUSTER)
    wait(lambda: followers.ended("a") == LogEnd())
    streams.gone = False  # its cluster had only not been up
    streams.write("one")
    streams.finish()
    wait(lambda: followers.ended("a") == LogEnd("SUCCEEDED", 0))
    assert "one" in lines_of(tmp_path / "a")


def test_secrets_are_hidden(
    streams: Streams, followers: Followers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redact, "_known", set())
    monkeypatch.setattr(redact, "_known_pattern", None)
    redact.learn(["canary-value-1"])
    streams.launch = ["with canary-value-1\n"]
    streams.write("my canary-value-1", "hf_abcdefghijklmnopqrstuvwxyz", "plain")
    streams.finish()
    followers.follow("a", LogSource("cluster", "r1", "ain-x", 1))
    wait(lambda: followers.ended("a"))
    text = (tmp_path / "a" / "log.txt").read_text()
    assert "plain" in text
    assert "canary-value-1" not in text
    assert "hf_" not in text
    assert text.count(redact.HIDDEN) == 3


def test_without_its_request_a_launch_is_known_from_the_clusters_record(
    streams: Streams, followers: Followers, tmp_path: Path
) -> None:
    streams.provision = ["D 11-24 detail\n", "I 11-24 Instance is up.\n"]
    followers.follow("a", LogSource("cluster", "", "ain-x"))
    wait(lambda: lines_of(tmp_path / "a") == ["I 11-24 Instance is up."])
    streams.provision.append("I 11-24 Launched.\n")
    streams.finish()
    followers.follow("a", CLUSTER)
    wait(lambda: followers.ended("a"))
    assert lines_of(tmp_path / "a")[:2] == ["I 11-24 Instance is up.", "I 11-24 Launched."]


def test_a_log_that_was_removed_is_fetched_again(streams: Streams, tmp_path: Path) -> None:
    streams.write(*numbered(20))
    one = Following(tmp_path / "a", streams)
    one.source = CLUSTER
    one.read(follow=False)
    (tmp_path / "a" / "log.txt").unlink()
    one.read(follow=False)
    assert own_lines(tmp_path / "a") == numbered(20)


def test_nothing_is_written_after_a_log_is_dropped(streams: Streams, followers: Followers, tmp_path: Path) -> None:
    followers.follow("a", CLUSTER)
    streams.write(*numbered(5))
    wait(lambda: len(own_lines(tmp_path / "a")) == 5)
    followers.drop("a")
    streams.write(*numbered(5, 5))
    streams.finish()
    wait(lambda: streams.open_now == 0)
    assert own_lines(tmp_path / "a") == numbered(5)
