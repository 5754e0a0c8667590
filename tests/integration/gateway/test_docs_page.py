"""`/docs/`: the page on which the REST door is read and tried, by hand and in a browser."""

import asyncio
import json
import re
import shutil
from pathlib import Path
from typing import Final

import httpx
import pytest

from services.gateway.inbound.docs.page import FILES, ROOT
from services.gateway.inbound.http.api import document
from tests.fixtures.presence import left_out
from tests.integration.gateway.gateway import GatewayUnderTest

PATHS: Final = (ROOT, f"{ROOT}/openapi.json", *FILES)
BROWSER: Final = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")


def key_of(gateway: GatewayUnderTest) -> str:
    return gateway.metadata[0][1].removeprefix("Bearer ")


def browser(gateway: GatewayUnderTest, password: str = "") -> httpx.AsyncClient:
    """A client as a browser is one after its prompt: any name, and the key as the password."""
    return httpx.AsyncClient(base_url=f"http://{gateway.rest}", auth=("anybody", password or key_of(gateway)))


async def test_every_path_of_the_page_asks_for_a_key_in_a_way_that_browsers_know(gateway: GatewayUnderTest) -> None:
    async with httpx.AsyncClient(base_url=f"http://{gateway.rest}") as stranger, browser(gateway, "wrong") as guess:
        for path in (*PATHS, f"{ROOT}/nothing"):
            for client in (stranger, guess):
                reply = await client.get(path)
                assert reply.status_code == 401, path
                assert reply.headers["www-authenticate"].startswith("Basic realm=")
        odd = await stranger.get(f"{ROOT}/", headers={"authorization": "Basic !!!"})
        assert odd.status_code == 401


async def test_a_browsers_password_is_a_key_here_and_nowhere_else(gateway: GatewayUnderTest) -> None:
    async with browser(gateway) as client:
        for path in PATHS:
            assert (await client.get(path)).status_code == (308 if path == ROOT else 200)
        for path in ("/openapi.json", "/api/v1/models", "/v1/models", "/metrics", "/docsy", "/"):
            assert (await client.get(path)).status_code == 401, path
    assert (await gateway.client.get(f"{ROOT}/")).status_code == 200


async def test_the_page_may_load_nothing_but_its_own_files(gateway: GatewayUnderTest) -> None:
    page = await gateway.client.get(f"{ROOT}/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "//" not in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|https?://", page.text)
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert set(named) == {*FILES, "/openapi.json"} - {f"{ROOT}/"}
    for path in named:
        reply = await gateway.client.get(path)
        assert (reply.status_code, bool(reply.content)) == (200, True), path
    assert page.headers["x-content-type-options"] == "nosniff"


async def test_the_document_of_the_page_is_the_one_of_the_endpoint(gateway: GatewayUnderTest) -> None:
    assert (await gateway.client.get(f"{ROOT}/openapi.json")).json() == json.loads(json.dumps(document()))


async def test_files_are_sent_once_and_nothing_is_changed_here(gateway: GatewayUnderTest) -> None:
    path = f"{ROOT}/swagger-ui-bundle.js"
    first = await gateway.client.get(path)
    again = await gateway.client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await gateway.client.head(path)).status_code == 200
    for verb in ("POST", "PUT", "DELETE"):
        reply = await gateway.client.request(verb, path)
        assert (reply.status_code, reply.headers["allow"]) == (405, "GET, HEAD")
    for other in ("/docs/../keys", "/docs/page.py", "/docs/static", "/docs//", "/docs/redoc.standalone.js"):
        assert (await gateway.client.get(other)).status_code == 404, other


@pytest.mark.slow
async def test_a_browser_draws_every_operation_and_breaks_no_rule(gateway: GatewayUnderTest, tmp_path: Path) -> None:
    programs = [
        program for name in ("chromium", "chromium-browser", "google-chrome") if (program := shutil.which(name))
    ]
    if not programs:
        left_out("browser", "no Chromium is on the PATH")
    arguments = [*BROWSER, f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000", "--enable-logging=stderr"]
    address = f"http://anybody:{key_of(gateway)}@{gateway.rest}{ROOT}/"
    running = await asyncio.create_subprocess_exec(
        programs[0], *arguments, "--dump-dom", address, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    drawn, output = await asyncio.wait_for(running.communicate(), 60)
    page = drawn.decode()
    for verbs in document()["paths"].values():
        for operation in verbs.values():
            assert f'id="operations-{operation["tags"][0]}-{operation["operationId"]}"' in page
    assert "OAS 3.1" in page
    assert b"CONSOLE" not in output, output.decode()[-2000:]
