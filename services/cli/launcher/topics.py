"""The topics that a broker must have, read from `deploy/kafka/topics.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.contracts.topics import DLQ_SUFFIX

REPOSITORY: Final = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Topic:
    """One topic with its partitions and its broker-side settings."""

    name: str
    partitions: int
    config: Mapping[str, str]


def kafka_files() -> Path:
    """The folder with topics.yaml and pom.xml: in a checkout `deploy/kafka`, in a wheel beside this file."""
    folders = (REPOSITORY / "deploy" / "kafka", Path(__file__).parent / "deploy")
    for folder in folders:
        if (folder / "topics.yaml").is_file():
            return folder
    raise FileNotFoundError(f"topics.yaml is in none of: {', '.join(map(str, folders))}")


def load_topics(path: Path | None = None) -> list[Topic]:
    """Every topic followed by its dead letter, in the order of the file."""
    import yaml  # most commands never need it

    document = yaml.safe_load((path or kafka_files() / "topics.yaml").read_text(encoding="utf-8"))
    defaults, dead_letter = document["defaults"], document["dead_letter"]
    topics: list[Topic] = []
    for name, own in document["topics"].items():
        topics.append(_topic(name, defaults, own))
        topics.append(_topic(name + DLQ_SUFFIX, defaults, dead_letter))
    return topics


def _topic(name: str, defaults: Mapping[str, Any], own: Mapping[str, Any]) -> Topic:
    config = {**defaults["config"], **own.get("config", {})}
    return Topic(
        name=name,
        partitions=own.get("partitions", defaults["partitions"]),
        config={key: str(value) for key, value in config.items()},
    )
