import asyncio
import os
import tempfile
import time
from threading import Event, Lock, Thread

LINES = 10


def write_lines(paths):
    files = [open(path, "a") for path in paths]
    for line in range(LINES):
        for file in files:
            file.write(f"line {line}\n")
            file.flush()
    for file in files:
        file.close()


def follow(path, is_over, write):
    """Blocks its thread: looks, and sleeps if there was nothing."""
    with open(path) as file:
        while True:
            ending = is_over()
            line = file.readline()
            if line:
                write(line)
            elif ending:
                return
            else:
                time.sleep(0.01)


def by_threads(paths, output):
    lock, over = Lock(), Event()
    with open(output, "w") as merged:

        def write(line):
            with lock:
                merged.write(line)

        threads = [Thread(target=follow, args=(path, over.is_set, write)) for path in paths]
        for thread in threads:
            thread.start()
        write_lines(paths)
        over.set()
        for thread in threads:
            thread.join()


async def by_tasks(paths, output):
    loop, over = asyncio.get_running_loop(), False
    with open(output, "w") as merged:

        async def follow_by_task(path):
            with open(path) as file:
                while True:
                    ending = over
                    line = await loop.run_in_executor(None, file.readline)
                    if line:
                        await loop.run_in_executor(None, merged.write, line)
                    elif ending:
                        return
                    else:
                        await asyncio.sleep(0.01)

        followers = [asyncio.ensure_future(follow_by_task(path)) for path in paths]
        await loop.run_in_executor(None, write_lines, paths)
        over = True
        await asyncio.gather(*followers)


for count in (5, 200):
    for what, merge in [
        ("a thread a file", by_threads),
        ("tasks, reading off the loop", lambda *of: asyncio.run(by_tasks(*of))),
    ]:
        with tempfile.TemporaryDirectory() as folder:
            paths = [os.path.join(folder, f"{n}.log") for n in range(count)]
            for path in paths:
                open(path, "w").close()
            output = os.path.join(folder, "merged")
            start = time.perf_counter()
            merge(paths, output)
            took = time.perf_counter() - start
            assert len(open(output).readlines()) == count * LINES, "every line exactly once"
            print(f"{count} files of {LINES} lines: {what}", took, sep="\t")
