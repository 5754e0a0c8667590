"""Which role a key needs for what. Pure."""

from typing import Final

from services.gateway.errors import RoleTooWeak
from services.kit.auth import KeyRole, Principal

_RANK: Final = {
    KeyRole.VIEWER: 0,
    KeyRole.CLIENT: 1,
    KeyRole.OPERATOR: 2,
    KeyRole.ADMIN: 3,
    KeyRole.SERVICE: 3,
}

_CLIENT: Final = frozenset({"Classify", "Embed", "Stream", "SendFeedback", "ModelInfer", "ModelStreamInfer"})
_READING: Final = ("Get", "List")
_READING_MODELS: Final = frozenset(
    {"ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex"}
)


def needed_role(method: str) -> KeyRole:
    """By the gRPC method's name: reading is for viewers, asking for clients, changing for operators."""
    if method.startswith(_READING) or method in _READING_MODELS:
        return KeyRole.VIEWER
    return KeyRole.CLIENT if method in _CLIENT else KeyRole.OPERATOR


def check_role(principal: Principal, method: str) -> None:
    """Raises RoleTooWeak."""
    needed = needed_role(method)
    if _RANK[principal.role] < _RANK[needed]:
        raise RoleTooWeak(role=principal.role, needed=needed)
