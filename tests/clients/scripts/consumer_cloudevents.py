"""The CloudEvents SDK: what Millrace sends is an event in binary mode, read by the SDK's own bindings."""

from importlib.metadata import version

from cloudevents.core.bindings import kafka
from shared.listening import first_records, report

CLIENT, VERSION = "cloudevents", version("cloudevents")

for topic, source in (("model.trained", "millrace/trainer"), ("registry.history", "millrace/registry")):
    record = first_records(topic, 1)[0]
    event = kafka.from_kafka_event(kafka.KafkaMessage(dict(record.headers()), record.key(), record.value()))
    assert (event.get_specversion(), event.get_source()) == ("1.0", source)
    assert event.get_type() == f"millrace.{topic}.v1"
    assert event.get_subject() == record.key().decode() == event.get_extension("partitionkey")
    assert event.get_extension("correlationid")
    assert isinstance(event.get_data(), dict), event.get_data()
    report(CLIENT, VERSION, f"{topic}, read by from_kafka_event")
