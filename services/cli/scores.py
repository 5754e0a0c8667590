"""How a version scored, read from what the registry shows of it."""

from typing import Any


def overall(version: dict[str, Any]) -> dict[str, Any]:
    """The scores over all test rows."""
    matches: dict[str, Any] = next((part for part in version.get("slices", []) if part["name"] == "all"), {})
    return matches


def interval(scores: dict[str, Any]) -> str:
    bounds = scores.get("macro_f1_ci95")
    return f"{bounds['low']:.3f}..{bounds['high']:.3f}" if bounds else ""
