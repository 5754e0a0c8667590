"""How long events, dead letters and inbox rows are kept: three times that must fit together.

An event may lie on its topic for EVENT_RETENTION before a service that was away gives it up, its dead letter for
DEAD_LETTER_RETENTION more before somebody sends it again. Whoever handled it at once must know it still then.
`tests/unit/cli` compares the first two with `deploy/kafka/topics.yaml`.
"""

from datetime import timedelta
from typing import Final

EVENT_RETENTION: Final = timedelta(days=7)
DEAD_LETTER_RETENTION: Final = timedelta(days=30)
INBOX_RETENTION: Final = EVENT_RETENTION + DEAD_LETTER_RETENTION + timedelta(days=7)
"""With a week to spare: the broker keeps a segment until its youngest record is old enough."""
