"""The wire models of `millrace/v1/keys.proto`, generated: change the .proto, and run `make contracts`."""

from typing import Annotated

from pydantic import ConfigDict, Field

from services.gateway.inbound.http.wire_model import (
    NOT_EMPTY,
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


class KeyLimits(BodyModel):
    """What a key may ask of the gateway. Unset fields take the gateway's settings; 0 is no limit."""

    requests_per_second: float | None = Field(default=None, examples=[20.0])
    burst: UInt32 | None = Field(default=None, examples=[40])
    concurrent: UInt32 | None = Field(default=None, examples=[8])
    tokens_per_minute: UInt32 | None = Field(default=None, examples=[200000])


class CreateKeyRequest(BodyModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"role": "client", "name": "checkout service", "limits": {"requests_per_second": 20.0, "burst": 40}}
            ]
        }
    )
    role: Annotated[Text, NOT_EMPTY] = Field(description=("viewer, client, operator or admin"), examples=["client"])
    name: Text | None = Field(
        default=None, description=("For people; need not be unique."), examples=["checkout service"]
    )
    tenant: Text | None = Field(
        default=None, description=("The caller's own when empty, and no other."), examples=["default"]
    )
    valid_seconds: UInt32 | None = Field(
        default=None, description=("How long the key holds; 0 means until it is revoked."), examples=[7776000]
    )
    limits: KeyLimits | None = Field(default=None)


class Key(ResponseModel):
    id: str = Field(examples=["1f0c9a2e"])
    name: str = Field(examples=["checkout service"])
    role: str = Field(examples=["client"])
    tenant: str = Field(examples=["default"])
    created_at: Timestamp | Absent = Field(default=None, examples=["2026-11-03T12:00:01Z"])
    created_by: str = Field(
        description=("The key that made it, as `role:id`, or `machine` where it was made in the keys folder itself."),
        examples=["admin:5b1c7d90"],
    )
    expires_at: Timestamp | Absent = Field(default=None, examples=["2027-02-01T12:00:00Z"])
    last_used_at: Timestamp | Absent = Field(
        default=None, description=("To the minute."), examples=["2026-11-03T12:20:00Z"]
    )
    limits: KeyLimits | Absent = Field(default=None)
    revoked_at: Timestamp | Absent = Field(default=None, examples=["2026-12-24T18:00:00Z"])
    revoked_by: str = Field(examples=["admin:5b1c7d90"])


class CreateKeyResponse(ResponseModel):
    key: Key | Absent = Field(default=None)
    secret: str = Field(
        description=(
            "To be sent as `Authorization: Bearer ...`. Empty when an earlier call with this "
            "idempotency key made the key."
        ),
        examples=["mr_1f0c9a2e_thesecretthatisshownonce"],
    )


class ListKeysQuery(PagedQueryModel):
    page_size: QueryUInt32 = Field(default_factory=int, examples=[50])
    page_token: Text = Field(default_factory=str, examples=[""])
    with_revoked: QueryBool = Field(
        default_factory=bool, description=("Also those revoked in the last 30 days."), examples=[False]
    )


class ListKeysResponse(ResponseModel):
    keys: list[Key] = Field(description=("oldest first"))
    next_page_token: str = Field(examples=[""])


class RevokeKeyRequest(BodyModel):
    even_if_last: bool | None = Field(default=None, description=("Even the tenant's last admin key."), examples=[False])
