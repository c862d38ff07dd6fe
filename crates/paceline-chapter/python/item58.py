import time
from queue import Queue
from threading import Thread

HEIGHT, WIDTH, WORKERS = 5, 9, 5
CELLS = [(y, x) for y in range(HEIGHT) for x in range(WIDTH)]
STOP = object()


def count_neighbors(y, x, living):
    around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    return sum(((y + dy) % HEIGHT, (x + dx) % WIDTH) in living for dy, dx in around)


def work(in_queue, out_queue):
    while (item := in_queue.get()) is not STOP:
        cell, living, wait = item
        try:
            if wait:
                time.sleep(wait)
            neighbors = count_neighbors(*cell, living)
            result = neighbors == 3 or (neighbors == 2 and cell in living)
        except Exception as error:  # it must travel as a value, or it is only printed
            result = error
        out_queue.put((cell, result))


in_queue, out_queue = Queue(), Queue()
threads = [Thread(target=work, args=(in_queue, out_queue)) for _ in range(WORKERS)]
for thread in threads:
    thread.start()
for generations, wait in [(180, 0), (10, 0.002)]:
    living, start = {(0, 3), (1, 4), (2, 2), (2, 3), (2, 4)}, time.perf_counter()
    for _ in range(generations):
        for cell in CELLS:
            in_queue.put((cell, living, wait))
        answers = [out_queue.get() for _ in CELLS]
        for _, answer in answers:
            if isinstance(answer, Exception):
                raise answer
        living = {cell for cell, lives in answers if lives}
    took = time.perf_counter() - start
    print(f"five threads: {generations} generations, wait {wait} s", took, sep="\t")
for _ in threads:
    in_queue.put(STOP)
for thread in threads:
    thread.join()
