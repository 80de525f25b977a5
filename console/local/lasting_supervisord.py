"""supervisord, which goes on when it cannot write a log: `python -m
console.local.lasting_supervisord` with its arguments.

What it cannot write to a log it tells its standard error, which lies on the same disk. When that
was full, supervisord ended, and the kernel ended every program with it.
"""

from __future__ import annotations

from contextlib import suppress

from supervisor import loggers, supervisord

_tell = loggers.Handler.handleError


def _tell_if_possible(handler: loggers.Handler) -> None:
    with suppress(OSError):
        _tell(handler)


if __name__ == "__main__":
    loggers.Handler.handleError = _tell_if_possible
    supervisord.main()
