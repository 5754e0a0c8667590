"""`python -m services.trainer.stages FOLDER`: runs or resumes the run in that folder, which has a `spec.json`.

The environment says what belongs to the machine: the keys' folder, where spans are kept, and the execution's name.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Final

from services.kit.core.clock import SystemClock
from services.kit.storage.artifacts import ArtifactStore
from services.trainer.domain.spec import (
    EXECUTION_VARIABLE,
    KEYS_VARIABLE,
    LOG_FILE,
    SPEC_FILE,
    ExitCode,
    TrainingSpec,
)
from services.trainer.stages.folder import RunFolder
from services.trainer.stages.runner import Runner
from services.trainer.stages.stopping import Stopping
from services.trainer.stages.tracing import traced_process

NICENESS: Final = 5
"""Where a model is trained beside the services, serving goes first."""


def main(arguments: list[str]) -> int:
    """The exit code is an `ExitCode`."""
    if len(arguments) != 1 or not (Path(arguments[0]) / SPEC_FILE).is_file() or KEYS_VARIABLE not in os.environ:
        sys.stderr.write(
            f"usage: {KEYS_VARIABLE}=KEYS python -m services.trainer.stages FOLDER   (with a {SPEC_FILE} in it)\n"
        )
        return ExitCode.USAGE
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
    spec = TrainingSpec.model_validate_json((folder / SPEC_FILE).read_bytes())
    artifacts = ArtifactStore(spec.artifact_store, Path(os.environ[KEYS_VARIABLE]))
    name = f"{spec.tenant}/{spec.model}/{os.environ.get(EXECUTION_VARIABLE, spec.run)}"
    with traced_process():
        return Runner(folder, stopping, artifacts, name).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
