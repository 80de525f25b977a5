"""A bound on what one upload may bring, before any of it is kept."""

from __future__ import annotations

from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadhandler import FileUploadHandler, StopUpload

# Bytes of a whole form with its files.
LARGEST = 4_000_000


class Bounded(FileUploadHandler):
    """Refuses a form by its announced length, and stops one file that grows over the bound."""

    def __init__(self, request: object = None) -> None:
        super().__init__(request)
        self._seen = 0

    def handle_raw_input(self, input_data, META, content_length, boundary, encoding=None) -> None:
        """Raises RequestDataTooBig, which is answered with 400."""
        if content_length > LARGEST:
            raise RequestDataTooBig(f"a form of {content_length} bytes is over {LARGEST}")

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        self._seen += len(raw_data)
        if self._seen > LARGEST:
            raise StopUpload(connection_reset=True)
        return raw_data

    def file_complete(self, file_size: int) -> None:
        """Left to the next handler."""
