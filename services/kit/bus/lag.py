"""How far a consumer is behind, as a metric, and whether it has a broker at all."""

from typing import Any

from services.kit import telemetry


def has_connection(consumer: Any) -> bool:
    """Whether any connection to a broker stands; asks the broker nothing."""
    return consumer is not None and any(link.connected() for link in consumer._client._conns.values())


def observe_lag(consumer: Any) -> None:
    """Sets `millrace_consumer_lag` from what the consumer knows already; asks the broker nothing."""
    if consumer is None:
        return
    for partition in consumer.assignment():
        highwater = consumer.highwater(partition)
        last = consumer.last_stable_offset(partition) if highwater is None else highwater
        state = consumer._subscription.subscription.assignment.state_value(partition)
        position = state.position if state is not None and state.has_valid_position else None
        if last is not None and position is not None:
            lag = max(0, last - position)
            telemetry.CONSUMER_LAG.labels(partition.topic, str(partition.partition)).set(lag)
