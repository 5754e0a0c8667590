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


async def list_all(request: wire.ListDeadLettersRequest, caller: Caller, ports: Ports) -> wire.ListDeadLettersResponse:
    page = paging("ListDeadLetters", request)
    listing = await handlers.list_dead_letters(_selection(request, waiting=request.waiting), caller.tenant, ports)
    letters = listing.letters
    if page.after:
        start = next((index + 1 for index, letter in enumerate(letters) if letter.name == page.after), None)
        if start is None:  # its topic dropped it: a page from the middle would hide letters
            raise BadPageToken
        letters = letters[start:]
    shown, token = page.cut(letters[: page.limit], lambda letter: letter.name)
    return wire.ListDeadLettersResponse(
        letters=map(letter_message, shown),
        next_page_token=token,
        total=len(listing.letters),
        not_read=listing.not_read,
    )


async def get(request: wire.GetDeadLetterRequest, caller: Caller, ports: Ports) -> wire.DeadLetterContent:
    name = f"{request.topic}/{request.partition}/{request.offset}"
    letter, body = await handlers.get_dead_letter(name, caller.tenant, ports)
    return wire.DeadLetterContent(letter=letter_message(letter), headers=dict(letter.record.headers), body=body)


async def redeliver(
    request: wire.RedeliverDeadLettersRequest, caller: Caller, ports: Ports
) -> wire.RedeliverDeadLettersResponse:
    if len(request.letters) > MAX_NAMES:
        raise BadField(name="letters", problem=f"they are more than {MAX_NAMES}", at="letters")
    filtered = bool(request.topic or request.code or request.HasField("since") or request.all)
    command = handlers.RedeliverDeadLetters(
        letters=tuple(request.letters),
        selection=_selection(request, waiting=False) if filtered else None,
        again=request.again,
        corrected_body=request.corrected_body.encode() or None,
        dry_run=request.dry_run,
    )
    outcome = await handlers.redeliver_dead_letters(command, caller, ports)
    return wire.RedeliverDeadLettersResponse(
        letters=map(_redelivery_message, outcome.redeliveries), sent=outcome.sent, dry_run=request.dry_run
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


def letter_message(letter: DeadLetter) -> wire.DeadLetter:
    return wire.DeadLetter(
        letter=letter.name,
        topic=letter.topic,
        status=letter.status,
        code=letter.code,
        reason=letter.header("dlq-reason"),
        tries=letter.tries,
        by=letter.header("dlq-by"),
        key=letter.key,
        event_id=letter.record.event_id,
        trace_id=letter.trace_id,
        given_up_at=timestamp(letter.given_up_at),
        size_bytes=letter.record.size_bytes,
        truncated_from=within_column(letter.truncated_from),
        redelivery_of=letter.header(REDELIVERY_OF),
        redelivered_at=timestamp(letter.redelivered_at),
        redelivered_as=letter.redelivered_as,
        failed_again=letter.failed_again,
    )


def _redelivery_message(redelivery: Redelivery) -> wire.Redelivery:
    return wire.Redelivery(
        letter=redelivery.letter.name,
        key=redelivery.letter.key,
        event_id=redelivery.event_id,
        skipped=redelivery.skipped,
        why=redelivery.why,
    )
