"""Base models of a hub, by an id such as `organisation/model` or `organisation/model@revision`.

What is fetched lies in huggingface_hub's own cache (`HF_HOME`), and is not asked for again; `HF_ENDPOINT` names another
hub, `HF_TOKEN` opens models with restricted access, `HF_HUB_OFFLINE=1` uses the cache alone.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.trainer.errors import HubUnreachable, NotOnTheHub

_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w./-]{1,100})?")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_FILES: Final = (
    *("config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    *("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model"),
)
"""What a base model is read from: never a pickle, and none of the repository's code."""
_SECONDS: Final = 10.0


def is_id(name: str) -> bool:
    return _ID.fullmatch(name) is not None


def pin(name: str) -> str:
    """The id with the commit that its revision stands for; where no hub answers, that of the copy fetched last.

    Raises HubUnreachable, NotOnTheHub.
    """
    repository, _, revision = name.partition("@")
    if _COMMIT.fullmatch(revision):
        return name
    return f"{repository}@{_snapshot(name, local=False).name}"


def fetch(name: str) -> Path:
    """The folder with its files, from the cache where they are. Raises HubUnreachable, NotOnTheHub."""
    try:
        return _snapshot(name, local=True)
    except HubUnreachable:
        return _snapshot(name, local=False)


def _snapshot(name: str, *, local: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    repository, _, revision = name.partition("@")
    with _refusing(name):
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=list(_FILES),
                local_files_only=local,
                etag_timeout=_SECONDS,
            )
        )


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """The library's errors as ours."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise NotOnTheHub(name=name) from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        raise (NotOnTheHub(name=name) if status in _FINAL else HubUnreachable(name=name)) from error
    except (
        Exception
    ) as error:  # no route, nothing in the cache, set to stay offline: the transports have no common base
        raise HubUnreachable(name=name) from error


_FINAL: Final = (401, 403, 404, 410)
