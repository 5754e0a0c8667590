"""The wire models of `millrace/v1/dead_letters.proto`, generated: change the .proto, and run `make contracts`."""

from pydantic import ConfigDict, Field

from services.gateway.inbound.http.wire_model import (
    Absent,
    BodyModel,
    PagedQueryModel,
    QueryBool,
    QueryUInt32,
    ResponseModel,
    Text,
    Timestamp,
    UInt32,
)


class DeadLetter(ResponseModel):
    address: str = Field(
        description=("TOPIC/PARTITION/OFFSET, with the topic that the event was on."), examples=["dataset.ready/0/3"]
    )
    topic: str = Field(examples=["dataset.ready"])
    status: str = Field(description=("waiting, redelivered or failed_again"), examples=["waiting"])
    code: str = Field(examples=["malformed_event"])
    reason: str = Field(examples=["The message on dataset.ready is not an event: uri: Field required."])
    tries: UInt32 = Field(
        description=("0: it could not be read. 1: it was refused. More: handling it failed."), examples=[0]
    )
    by: str = Field(description=("The service that gave it up."), examples=["trainer"])
    key: str = Field(examples=["docstrings-2026-11"])
    event_id: str = Field(
        description=("The id by which inboxes know the event; empty where it has no valid one."),
        examples=["evt-01k9rm4z7q8w2e5t6y3v0x1c9b"],
    )
    trace_id: str = Field(examples=["4bf92f3577b34da6a3ce929d0e0e4736"])
    given_up_at: Timestamp | Absent = Field(default=None, examples=["2026-11-03T12:00:00Z"])
    size_bytes: UInt32 = Field(examples=[214])
    truncated_from: UInt32 = Field(
        description=(
            "The size that the event had before it was truncated to fit the dead-letter topic; 0 when it is complete."
        ),
        examples=[0],
    )
    redelivery_of: str = Field(description=("The letter of which this one is a redelivery that failed."), examples=[""])
    redelivered_at: Timestamp | Absent = Field(default=None, examples=["2026-11-03T12:20:00Z"])
    redelivered_as: str = Field(
        description=("The id of the redelivered event: another one where its body was corrected."), examples=[""]
    )
    failed_again: str = Field(description=("The letter that the latest redelivery became."), examples=[""])


class ListDeadLettersQuery(PagedQueryModel):
    page_size: QueryUInt32 = Field(default_factory=int, examples=[50])
    page_token: Text = Field(default_factory=str, examples=[""])
    topic: Text = Field(default_factory=str, description=("Of this topic only."), examples=["dataset.ready"])
    code: Text = Field(
        default_factory=str, description=("With this code only, such as malformed_event."), examples=["malformed_event"]
    )
    since: Timestamp = Field(
        default_factory=str, description=("Given up at this time or later."), examples=["2026-11-03T00:00:00Z"]
    )
    waiting: QueryBool = Field(
        default_factory=bool, description=("Only those that were not redelivered."), examples=[True]
    )


class ListDeadLettersResponse(ResponseModel):
    dead_letters: list[DeadLetter] = Field(description=("newest first"))
    next_page_token: str = Field(examples=[""])
    total: UInt32 = Field(description=("How many there are on all pages."), examples=[1])
    not_read: UInt32 = Field(
        description=(
            "Older records that were not read, because there are too many to hold: narrow by topic or by time."
        ),
        examples=[0],
    )


class DeadLetterContent(ResponseModel):
    dead_letter: DeadLetter | Absent = Field(default=None)
    headers: dict[str, str] = Field(
        examples=[{"content-type": "application/json", "dlq-code": "malformed_event", "dlq-tries": "0"}]
    )
    body: str = Field(examples=["eyJkYXRhc2V0IjogImRvY3N0cmluZ3MtMjAyNi0xMSJ9"])


class RedeliverDeadLettersRequest(BodyModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"addresses": ["dataset.ready/0/3"], "dry_run": True}]})
    addresses: list[Text] | None = Field(
        default=None,
        description=("By address; or else those that the filters choose, of which only the ones that wait are sent."),
        examples=[["dataset.ready/0/3"]],
    )
    topic: Text | None = Field(default=None, examples=["dataset.ready"])
    code: Text | None = Field(default=None, examples=["malformed_event"])
    since: Timestamp | None = Field(default=None, examples=["2026-11-03T00:00:00Z"])
    all: bool | None = Field(
        default=None, description=("Every dead letter of the tenant, where no filter is given."), examples=[False]
    )
    again: bool | None = Field(default=None, description=("Those that were redelivered before, too."), examples=[False])
    corrected_body: Text | None = Field(
        default=None,
        description=("The event that is sent instead of the original, as JSON; for one letter that is named."),
        examples=[""],
    )
    dry_run: bool | None = Field(
        default=None, description=("Say what would be sent, and send nothing."), examples=[False]
    )


class Redelivery(ResponseModel):
    address: str = Field(examples=["dataset.ready/0/3"])
    key: str = Field(examples=["docstrings-2026-11"])
    event_id: str = Field(
        description=("Of the record that is sent; of the letter where none is."),
        examples=["evt-01k9rm4z7q8w2e5t6y3v0x1c9b"],
    )
    skipped: str = Field(
        description=(
            "Why nothing is sent: redelivered_already, truncated, too_old, malformed, superseded or "
            "gone; empty where a record is."
        ),
        examples=[""],
    )
    why: str = Field(description=("The same for people."), examples=[""])


class RedeliverDeadLettersResponse(ResponseModel):
    redeliveries: list[Redelivery]
    sent: UInt32 = Field(
        description=("How many records were sent: letters of one event, given up by several services, are one record."),
        examples=[1],
    )
    dry_run: bool = Field(examples=[False])
    not_read: UInt32 = Field(
        description=(
            "Older records that were not read, because there are too many to hold: narrow by topic or by time."
        ),
        examples=[0],
    )
