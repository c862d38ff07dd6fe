import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

PAIRS = [
    (1963309, 2265973),
    (2030677, 3814172),
    (1551645, 2229620),
    (2039045, 2020802),
    (1823712, 1924928),
    (2293129, 1020491),
    (1281238, 2273782),
    (3823812, 4237281),
    (3812741, 4729139),
    (1292391, 2123811),
]


def gcd(pair):
    a, b = pair
    for i in range(min(a, b), 0, -1):
        if a % i == 0 and b % i == 0:
            return i


def measure(what, run):
    start = time.perf_counter()
    assert list(run()) == [1, 1, 5, 1, 32, 1, 14, 9, 1, 9]
    print(what, time.perf_counter() - start, sep="\t")


measure("the divisors of 10 pairs, one after the other", lambda: map(gcd, PAIRS))
with ThreadPoolExecutor(2) as pool:
    measure("on 2 threads", lambda: pool.map(gcd, PAIRS))
# A program that comes by standard input can only be forked.
with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
    measure("in 2 processes", lambda: pool.map(gcd, PAIRS))
