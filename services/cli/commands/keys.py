"""`millrace keys ...`: who may come in.

Where a gateway answers (here, or at MILLRACE_URL), it is asked, with an admin's key and for that key's tenant. Where
nothing runs, or with --file, the keyring of this machine is changed itself, for any tenant.
"""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from services.cli.errors import CliError, Exit
from services.cli.launcher.launch import running_state
from services.cli.session import Json, Session, Yes, command, subcommands

if TYPE_CHECKING:
    from services.kit.identity.keys import KeyRecord, KeyringFile

app = subcommands(help="Who may come in: keys, their roles and their limits.")

SECONDS: Final = {"m": 60, "h": 3_600, "d": 86_400}
LONGEST_SECONDS: Final = 2**32 - 1
_INTEGER: Final = r"[0-9]{1,10}"
LIMITS: Final = {
    "requests_per_second": r"[0-9]{1,7}(\.[0-9]{1,6})?",
    "burst": _INTEGER,
    "concurrent": _INTEGER,
    "tokens_per_minute": _INTEGER,
}
"""What a key may be told to keep to, and how the number is written."""


class Role(StrEnum):
    """Each may do what those before it may."""

    VIEWER = "viewer"
    CLIENT = "client"
    OPERATOR = "operator"
    ADMIN = "admin"


File = Annotated[bool, typer.Option("--file", help="Use this machine's keyring itself, even while services run.")]


@app.command("create")
@command
def create(
    role: Annotated[Role, typer.Option(help="viewer reads, client also asks, operator also changes, admin also keys.")],
    *,
    name: Annotated[str, typer.Option(help="What it is for; people read it.")] = "",
    tenant: Annotated[str, typer.Option(help="Your own when empty; another one only in the keyring itself.")] = "",
    expires_in: Annotated[str, typer.Option(help="Such as 90d, 12h or 30m; without it, until it is revoked.")] = "",
    limit: Annotated[list[str] | None, typer.Option(help=f"NAME=NUMBER, any of {', '.join(LIMITS)}; 0: none.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the key there (mode 0600) instead of showing it.")] = None,
    idempotency_key: Annotated[str, typer.Option(help="Asking again with the same one makes no second key.")] = "",
    file: File = False,
    as_json: Json = False,
) -> None:
    """Make a key. It is told this once: only its hash is kept."""
    session = Session(as_json=as_json)
    body: dict[str, Any] = {"role": role.value, "name": name, "tenant": tenant, "valid_seconds": seconds(expires_in)}
    body["limits"] = dict(map(limit_of, limit or ()))
    with _new_file(out) as descriptor:
        reply = _create(session, body, idempotency_key or secrets.token_hex(16), file=file)
        if descriptor is not None and reply["secret"]:
            os.write(descriptor, f"{reply['secret']}\n".encode())
            os.fsync(descriptor)
            reply = {**reply, "secret": "", "file": str(out)}
    session.out.data(reply, lambda document: _made(session, document))
    session.out.next("millrace keys list")


@app.command("list")
@command
def list_keys(
    with_revoked: Annotated[bool, typer.Option("--revoked", help="Also those revoked in the last 30 days.")] = False,
    file: File = False,
    as_json: Json = False,
) -> None:
    """Show keys: what each is for, what it may do, when it was last used. Never a secret."""
    session = Session(as_json=as_json)
    if _on_file(session, file=file):
        matches = [_document(one) for one in _keyring(session).list(tenant="", with_revoked=with_revoked)]
    else:
        matches = _all_pages(session, with_revoked=with_revoked)
    session.out.data({"keys": matches}, lambda reply: session.out.table(
        ["key", "name", "role", "tenant", "created", "last used", "expires", "revoked"],
        [
            (one["id"], one["name"], one["role"], one["tenant"], one.get("created_at"), one.get("last_used_at"),
             one.get("expires_at"), one.get("revoked_at"))
            for one in reply["keys"]
        ],
    ))  # fmt: skip


@app.command("revoke")
@command
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id, as 'millrace keys list' shows it.")],
    yes: Yes = False,
    file: File = False,
    as_json: Json = False,
) -> None:
    """Take a key away: every door refuses it within two seconds. With --yes even a tenant's last admin key."""
    session = Session(as_json=as_json)
    if not re.fullmatch(r"[a-z0-9]{1,50}", key):
        raise CliError("that is not a key's id", hint="millrace keys list", code="not_an_id", status=Exit.USAGE)
    if _on_file(session, file=file):
        with _refusals():
            done = _keyring(session).revoke(key, tenant="", by=_machine(), even_if_last=yes)
        reply = _document(done)
    else:
        reply = session.rest().post(f"/keys/{key}:revoke", {"even_if_last": yes})
    session.out.data(reply, lambda one: session.out.text(f"revoked {one['id']} ({one['role']}, {one['tenant']})"))
    session.out.next("millrace keys list")


def seconds(text: str) -> int:
    """`90d`, `12h`, `30m`; nothing is 0. Raises CliError for anything else."""
    if not text:
        return 0
    hit = re.fullmatch(r"([1-9][0-9]{0,6})([mhd])", text)
    reply = int(hit[1]) * SECONDS[hit[2]] if hit else 0
    if not 0 < reply <= LONGEST_SECONDS:
        raise CliError(f"'{text}' is no time", hint="such as 90d, 12h or 30m", code="no_time", status=Exit.USAGE)
    return reply


def limit_of(text: str) -> tuple[str, float]:
    """`burst=20`. Raises CliError for anything else."""
    name, _, number = text.partition("=")
    if name not in LIMITS or re.fullmatch(LIMITS[name], number) is None:
        hint = f"NAME=NUMBER, such as burst=20; the names are {', '.join(LIMITS)}"
        raise CliError(f"'{text}' is no limit", hint=hint, code="no_limit", status=Exit.USAGE)
    return name, float(number) if "." in number else int(number)


def _on_file(session: Session, *, file: bool) -> bool:
    return file or ("MILLRACE_URL" not in os.environ and running_state(session.home) is None)


def _create(session: Session, body: dict[str, Any], idempotency_key: str, *, file: bool) -> dict[str, Any]:
    if not _on_file(session, file=file):
        reply: dict[str, Any] = session.rest().post("/keys", body, headers={"idempotency-key": idempotency_key})
        return reply
    from datetime import timedelta

    from services.contracts.access import KeyRole
    from services.contracts.names import DEFAULT_TENANT
    from services.kit.identity.auth import KeyLimits, ensure_keys
    from services.kit.identity.keys import NewKey

    ensure_keys(session.home.keys)
    expected = NewKey(
        role=KeyRole(body["role"]),
        tenant=body["tenant"] or DEFAULT_TENANT,
        name=body["name"],
        valid=timedelta(seconds=body["valid_seconds"]) if body["valid_seconds"] else None,
        limits=KeyLimits(**body["limits"]),
        idempotency_key=idempotency_key,
    )
    with _refusals():
        made, secret = _keyring(session).create(expected, by=_machine())
    return {"key": _document(made), "secret": secret}


def _keyring(session: Session) -> "KeyringFile":
    from services.kit.core.clock import SystemClock
    from services.kit.identity.auth import KEYRING_FILE
    from services.kit.identity.keys import KeyringFile

    if not (session.home.keys / KEYRING_FILE).exists():
        message = f"there is no keyring in {session.home.keys}"
        raise CliError(message, hint="millrace keys create --role admin", code="no_keyring", status=Exit.NOT_FOUND)
    return KeyringFile(session.home.keys, SystemClock())


def _machine() -> str:
    from services.kit.identity.keys import MACHINE

    return MACHINE


def _all_pages(session: Session, *, with_revoked: bool) -> list[dict[str, Any]]:
    rest, matches, token = session.rest(), [], ""
    while True:
        reply = rest.get("/keys", page_token=token, page_size=200, with_revoked="true" if with_revoked else "")
        matches += reply["keys"]
        token = reply["next_page_token"]
        if not token:
            return matches


@contextmanager
def _new_file(path: Path | None) -> Iterator[int | None]:
    """A new file for its owner alone, made before the key is; gone again where no key was written."""
    if path is None:
        yield None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CliError(f"{path} cannot be made ({error.strerror})", code="bad_file", status=Exit.USAGE) from None
    try:
        yield descriptor
    finally:
        written = os.fstat(descriptor).st_size
        os.close(descriptor)
        if not written:
            path.unlink(missing_ok=True)


@contextmanager
def _refusals() -> Iterator[None]:
    """What the keyring refuses, as the gateway would have told it."""
    from services.contracts.errors import MillraceError, NotFound

    try:
        yield
    except MillraceError as error:
        status = Exit.NOT_FOUND if isinstance(error, NotFound) else Exit.FAILED
        raise CliError(str(error), hint=error.hint or "", code=error.code, status=status) from None


def _document(record: "KeyRecord") -> dict[str, Any]:
    """As REST tells it."""
    from services.kit.identity.auth import LIMIT_NAMES

    reply: dict[str, Any] = {
        "id": record.id,
        "name": record.name,
        "role": record.role.value,
        "tenant": record.tenant,
    }
    reply |= {"created_by": record.created_by, "revoked_by": record.revoked_by}
    reply["limits"] = {name: value for name in LIMIT_NAMES if (value := getattr(record.limits, name)) is not None}
    moments = {
        "created_at": record.created,
        "expires_at": record.expires,
        "last_used_at": record.last_used,
        "revoked_at": record.revoked,
    }
    return reply | {name: at.isoformat().replace("+00:00", "Z") for name, at in moments.items() if at is not None}


def _made(session: Session, reply: dict[str, Any]) -> None:
    key = reply["key"]
    ends = f", until {key['expires_at']}" if key.get("expires_at") else ""
    session.out.text(f"key {key['id']} ({key['role']}, {key['tenant']}{ends})")
    if reply.get("file"):
        session.out.text(f"written to {reply['file']}")
    elif reply["secret"]:
        session.out.text(reply["secret"])
        session.out.say("this is the only time it is shown")
    else:
        session.out.say("it was made before, with this idempotency key; its secret was told then")
