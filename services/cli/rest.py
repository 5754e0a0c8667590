"""Talking REST to the gateway."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from services.cli.errors import CliError, Exit, NotRunning
from services.cli.home import Home
from services.cli.launcher.launch import running_state
from services.kit.core.ids import SystemIds

if TYPE_CHECKING:
    import httpx

BASE: Final = "/api/v1"
TIMEOUT_SECONDS: Final = 35.0
FOLLOW_SECONDS: Final = 3600.0
CHUNK: Final = 256 * 1024

Advance = Callable[[int], None]


def address_and_key(home: Home, environment: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """The gateway's URL and an API key: of what runs here, or MILLRACE_URL and MILLRACE_API_KEY(_FILE) for elsewhere.

    Raises NotRunning.
    """
    url = environment.get("MILLRACE_URL", "")
    if not url:
        state = running_state(home)
        if state is None or "rest" not in state.endpoints:
            raise NotRunning
        url = state.endpoints["rest"]
    return url, _key(home, environment)


def _key(home: Home, environment: Mapping[str, str]) -> str:
    if key := environment.get("MILLRACE_API_KEY"):
        return key
    file = environment.get("MILLRACE_API_KEY_FILE") or str(home.api_key_file)
    try:
        with open(file, encoding="utf-8") as opened:  # noqa: PTH123 - a name from the environment
            return opened.read().strip()
    except FileNotFoundError:
        raise CliError(f"there is no API key at {file}", hint="set MILLRACE_API_KEY_FILE", code="no_key") from None


class Rest:
    """The gateway's control plane and classification. Every refusal becomes a CliError."""

    def __init__(self, url: str, key: str, transport: "httpx.BaseTransport | None" = None) -> None:
        import httpx

        self._url = url
        self._http = httpx.Client(
            base_url=url + BASE,
            headers={"authorization": f"Bearer {key}"},
            timeout=TIMEOUT_SECONDS,
            transport=transport,
            trust_env=False,  # a proxy of the environment is not for the loopback interface
        )

    def get(self, path: str, **query: object) -> Any:
        """Query values that are None or empty are left out."""
        return self._call("GET", path, params={name: str(value) for name, value in query.items() if value})

    def pages(self, path: str, field: str, **query: object) -> Iterator[Any]:
        """Every row of a listing, page after page."""
        for page in self.each_page(path, **query):
            yield from page.get(field, [])

    def each_page(self, path: str, **query: object) -> Iterator[Any]:
        """The pages themselves, for what they say beside their rows; there is one at least."""
        token = ""
        while True:
            page = self.get(path, **query, page_token=token)
            yield page
            token = page.get("next_page_token", "")
            if not token:
                return

    def change(self, method: str, path: str, body: Mapping[str, Any]) -> Any:
        """A call that changes something, with an idempotency key: where the answer is lost it is asked once more.

        What is None in the body is left out.
        """
        import httpx

        sent = {name: value for name, value in body.items() if value is not None}
        headers = {"idempotency-key": SystemIds().new("cli")}
        try:
            return self._call(method, path, json=sent, headers=headers)
        except CliError as error:
            if not isinstance(error.__cause__, httpx.ReadError | httpx.RemoteProtocolError | httpx.ReadTimeout):
                raise
        return self._call(method, path, json=sent, headers=headers)

    def post(self, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None) -> Any:
        return self._call("POST", path, json=dict(body or {}), headers=dict(headers or {}))

    def upload(self, path: str, file: Path, advance: Advance, **query: object) -> Any:
        """Streams the file as the body; `advance` hears of each part that has gone."""
        size = str(file.stat().st_size)
        headers = {"content-type": "application/octet-stream", "content-length": size}
        params = {name: str(value) for name, value in query.items() if value}
        return self._call("POST", path, params=params, headers=headers, content=chunks_of(file, advance))

    def lines(self, path: str, *, follow: bool, **query: object) -> Iterator[Any]:
        """The JSON objects of a streamed answer, as they come."""
        import httpx

        params = {
            **{name: str(value) for name, value in query.items() if value},
            **({"follow": "true"} if follow else {}),
        }
        try:
            seconds = FOLLOW_SECONDS if follow else TIMEOUT_SECONDS
            with self._http.stream("GET", path, params=params, timeout=seconds) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    raise refused(answer)
                for line in answer.iter_lines():
                    yield _line(line, answer)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def close(self) -> None:
        self._http.close()

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        import httpx

        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if answer.status_code >= 400:
            raise refused(answer)
        return answer.json()

    def _unreachable(self, error: Exception) -> CliError:
        message = f"the gateway at {self._url} does not answer ({type(error).__name__})"
        return CliError(message, hint="millrace status", code="unreachable", status=Exit.NOT_RUNNING)


def _line(line: str, answer: "httpx.Response") -> Any:
    body = json.loads(line)
    if isinstance(body, dict) and set(body) == {"error"}:
        raise _error(body["error"], answer.status_code)
    return body


def refused(answer: "httpx.Response") -> CliError:
    """From an error answer; one that is not in the house's shape is told by its status."""
    try:
        body = answer.json()["error"]
        return _error(body, answer.status_code)
    except (ValueError, KeyError, TypeError):
        return CliError(f"the gateway answered {answer.status_code}", code=f"http_{answer.status_code}")


def _error(body: Mapping[str, Any], status_code: int) -> CliError:
    field = f" (field {body['field']})" if body.get("field") else ""
    status = {404: Exit.NOT_FOUND, 503: Exit.NOT_RUNNING}.get(status_code, Exit.FAILED)
    return CliError(f"{body['message']}{field}", hint=body.get("hint") or "", code=body["code"], status=status)


def chunks_of(file: Path, advance: Advance) -> Iterator[bytes]:
    """The file part by part; `advance` hears of each part once the connection has taken it."""
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            yield chunk
            advance(len(chunk))
