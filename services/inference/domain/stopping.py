"""Where an answer ends: at a stop text, which may begin in one token and end in another."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class StopTexts:
    """Passes on the text of an answer as it comes, but for what may be the beginning of a stop text."""

    texts: Sequence[str] = ()
    stopped: bool = False
    """A stop text came; nothing of it or after it is passed on."""
    _waiting: str = ""

    def push(self, text: str) -> str:
        """What may be shown now that `text` has come."""
        if self.stopped:
            return ""
        if not self.texts:
            return text
        self._waiting += text
        ends = [index for stop in self.texts if (index := self._waiting.find(stop)) >= 0]
        if ends:
            self.stopped = True
            shown, self._waiting = self._waiting[: min(ends)], ""
            return shown
        end = len(self._waiting) - self._beginning()
        shown, self._waiting = self._waiting[:end], self._waiting[end:]
        return shown

    def flush(self) -> str:
        """What was held back, now that nothing follows."""
        shown, self._waiting = self._waiting, ""
        return shown

    def _beginning(self) -> int:
        """Characters at the end of what waits that a stop text may begin with; the longest such."""
        longest = max(len(stop) for stop in self.texts) - 1
        for length in range(min(longest, len(self._waiting)), 0, -1):
            tail = self._waiting[-length:]
            if any(stop.startswith(tail) for stop in self.texts):
                return length
        return 0
