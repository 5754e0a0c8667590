"""A child process that trains nothing: `python child.py FOLDER`, and does as the spec's `base_model` says.

patient    takes steps, each of them kept as a checkpoint, until there is a file CHILD_FINISH, then leaves a result;
           at SIGTERM, a failure as the stages do
stubborn   the same, deaf to SIGTERM
family     patient, with a process of its own in its group, and one in a session of its own
mute       ends without a word
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CHECKPOINT = "checkpoint"


def main(folder: Path) -> None:
    spec = json.loads((folder / "spec.json").read_text())
    mode, finish = spec["base_model"], Path(os.environ["CHILD_FINISH"])
    requests: list[int] = []
    signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "stubborn" else lambda *_: requests.append(1))
    if mode == "mute":
        os._exit(1)
    if mode == "family":
        for alone in (False, True):
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=alone)
    first = int((folder / CHECKPOINT).read_text()) if (folder / CHECKPOINT).exists() else 0
    if first:
        report(folder, f"resumed at step {first}")
    for step in range(first + 1, 100_000):
        report(folder, f"step {step} of many by {os.getpid()}")
        stop(folder, CHECKPOINT, str(step))
        if requests:
            failure = {"stage": "train", "code": "interrupted", "reason": "asked to stop", "retryable": True}
            stop(folder, "failure.json", json.dumps(failure))
            return
        if finish.exists():
            break
        time.sleep(0.02)
    stop(folder, "result.json", os.environ["CHILD_RESULT"].replace("RUN", spec["run"]))


def report(folder: Path, message: str) -> None:
    line = {"at": "2026-01-01T00:00:00Z", "stage": "train", "fraction": 0.5, "message": message}
    with (folder / "progress.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def stop(folder: Path, name: str, content: str) -> None:
    (folder / f"{name}.partial").write_text(content)
    (folder / f"{name}.partial").replace(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
