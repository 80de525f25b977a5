"""Django's backend for PostgreSQL, with a limit on the test of a kept connection.

A server that is halted, or a pooler whose server is, keeps its connections open and answers
nothing. libpq has no time limit for an answer, and the limits of the server do not run while it is
halted, so Django's own test of the connection would wait for as long as it is.
"""

from __future__ import annotations

import select
import time

import psycopg
from django.db.backends.postgresql import base
from psycopg import pq

# Seconds in which a server must answer on a kept connection. Chosen: one that lives takes
# milliseconds, also across regions; a new connection, tried next, gets `database.CONNECT_S`.
ANSWER_S = 3.0


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's connection, which gives up a server that does not answer."""

    def is_usable(self) -> bool:
        """Return whether the server answers on this connection within ANSWER_S."""
        line = self.connection
        try:
            return line is not None and answers(line.pgconn, ANSWER_S)
        except psycopg.Error:
            return False


def answers(line: pq.abc.PGconn, within_s: float) -> bool:
    """Return whether the server answers a query within that many seconds; the connection must be
    idle. Raise psycopg.Error when it is broken.
    """
    last, ready = time.monotonic() + within_s, select.poll()
    ready.register(line.socket, select.POLLIN)
    line.send_query(b"SELECT 1")
    line.flush()
    found: list[int] = []
    while True:
        while line.is_busy():
            left_s = last - time.monotonic()
            if left_s <= 0 or not ready.poll(left_s * 1000):
                return False
            line.consume_input()
        # None: the server has said all
        if (result := line.get_result()) is None:
            return found == [pq.ExecStatus.TUPLES_OK]
        found.append(result.status)
