"""httpx: a data set uploaded by stream with progress, announced by its hash, and refused where it is no text."""

import hashlib
import json
import os
import time

import httpx

KEY = os.environ["MILLRACE_KEY"]
PATH = "/api/v1/datasets/by-httpx"
ROW = b'{"text": "old iron", "label": "metal"}\n'
CONTENT = ROW * 2_000
HASH = hashlib.sha256(CONTENT).hexdigest()
CLIENT = httpx.Client(
    base_url=os.environ["MILLRACE_REST"], headers={"authorization": f"Bearer {KEY}"}, timeout=30, trust_env=False
)


def report(call, result="works"):
    print(json.dumps({"client": "httpx", "version": httpx.__version__, "call": call, "result": result}), flush=True)


def slowly():
    for start in range(0, len(CONTENT), len(CONTENT) // 8):
        time.sleep(0.2)
        yield CONTENT[start : start + len(CONTENT) // 8]


def upload():
    response = CLIENT.post(
        f"{PATH}/content?sha256={HASH}", content=slowly(), headers={"accept": "application/x-ndjson"}
    )
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert response.status_code == 200, response.text
    assert all("progress" in line for line in lines[:-1])
    assert len(lines) > 2
    assert lines[-1]["uploaded"]["content_hash"] == HASH
    report("upload of a data set by stream, with progress")
    return lines[-1]["uploaded"]


def announce(uploaded):
    body = {"dataset": "by-httpx", "uri": uploaded["uri"], "model": "by-httpx", "content_hash": HASH, "hold_back": True}
    response = CLIENT.post("/api/v1/datasets", json=body, headers={"idempotency-key": HASH})
    assert response.status_code == 202, response.text
    report("announcing it by its content hash")


def no_text():
    response = CLIENT.post(f"{PATH}/content", content=b"\xff\xfe" + CONTENT * 200)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "not_text"), response.text
    report("upload of 15 MB that is no text", "refused: 422 not_text")


announce(upload())
no_text()
