import asyncio
import time

HEIGHT, WIDTH = 5, 9
CELLS = [(y, x) for y in range(HEIGHT) for x in range(WIDTH)]


def count_neighbors(y, x, living):
    around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    return sum(((y + dy) % HEIGHT, (x + dx) % WIDTH) in living for dy, dx in around)


async def step_cell(cell, living, wait):
    if wait:
        await asyncio.sleep(wait)
    neighbors = count_neighbors(*cell, living)
    return neighbors == 3 or (neighbors == 2 and cell in living)


async def main():
    for generations, wait in [(180, 0), (10, 0.002)]:
        living, start = {(0, 3), (1, 4), (2, 2), (2, 3), (2, 4)}, time.perf_counter()
        for _ in range(generations):
            steps = [step_cell(cell, living, wait) for cell in CELLS]
            lives = await asyncio.gather(*steps)
            living = {cell for cell, alive in zip(CELLS, lives) if alive}
        took = time.perf_counter() - start
        print(f"coroutines: {generations} generations, wait {wait} s", took, sep="\t")
    for count in (10_000, 100_000):
        start = time.perf_counter()
        await asyncio.gather(*[asyncio.sleep(0.1) for _ in range(count)])
        print(f"{count} waits of 100 ms at once", time.perf_counter() - start, sep="\t")


asyncio.run(main())
