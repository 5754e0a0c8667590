"""What a demo leaves in the data folder, and when the next one may clear it away."""

import shutil
from typing import Final

from services.cli.home import Home

MARK: Final = "only-demos-ran-here"
MADE: Final = ("data", "artifacts", "traces", "logs", "run")


def begin(home: Home) -> bool:
    """Clears away what an earlier demo left, if only demos ever ran here. Whether the folder is now as new.

    The mark is set in a folder without data and taken away by `millrace up`: from then on the data is somebody's own.
    """
    if (home.demo / MARK).exists():
        for name in MADE:
            shutil.rmtree(home.root / name, ignore_errors=True)
    fresh = not home.data.exists()
    if fresh:
        home.demo.mkdir(parents=True, exist_ok=True)
        (home.demo / MARK).touch()
    return fresh


def belongs_to_user(home: Home) -> None:
    """From now on nothing here is cleared away by a demo."""
    (home.demo / MARK).unlink(missing_ok=True)
