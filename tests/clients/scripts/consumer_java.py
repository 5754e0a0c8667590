"""Apache Kafka's own console consumer: the registry's history from the beginning, in a group of its own."""

import json
import os
import secrets
import shutil
import subprocess
import sys

from shared.listening import BROKER, in_one_chain, report

CLIENT, TOPIC = "Apache Kafka console consumer", "registry.history"
CLASSPATH = os.environ.get("MILLRACE_KAFKA_CLASSPATH", "")


def console_consumer(*options):
    """`bin/kafka-console-consumer.sh` starts the same class."""
    java = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", CLASSPATH]
    command = [*java, "org.apache.kafka.tools.consumer.ConsoleConsumer", *options]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)


def history():
    """Ends when nothing comes for some seconds; log lines stand between the records."""
    group = f"audit-{secrets.token_hex(4)}"
    where = ("--bootstrap-server", BROKER, "--topic", TOPIC, "--group", group)
    output = console_consumer(*where, "--from-beginning", "--timeout-ms", "8000").stdout.splitlines()
    return [json.loads(line) for line in output if line.startswith("{")]


if not CLASSPATH or shutil.which("java") is None:
    sys.stderr.write("Java, or Maven to fetch the jars of Apache Kafka, is not on the PATH")
    sys.exit(77)
VERSION = console_consumer("--version").stdout.split()[0]
if os.environ["MILLRACE_BROKER"] == "embedded":
    assert history() == []
    reason = "librdkafka's mock cluster does not answer ApiVersions as Java reads it"
    report(CLIENT, VERSION, TOPIC, f"refused: nothing comes; {reason}")
else:
    in_one_chain(history())
    report(CLIENT, VERSION, f"{TOPIC} from the beginning, a group of its own")
