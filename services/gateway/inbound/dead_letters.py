"""Dead letters between protobuf and the handlers; the same for REST and gRPC."""

from services.contracts.errors import BadField
from services.contracts.rpc import dead_letters_pb2 as wire
from services.gateway.domain.dead_letters import REDELIVERY_OF, DeadLetter, DeadLetterFilter
from services.gateway.domain.redelivery import Redelivery
from services.gateway.domain.requests import Caller
from services.gateway.handlers import dead_letters as handlers
from services.gateway.ports import Ports
from services.kit.transport.grpc_requests import read_filter, read_timestamp, timestamp, within_column
from services.kit.transport.pagination import BadPageToken, paging

MAX_NAMES = 200
MAX_KEY_CHARACTERS = 500


async def list_all(request: wire.ListDeadLettersRequest, caller: Caller, ports: Ports) -> wire.ListDeadLettersResponse:
    page = paging("ListDeadLetters", request)
    listing = await handlers.list_dead_letters(_selection(request, waiting=request.waiting), caller.tenant, ports)
    cursor = _cursor(page.after)
    rest = [one for one in listing.dead_letters if cursor is None or one.order < cursor]
    shown, token = page.slice(rest[: page.limit], lambda one: "|".join(one.order))
    return wire.ListDeadLettersResponse(
        dead_letters=map(dead_letter_message, shown),
        next_page_token=token,
        total=len(listing.dead_letters),
        not_read=listing.not_read,
    )


def _cursor(after: str) -> tuple[str, str] | None:
    """After the letter that was shown last, whether or not it is still listed. Raises BadPageToken."""
    if not after:
        return None
    time, separator, address = after.partition("|")
    if not separator:
        raise BadPageToken
    return time, address


async def get(request: wire.GetDeadLetterRequest, caller: Caller, ports: Ports) -> wire.DeadLetterContent:
    name = f"{request.topic}/{request.partition}/{request.offset}"
    dead_letter, body = await handlers.get_dead_letter(name, caller.tenant, ports)
    return wire.DeadLetterContent(
        dead_letter=dead_letter_message(dead_letter), headers=dict(dead_letter.record.headers), body=body
    )


async def redeliver(
    request: wire.RedeliverDeadLettersRequest, caller: Caller, ports: Ports
) -> wire.RedeliverDeadLettersResponse:
    if len(request.addresses) > MAX_NAMES:
        raise BadField(name="addresses", problem=f"they are more than {MAX_NAMES}", field="addresses")
    filtered = bool(request.topic or request.code or request.HasField("since") or request.all)
    command = handlers.RedeliverDeadLetters(
        addresses=tuple(request.addresses),
        selection=_selection(request, waiting=False) if filtered else None,
        again=request.again,
        corrected_body=request.corrected_body.encode() or None,
        dry_run=request.dry_run,
    )
    outcome = await handlers.redeliver_dead_letters(command, caller, ports)
    return wire.RedeliverDeadLettersResponse(
        redeliveries=map(_redelivery_message, outcome.redeliveries),
        not_read=outcome.not_read,
        sent=outcome.sent,
        dry_run=request.dry_run,
    )


def _selection(
    request: wire.ListDeadLettersRequest | wire.RedeliverDeadLettersRequest, *, waiting: bool
) -> DeadLetterFilter:
    return DeadLetterFilter(
        topic=request.topic,
        code=read_filter(request.code, "code"),
        since=read_timestamp(request, "since"),
        waiting=waiting,
    )


def dead_letter_message(dead_letter: DeadLetter) -> wire.DeadLetter:
    return wire.DeadLetter(
        address=dead_letter.address,
        topic=dead_letter.topic,
        status=dead_letter.status,
        code=dead_letter.code,
        reason=dead_letter.header("dlq-reason"),
        tries=dead_letter.tries,
        by=dead_letter.header("dlq-by"),
        key=dead_letter.key[:MAX_KEY_CHARACTERS],
        event_id=dead_letter.record.event_id,
        trace_id=dead_letter.trace_id,
        given_up_at=timestamp(dead_letter.given_up_at),
        size_bytes=dead_letter.record.size_bytes,
        truncated_from=within_column(dead_letter.truncated_from),
        redelivery_of=dead_letter.header(REDELIVERY_OF),
        redelivered_at=timestamp(dead_letter.redelivered_at),
        redelivered_as=dead_letter.redelivered_as,
        failed_again=dead_letter.failed_again,
    )


def _redelivery_message(redelivery: Redelivery) -> wire.Redelivery:
    return wire.Redelivery(
        address=redelivery.dead_letter.address,
        key=redelivery.dead_letter.key[:MAX_KEY_CHARACTERS],
        event_id=redelivery.event_id,
        skipped=redelivery.skipped,
        why=redelivery.why,
    )
