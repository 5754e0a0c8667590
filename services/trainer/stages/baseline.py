"""What a model must beat: TF-IDF with logistic regression on the same rows.

`python -m services.trainer.stages.baseline FOLDER` prints its macro F1. A process of its own, so that scikit-learn
is loaded and fitted on another core while the model answers the test rows.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from services.kit.core.clock import SystemClock
from services.trainer.domain.spec import PARENT_VARIABLE, Split, Stage
from services.trainer.errors import BaselineBroke
from services.trainer.stages.folder import RunFolder
from services.trainer.stages.prepare import Prepared, load_rows
from services.trainer.stages.scores import label_numbers, macro_f1
from services.trainer.stages.stopping import die_with_parent


class BaselineBeside:
    """The baseline of a run folder, worked out while the block runs."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "services.trainer.stages.baseline", str(self._folder.root)]
        environment = os.environ | {PARENT_VARIABLE: str(os.getpid())}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        return self

    def macro_f1(self) -> float:
        """Waits for it. Raises BaselineBroke; the run's log says why."""
        output, _ = self._process.communicate()
        if self._process.returncode:
            raise BaselineBroke
        return float(output)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def tfidf_macro_f1(folder: RunFolder) -> float:
    """Words and word pairs, weighted by TF-IDF, and logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    labels = Prepared.model_validate_json((folder / f"{Stage.PREPARE}.json").read_bytes()).labels
    train, test = load_rows(folder, Split.TRAIN), load_rows(folder, Split.TEST)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    known = vectorizer.fit_transform([row.text for row in train])
    regression = LogisticRegression(C=10.0, max_iter=200, random_state=folder.spec().recipe.seed)
    regression.fit(known, label_numbers(train, labels))
    answers_N = regression.predict(vectorizer.transform([row.text for row in test]))
    return macro_f1(label_numbers(test, labels), np.asarray(answers_N, dtype=np.int64))


if __name__ == "__main__":
    die_with_parent()
    print(tfidf_macro_f1(RunFolder(Path(sys.argv[1]), SystemClock())))
