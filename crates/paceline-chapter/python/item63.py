import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

TICK = 0.001


class Reports(logging.Handler):
    def __init__(self):
        super().__init__()
        self.times = []

    def emit(self, record):
        message = record.getMessage()
        if message.startswith("Executing"):
            # "Executing <Task ...> took 0.500 seconds"
            self.times.append(float(message.split(" took ")[1].split()[0]))


async def blocking(seconds):
    time.sleep(seconds)


async def ticks(count):
    latest = 0.0
    for _ in range(count):
        since = time.perf_counter()
        await asyncio.sleep(TICK)
        latest = max(latest, time.perf_counter() - since - TICK)
    return latest


def slow_write():
    time.sleep(0.05)


async def beside(lines, write):
    async def task():
        for _ in range(lines // 5):
            await write()

    ticking = asyncio.ensure_future(ticks(100))
    await asyncio.gather(*[task() for _ in range(5)])
    return await ticking


async def in_the_coroutine():
    slow_write()


reports = Reports()
logger = logging.getLogger("asyncio")
logger.addHandler(reports)
logger.propagate = False
asyncio.run(blocking(0.5), debug=True)
assert len(reports.times) == 1, "one report, when it had ended"
print("a step of 500 ms with debug=True, told when it had ended", reports.times[0], sep="\t")
latest = asyncio.run(beside(10, in_the_coroutine))
print("10 lines in coroutines to a disk of 50 ms a write: latest tick", latest, sep="\t")
with ThreadPoolExecutor(1) as pool:

    async def in_a_thread():
        await asyncio.get_running_loop().run_in_executor(pool, slow_write)

    latest = asyncio.run(beside(50, in_a_thread))
print("50 lines by a thread to a disk of 50 ms a write: latest tick", latest, sep="\t")
