"""The tables that are read from: a projection of the history, and the replicas last heard of."""

from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from services.kit.persistence.sql.tables import UtcDateTime


class ModelRow(SQLModel, table=True):
    """The state of one model, as its canonical JSON."""

    __tablename__ = "registry_model"
    tenant: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    state: str = Field(sa_type=sa.Text)
    state_hash: str


class DeploymentRow(SQLModel, table=True):
    """The state of one deployment, as its canonical JSON."""

    __tablename__ = "registry_deployment"
    tenant: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    generation: int
    deleted: bool
    changed_at: datetime = Field(sa_type=UtcDateTime)
    state: str = Field(sa_type=sa.Text)
    state_hash: str


class DeploymentModelRow(SQLModel, table=True):
    """A model that a deployment serves, or ever served."""

    __tablename__ = "registry_deployment_model"
    tenant: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    deployment: str = Field(primary_key=True)


class ReplicaRow(SQLModel, table=True):
    """The latest report of a replica; not part of the history."""

    __tablename__ = "registry_replica"
    tenant: str = Field(primary_key=True)
    replica: str = Field(primary_key=True)
    sequence: int = Field(sa_type=sa.BigInteger)
    report: str = Field(sa_type=sa.Text)
    leaving: bool
    reported_at: datetime = Field(sa_type=UtcDateTime, index=True)


TABLES: Final = (ModelRow, DeploymentRow, DeploymentModelRow, ReplicaRow)
PROJECTION: Final = (ModelRow, DeploymentRow, DeploymentModelRow)
