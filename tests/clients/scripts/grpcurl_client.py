"""grpcurl: reflection, health, calls and errors of the gRPC endpoint."""

import json
import os
import re
import subprocess
import sys

PROGRAM = os.environ.get("MILLRACE_GRPCURL", "grpcurl")
ADDRESS = os.environ["MILLRACE_GRPC"]
KEY = os.environ["MILLRACE_KEY"]
DEPLOYMENT = os.environ["MILLRACE_DEPLOYMENT"]
TEXTS = json.loads(os.environ["MILLRACE_TEXTS"])
LABELS = json.loads(os.environ["MILLRACE_LABELS"])


def grpcurl(*arguments, key=KEY, call_key=KEY, data=None):
    """`key` is for reflection, which grpcurl asks first; `call_key` for the call itself."""
    command = [PROGRAM, "-plaintext", "-max-time", "30"]
    command += ["-reflect-header", f"authorization: Bearer {key}"] * bool(key)
    command += ["-rpc-header", f"authorization: Bearer {call_key}"] * bool(call_key)
    if data is not None:
        command += ["-d", json.dumps(data)]
    before = [argument for argument in arguments if argument.startswith("-")]
    after = [argument for argument in arguments if not argument.startswith("-")]
    return subprocess.run([*command, *before, ADDRESS, *after], check=False, capture_output=True, text=True)


def answer(*arguments, **options):
    done = grpcurl(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def version():
    output = subprocess.run([PROGRAM, "-version"], check=True, capture_output=True, text=True)
    match = re.search(r"v?\d+\.\d+\.\d+", output.stdout + output.stderr)
    return match[0] if match else "1.9.3"


def report(call, result="works"):
    print(json.dumps({"client": "grpcurl", "version": VERSION, "call": call, "result": result}), flush=True)


def reflection():
    listed = answer("list").split()
    assert {"millrace.v1.RegistryService", "millrace.v1.InferenceService", "grpc.health.v1.Health"} <= set(listed)
    assert "rpc Classify" in answer("describe", "millrace.v1.InferenceService")
    report("list and describe by reflection")
    refused = grpcurl("list", key="")
    assert refused.returncode != 0
    assert "A valid API key is needed" in refused.stderr
    report("list without a key", "refused: Unauthenticated")


def health():
    served = json.loads(answer("grpc.health.v1.Health/Check", call_key="", data={}))
    assert served == {"status": "SERVING"}
    report("health, without a key")
    refused = grpcurl("millrace.v1.RegistryService/ListModels", call_key="", data={})
    assert "Unauthenticated" in refused.stderr, refused.stderr
    report("ListModels without a key", "refused: Unauthenticated")


def health_of_unknown():
    done = grpcurl("grpc.health.v1.Health/Check", data={"service": "no.such.Service"})
    assert "NotFound" in done.stderr
    report("health of an unknown service", "refused: NotFound")


def classify():
    data = {"deployment": DEPLOYMENT, "texts": TEXTS[:2]}
    response = json.loads(answer("millrace.v1.InferenceService/Classify", data=data))
    assert [one["label"] in LABELS for one in response["predictions"]] == [True, True]
    report("Classify")


def embed():
    data = {"deployment": DEPLOYMENT, "texts": TEXTS[:1]}
    response = json.loads(answer("millrace.v1.InferenceService/Embed", data=data))
    values = response["embeddings"][0]["values"]
    assert abs(sum(value * value for value in values) - 1) < 1e-4
    report("Embed")


def listing():
    response = json.loads(answer("millrace.v1.RegistryService/ListModels", data={"page": {"page_size": 1}}))
    assert response["models"][0]["name"] == DEPLOYMENT
    report("ListModels")


def rich_error():
    done = grpcurl("-format-error", "millrace.v1.InferenceService/Classify", data={"deployment": DEPLOYMENT})
    response = json.loads(done.stderr)
    kinds = {detail["@type"].rpartition(".")[2]: detail for detail in response["details"]}
    violations = kinds["BadRequest"].get("fieldViolations") or kinds["BadRequest"]["field_violations"]
    assert (response["code"], violations[0]["field"], kinds["ErrorInfo"]["domain"]) == (3, "texts", "millrace"), (
        response
    )
    report("Classify without texts, google.rpc.BadRequest", "refused: InvalidArgument, field texts")


def unknown_deployment():
    done = grpcurl("millrace.v1.InferenceService/Classify", data={"deployment": "nobody", "texts": ["a"]})
    assert "NotFound" in done.stderr, done.stderr
    report("Classify of an unknown deployment", "refused: NotFound")


try:
    VERSION = version()
except FileNotFoundError:
    sys.stderr.write("grpcurl is not on this machine")
    sys.exit(77)
for check in (reflection, health, health_of_unknown, classify, embed, listing, rich_error, unknown_deployment):
    check()
