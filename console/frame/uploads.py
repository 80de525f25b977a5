"""The limit on the size of one upload, enforced before any of it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadhandler import FileUploadHandler, StopUpload

if TYPE_CHECKING:
    from django.core.files.uploadedfile import UploadedFile
    from django.http import HttpRequest, QueryDict
    from django.utils.datastructures import MultiValueDict

# Bytes of a whole form with its files: twice the largest file that a page takes (2,000,000), so a
# file slightly too large still reaches the form, which says so in words.
LARGEST = 4_000_000


class TooLarge(RequestDataTooBig):
    """Error for a form over the limit; its text is a sentence for who sent it."""


class Bounded(FileUploadHandler):
    """Upload handler: refuses a form by its announced length, and stops a file over the limit."""

    def __init__(self, request: HttpRequest | None = None) -> None:
        super().__init__(request)
        self._seen = 0

    def handle_raw_input(
        self,
        input_data: object,
        META: dict[str, str],
        content_length: int,
        boundary: str,
        encoding: str | None = None,
    ) -> tuple[QueryDict, MultiValueDict[str, UploadedFile[bytes]]] | None:
        """Raise TooLarge (HTTP 400) when the announced length is over the limit."""
        if content_length > LARGEST:
            raise TooLarge(
                f"The form with its file has {content_length:,} bytes; the limit is {LARGEST:,}."
                " Split the file."
            )
        return None  # the next handler reads the form

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        # the announced length may be wrong or absent, so the bytes that arrive are counted too
        self._seen += len(raw_data)
        if self._seen > LARGEST:
            raise StopUpload(connection_reset=True)
        return raw_data

    def file_complete(self, file_size: int) -> None:
        """Leave the file to the next handler."""
