"""Clients that keep their sessions over a list of servers, and a load whose every effect can be accounted for.

A writer numbers what it does. Its `setData`s all go to one node, whose version counts them; its sequential children
carry their numbers. So at the end it can be told of each number whether it was done, once, and in which order; what
was acknowledged must be there, what was lost with its connection may be.
"""

import collections
import struct
import threading
import time

import differ
import jute
from jute import OPCODES, boolean, buffer, i32, i64, ustring, vector

ANSWER_SECONDS_MAX = 10.0
CONNECT_SECONDS_MAX = 40.0
ALL = [(31, "world", "anyone")]
SYSTEM = "/zookeeper"
# Servers that owed somebody an answer and neither gave it nor closed: (port, what was asked, when).
SILENCES = []


class Lost(Exception):
    """The connection ended before the answer; the request may have been done or not."""


class Expired(Exception):
    """The session is gone."""


class Failed(Exception):
    """A request was refused."""

    def __init__(self, what, err):
        super().__init__(f"{what}: error {err}")
        self.err = err


class Session:
    """A client with one session and one connection at a time."""

    def __init__(self, ports, timeout_ms=15000, first=0):
        self.ports, self.timeout_ms = list(ports), timeout_ms
        self.at = first
        self.id, self.password, self.zxid = 0, bytes(16), 0
        self.wire, self.xid = None, 0
        self.waiting = collections.deque()
        self.events = collections.deque()
        self.watched = set()
        self.moves = 0
        self.connect()

    def connect(self):
        """Finds a server that takes the session."""
        deadline = time.monotonic() + CONNECT_SECONDS_MAX
        while True:
            self.drop()
            port = self.ports[self.at % len(self.ports)]
            self.at += 1
            try:
                self.wire = differ.Wire(port)
                self.wire.send(
                    jute.connect_request(self.id, self.password, self.timeout_ms, last_zxid=self.zxid)
                )
                answer = self.wire.frame(3.0)
            except (OSError, TimeoutError):
                answer = None
            if answer is not None:
                answer = jute.decode_connect_response(answer)
                if answer["session_id"] == 0:
                    self.drop()
                    raise Expired(f"session {self.id:#x} is expired")
                if self.id not in (0, answer["session_id"]):
                    raise AssertionError(f"session {self.id:#x} became {answer['session_id']:#x}")
                self.id, self.password = answer["session_id"], answer["password"]
                self.moves += 1
                if self.watched:
                    body = i64(self.zxid) + vector(sorted(self.watched), ustring) + vector([], ustring) * 2
                    self.wire.send(jute.request(jute.XID_SET_WATCHES, OPCODES["setWatches"], body))
                return self
            if time.monotonic() > deadline:
                raise RuntimeError(f"no server of {self.ports} took session {self.id:#x}")
            time.sleep(0.01)

    def drop(self):
        if self.wire is not None:
            self.wire.close()
        self.wire = None
        self.waiting.clear()

    def send(self, op, body=b""):
        if self.wire is None:
            self.connect()
        self.xid += 1
        self.waiting.append((self.xid, op))
        self.wire.send(jute.request(self.xid, OPCODES[op], body))

    def receive(self, seconds=ANSWER_SECONDS_MAX):
        """The answer to the oldest request without one: (error, body)."""
        while True:
            try:
                payload = self.wire.frame(seconds)
            except TimeoutError:
                SILENCES.append((self.ports[(self.at - 1) % len(self.ports)], self.waiting[0], time.strftime("%H:%M:%S")))
                payload = None
            if payload is None:
                self.drop()
                raise Lost
            reader = jute.Reader(payload)
            xid, zxid, err = reader.i32(), reader.i64(), reader.i32()
            if xid == jute.XID_EVENT:
                event = (reader.i32(), reader.i32(), reader.ustring())
                self.watched.discard(event[2])
                self.events.append(event)
                continue
            if zxid > 0:
                self.zxid = max(self.zxid, zxid)
            if xid < 0:
                continue
            expected, op = self.waiting.popleft()
            if xid != expected:
                raise AssertionError(f"an answer to request {xid} where {expected} was next")
            return err, jute.body_of(OPCODES[op], reader) if err == 0 else ()

    def call(self, op, body=b""):
        self.send(op, body)
        err, answer = self.receive()
        if err != 0:
            raise Failed(f"{op} {body[4:60]!r}", err)
        return answer

    def calls(self, requests):
        """All at once; yields the answers. The window keeps both sides' buffers from filling."""
        outstanding = 0
        for op, body in requests:
            self.send(op, body)
            outstanding += 1
            if outstanding == 200:
                yield self.receive()
                outstanding -= 1
        for _ in range(outstanding):
            yield self.receive()

    def surely(self, op, body=b""):
        """For what may be done twice: reads."""
        while True:
            try:
                return self.call(op, body)
            except Lost:
                self.connect()

    def sync(self, path):
        return self.surely("sync", ustring(path))

    def create(self, path, data=b"", flags=0, acl=None):
        return self.call("create", create_body(path, data, flags, acl))[0]

    def set_data(self, path, data, version=-1):
        return self.call("setData", ustring(path) + buffer(data) + i32(version))[0]

    def get_data(self, path, watch=False):
        answer = self.surely("getData", ustring(path) + boolean(watch))
        if watch:
            self.watched.add(path)
        return answer

    def children(self, path):
        return self.surely("getChildren", ustring(path) + boolean(False))[0][1]

    def exists(self, path):
        try:
            return self.surely("exists", ustring(path) + boolean(False))[0]
        except Failed as error:
            if error.err == -101:
                return None
            raise

    def event(self, seconds=ANSWER_SECONDS_MAX):
        """The next event; it has come with or before the answer to a ping."""
        deadline = time.monotonic() + seconds
        while not self.events:
            if time.monotonic() > deadline:
                raise AssertionError(f"session {self.id:#x}: no event came")
            try:
                self.call("exists", ustring("/") + boolean(False))
            except Lost:
                self.connect()
        return self.events.popleft()

    def close(self):
        """Ends the session, on whichever server; it may have been ended by an attempt whose answer was lost."""
        is_lost = False
        while True:
            try:
                if self.wire is None:
                    self.connect()
                self.call("closeSession")
                break
            except Lost:
                is_lost = True
            except Expired:
                if not is_lost:
                    raise
                break
        self.drop()


def create_body(path, data=b"", flags=0, acl=None):
    return ustring(path) + buffer(data) + jute.acl_vector(acl or ALL) + i32(flags)


def walk(session):
    """Every node outside of the servers' own: data, all of stat, and access list."""
    tree = {}
    level = ["/"]
    while level:
        requests = []
        for path in level:
            requests.append(("getData", ustring(path) + boolean(False)))
            requests.append(("getACL", ustring(path)))
            requests.append(("getChildren", ustring(path) + boolean(False)))
        answers = list(session.calls(requests))
        deeper = []
        for index, path in enumerate(level):
            (data_err, data), (acl_err, acl), (list_err, children) = answers[3 * index : 3 * index + 3]
            if data_err or acl_err or list_err:
                raise AssertionError(f"{path} cannot be read: {data_err} {acl_err} {list_err}")
            tree[path] = (data[0], tuple(sorted(data[1].items())), tuple(acl[0][1]))
            prefix = "" if path == "/" else path
            deeper += [f"{prefix}/{name}" for name in children[0][1] if f"{prefix}/{name}" != SYSTEM]
        level = deeper
    return tree


class Writer:
    """Keeps up to `window` numbered writes on the way."""

    def __init__(self, ports, home, index, window):
        self.session = Session(ports, first=index)
        self.home, self.window = f"{home}/w{index}", window
        self.next = 0
        # Number: what became of it, in the order asked. A reply's version or path, or None while not known.
        self.sets, self.creates = {}, {}
        # For each lost connection the numbers that were on the way.
        self.losses = []
        self.acked = 0
        self.error = None
        self.session.create(self.home)
        self.session.create(f"{self.home}/set", b"-1")
        self.session.create(f"{self.home}/list")
        self.ephemeral = self.session.create(f"{self.home}/here", b"", flags=1)

    def request(self, number):
        data = b"%d" % number
        if number % 8 == 0:
            self.creates[number] = None
            return "create", create_body(f"{self.home}/list/n-", data, 2)
        self.sets[number] = None
        return "setData", ustring(f"{self.home}/set") + buffer(data) + i32(-1)

    def run(self, stop, gate, pace):
        outstanding = collections.deque()
        try:
            while True:
                try:
                    while len(outstanding) < self.window and not stop.is_set() and gate.is_set():
                        self.session.send(*self.request(self.next))
                        outstanding.append(self.next)
                        self.next += 1
                    if not outstanding:
                        if stop.is_set():
                            return
                        # Nothing to do, but the session is to live.
                        self.session.surely("exists", ustring(self.home) + boolean(False))
                        stop.wait(0.05)
                        continue
                    err, answer = self.session.receive()
                    number = outstanding.popleft()
                    if err != 0:
                        raise Failed(f"write {number} of {self.home}", err)
                    if number in self.sets:
                        self.sets[number] = answer[0]["version"]
                    else:
                        self.creates[number] = answer[0]
                    self.acked += 1
                    stop.wait(pace)
                except Lost:
                    self.losses.append(tuple(outstanding))
                    outstanding.clear()
                    self.session.connect()
        except Exception as error:
            self.error = error

    def check(self, tree):
        """Against what the servers hold after the last of it."""
        here = tree.get(self.ephemeral)
        assert here is not None, f"{self.ephemeral} is gone, its session is not"
        assert dict(here[1])["ephemeralOwner"] == self.session.id
        unknown = {number for loss in self.losses for number in loss}
        # The version counts what was set.
        version, possible = 0, 0
        for number, got in self.sets.items():
            if got is None:
                assert number in unknown, f"write {number} of {self.home} was neither answered nor lost"
                possible += 1
                continue
            assert version < got <= version + 1 + possible, (
                f"{self.home}: write {number} made version {got} after {version} and at most {possible} unknown ones"
            )
            version, possible = got, 0
        data, stat, _ = tree[f"{self.home}/set"]
        final = dict(stat)["version"]
        assert version <= final <= version + possible, f"{self.home}: {version} to {version + possible}, not {final}"
        # The list has each at most once, in order, and all that were acknowledged under the names that were told.
        prefix = f"{self.home}/list/"
        names = sorted(path for path in tree if path.startswith(prefix))
        numbers = [int(tree[name][0]) for name in names]
        assert numbers == sorted(set(numbers)), f"{self.home}: doubled or out of order: {numbers}"
        where = dict(zip(numbers, names))
        for number, name in self.creates.items():
            if name is None:
                assert number in unknown, f"write {number} of {self.home} was neither answered nor lost"
            else:
                assert where.get(number) == name, f"{self.home}: {number} was created as {name}: {where.get(number)}"
        # What was on the way over one connection was done up to some point, and nothing behind it.
        for loss in self.losses:
            done = [number in where for number in loss if number in self.creates]
            assert done == sorted(done, reverse=True), f"{self.home}: of {loss} done were {done}"


class Load:
    """Several writers, and what they all must find in the end."""

    def __init__(self, ports, home="/load", writers=3, window=8, pace=0.004):
        self.ports = ports
        with_session = Session(ports)
        with_session.create(home)
        with_session.close()
        self.writers = [Writer(ports, home, index, window) for index in range(writers)]
        self.stop_event, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        self.threads = [
            threading.Thread(target=writer.run, args=(self.stop_event, self.gate, pace), daemon=True)
            for writer in self.writers
        ]
        for thread in self.threads:
            thread.start()

    def acked(self):
        for writer in self.writers:
            if writer.error is not None:
                raise RuntimeError(f"{writer.home}: {writer.error!r}") from writer.error
        return sum(writer.acked for writer in self.writers)

    def flows(self, until, count=60, each=True):
        """Waits until so many more writes are acknowledged, an equal part of them to each writer if so asked."""
        wanted = [writer.acked + count // len(self.writers) for writer in self.writers]
        total = self.acked() + count

        def enough():
            if not each:
                return self.acked() >= total
            self.acked()
            return all(writer.acked >= want for writer, want in zip(self.writers, wanted))

        until(enough, f"{count} more writes are acknowledged")

    def pause(self, until):
        """Nothing is on the way afterwards."""
        self.gate.clear()

        def quiet():
            self.acked()
            return all(
                writer.next == writer.acked + sum(len(loss) for loss in writer.losses) for writer in self.writers
            )

        until(quiet, "the writers come to rest")

    def resume(self):
        self.gate.set()

    def check(self, tree):
        for writer in self.writers:
            writer.check(tree)

    def stop(self):
        self.stop_event.set()
        for thread in self.threads:
            thread.join(ANSWER_SECONDS_MAX + CONNECT_SECONDS_MAX)
        self.acked()

    def close(self):
        self.stop()
        for writer in self.writers:
            writer.session.close()
