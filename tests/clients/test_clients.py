"""The clients that users have, unmodified, each in a process that knows nothing of us."""

import pytest

from tests.clients.conftest import Environment
from tests.clients.tried import KAFKA, run, scripts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("script", scripts())
def test_a_client_meets_what_it_expects(script: str, embedded_environment: Environment, grpcurl: str) -> None:
    assert run(script, embedded_environment | {"MILLRACE_GRPCURL": grpcurl})


@pytest.mark.parametrize("script", scripts(*KAFKA))
def test_a_producer_or_consumer_meets_the_embedded_broker(script: str, embedded_environment: Environment) -> None:
    assert run(script, embedded_environment, "embedded broker")


@pytest.mark.kafka
@pytest.mark.parametrize("script", scripts(*KAFKA))
def test_a_producer_or_consumer_meets_apache_kafka(script: str, kafka_environment: Environment) -> None:
    assert run(script, kafka_environment, "Apache Kafka")
