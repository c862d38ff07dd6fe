import time

HEIGHT, WIDTH = 5, 9


def count_neighbors(y, x, living):
    around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    return sum(((y + dy) % HEIGHT, (x + dx) % WIDTH) in living for dy, dx in around)


def step_cell(y, x, living, wait):
    if wait:
        time.sleep(wait)
    neighbors = count_neighbors(y, x, living)
    return neighbors == 3 or (neighbors == 2 and (y, x) in living)


def simulate(living, wait):
    cells = [(y, x) for y in range(HEIGHT) for x in range(WIDTH)]
    return {cell for cell in cells if step_cell(*cell, living, wait)}


glider = {(0, 3), (1, 4), (2, 2), (2, 3), (2, 4)}
for generations, wait in [(180, 0), (10, 0.002)]:
    living, start = glider, time.perf_counter()
    for _ in range(generations):
        living = simulate(living, wait)
    took = time.perf_counter() - start
    print(f"in a row: {generations} generations, wait {wait} s", took, sep="\t")
