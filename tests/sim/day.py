"""What is drawn from the dice for one schedule: the weather and the jobs."""

from __future__ import annotations

import random

from ainfinity.compute.fake import Weather
from ainfinity.schema.training_job import JobSpec

CALM = Weather()


def bad_day(dice: random.Random, lag: float) -> Weather:
    """Draw what goes wrong on this day, and how often."""

    def rate(high: float) -> float:
        return dice.choice([0.0, 0.0, high / 4, high])

    return Weather(
        timeout=rate(0.2),
        launch_lost=rate(0.5),
        launch_reply_lost=rate(0.8),
        launch_refused=rate(0.1),
        stop_lost=rate(0.4),
        stop_reply_lost=rate(0.4),
        # A backend without lag promises that its list is complete and of this moment.
        stale=rate(0.4) if lag else 0.0,
        missing=rate(0.3) if lag else 0.0,
        export_bad=rate(0.2),
        short_read=rate(0.5),
        late=rate(0.8),
        fail=rate(0.4),
        preempted=rate(0.3),
        vanish=rate(0.3),
        unlisted=rate(0.3),
        recover=rate(0.5),
        linger=rate(0.5),
        stubborn=rate(0.5),
        forgotten=rate(0.5),
        silent=rate(0.8),
        deaf=rate(0.8),
        away=rate(0.6),
        unpriced=rate(0.2),
        price=dice.choice([(0.0, 0.0), (100.0, 4000.0), (1000.0, 4000.0)]),
        pending=(0.0, dice.choice([0.0, 5.0, 20.0])),
        away_for=dice.choice([(1.0, 20.0), (1.0, 1e9)]),
        setup=(0.5, 3.0),
        run=(0.5, dice.choice([3.0, 15.0, 40.0])),
        stop=(0.0, dice.choice([0.0, 4.0])),
    )


def draw_spec(data: str, name: str, dice: random.Random) -> JobSpec:
    """Draw a job of that name."""
    policy = {
        "approval": dice.choice(["auto", "auto", "auto", "required"]),
        "priority": dice.choice([0, 0, 5]),
        "retries": dice.choice([0, 0, 1]),
        "recover": dice.choice(["auto", "auto", "never"]),
        "notify": dice.choice(["finish", "finish", "all", "none"]),
        "max_duration": dice.choice([None, None, None, 6.0]),
        "max_cost": dice.choice([None, 1.0, 5.0, 20.0]),
        "stuck_after": dice.choice([None, None, None, 2.0, 10.0]),
        "on_stuck": dice.choice(["alert", "alert", "restart", "stop"]),
        "keep_on_failure": dice.choice([None, None, 30.0]),
    }
    return JobSpec.model_validate(
        {
            "name": name,
            "recipe": {"model": "none", "data": data, "max_steps": 4},
            "resources": {"infra": "fake", "gpus": f"X:{dice.choice([1, 1, 2, 5])}"},
            "policy": policy,
        }
    )
