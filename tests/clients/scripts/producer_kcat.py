"""kcat: plain JSON with the key before a delimiter, and CloudEvents in binary mode by -H."""

import json
import re
import subprocess
import sys

from shared.announcing import BROKER, TOPIC, cloud_event_headers, prove

CLIENT = "kcat"


def kcat(line, *options):
    command = ["kcat", "-P", "-b", BROKER, "-t", TOPIC, "-X", "acks=all", "-X", "partitioner=murmur2_random", *options]
    subprocess.run(command, check=True, input=line, text=True, timeout=60)


def plain(key, body, _, trace):
    """The key before a tab; of the headers only the trace."""
    kcat(f"{key}\t{json.dumps(body)}\n", "-K", r"\t", "-H", f"traceparent={trace}")


def binary(key, body, event_id, trace):
    """A header each -H; the key by -k."""
    headers = cloud_event_headers(key, event_id, trace)
    kcat(json.dumps(body), "-k", key, *(part for name in headers for part in ("-H", f"{name}={headers[name]}")))


try:
    output = subprocess.run(["kcat", "-V"], check=True, capture_output=True, text=True).stdout
except FileNotFoundError:
    sys.stderr.write("kcat is not on the PATH")
    sys.exit(77)
VERSION = re.search(r"Version (\S+)", output)[1]
prove(CLIENT, VERSION, "plain JSON", plain)
prove(CLIENT, VERSION, "CloudEvents binary", binary)
