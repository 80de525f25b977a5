"""What the log says of a request: one line, and a traceback only for our own faults.

Logging is set up before Django is, so this module imports nothing of it.
"""

from __future__ import annotations

import logging
from http import HTTPStatus


class OwnFaults(logging.Filter):
    """Log filter that keeps tracebacks for our own faults.

    A refused request (HTTP 4xx) is one line: the traceback would only show where it was refused.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "status_code", 500) < HTTPStatus.INTERNAL_SERVER_ERROR:
            record.exc_info = record.exc_text = None
        return True
