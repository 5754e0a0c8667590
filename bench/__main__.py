"""`make bench`: every figure in one run, as a table and in `bench/results/latest.json`. No figure fails it."""

import argparse
import sys
from pathlib import Path

from bench import asynchronous, events, generation, idle, serving
from bench.fleet import running_fleet
from bench.report import Figure, keep, machine, show


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", choices=["events", "generation", "fleet"], help="one part of it")
    parser.add_argument("--out", type=Path, default=Path("bench/results/latest.json"))
    options = parser.parse_args()
    facts = machine()
    figures: list[Figure] = []
    if options.only in (None, "events"):
        _say("an event from one service to the next")
        figures += events.measure()
    if options.only in (None, "generation"):
        _say("generation, in turn with onnxruntime-genai")
        figures += generation.measure()
    if options.only in (None, "fleet"):
        _say("starting a fleet")
        with running_fleet() as fleet:
            figures += idle.start(fleet)
            _say("training and deploying a model to ask")
            texts = serving.deploy(fleet)
            _say("idle")
            figures += idle.cost(fleet)
            _say("classification, in turn with a bare loop")
            figures += serving.measure(fleet, texts)
            _say("classification by Kafka, in turn with REST")
            bootstrap = fleet.millrace("status")["endpoints"]["kafka"]
            figures += asynchronous.measure(fleet, texts, bootstrap)
    show(figures)
    keep(figures, facts, options.out)
    _say(f"written to {options.out}")
    return 0


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
