"""Tasks by name and by the last segment of their REST path."""

from collections.abc import Iterator
from typing import Any, TypeAlias

from services.contracts.tasks.errors import UnknownTask
from services.contracts.tasks.task import Task

AnyTask: TypeAlias = Task[Any, Any]


class Tasks:
    """The task types that a service knows; given to it when it is built, and never changed."""

    def __init__(self, *tasks: AnyTask) -> None:
        """Raises ValueError where two share a name or a verb: a request would not say which it means."""
        self._by_name = {task.name: task for task in tasks}
        self._by_verb = {task.verb: task for task in tasks}
        if len(self._by_name) < len(tasks) or len(self._by_verb) < len(tasks):
            raise ValueError("two tasks share a name or a verb")

    def __iter__(self) -> Iterator[AnyTask]:
        return iter(self._by_name.values())

    def named(self, name: str) -> AnyTask:
        """Raises UnknownTask."""
        task = self._by_name.get(name)
        if task is None:
            raise UnknownTask(task=name[:100], known=", ".join(self._by_name))
        return task

    def find(self, name: str) -> AnyTask | None:
        return self._by_name.get(name)

    def by_verb(self, verb: str) -> AnyTask | None:
        return self._by_verb.get(verb)
