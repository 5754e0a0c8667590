"""What requests add to a contest, whatever the order in which the parts become known."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.monitor.domain.ledger import Answer, Contest, Known, Tally, contribution, news, total
from services.monitor.domain.sequential import Arm, Outcomes, Pairs

START = datetime(2026, 11, 1, tzinfo=UTC)
CONTEST = Contest(candidate=2, champion=1, since=START)


def answer(version: int, *, mirrored: bool = False, ok: bool = True, label: str = "a", slow: bool = False) -> Answer:
    at = START + timedelta(seconds=1)
    return Answer(version=version, mirrored=mirrored, at=at, ok=ok, slow=slow, label=label if ok else None)


def test_a_request_answered_by_both_is_a_pair_and_by_one_an_arm() -> None:
    both = Known().with_answer(answer(1, label="a")).with_answer(answer(2, mirrored=True, label="b")).with_truth("a")
    alone = Known().with_answer(answer(2, label="b")).with_truth("a")
    assert contribution(both, CONTEST).correctness == Outcomes(pairs=Pairs(candidate_bad=1))
    assert contribution(both, CONTEST).errors == Outcomes(pairs=Pairs(neither=1))
    assert contribution(alone, CONTEST).correctness == Outcomes(candidate=Arm(1, 1))


def test_a_mirrored_answer_counts_only_beside_its_twin() -> None:
    lonely = Known().with_answer(answer(2, mirrored=True)).with_truth("a")
    assert contribution(lonely, CONTEST) == Tally()


def test_a_failed_answer_is_an_error_and_no_wrong_answer() -> None:
    known = Known().with_answer(answer(1)).with_answer(answer(2, mirrored=True, ok=False)).with_truth("a")
    found = contribution(known, CONTEST)
    assert found.errors == Outcomes(pairs=Pairs(candidate_bad=1))
    assert found.correctness == Outcomes()


def test_latency_is_compared_on_what_clients_saw() -> None:
    known = Known().with_answer(answer(1, slow=True)).with_answer(answer(2, mirrored=True, slow=True))
    assert contribution(known, CONTEST).latency == Outcomes(champion=Arm(1, 1))


def test_answers_from_before_the_contest_do_not_count() -> None:
    late = Contest(candidate=2, champion=1, since=START + timedelta(hours=1))
    assert contribution(Known().with_answer(answer(1)).with_truth("a"), late) == Tally()


def test_the_first_feedback_and_the_first_answer_count() -> None:
    known = Known().with_answer(answer(2, label="a")).with_answer(answer(2, label="b")).with_truth("a").with_truth("b")
    assert known.truth == "a"
    assert contribution(known, CONTEST).correctness == Outcomes(candidate=Arm(1, 0))


PARTS = st.lists(
    st.one_of(
        st.builds(
            answer,
            version=st.integers(1, 3),
            mirrored=st.booleans(),
            ok=st.booleans(),
            label=st.sampled_from("ab"),
            slow=st.booleans(),
        ),
        st.sampled_from("ab"),
    ),
    max_size=8,
)


@given(PARTS)
def test_running_news_add_up_to_the_contribution_of_all_that_is_known(parts: list[Answer | str]) -> None:
    known, steps = Known(), []
    for part in parts:
        after = known.with_truth(part) if isinstance(part, str) else known.with_answer(part)
        steps.append(news(known, after, CONTEST))
        known = after
    assert total(steps) == contribution(known, CONTEST)


@given(PARTS)
def test_news_told_twice_adds_nothing(parts: list[Answer | str]) -> None:
    known = Known()
    for part in parts:
        known = known.with_truth(part) if isinstance(part, str) else known.with_answer(part)
    again = known
    for part in parts:
        again = again.with_truth(part) if isinstance(part, str) else again.with_answer(part)
    assert news(known, again, CONTEST) == Tally()
