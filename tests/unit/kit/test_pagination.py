"""Paging: every row exactly once, whatever is added meanwhile, and no token but its own listing's."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.rpc import monitor_pb2, registry_pb2
from services.contracts.rpc.common_pb2 import Page
from services.kit.transport.grpc_requests import DEFAULT_PAGE, LARGEST_PAGE
from services.kit.transport.pagination import BadPageToken, paging


def request(token: str = "", size: int = 0, *, version: int = 0) -> monitor_pb2.ListWindowsRequest:
    return monitor_pb2.ListWindowsRequest(deployment="news", page_size=size, page_token=token, version=version)


@given(rows=st.integers(0, 40), size=st.integers(1, 12), grown=st.lists(st.integers(0, 5), max_size=20))
def test_paging_newest_first_gives_every_row_exactly_once(rows: int, size: int, grown: list[int]) -> None:
    table = list(range(1, rows + 1))
    seen: list[int] = []
    token, additions = "", iter(grown)
    while True:
        page = paging("ListWindows", request(token, size))
        below = [number for number in reversed(table) if not page.number or number < page.number]
        shown, token = page.slice(below[: page.limit], lambda number: number)
        assert len(shown) <= size
        seen += shown
        if not token:
            break
        table += range(len(table) + 1, len(table) + 1 + next(additions, 0))
    assert seen == list(range(rows, 0, -1))


@given(names=st.sets(st.from_regex(r"[a-z]{1,6}", fullmatch=True), max_size=30), size=st.integers(1, 8))
def test_paging_by_name_gives_every_name_exactly_once(names: set[str], size: int) -> None:
    seen: list[str] = []
    token = ""
    while True:
        page = paging("ListModels", registry_pb2.ListModelsRequest(page=Page(page_size=size, page_token=token)))
        rest = sorted(name for name in names if name > page.after)
        shown, token = page.slice(rest[: page.limit], lambda name: name)
        seen += shown
        if not token:
            break
    assert seen == sorted(names)


def token_of(listing: str = "ListWindows", *, version: int = 0) -> str:
    _, token = paging(listing, request(size=1, version=version)).slice([7, 6], lambda number: number)
    return token


def test_a_token_says_nothing_to_read_and_fits_its_own_listing_whatever_the_size() -> None:
    assert paging("ListWindows", request(token_of(), 3)).number == 7
    assert "7" not in token_of()


@pytest.mark.parametrize(
    "token",
    [
        "7",
        "news",
        "not base64!",
        "\x00",
        "A" * 400,
        token_of("ListVerdicts"),
        token_of(version=2),
        token_of()[:-1],
        base64.urlsafe_b64encode(b"12345678" + b"7").decode(),
    ],
)
def test_any_other_token_is_refused(token: str) -> None:
    with pytest.raises(BadPageToken):
        paging("ListWindows", request(token))


@given(st.text(max_size=60))
def test_no_token_whatsoever_breaks_the_reader(token: str) -> None:
    try:
        requested = request(token)
    except UnicodeEncodeError:
        return
    if token:
        with pytest.raises(BadPageToken):
            paging("ListWindows", requested)


def test_no_size_is_the_default_and_a_large_one_is_clamped() -> None:
    assert paging("ListWindows", request()).size == DEFAULT_PAGE
    assert paging("ListWindows", request(size=100_000)).size == LARGEST_PAGE
