"""`python -m services.trainer.stages FOLDER`: runs or resumes the run in that folder."""

import logging
import os
import sys
from pathlib import Path
from typing import Final

from services.kit.clock import SystemClock
from services.trainer.domain.spec import LOG_FILE, RUN_FILE, ExitCode
from services.trainer.stages.folder import RunFolder
from services.trainer.stages.runner import Runner
from services.trainer.stages.stopping import Stopping, die_with_parent
from services.trainer.stages.tracing import traced_process

NICENESS: Final = 5
"""Where a model is trained beside the services, serving goes first."""


def main(arguments: list[str]) -> int:
    """The exit code is an `ExitCode`."""
    if len(arguments) != 1 or not (Path(arguments[0]) / RUN_FILE).is_file():
        sys.stderr.write(f"usage: python -m services.trainer.stages FOLDER   (with a {RUN_FILE} in it)\n")
        return ExitCode.USAGE
    die_with_parent()
    os.nice(NICENESS)
    # before torch is loaded: spinning threads would starve the services on the same cores
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    folder = RunFolder(Path(arguments[0]).resolve(), SystemClock())
    logging.basicConfig(
        filename=folder / LOG_FILE, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    for chatty in ("onnx_ir", "onnxscript"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    stopping = Stopping()
    stopping.listen()
    with traced_process():
        return Runner(folder, stopping).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
