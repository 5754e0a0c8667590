"""Embeddings made shorter. Pure."""

import math
from array import array

from services.contracts.tasks.vectors import Embedding
from services.gateway.errors import TooManyDimensions


def shortened(embedding: Embedding, dimensions: int) -> Embedding:
    """Its first `dimensions` values, of unit length again. Raises TooManyDimensions.

    What they mean without the others is the model's matter: only one trained for it (Matryoshka representation
    learning, arXiv 2205.13147) keeps most of its quality.
    """
    if dimensions > len(embedding):
        raise TooManyDimensions(most=len(embedding), asked=dimensions)
    if dimensions == len(embedding):
        return embedding
    shortened = embedding[:dimensions]
    length = math.sqrt(math.fsum(value * value for value in shortened))
    return array("f", (value / length for value in shortened)) if length else shortened
