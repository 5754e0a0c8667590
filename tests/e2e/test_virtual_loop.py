from pathlib import Path
import time
from tests.e2e.virtual.faults import Faults
from tests.e2e.virtual.ground import Bus, Ground
from tests.e2e.virtual.house import House
from tests.e2e.virtual.story import Story


async def test_probe(tmp_path: Path) -> None:
    t = time.monotonic()
    house = House(Ground(tmp_path, 1, Faults(1), Bus(echo=False), tmp_path / "templates"))
    (tmp_path / "templates").mkdir()
    await house.open()
    print("open", time.monotonic() - t)
    story = Story(house)
    try:
        for name in ("first_version", "quiet_traffic", "drift", "recovery", "spoiled_version", "forced_rollout", "thin_evidence"):
            t = time.monotonic()
            await getattr(story, name)()
            print(name, time.monotonic() - t, house.ground.clock.monotonic(), len(house.asked))
    finally:
        async with house.registry.store.reading() as tx:
            for line in await tx.history("default", stream="", after=0, limit=500):
                print(line.sequence, f"{line.at:%M:%S.%f}", line.kind, line.actor, line.reason[:110])
        for w in await story.windows():
            print(w.number, w.version, w.verdict, w.test and w.test.p_value, w.opened)
        print(house.failed)
        from collections import Counter
        print(Counter(m.topic for m in house.ground.bus.sent))
        await house.close()
