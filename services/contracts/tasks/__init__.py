"""The tasks that models are asked for. Each is defined in one file; whoever wants another registers it in a `Tasks`."""

from typing import Final

from services.contracts.tasks.classification import CLASSIFICATION
from services.contracts.tasks.embedding import EMBEDDING
from services.contracts.tasks.generation import GENERATION
from services.contracts.tasks.registry import Tasks

TASKS: Final = Tasks(CLASSIFICATION, EMBEDDING, GENERATION)
"""What Millrace comes with."""

__all__ = ["CLASSIFICATION", "EMBEDDING", "GENERATION", "TASKS", "Tasks"]
