"""Events in words. Pure, and total: an event of an unknown type or with malformed data is told as far as it goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

from ainfinity.schema.event import Event, EventType
from tui import format as fmt
from tui.text import clean, crop

_LONGEST: Final = 400


class Told(NamedTuple):
    """An event as it is drawn: a symbol, its tone, what happened, and the particulars."""

    symbol: str
    tone: str
    title: str
    details: str


_E = EventType
_TITLES: Final[dict[str, tuple[str, str, str]]] = {
    _E.SUBMITTED: ("+", "text", "submitted"),
    _E.PLANNED: ("◌", "text", "planned"),
    _E.APPROVAL_REQUESTED: ("◇", "warn", "waits for approval"),
    _E.APPROVED: ("✓", "good", "approved"),
    _E.REJECTED: ("∅", "bad", "rejected"),
    _E.QUEUED: ("○", "text", "queued"),
    _E.CANCEL_REQUESTED: ("◑", "warn", "cancel asked for"),
    _E.RETRIED: ("↻", "live", "queued again"),
    _E.SUCCEEDED: ("✓", "good", "succeeded"),
    _E.FAILED: ("✗", "bad", "failed"),
    _E.CANCELLED: ("⊘", "warn", "cancelled"),
    _E.DELETED: ("✗", "dim", "deleted"),
    _E.ATTEMPT_INTENDED: ("◔", "text", "launch decided"),
    _E.ATTEMPT_LAUNCHED: ("◔", "live", "launched"),
    _E.ATTEMPT_ADOPTED: ("◔", "live", "found again and taken over"),
    _E.ATTEMPT_SETTING_UP: ("◔", "live", "setting up"),
    _E.ATTEMPT_RUNNING: ("●", "live", "running"),
    _E.ATTEMPT_RECOVERING: ("↻", "warn", "recovering"),
    _E.ATTEMPT_STOPPING: ("◑", "text", "stopping"),
    _E.ATTEMPT_SUCCEEDED: ("✓", "good", "attempt succeeded"),
    _E.ATTEMPT_FAILED: ("✗", "bad", "attempt failed"),
    _E.ATTEMPT_CANCELLED: ("⊘", "warn", "attempt cancelled"),
    _E.ATTEMPT_LOST: ("?", "bad", "attempt lost"),
    _E.ATTEMPT_GIVEN: ("▢", "text", "machine"),
    _E.ATTEMPT_FETCHING: ("▣", "text", "model being brought home"),
    _E.ATTEMPT_STUCK: ("‖", "warn", "stuck"),
    _E.ATTEMPT_UNSTUCK: ("●", "good", "moves again"),
    _E.ATTEMPT_KEPT: ("!", "warn", "machine kept"),
    _E.EXTEND_REQUESTED: ("+", "text", "more time asked for"),
    _E.ATTEMPT_EXTENDED: ("+", "text", "deadline moved"),
    _E.KEEP_REQUESTED: ("!", "text", "machine to be kept"),
    _E.TEARDOWN_REQUESTED: ("◑", "text", "machine to be ended"),
    _E.ADOPTED: ("◔", "text", "adopted"),
    _E.CLAIMED: ("✓", "good", "claimed"),
    _E.ORPHAN_FOUND: ("!", "warn", "orphan found"),
    _E.ORPHAN_REMOVED: ("✓", "good", "orphan removed"),
    _E.CONTACT_LOST: ("?", "warn", "no contact with the machine"),
    _E.CONTACT_RESTORED: ("●", "good", "contact again"),
    _E.TRAINER_STARTED: ("▸", "live", "training started"),
    _E.TRAINER_EVAL: ("◆", "accent", "held-out"),
    _E.TRAINER_SAMPLE: ("❝", "text", "sample"),
    _E.TRAINER_CHECKPOINT: ("▣", "text", "checkpoint"),
    _E.TRAINER_WARNING: ("!", "warn", "warning"),
    _E.TRAINER_STOPPED: ("■", "warn", "training stopped"),
    _E.TRAINER_FINISHED: ("✓", "good", "training finished"),
    _E.TRAINER_FAILED: ("✗", "bad", "training failed"),
}


def tell(event: Event) -> Told:
    """Return an event in words."""
    symbol, tone, title = _TITLES.get(event.type, ("·", "dim", clean(event.type) or "unknown event"))
    data = mapping(event.data)
    write = _PARTICULARS.get(event.type, _anything)
    return Told(symbol, tone, title, crop(clean(write(data)), _LONGEST))


def mapping(value: Any) -> dict[str, Any]:
    """Return `value` if it is a mapping, else an empty one: what a trainer sent may be anything."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def text_of(value: Any) -> str:
    """Return a value as cleaned text, empty for None."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return clean(text[: 4 * _LONGEST])


def _step(data: dict[str, Any]) -> str:
    step = fmt.finite(data.get("step"))
    return "" if step is None else f"step {step:.0f}"


def _evaluated(data: dict[str, Any]) -> str:
    parts = [f"loss {fmt.loss(data.get('loss'))}", _step(data)]
    if fmt.finite(data.get("perplexity")) is not None:
        parts.insert(1, f"perplexity {fmt.loss(data['perplexity'])}")
    return _joined(parts)


def _started(data: dict[str, Any]) -> str:
    steps = fmt.finite(data.get("total_steps"))
    ranks = fmt.finite(data.get("world_size"))
    resumed = fmt.finite(data.get("resumed_step"))
    return _joined(
        [
            text_of(data.get("model")),
            f"{fmt.rate(data['trainable'])} trainable parameters" if fmt.finite(data.get("trainable")) else "",
            fmt.plural(int(steps), "step") if steps is not None else "",
            fmt.plural(int(ranks), "rank") if ranks is not None else "",
            text_of(data.get("device")),
            f"resumed from step {resumed:.0f}" if resumed else "",
        ]
    )


def _sampled(data: dict[str, Any]) -> str:
    return _joined([_step(data), text_of(data.get("answer"))])


def _saved(data: dict[str, Any]) -> str:
    return _joined([_step(data), text_of(data.get("path"))])


def _finished(data: dict[str, Any]) -> str:
    before, after = data.get("eval_before"), data.get("eval_after")
    parts = [_step(data)]
    if fmt.finite(before) is not None or fmt.finite(after) is not None:
        parts.append(f"held-out {fmt.loss(before)} → {fmt.loss(after)}")
    return _joined([*parts, text_of(data.get("output"))])


def _given(data: dict[str, Any]) -> str:
    return _joined([text_of(data.get("given")), fmt.price(data.get("price_per_hour"))])


def _complaint(data: dict[str, Any]) -> str:
    code = text_of(data.get("code") or data.get("error_code"))
    message = text_of(data.get("message") or data.get("error_message") or data.get("reason"))
    return f"{code}: {message}" if code and message else code or message


def _anything(data: dict[str, Any]) -> str:
    told = {key: text_of(value) for key, value in data.items() if value not in (None, "", [], {})}
    return _joined([f"{clean(str(key))} {text}" for key, text in told.items()])


def _joined(parts: list[str]) -> str:
    return " · ".join(part for part in parts if part)


_PARTICULARS: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    _E.ATTEMPT_GIVEN: _given,
    _E.TRAINER_STARTED: _started,
    _E.TRAINER_EVAL: _evaluated,
    _E.TRAINER_SAMPLE: _sampled,
    _E.TRAINER_CHECKPOINT: _saved,
    _E.TRAINER_FINISHED: _finished,
    _E.TRAINER_WARNING: _complaint,
    _E.TRAINER_FAILED: _complaint,
    _E.TRAINER_STOPPED: lambda data: _joined([text_of(data.get("reason")), _step(data)]),
    _E.FAILED: _complaint,
}
