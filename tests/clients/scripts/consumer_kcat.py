"""kcat: a topic from the beginning to its end, and a group of one's own."""

import json
import re
import secrets
import subprocess
import sys

from shared.listening import BROKER, in_one_chain, report

CLIENT, TOPIC = "kcat", "registry.history"


def kcat(*options):
    done = subprocess.run(
        ["kcat", "-b", BROKER, "-q", *options], check=True, capture_output=True, text=True, timeout=90
    )
    return done.stdout.splitlines()


def full_topic():
    lines = kcat("-C", "-t", TOPIC, "-o", "beginning", "-e")
    in_one_chain([json.loads(line) for line in lines])
    report(CLIENT, VERSION, f"{TOPIC} from the beginning to the end, -C -e")


def keys_and_headers():
    line = kcat("-C", "-t", "model.trained", "-o", "beginning", "-e", "-f", r"%k %h\n")[0]
    key, _, headers = line.partition(" ")
    assert f"ce_subject={key}" in headers, line
    assert "ce_type=millrace.model.trained.v1" in headers, line
    report(CLIENT, VERSION, "model.trained, keys and headers by -f")


def group():
    options = ("-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000", "-c", "2")
    lines = kcat("-G", f"audit-{secrets.token_hex(4)}", *options, TOPIC)
    assert [json.loads(line)["sequence"] for line in lines] == [1, 2], lines
    report(CLIENT, VERSION, f"{TOPIC}, a group of one's own, -G")


try:
    output = subprocess.run(["kcat", "-V"], check=True, capture_output=True, text=True).stdout
except FileNotFoundError:
    sys.stderr.write("kcat is not on the PATH")
    sys.exit(77)
VERSION = re.search(r"Version (\S+)", output)[1]
full_topic()
keys_and_headers()
group()
