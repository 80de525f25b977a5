"""How long a page of a list over REST is."""

from __future__ import annotations

import pytest
from django.http import QueryDict
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from console.api.paging import MOST_ROWS, USUAL_ROWS, page_size


def _asking(limit: str | None) -> Request:
    given = QueryDict(mutable=True)
    if limit is not None:
        given["limit"] = limit
    return Request(APIRequestFactory().get(f"/?{given.urlencode()}"))


@pytest.mark.parametrize(
    ("limit", "size"), [(None, USUAL_ROWS), ("1", 1), ("007", 7), ("200", MOST_ROWS)]
)
def test_a_limit_is_the_number_of_rows(limit: str | None, size: int) -> None:
    assert page_size(_asking(limit)) == size


@pytest.mark.parametrize("limit", ["", "0", "201", "-1", "+5", " 5", "٥", "1e2", "0002001"])
def test_what_is_no_limit_is_refused(limit: str) -> None:
    with pytest.raises(ValidationError):
        page_size(_asking(limit))
