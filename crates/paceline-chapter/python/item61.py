import asyncio
import random
import resource
import socket
import time
from threading import Thread

# Low, high, the secret, and how many guesses.
GAMES = [(1, 5, 3, 5), (10, 15, 12, 5)]
CROWD = 1000


class Server:
    """What the server answers to a line; without I/O, so both forms use it."""

    def __init__(self):
        self.random = random.Random(61)

    def answer(self, line):
        command, *words = line.split()
        if command == "PARAMS":
            low, high = map(int, words)
            self.left = list(range(low, high + 1))
        elif command == "NUMBER":
            guess = self.left.pop(self.random.randrange(len(self.left)))
            return f"{guess}\n"
        elif command != "REPORT":
            raise ValueError(f"unknown command: {line!r}")


def played():
    """Plays all games: gives what the client says, is sent what it hears."""
    for low, high, secret, guesses in GAMES:
        yield f"PARAMS {low} {high}\n"
        last = None
        for _ in range(guesses):
            guess = int((yield "NUMBER\n"))
            closer = last is None or abs(guess - secret) < abs(last - secret)
            decision = "Correct" if guess == secret else "Warmer" if closer else "Colder"
            yield f"REPORT {decision}\n"
            if guess == secret:
                break
            last = guess


def at_once(connection):
    """Lets short lines go without a wait for more, as asyncio does by itself."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def serve_by_thread(connection):
    at_once(connection)
    server = Server()
    with connection, connection.makefile("rw", newline="\n") as lines:
        for line in lines:
            answer = server.answer(line)
            if answer:
                lines.write(answer)
                lines.flush()


def accept_by_threads(listener):
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        Thread(target=serve_by_thread, args=(connection,), daemon=True).start()


def client_by_thread(address):
    said = []
    with socket.create_connection(address) as connection:
        at_once(connection)
        with connection.makefile("rw", newline="\n") as lines:
            player, heard = played(), None
            while True:
                try:
                    line = player.send(heard)
                except StopIteration:
                    return said
                said.append(line)
                lines.write(line)
                lines.flush()
                heard = None
                if line == "NUMBER\n":
                    heard = lines.readline()
                    said.append(heard)


async def serve_by_task(reader, writer):
    server = Server()
    while line := await reader.readline():
        answer = server.answer(line.decode())
        if answer:
            writer.write(answer.encode())
            await writer.drain()
    writer.close()


async def client_by_task(address):
    said = []
    reader, writer = await asyncio.open_connection(*address)
    player, heard = played(), None
    while True:
        try:
            line = player.send(heard)
        except StopIteration:
            writer.close()
            return said
        said.append(line)
        writer.write(line.encode())
        await writer.drain()
        heard = None
        if line == "NUMBER\n":
            heard = (await reader.readline()).decode()
            said.append(heard)


def by_threads():
    listener = socket.create_server(("127.0.0.1", 0))
    Thread(target=accept_by_threads, args=(listener,), daemon=True).start()
    start = time.perf_counter()
    said = [client_by_thread(listener.getsockname()) for _ in range(2)]
    print("server: threads, two clients, two games each", time.perf_counter() - start, sep="\t")
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    return said


async def by_tasks():
    server = await asyncio.start_server(serve_by_task, "127.0.0.1", 0, backlog=CROWD)
    async with server:
        address = server.sockets[0].getsockname()
        start = time.perf_counter()
        said = [await client_by_task(address) for _ in range(2)]
        print("server: tasks, two clients, two games each", time.perf_counter() - start, sep="\t")
        start = time.perf_counter()
        said += await asyncio.gather(*[client_by_task(address) for _ in range(CROWD)])
        took = time.perf_counter() - start
        print(f"{CROWD} clients at once, on one event loop with the server", took, sep="\t")
    return said


most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
first, *others = by_threads() + asyncio.run(by_tasks())
assert all(other == first for other in others), "the same lines in both forms"
