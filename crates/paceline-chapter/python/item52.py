import subprocess
import time

start = time.perf_counter()
children = [subprocess.Popen(["sleep", "1"]) for _ in range(10)]
for child in children:
    child.communicate()
print("ten times `sleep 1`, at once", time.perf_counter() - start, sep="\t")

child = subprocess.Popen(["sleep", "10"])
start = time.perf_counter()
try:
    child.communicate(timeout=0.1)
except subprocess.TimeoutExpired:
    child.terminate()
    child.wait()
print("`sleep 10` with a limit of 100 ms", time.perf_counter() - start, sep="\t")
print("its exit status", f"{child.poll()} ", sep="\t")
