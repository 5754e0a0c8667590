"""The routes of the control API: a module a noun."""

from fastapi import APIRouter

from services.gateway.inbound.http.routes import (
    batches,
    datasets,
    dead_letters,
    deployments,
    feedback,
    generation,
    history,
    inference,
    keys,
    models,
    monitoring,
    operations,
    runs,
    uploads,
)

ROUTERS: tuple[APIRouter, ...] = (
    models.router,
    deployments.router,
    history.router,
    runs.router,
    datasets.router,
    uploads.router,
    inference.router,
    generation.router,
    feedback.router,
    batches.router,
    monitoring.router,
    dead_letters.router,
    keys.router,
    operations.router,
)
"""In the order of the document."""
