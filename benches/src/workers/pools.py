"""Prints how many seconds a pool takes: POOL FUNCTION ITEMS WORKERS RUN."""

import sys
import time

sys.path.insert(0, "")
import functions

_, pool, name, items, workers, run = sys.argv
function, items, workers = getattr(functions, name), int(items), int(workers)
if run == "0":
    # Only: is it here?
    items = 4
numbers = [str(number) for number in range(items)]
chunk = max(1, items // (workers * 4))


def warm(x):
    return x


def by_futures():
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(workers) as executor:
        list(executor.map(function, numbers[:workers]))
        yield
        yield executor.map(function, numbers, chunksize=chunk)


def by_pool():
    from multiprocessing import Pool

    with Pool(workers) as pool:
        pool.map(function, numbers[:workers])
        yield
        yield pool.map(function, numbers, chunksize=chunk)


def by_mpire():
    from mpire import WorkerPool

    with WorkerPool(n_jobs=workers, keep_alive=True) as pool:
        pool.map(function, numbers[:workers])
        yield
        yield pool.map(function, numbers, chunk_size=chunk)


def by_pypeln():
    import pypeln

    yield
    yield pypeln.process.map(function, numbers, workers=workers, maxsize=0)


steps = globals()["by_" + pool]()
next(steps)
began = time.perf_counter()
total = sum(map(int, next(steps)))
took = time.perf_counter() - began
assert total == items * (items - 1) // 2, "items are missing"
print(took)
steps.close()
