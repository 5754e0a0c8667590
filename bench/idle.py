"""How soon everything answers, and what it costs to stand ready."""

import time

from bench.fleet import IDLE_SECONDS, SETTLE_SECONDS, Fleet
from bench.report import Figure, at_most

MEMORY_AIMS = {"gateway": 130, "registry": 130, "monitor": 130, "trainer": 130, "inference": 300}


def start(fleet: Fleet) -> list[Figure]:
    remark = "'millrace up --detach' in an empty folder, its own start included"
    return [at_most("start", "until everything answers", fleet.seconds_to_ready, "s", 10, remark)]


def cost(fleet: Fleet) -> list[Figure]:
    """With a MiniLM int8 deployment served, and no traffic."""
    time.sleep(SETTLE_SECONDS)
    begin = fleet.cpu_seconds()
    time.sleep(IDLE_SECONDS)
    share = 100 * (fleet.cpu_seconds() - begin) / IDLE_SECONDS
    memory = fleet.memory_mb()
    figures = [
        at_most("idle memory", name, memory[name], "MB", limit, "proportional set size")
        for name, limit in MEMORY_AIMS.items()
    ]
    figures.append(at_most("idle memory", "all, with the embedded broker", sum(memory.values()), "MB", 850))
    figures.append(at_most("idle CPU", "all together", share, "% of a core", 3, f"over {IDLE_SECONDS:g} s"))
    return figures
