"""deploy/kafka/topics.yaml is the one list of topics, and it says what the contracts say."""

from services.cli.launcher.topics import Topic, load_topics
from services.contracts.events import EVENTS, RegistryFact
from services.contracts.topics import DLQ_SUFFIX
from services.kit.core.retention import DEAD_LETTER_RETENTION, EVENT_RETENTION, INBOX_RETENTION

WEEK_MS = 7 * 24 * 3600 * 1000


def listed() -> dict[str, Topic]:
    return {topic.name: topic for topic in load_topics()}


def test_the_list_has_exactly_the_topics_of_the_contracts_each_with_its_dead_letter() -> None:
    response = {event.topic for event in EVENTS}
    assert set(listed()) == response | {topic + DLQ_SUFFIX for topic in response}


def test_a_topic_is_compacted_exactly_where_its_contract_says_so() -> None:
    for event in EVENTS:
        compacted = listed()[event.topic].config["cleanup.policy"] == "compact"
        assert compacted is event.compacted, event.topic


def test_dead_letters_are_never_compacted_and_outlive_the_topic() -> None:
    for event in EVENTS:
        dead = listed()[event.topic + DLQ_SUFFIX]
        assert dead.config["cleanup.policy"] == "delete"
        assert int(dead.config["retention.ms"]) > WEEK_MS


def test_the_history_is_one_order_for_ever() -> None:
    history = listed()[RegistryFact.topic]
    assert history.partitions == 1
    assert history.config["retention.ms"] == history.config["retention.bytes"] == "-1"


def test_an_inbox_remembers_longer_than_an_event_and_its_dead_letter_live() -> None:
    topics = {topic.name: int(topic.config["retention.ms"]) / 86_400_000 for topic in load_topics()}
    dead_letters = {topics[name] for name in topics if name.endswith(".dlq")}
    events = {topics[name] for name in topics if not name.endswith(".dlq") and topics[name] > 0}
    assert (dead_letters, max(events)) == ({DEAD_LETTER_RETENTION.days}, EVENT_RETENTION.days)
    assert EVENT_RETENTION + DEAD_LETTER_RETENTION < INBOX_RETENTION
