"""Why a request that came as an event has no answer."""

from pydantic import Field

from services.contracts.errors import MillraceError
from services.contracts.training import Fact


class RequestFailure(Fact):
    """Why a request was not answered; the same words as at every door."""

    code: str = Field(description="stable, for programs: unknown_deployment, bad_field, request_expired, ...")
    message: str
    field: str | None = None
    hint: str | None = None
    retryable: bool = Field(description="the same request may be answered if it is sent again")

    @classmethod
    def of(cls, error: MillraceError) -> "RequestFailure":
        body = error.body()
        return cls(code=body.code, message=body.message, field=body.field, hint=body.hint, retryable=error.retryable)
