"""The gateway's use cases: requests are answered (`serving`), those that came as events (`requested`) with more
`patience`; contents are taken (`uploading`)."""

from services.gateway.handlers.serving import (
    announce_dataset,
    check_deadline,
    classify,
    embed_all,
    follow_deployment,
    follow_replica,
    send_feedback,
    served,
)
from services.gateway.handlers.uploading import upload_dataset

__all__ = [
    "announce_dataset",
    "check_deadline",
    "classify",
    "embed_all",
    "follow_deployment",
    "follow_replica",
    "send_feedback",
    "served",
    "upload_dataset",
]
