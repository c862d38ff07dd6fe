import time
from threading import Barrier, Lock, Thread

WORKERS, TIMES = 5, 100_000


def one(value):
    return 1


class Counter:
    def __init__(self):
        self.count = 0

    def increment(self):
        self.count += one(self.count)  # reads, calls, writes: others come in between


class LockingCounter(Counter):
    def __init__(self):
        super().__init__()
        self.lock = Lock()

    def increment(self):
        with self.lock:
            self.count += 1


def work(counter, start):
    start.wait()
    for _ in range(TIMES):
        counter.increment()


for what, counter in [("without a lock", Counter()), ("with a lock", LockingCounter())]:
    barrier = Barrier(WORKERS)
    threads = [Thread(target=work, args=(counter, barrier)) for _ in range(WORKERS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{what}: {counter.count}", time.perf_counter() - start, sep="\t")
