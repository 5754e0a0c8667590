"""Signs and verifies a model folder with OpenSSF model signing in key mode; run as a process of its own.

`python -m services.kit.storage.signing sign|verify FOLDER KEY_FILE`: exits 0, or 1 with one line that says why.
A process, because the library costs 90 MB that a service would keep.
"""

import sys
from pathlib import Path

from services.contracts.artifact import SIGNATURE_FILE


def sign(folder: Path, private_key: Path) -> None:
    from model_signing import hashing, signing

    ignored = hashing.Config().set_ignored_paths(paths=[folder / SIGNATURE_FILE], ignore_git_paths=False)
    config = signing.Config().set_hashing_config(ignored)
    config.use_elliptic_key_signer(private_key=private_key).sign(folder, folder / SIGNATURE_FILE)


def verify(folder: Path, public_key: Path) -> None:
    """Raises ValueError and its like when a file, the signature or the key does not fit."""
    from model_signing import hashing, verifying

    ignored = hashing.Config().set_ignored_paths(paths=[folder / SIGNATURE_FILE], ignore_git_paths=False)
    config = verifying.Config().set_hashing_config(ignored)
    config.use_elliptic_key_verifier(public_key=public_key).verify(folder, folder / SIGNATURE_FILE)


def main(arguments: list[str]) -> int:
    act, folder, key = arguments
    try:
        {"sign": sign, "verify": verify}[act](Path(folder), Path(key))
    except Exception as error:  # noqa: BLE001 - the library raises many kinds; each means no
        print(f"{type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
