"""The artifact store: folders under one fsspec root, each fixed by its hash and signed.

A folder is flat (no subfolder, no link). What is fetched has been checked: every file against the manifest,
the manifest against the reference, and the signature against the key that this installation trusts.
"""

import asyncio
import hashlib
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import fsspec
from cryptography.hazmat.primitives import serialization

from services.contracts.artifact import MANIFEST_FILE, SIGNATURE_FILE, ArtifactRef, Manifest, ManifestFile
from services.contracts.errors import Invalid, Unavailable
from services.kit.identity.auth import SIGNING_KEY_FILE, VERIFYING_KEY_FILE

CHUNK: Final = 1024 * 1024
SIGNING_SECONDS: Final = 60.0
MAX_ARTIFACT_BYTES: Final = 20 * 1024**3
_SEGMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")


class ArtifactRefused(Invalid):
    """The artifact {digest} is refused: {problem}."""

    hint = "train it again, or restore it from a backup; it is not loaded"


class ArtifactStoreDown(Unavailable):
    """The artifact store does not answer."""


class ArtifactStore:
    """Puts and fetches artifact folders. All file work runs in threads, signing in a process of its own."""

    def __init__(self, root: str, keys_folder: Path) -> None:
        self._root = root.rstrip("/")
        self._keys = keys_folder

    async def put(self, folder: Path, name: str) -> ArtifactRef:
        """Writes manifest and signature into `folder`, copies it to the store as `name`, and says where it lies.

        Putting the same name again replaces it. Raises ArtifactStoreDown.
        """
        manifest = await asyncio.to_thread(_make_manifest, folder)
        await _sign_or_verify("sign", folder, self._keys / SIGNING_KEY_FILE)
        uri = f"{self._root}/{name}"
        await asyncio.to_thread(self._upload, folder, uri)
        return ArtifactRef(
            uri=uri,
            digest=_sha256(folder / MANIFEST_FILE),
            signer=self.signer(),
            size_bytes=sum(file.size_bytes for file in manifest.files),
        )

    async def fetch(self, ref: ArtifactRef, cache: Path) -> Path:
        """The checked folder inside `cache`; what is there already is checked again, not copied again.

        Raises ArtifactRefused, ArtifactStoreDown.
        """
        self._check_uri(ref)
        target = cache / ref.digest
        if not target.exists():
            await asyncio.to_thread(self._download, ref, target)
        try:
            await asyncio.to_thread(_check_files, target, ref)
            await self._check_signature(target, ref)
        except ArtifactRefused:
            await asyncio.to_thread(shutil.rmtree, target, True)
            raise
        return target

    async def read(self, ref: ArtifactRef, name: str) -> bytes:
        """One file, checked against the manifest. Raises ArtifactRefused, ArtifactStoreDown."""
        self._check_uri(ref)
        return await asyncio.to_thread(self._read_checked, ref, name)

    def signer(self) -> str:
        """Names the trusted key: the first 16 hex digits of its SHA-256."""
        public = serialization.load_pem_public_key((self._keys / VERIFYING_KEY_FILE).read_bytes())
        der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()[:16]

    def _check_uri(self, ref: ArtifactRef) -> None:
        inside = ref.uri.removeprefix(self._root + "/")
        plain = all(_SEGMENT.fullmatch(segment) for segment in inside.split("/"))
        if inside == ref.uri or not plain or "::" in inside:  # fsspec reads :: as another store behind this one
            raise ArtifactRefused(digest=ref.digest[:12], problem="it lies outside the artifact store")

    async def _check_signature(self, folder: Path, ref: ArtifactRef) -> None:
        if ref.signer != self.signer():
            raise ArtifactRefused(digest=ref.digest[:12], problem="it is signed by a key that is not trusted here")
        try:
            await _sign_or_verify("verify", folder, self._keys / VERIFYING_KEY_FILE)
        except ValueError as error:
            raise ArtifactRefused(digest=ref.digest[:12], problem="its signature does not fit") from error

    def _upload(self, folder: Path, uri: str) -> None:
        """To a name beside its own first, so that a reader never sees half of it."""
        try:
            store, path = fsspec.core.url_to_fs(uri)
            partial = f"{path}.partial"
            for stale in (partial, path):
                if store.exists(stale):
                    store.rm(stale, recursive=True)
            store.makedirs(partial)
            for file in sorted(folder.iterdir()):
                store.put_file(str(file), f"{partial}/{file.name}")
            store.mv(partial, path, recursive=True)
        except OSError as error:
            raise ArtifactStoreDown from error

    def _download(self, ref: ArtifactRef, target: Path) -> None:
        """Into a folder of its own first: two may fetch the same one at once."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as folder:
            partial = Path(folder) / target.name
            partial.mkdir()
            self._download_into(partial, ref)
            try:
                partial.replace(target)
            except OSError:
                if not target.exists():
                    raise

    def _download_into(self, partial: Path, ref: ArtifactRef) -> None:
        try:
            store, path = fsspec.core.url_to_fs(ref.uri)
            manifest = self._manifest(store, path, ref)
            if sum(file.size_bytes for file in manifest.files) > MAX_ARTIFACT_BYTES:
                raise ArtifactRefused(digest=ref.digest[:12], problem="it is larger than the limit")
            for name in (MANIFEST_FILE, SIGNATURE_FILE, *(file.name for file in manifest.files)):
                store.get_file(f"{path}/{name}", str(partial / name))
        except FileNotFoundError as error:
            raise ArtifactRefused(digest=ref.digest[:12], problem="a file of it is missing") from error
        except OSError as error:
            raise ArtifactStoreDown from error

    def _read_checked(self, ref: ArtifactRef, name: str) -> bytes:
        try:
            store, path = fsspec.core.url_to_fs(ref.uri)
            manifest = self._manifest(store, path, ref)
            listed = next((file for file in manifest.files if file.name == name), None)
            if listed is None:
                raise ArtifactRefused(digest=ref.digest[:12], problem=f"it has no {name}")
            content: bytes = store.cat_file(f"{path}/{name}")
        except FileNotFoundError as error:
            raise ArtifactRefused(digest=ref.digest[:12], problem="a file of it is missing") from error
        except OSError as error:
            raise ArtifactStoreDown from error
        if hashlib.sha256(content).hexdigest() != listed.sha256:
            raise ArtifactRefused(digest=ref.digest[:12], problem=f"{name} is not what the manifest says")
        return content

    def _manifest(self, store: Any, path: str, ref: ArtifactRef) -> Manifest:
        content = store.cat_file(f"{path}/{MANIFEST_FILE}")
        return _parse_manifest(content, ref)


def _make_manifest(folder: Path) -> Manifest:
    files = [
        ManifestFile(name=file.name, size_bytes=file.stat().st_size, sha256=_sha256(file))
        for file in sorted(folder.iterdir())
        if file.name not in (MANIFEST_FILE, SIGNATURE_FILE)
    ]
    manifest = Manifest(files=files)
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=1))
    return manifest


def _parse_manifest(content: bytes, ref: ArtifactRef) -> Manifest:
    if hashlib.sha256(content).hexdigest() != ref.digest:
        raise ArtifactRefused(digest=ref.digest[:12], problem="its manifest is not the one that was announced")
    try:
        return Manifest.model_validate_json(content)
    except ValueError as error:
        raise ArtifactRefused(digest=ref.digest[:12], problem="its manifest cannot be read") from error


def _check_files(folder: Path, ref: ArtifactRef) -> None:
    """Exactly the manifest's files, each a plain file of the right size and hash."""
    try:
        manifest = _parse_manifest((folder / MANIFEST_FILE).read_bytes(), ref)
    except OSError as error:
        raise ArtifactRefused(digest=ref.digest[:12], problem="its manifest is missing") from error
    listed = {file.name: file for file in manifest.files}
    files = {path.name: path for path in folder.iterdir()}
    if set(files) != {*listed, MANIFEST_FILE, SIGNATURE_FILE}:
        raise ArtifactRefused(digest=ref.digest[:12], problem="its files are not those of the manifest")
    for name, path in files.items():
        if path.is_symlink() or not path.is_file():
            raise ArtifactRefused(digest=ref.digest[:12], problem=f"{name} is not a plain file")
        expected = listed.get(name)
        if expected and (path.stat().st_size != expected.size_bytes or _sha256(path) != expected.sha256):
            raise ArtifactRefused(digest=ref.digest[:12], problem=f"{name} is not what the manifest says")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


async def _sign_or_verify(act: str, folder: Path, key: Path) -> None:
    """Raises ValueError when the answer is no, ArtifactStoreDown when there is none in time."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.kit.storage.signing", act, str(folder), str(key), stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(SIGNING_SECONDS):
            _, output = await process.communicate()
    except TimeoutError as error:
        raise ArtifactStoreDown from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    code = process.returncode or 0
    if code < 0:
        raise ArtifactStoreDown  # killed from outside: that says nothing of the artifact
    if code:
        raise ValueError(output.decode("utf-8", "replace").strip())
