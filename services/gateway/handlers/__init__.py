"""The gateway's use cases: requests are answered (`predictions`), those that came as events (`requested`) with more
`retrying`; contents are taken (`uploading`)."""

from services.gateway.handlers.embeddings import embed_all
from services.gateway.handlers.predictions import answer, check_deadline, predict
from services.gateway.handlers.serving import (
    announce_dataset,
    follow_deployment,
    follow_replica,
    send_feedback,
    served,
)
from services.gateway.handlers.uploading import upload_dataset

__all__ = [
    "announce_dataset",
    "answer",
    "check_deadline",
    "embed_all",
    "follow_deployment",
    "follow_replica",
    "predict",
    "send_feedback",
    "served",
    "upload_dataset",
]
