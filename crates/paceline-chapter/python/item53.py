import time
from threading import Thread


def factorize(number):
    return [i for i in range(1, number + 1) if number % i == 0]


def slow_call():
    time.sleep(0.1)


def at_once(work, arguments):
    threads = [Thread(target=work, args=a) for a in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure(what, work, *arguments):
    start = time.perf_counter()
    work(*arguments)
    print(what, time.perf_counter() - start, sep="\t")


numbers = [(2139079,), (1214759,), (1516637,), (1852285,)]
measure("the factors of 4 numbers, one after the other", lambda: [factorize(*n) for n in numbers])
measure("on 4 threads", at_once, factorize, numbers)
measure("five blocking calls of 100 ms, 1 at once", lambda: [slow_call() for _ in range(5)])
measure("five blocking calls of 100 ms, 5 at once", at_once, slow_call, [()] * 5)
