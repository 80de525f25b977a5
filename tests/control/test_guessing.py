"""Wrong passwords make the next try wait, also when they come at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from control.models import SignInTry
from control.people import guessing

NOW = timezone.now()
HERE, NAME = "198.51.100.1", "mara@example.org"


def test_waits_double_up_to_the_longest() -> None:
    waits = [guessing.delay_s(tries, 3, 60) for tries in range(12)]
    assert waits == [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert guessing.delay_s(10**9, 3, 60) == 60


@pytest.mark.django_db(transaction=True)
def test_tries_at_the_same_time_do_not_miss_each_other() -> None:
    def one(_: int) -> int:
        try:
            return guessing.wait_before(HERE, NAME, NOW)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(one, range(40)))
    assert waits.count(0) == guessing.FREE_OF_NAME
    assert set(waits) == {0, 1}


@pytest.mark.django_db
def test_one_customers_addresses_of_ipv6_count_as_one() -> None:
    for k in range(guessing.FREE_OF_NAME):
        assert guessing.wait_before(f"2001:db8::{k + 1:x}", NAME, NOW) == 0
    assert guessing.wait_before("2001:db8::ffff", NAME, NOW) == 1
    assert guessing.wait_before("2001:db8:0:1::1", NAME, NOW) == 0


@pytest.mark.django_db
def test_after_a_day_without_a_try_the_free_ones_are_back() -> None:
    for _ in range(guessing.FREE_OF_NAME):
        guessing.wait_before(HERE, NAME, NOW)
    later = NOW + guessing.FORGET + timedelta(seconds=1)
    for _ in range(guessing.FREE_OF_NAME):
        assert guessing.wait_before(HERE, NAME, later) == 0
    assert guessing.wait_before(HERE, NAME, later) == 1


@pytest.mark.django_db
def test_a_right_password_does_not_forget_the_wrong_ones_for_other_names() -> None:
    for k in range(guessing.FREE_OF_ADDRESS - 1):
        assert guessing.wait_before(HERE, f"name{k}", NOW) == 0
    assert guessing.wait_before(HERE, NAME, NOW) == 0
    guessing.settle(HERE, NAME, NOW)
    assert guessing.wait_before(HERE, "one more", NOW) == 0
    assert guessing.wait_before(HERE, "too many", NOW) == 1
    assert guessing.wait_before(HERE, NAME, NOW) == 0
    assert guessing.wait_before(HERE, NAME, NOW + guessing.KNOWN) == 0


@pytest.mark.django_db
def test_neither_name_nor_address_is_kept_as_it_was_given() -> None:
    guessing.wait_before(HERE, "a-password-in-the-wrong-field", NOW)
    kept = str(list(SignInTry.objects.values()))
    assert "password" not in kept
    assert HERE not in kept


@pytest.mark.django_db
def test_an_address_that_is_none_counts_as_one() -> None:
    for k in range(guessing.FREE_OF_NAME):
        guessing.wait_before("" if k % 2 else "nonsense", NAME, NOW)
    assert guessing.wait_before("", NAME, NOW) == 1
