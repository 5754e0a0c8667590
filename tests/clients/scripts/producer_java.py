"""Apache Kafka's own console producer: plain JSON with parse.key, and CloudEvents with parse.headers."""

import json
import os
import shutil
import subprocess
import sys

from shared.announcing import BROKER, TOPIC, cloud_event_headers, prove, report

CLIENT = "Apache Kafka console producer"
CLASSPATH = os.environ.get("MILLRACE_KAFKA_CLASSPATH", "")


def console_producer(*options, line=None):
    """`bin/kafka-console-producer.sh` starts the same class."""
    java = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", CLASSPATH]
    command = [*java, "org.apache.kafka.tools.ConsoleProducer"]
    return subprocess.run([*command, *options], check=False, input=line, capture_output=True, text=True, timeout=100)


def send(line, *properties):
    reader = [part for name in properties for part in ("--property", name)]
    done = console_producer("--bootstrap-server", BROKER, "--topic", TOPIC, "--sync", *reader, line=line)
    assert (done.returncode, "ERROR" in done.stderr) == (0, False), done.stderr


def plain(key, body, _, trace):
    """Headers, a tab, the key, a tab, the value."""
    send(f"traceparent:{trace}\t{key}\t{json.dumps(body)}\n", "parse.key=true", "parse.headers=true")


def binary(key, body, event_id, trace):
    """Headers are name:value, separated by commas."""
    headers = ",".join(f"{name}:{value}" for name, value in cloud_event_headers(key, event_id, trace).items())
    send(f"{headers}\t{key}\t{json.dumps(body)}\n", "parse.key=true", "parse.headers=true")


def on_the_embedded_broker():
    """It cannot: librdkafka's mock cluster answers ApiVersions 4 in a form that Java reads as a long throttle."""
    producer = ("--bootstrap-server", BROKER, "--topic", TOPIC, "--sync", "--max-block-ms", "3000")
    done = console_producer(*producer, "--property", "parse.key=true", line="key\t{}\n")
    assert "not present in metadata after 3000 ms" in done.stdout + done.stderr, done.stdout + done.stderr
    reason = "librdkafka's mock cluster does not answer ApiVersions as Java reads it"
    report(CLIENT, VERSION, TOPIC, f"refused: TimeoutException; {reason}")


if not CLASSPATH or shutil.which("java") is None:
    sys.stderr.write("Java, or Maven to fetch the jars of Apache Kafka, is not on the PATH")
    sys.exit(77)
VERSION = console_producer("--version").stdout.split()[0]
if os.environ["MILLRACE_BROKER"] == "embedded":
    on_the_embedded_broker()
else:
    prove(CLIENT, VERSION, "plain JSON", plain)
    prove(CLIENT, VERSION, "CloudEvents binary", binary)
