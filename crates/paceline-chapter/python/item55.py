import time
from queue import Queue
from threading import Thread

STEP, COUNT = 0.005, 300


class ClosableQueue(Queue):
    SENTINEL = object()

    def close(self):
        self.put(self.SENTINEL)

    def __iter__(self):
        while True:
            item = self.get()
            try:
                if item is self.SENTINEL:
                    return
                yield item
            finally:
                self.task_done()


def worker(work, in_queue, out_queue):
    for item in in_queue:
        out_queue.put(work(item))


def slow(item):
    time.sleep(STEP)
    return item


start = time.perf_counter()
queues = [ClosableQueue() for _ in range(4)]
stages = [
    [Thread(target=worker, args=(slow, queues[i], queues[i + 1])) for _ in range(count)]
    for i, count in enumerate([3, 4, 5])
]
for thread in sum(stages, []):
    thread.start()
for i in range(COUNT):
    queues[0].put(i)
for queue, threads in zip(queues, stages):
    for _ in threads:
        queue.close()  # one sentinel for each worker, or some never end
    queue.join()
    for thread in threads:
        thread.join()
took = time.perf_counter() - start
print(f"{queues[-1].qsize()} items, three steps of 5 ms, 3, 4, 5 workers", took, sep="\t")
