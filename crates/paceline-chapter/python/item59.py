import time
from concurrent.futures import ThreadPoolExecutor

HEIGHT, WIDTH = 5, 9
CELLS = [(y, x) for y in range(HEIGHT) for x in range(WIDTH)]


def count_neighbors(y, x, living):
    around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    return sum(((y + dy) % HEIGHT, (x + dx) % WIDTH) in living for dy, dx in around)


def step_cell(cell, living, wait):
    if wait:
        time.sleep(wait)
    neighbors = count_neighbors(*cell, living)
    return neighbors == 3 or (neighbors == 2 and cell in living)


with ThreadPoolExecutor(max_workers=10) as pool:
    for generations, wait in [(180, 0), (10, 0.002)]:
        living, start = {(0, 3), (1, 4), (2, 2), (2, 3), (2, 4)}, time.perf_counter()
        for _ in range(generations):
            futures = [(cell, pool.submit(step_cell, cell, living, wait)) for cell in CELLS]
            living = {cell for cell, future in futures if future.result()}
        took = time.perf_counter() - start
        print(f"a pool of ten: {generations} generations, wait {wait} s", took, sep="\t")

with ThreadPoolExecutor(max_workers=2) as pool:
    start = time.perf_counter()
    done = sum(1 for _ in pool.map(abs, range(100_000)))
    print(f"{done} trivial pieces of work, two threads", time.perf_counter() - start, sep="\t")
