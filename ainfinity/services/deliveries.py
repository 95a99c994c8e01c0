"""Notices owed to places that a front serves, such as a chat."""

from __future__ import annotations

from typing import Literal

from ainfinity.schema.views import Notice
from ainfinity.store import events, outbox
from ainfinity.store.store import Store


class DeliveryService:
    """The front's side of the outbox."""

    #: A claim that is not settled by then is owed again.
    CLAIM = 60.0

    def __init__(self, store: Store) -> None:
        self.store = store

    def claim(self, place: str, limit: int = 20) -> list[Notice]:
        """Claim notices owed to a place, for a minute each."""
        with self.store.write() as connection:
            claims = outbox.claim(connection, place, self.store.clock.now(), self.CLAIM, limit)
            return [
                Notice(claim.id, place, claim.job_id, events.get(connection, claim.event_seq), claim.tries)
                for claim in claims
            ]

    def settle(self, notice_id: int, result: Literal["sent", "failed"], detail: str = "") -> None:
        """Say what became of a claimed notice; a failed one is owed again later."""
        with self.store.write() as connection:
            outbox.settle(connection, notice_id, result == "sent", self.store.clock.now(), detail)
