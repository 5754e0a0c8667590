"""`millrace infer`: ask a deployment."""

import sys
from typing import Annotated

import typer

from services.cli.errors import CliError, Exit
from services.cli.session import Json, Session, command


@command
def infer(
    deployment: Annotated[str, typer.Argument(help="The deployment to ask.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to classify; - or none reads lines.")] = None,
    as_json: Json = False,
) -> None:
    """Classify texts with what the deployment serves."""
    session = Session(as_json=as_json)
    inputs = texts if texts and texts != ["-"] else [line.strip() for line in sys.stdin if line.strip()]
    if not inputs:
        raise CliError("there is no text to classify", code="no_text", status=Exit.USAGE)
    reply = session.rest().post(f"/deployments/{deployment}/classify", {"texts": inputs})
    rows = [
        (prediction["label"], prediction["score"], text if len(text) <= 100 else f"{text[:99]}…")
        for text, prediction in zip(inputs, reply["predictions"], strict=True)
    ]
    session.out.data(reply, lambda _: session.out.table(["label", "score", "text"], rows))
    session.out.say(f"version {reply['version']} answered request {reply['request_id']}")
