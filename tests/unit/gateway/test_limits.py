"""The arithmetic of limits, and which ones hold for whom."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.access import KeyRole
from services.gateway.domain.limits import (
    NO_LIMITS,
    TOKEN_WINDOW_SECONDS,
    LimitRules,
    Limits,
    charge,
    debt,
    left_over,
    take,
)
from services.kit.identity.auth import KeyLimits, Principal

RATES = st.floats(min_value=0.1, max_value=10_000)
BURSTS = st.integers(min_value=1, max_value=500)
ANSWERS = st.lists(
    st.tuples(st.floats(min_value=0, max_value=30), st.integers(min_value=0, max_value=10**6)), max_size=60
)
GAPS = st.lists(st.floats(min_value=0, max_value=5), min_size=1, max_size=300)
USUAL = Limits(requests_per_second=100.0, burst=200, concurrent=10, tokens_per_minute=6_000)
RULES = LimitRules(usual=USUAL, admin_factor=50)


def moments(gaps: list[float]) -> list[float]:
    response, now = [], 0.0
    for gap in gaps:
        now += gap
        response.append(now)
    return response


@given(rate=RATES, burst=BURSTS, gaps=GAPS)
def test_no_stretch_of_time_lets_more_in_than_its_burst_and_its_rate(
    rate: float, burst: int, gaps: list[float]
) -> None:
    empty_at, admitted = 0.0, []
    for now in moments(gaps):
        empty_at, wait = take(empty_at, now, 1 / rate, burst)
        if not wait:
            admitted.append(now)
    for index, start in enumerate(admitted):
        for further, end in enumerate(admitted[index:], start=1):
            assert further <= burst + (end - start) * rate + 1 + 1e-3


@given(rate=RATES, burst=BURSTS, extra=st.lists(st.floats(min_value=0, max_value=3), min_size=1, max_size=100))
def test_who_keeps_to_the_rate_is_never_refused(rate: float, burst: int, extra: list[float]) -> None:
    empty_at = 0.0
    for now in moments([1 / rate + more for more in extra]):
        empty_at, wait = take(empty_at, now, 1 / rate, burst)
        assert wait == 0


@given(rate=RATES, burst=BURSTS, gaps=GAPS)
def test_waiting_as_long_as_was_announced_is_enough_and_a_refusal_costs_nothing(
    rate: float, burst: int, gaps: list[float]
) -> None:
    empty_at = 0.0
    for now in moments(gaps):
        moved, wait = take(empty_at, now, 1 / rate, burst)
        if wait:
            assert moved == empty_at
            assert take(empty_at, now + wait, 1 / rate, burst)[1] == 0
        empty_at = moved


@given(rate=RATES, burst=BURSTS, gaps=GAPS)
def test_what_is_shown_as_left_can_be_taken_at_once_and_no_more(rate: float, burst: int, gaps: list[float]) -> None:
    empty_at, now = 0.0, 0.0
    for now in moments(gaps):
        empty_at, _ = take(empty_at, now, 1 / rate, burst)
    left = left_over(empty_at, now, 1 / rate, burst)
    assert 0 <= left <= burst
    for _ in range(left):
        empty_at, wait = take(empty_at, now, 1 / rate, burst)
        assert wait == 0
    assert take(empty_at, now, 1 / rate, burst)[1] > 0 or left == 0


@given(
    per_minute=st.integers(min_value=1, max_value=10**9),
    answers=st.lists(
        st.tuples(st.floats(min_value=0, max_value=30), st.integers(min_value=0, max_value=10**6)), max_size=60
    ),
)
def test_tokens_over_any_time_are_the_allowance_the_window_and_the_last_answer(
    per_minute: int, answers: list[tuple[float, int]]
) -> None:
    """A key is refused in debt alone, so it can be past its allowance by the one answer that brought it there."""
    interval, empty_at, now = 60 / per_minute, 0.0, 0.0
    spent, last = 0, 0
    for gap, tokens in answers:
        now += gap
        if debt(empty_at, now):
            continue
        empty_at = charge(empty_at, now, interval, tokens)
        spent += tokens
        last = max(last, tokens)
    assert spent <= per_minute * (now / 60 + 1) + last + 1


def test_a_debt_is_over_after_the_time_that_was_announced() -> None:
    empty_at = charge(0.0, 0.0, 60 / 600, 900)
    assert empty_at == pytest.approx(90.0)
    wait = debt(empty_at, 0.0)
    assert wait == pytest.approx(30.0)
    assert debt(empty_at, wait) == 0
    assert debt(charge(0.0, 0.0, 60 / 600, 600), 0.0) == 0, "a minute's worth is no debt"
    assert TOKEN_WINDOW_SECONDS == 60


def who(role: KeyRole, **values: float) -> Principal:
    limits = {name: value if name == "requests_per_second" else int(value) for name, value in values.items()}
    return Principal("k", role, "default", KeyLimits(**limits))  # type: ignore[arg-type]


def test_each_role_has_the_usual_limits_an_admin_many_times_them_and_a_service_none() -> None:
    for role in (KeyRole.VIEWER, KeyRole.CLIENT, KeyRole.OPERATOR):
        assert RULES.of(who(role)) == USUAL
    assert RULES.of(who(KeyRole.ADMIN)) == Limits(5_000.0, 10_000, 500, 300_000)
    assert RULES.of(who(KeyRole.SERVICE, burst=1)) is NO_LIMITS


def test_what_a_keys_entry_says_comes_first_and_nothing_is_no_limit() -> None:
    assert RULES.of(who(KeyRole.CLIENT, concurrent=3)) == Limits(100.0, 200, 3, 6_000)
    assert RULES.of(who(KeyRole.CLIENT, requests_per_second=5, burst=7)) == Limits(5.0, 7, 10, 6_000)
    free = RULES.of(who(KeyRole.CLIENT, requests_per_second=0, concurrent=0, tokens_per_minute=0))
    assert (free.request_seconds, free.concurrent, free.token_seconds) == (0.0, 0, 0.0)


def test_a_rate_without_a_burst_keeps_the_usual_proportion() -> None:
    assert RULES.of(who(KeyRole.CLIENT, requests_per_second=5)).burst == 10
    assert RULES.of(who(KeyRole.CLIENT, requests_per_second=0.01)).burst == 1
    assert all(slow.burst <= fast.burst for slow, fast in pairwise(
        RULES.of(who(KeyRole.CLIENT, requests_per_second=rate)) for rate in (0.1, 1, 10, 100, 1_000)
    ))  # fmt: skip
