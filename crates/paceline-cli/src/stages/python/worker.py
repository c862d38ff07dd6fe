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

BYTES, JSON, ERROR, READY, FATAL, BYTES_BATCH, JSON_BATCH = range(7)
HEAD = struct.Struct("<IIB")
# On the slate, as numbers of 64 bits: how far the answers go, one more than the
# id begun last, where a batch of answers begins that is yet to be closed, and
# how often answers were sent.
END, BEGUN, OPEN, SENT = range(4)
SLATE_HEAD = 32
SLATE_SIZE = 256 * 1024
# Answers wait no longer than this for others to be sent with.
HELD_BACK = 0.0002
# Nor than this while there are more items in hand than answers, which take
# longer than it takes until others have come.
HELD_LONG = 0.008
SOON = 0.0005
# The clock is read after so many items while they take less than this together.
LOOK_AFTER = 8
QUICK = 0.00002
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


to_json = None


def json_of(value):
    # Made once: `json.dumps` makes one each time.
    global to_json
    if to_json is None:
        from json import JSONEncoder

        to_json = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
    return to_json(value)


def encode(result):
    """What the function gave, as a kind of frame and its body."""
    if hasattr(type(result), "__await__"):
        result = run_to_end(result)
    if isinstance(result, str):
        return BYTES, str.encode(result, "utf-8", "surrogateescape")
    if isinstance(result, (bytes, bytearray, memoryview)):
        return BYTES, bytes(result)
    return JSON, json_of(result).encode("utf-8", "surrogateescape")


def decode(kind, body):
    """The item of a request."""
    if kind == BYTES:
        return body.decode("utf-8", "surrogateescape")
    import json

    return json.loads(body)


def decode_all(kind, body):
    """The items of a request or of a batch of them, at once."""
    if kind == BYTES_BATCH:
        return body.decode("utf-8", "surrogateescape").split("\0")
    if kind != JSON_BATCH:
        return [decode(kind, body)]
    import json

    items = json.loads(b"[" + body.replace(b"\0", b",") + b"]")
    if len(items) != body.count(b"\0") + 1:
        raise ValueError("one of them is not one value")
    return items


def parts(kind, body):
    """The kind of each of the requests of a batch, and their bodies."""
    if kind < BYTES_BATCH:
        return kind, [body]
    return kind - BYTES_BATCH, body.split(b"\0")


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
        self.marks = self.view.cast("Q")
        self.end = self.marks[END] = SLATE_HEAD
        # Where the open batch begins, and its kind.
        self.batch, self.kind = None, None
        self.since = None
        # What is read goes here first: a new place for each read takes longer than the read.
        self.room = memoryview(bytearray(CHUNK))
        self.data = b""
        self.poll = None

    def write(self, body):
        body = memoryview(body)
        try:
            while body:
                body = body[os.write(self.fd, body) :]
        except (BrokenPipeError, ConnectionResetError):
            self.gone()

    def read(self, most):
        try:
            return bytes(self.room[: os.readv(self.fd, [self.room[:most]])])
        except ConnectionResetError:
            return b""

    def gone(self):
        """Nobody is there to answer, or wants to be answered: that is no error."""
        sys.exit()

    def say(self, kind, number, body=b""):
        self.write(HEAD.pack(len(body), number, kind) + body)

    def begin(self, number):
        """Writes down what is begun."""
        self.marks[BEGUN] = number + 1

    def open(self, kind, number):
        """Begins a batch of answers of this kind with the one to this item.

        What follows in it is written without a call, each with a zero byte
        behind it; `end` is set when it is closed.
        """
        HEAD.pack_into(self.slate, self.end, 0, number, kind)
        self.batch, self.kind = self.end, kind
        self.marks[OPEN] = self.end
        self.end += HEAD.size

    def close(self):
        """Ends the open batch, if there is one: without the last zero byte."""
        if self.batch is None:
            return
        begin = self.batch + HEAD.size
        if self.end > begin:
            self.end -= 1
            HEAD.pack_into(self.slate, self.batch, self.end - begin, *self.first_and_kind())
        else:
            self.end = self.batch
        self.batch, self.kind = None, None
        self.marks[END] = self.end
        self.marks[OPEN] = 0

    def first_and_kind(self):
        return HEAD.unpack_from(self.slate, self.batch)[1:]

    def answer(self, number, kind, body):
        """Writes an answer down. Sent it is with the next `flush`."""
        self.close()
        size = HEAD.size + len(body)
        if self.end + size > SLATE_SIZE:
            self.flush()
            if self.end + size > SLATE_SIZE:
                return self.say(kind, number, body)
        HEAD.pack_into(self.slate, self.end, len(body), number, kind)
        self.view[self.end + HEAD.size : self.end + size] = body
        self.end += size
        self.marks[END] = self.end

    def put(self, number, kind, body):
        """Writes an answer down, in a batch if it can be; a text (no kind) has
        its zero byte already."""
        if kind is None:
            kind = BYTES
        elif kind == ERROR or 0 in body:
            return self.answer(number, kind, body)
        else:
            body += b"\0"
        batch = kind + BYTES_BATCH
        if self.kind != batch or self.end + len(body) > SLATE_SIZE:
            self.close()
            size = HEAD.size + len(body)
            if self.end + size > SLATE_SIZE:
                self.flush()
                if self.end + size > SLATE_SIZE:
                    return self.say(kind, number, body[:-1])
            self.open(batch, number)
        end = self.end + len(body)
        self.view[self.end : end] = body
        self.end = end

    def flush(self):
        self.close()
        if self.end > SLATE_HEAD:
            self.write(self.view[SLATE_HEAD : self.end])
            # Before any of them is written over.
            self.marks[SENT] += 1
            self.end = self.marks[END] = SLATE_HEAD

    def more(self):
        """The whole requests that can be had without a wait."""
        if self.poll is None:
            # Not before it is needed: importing it takes longer than many a stage.
            import select

            poll = select.poll()
            poll.register(self.fd, select.POLLIN)
            self.poll = poll.poll
        # What is left of one may be large, and wait for more.
        if self.data or not self.poll(0):
            return []
        return self.requests(False) or []

    def requests(self, waits=True):
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
                if not whole and waits:
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


def end_of(requests):
    """One more than the id of the last item in these, as far as ids are counted."""
    first, kind, body = requests[-1]
    return first + (1 if kind < BYTES_BATCH else body.count(b"\0") + 1)


def serve(function, channel):
    """Calls a plain function, one item after the other.

    Each answer is on the slate before the next item begins. The loop does by
    itself what takes a text and gives a text; a call would take longer.
    """
    marks, view, size, clock, begun = channel.marks, channel.view, SLATE_SIZE, time.monotonic, BEGUN
    more = []
    while True:
        if more:
            whole, more = more, []
        else:
            # Up to where an answer may be written here: nowhere if it is no text, or no batch
            # of texts is open.
            channel.flush()
            end, limit, given = channel.end, 0, None
            whole = channel.requests()
            if whole is None:
                return
            if not whole:
                continue
            sent = whole[0][0]
            looked, look_at = clock(), 0
            since, latest = looked, looked + HELD_BACK
            last = end_of(whole)
        for number, kind, body in whole:
            call, ours = function, 1
            try:
                items = decode_all(kind, body)
            except Exception:
                # Whichever it is fails when its turn comes.
                kind, items = parts(kind, body)
                call, ours = reading(kind, function), 2
            for item in items:
                number += 1
                marks[begun] = number
                try:
                    result = call(item)
                    if type(result) is str and "\0" not in result:
                        try:
                            data = (result + "\0").encode()
                        except UnicodeEncodeError:
                            data = (result + "\0").encode("utf-8", "surrogateescape")
                    else:
                        limit = 0
                        given, data = encode(result)
                except BaseException as error:
                    limit = 0
                    given, data = ERROR, told(error, ours)
                begin = end
                end += len(data)
                if end <= limit:
                    view[begin:end] = data
                else:
                    channel.end = begin
                    channel.put(number - 1, given, data)
                    end, limit = channel.end, size if channel.kind == BYTES_BATCH else 0
                    result = data = given = None
                if number < look_at:
                    continue
                now = clock()
                # Reading the clock takes as long as a quick item.
                look_at = number + LOOK_AFTER if now - looked < QUICK else 0
                looked = now
                if now < latest:
                    continue
                held, left = number - sent, last - number
                if left <= held:
                    came = channel.more()
                    if came:
                        more += came
                        last = end_of(came)
                        left = last - number
                if left > held and left * (now - since) > SOON * held and now < since + HELD_LONG:
                    latest = now + HELD_BACK
                    continue
                channel.end = end
                channel.flush()
                end, limit = channel.end, 0
                since, sent = clock(), number
                latest = since + HELD_BACK
        item = items = body = whole = result = data = None
        channel.end = end


def reading(kind, function):
    def read_and_call(body):
        return function(decode(kind, body))

    return read_and_call


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
            for first, kind, body in whole:
                kind, bodies = parts(kind, body)
                for number, body in enumerate(bodies, first):
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
    channel.say(READY, AT_ONCE if waits else 1, b"batches")
    (serve_async if waits else serve)(function, channel)


main()
