"""What the log says of a request: one line, and a traceback only for our own faults.

Logging is set up before Django is, so this module imports nothing of it.
"""

from __future__ import annotations

import logging
from http import HTTPStatus


class OwnFaults(logging.Filter):
    """Log filter that keeps tracebacks for our own faults.

    A refused request (HTTP 4xx) is one line: the traceback would only show where it was refused. So
    is one that the database could not serve (503), with what the database said.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        status = getattr(record, "status_code", 500)
        if status == HTTPStatus.SERVICE_UNAVAILABLE and record.exc_info and record.exc_info[1]:
            said = str(record.exc_info[1]).partition("\n")[0]
            record.msg, record.args = f"{record.getMessage()}: {said}", None
        if status < HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.SERVICE_UNAVAILABLE:
            record.exc_info = record.exc_text = None
        return True
