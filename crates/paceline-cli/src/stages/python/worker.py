"""The worker of a `python` stage: calls one function for each item.

It is carried inside the program and sent to the interpreter on its standard
input, which is a private socket. The frames are those of docs/design/workers.md.
Standard library only, Python 3.8 and later.
"""

import importlib
import mmap
import os
import struct
import sys
import time

BYTES, JSON, ERROR, READY, FATAL = range(5)
HEAD = struct.Struct("<IIB")
# How far the answers on the slate go, and one more than the id begun last.
SLATE_HEAD = struct.Struct("<QQ")
SLATE_SIZE = 256 * 1024
# Answers wait no longer than this for others to be sent with.
HELD_BACK = 0.0002
CHUNK = 256 * 1024
# How many items an `async def` has in hand at once.
AT_ONCE = 16


def clean(text):
    """Text that any program can read: surrogates are shown, not sent."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def told(error, skipped):
    """An exception as the body of a frame, without our own frames."""
    import json
    import traceback

    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = kind.__module__ + "." + name
    try:
        message = str(error)
    except Exception:
        message = "<an exception that cannot be shown>"
    stack = error.__traceback__
    for _ in range(skipped):
        stack = stack.tb_next if stack is not None else None
    try:
        text = "".join(traceback.format_exception(kind, error, stack))
    except Exception:
        text = None
    known = {"name": clean(name), "message": clean(message)}
    if text is not None:
        known["traceback"] = clean(text)
    return json.dumps(known).encode()


def encode(result):
    """What the function gave, as a kind of frame and its body."""
    if type(result) is str:
        return BYTES, result.encode("utf-8", "surrogateescape")
    if isinstance(result, (bytes, bytearray, memoryview)):
        return BYTES, bytes(result)
    if isinstance(result, str):
        return BYTES, str.encode(result, "utf-8", "surrogateescape")
    import json

    text = json.dumps(result, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return JSON, text.encode("utf-8", "surrogateescape")


def decode(kind, body):
    if kind == BYTES:
        return body.decode("utf-8", "surrogateescape")
    import json

    return json.loads(body)


class Channel:
    """The private channel, and the slate that answers are written down on."""

    def __init__(self):
        self.fd = os.dup(0)
        slate = os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(2, 1)
        os.close(null)
        self.slate = mmap.mmap(slate, SLATE_SIZE)
        os.close(slate)
        self.view = memoryview(self.slate)
        self.end = SLATE_HEAD.size
        SLATE_HEAD.pack_into(self.slate, 0, self.end, 0)
        self.since = None
        self.data = b""

    def write(self, body):
        body = memoryview(body)
        try:
            while body:
                body = body[os.write(self.fd, body) :]
        except (BrokenPipeError, ConnectionResetError):
            self.gone()

    def read(self, most):
        try:
            return os.read(self.fd, most)
        except ConnectionResetError:
            return b""

    def gone(self):
        """Nobody is there to answer, or wants to be answered: that is no error."""
        sys.exit()

    def say(self, kind, number, body=b""):
        self.write(HEAD.pack(len(body), number, kind) + body)

    def begin(self, number):
        """Writes down what is begun, and with it how far the answers go."""
        SLATE_HEAD.pack_into(self.slate, 0, self.end, number + 1)

    def answer(self, number, kind, body):
        """Writes an answer down. Sent it is with the next `flush`."""
        size = HEAD.size + len(body)
        end = self.end + size
        if end > SLATE_SIZE:
            self.flush()
            end = self.end + size
            if end > SLATE_SIZE:
                return self.say(kind, number, body)
        slate = self.slate
        HEAD.pack_into(slate, self.end, len(body), number, kind)
        slate[self.end + HEAD.size : end] = body
        self.end = end

    def flush(self):
        if self.end > SLATE_HEAD.size:
            self.write(self.view[SLATE_HEAD.size : self.end])
            self.end = SLATE_HEAD.size

    def requests(self):
        """Reads once, and returns the requests that are whole; None at the end."""
        chunk = self.read(CHUNK)
        if not chunk:
            return None
        data = self.data + chunk if self.data else chunk
        at, size, whole = 0, len(data), []
        unpack, head, append = HEAD.unpack_from, HEAD.size, whole.append
        while size - at >= head:
            length, number, kind = unpack(data, at)
            begin = at + head
            at = begin + length
            if at > size:
                if not whole:
                    # A large one: read the rest of it in pieces of its size.
                    data = self.rest(data, at - size)
                    if data is None:
                        return None
                    size = len(data)
                else:
                    at = begin - head
                    break
            append((number, kind, data[begin:at]))
        self.data = data[at:] if at < size else b""
        return whole

    def rest(self, data, missing):
        pieces = [data]
        while missing > 0:
            piece = self.read(missing)
            if not piece:
                return None
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)


def serve(function, channel):
    """Calls a plain function, one item after the other.

    The loop does what `begin` and `answer` do without calling them, which
    would take a third of the time of an item.
    """
    slate, size, first = channel.slate, SLATE_SIZE, SLATE_HEAD.size
    tell, head, clock = SLATE_HEAD.pack_into, HEAD.pack, time.monotonic
    while True:
        whole = channel.requests()
        if whole is None:
            return
        latest = clock() + HELD_BACK
        end = first
        for number, kind, body in whole:
            tell(slate, 0, end, number + 1)
            try:
                if kind == BYTES:
                    result = function(body.decode("utf-8", "surrogateescape"))
                else:
                    result = function(decode(kind, body))
                if type(result) is str:
                    kind, body = BYTES, result.encode("utf-8", "surrogateescape")
                else:
                    if hasattr(type(result), "__await__"):
                        result = run_to_end(result)
                    kind, body = encode(result)
            except BaseException as error:
                kind, body = ERROR, told(error, 1)
            result = None
            frame = head(len(body), number, kind) + body
            begin, end = end, end + len(frame)
            if end <= size:
                slate[begin:end] = frame
                if clock() < latest:
                    continue
                frame = None
            else:
                end = begin
            channel.end = end
            channel.flush()
            end = first
            if frame is not None:
                channel.write(frame)
            latest = clock() + HELD_BACK
        body = whole = frame = None
        channel.end = end
        channel.flush()


def run_to_end(awaitable):
    import asyncio

    async def wait():
        return await awaitable

    return asyncio.run(wait())


def serve_async(function, channel):
    """Calls an `async def`, several items at once on one event loop."""
    import asyncio

    async def one(number, kind, body):
        try:
            kind, body = encode(await function(decode(kind, body)))
        except BaseException as error:
            kind, body = ERROR, told(error, 1)
        channel.answer(number, kind, body)
        loop = asyncio.get_running_loop()
        if channel.since is None:
            channel.since = loop.call_soon(send)

    def send():
        channel.since = None
        channel.flush()

    async def main():
        loop = asyncio.get_running_loop()
        over, tasks = loop.create_future(), set()
        # An exit from a callback would be reported as that of a task.
        channel.gone = lambda: over.done() or over.set_result(None)

        def take():
            whole = channel.requests()
            if whole is None:
                loop.remove_reader(channel.fd)
                channel.gone()
                return
            for number, kind, body in whole:
                channel.begin(number)
                task = loop.create_task(one(number, kind, body))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        loop.add_reader(channel.fd, take)
        await over
        for task in tasks:
            task.cancel()

    asyncio.run(main())
    channel.flush()


def is_async(function):
    """Whether calls give coroutines: by the flag of the code, without `inspect`."""
    while hasattr(function, "func") and hasattr(function, "keywords"):
        function = function.func
    for candidate in (function, getattr(type(function), "__call__", None)):
        code = getattr(candidate, "__code__", None)
        if code is not None:
            return bool(code.co_flags & 0x80)
    return False


def find(module, name, folder):
    """The function, or the body of a frame that says why not."""
    import json

    def not_found(message):
        return json.dumps({"message": clean(message)}).encode()

    try:
        found = importlib.import_module(module)
    except BaseException as error:
        is_itself = isinstance(error, ModuleNotFoundError) and error.name is not None
        if is_itself and (module + ".").startswith(error.name + "."):
            python = "Python " + ".".join(map(str, sys.version_info[:3]))
            where = "in `%s` first, then where %s looks" % (folder, python)
            return None, not_found("there is no module `%s` (looked %s)" % (error.name, where))
        body = told(error, 1)
        known = json.loads(body)
        sys.stderr.write(known.get("traceback", ""))
        sys.stderr.flush()
        known["message"] = "importing `%s` failed: %s: %s" % (
            module,
            known.pop("name"),
            known["message"],
        )
        return None, json.dumps(known).encode()
    for part in name.split("."):
        if not hasattr(found, part):
            return None, not_found("module `%s` has no function `%s`" % (module, name))
        found = getattr(found, part)
    if not callable(found):
        return None, not_found("`%s` in module `%s` cannot be called" % (name, module))
    return found, None


def main():
    _, _, module, name, folder = sys.argv
    channel = Channel()
    # What was there has found a file that can be sought in.
    sys.stdout = sys.__stdout__ = open(
        1, "w", 1, encoding=sys.stderr.encoding, errors="backslashreplace", closefd=False
    )
    try:
        import faulthandler

        faulthandler.enable()
    except Exception:
        pass
    sys.argv = [module]
    if sys.path and sys.path[0] == "":
        sys.path[0] = folder
    else:
        sys.path.insert(0, folder)
    function, problem = find(module, name, folder)
    if function is None:
        channel.say(FATAL, 0, problem)
        return
    waits = is_async(function)
    channel.say(READY, AT_ONCE if waits else 1)
    (serve_async if waits else serve)(function, channel)


main()
