"""Two servers, the same bytes to both, and every answer compared.

`Pair` is one connection to each of the two servers. A *step* writes a batch of requests to one pair in a single
write, follows it with a marker (a sync), and, once the marker is answered, sends a marker on every other pair too:
whatever the batch made a server say, to anyone, has then arrived, and in an order that can be compared. No step
sleeps.

What legitimately differs between two servers is mapped before comparing, and only that:

- session ids, by the order they were made in (each one more than the last); passwords must be the function of the id;
- zxids must be equal, or stay at the distance known at the start of the scenario, if something allowed moved them;
- times: each server must be consistent with itself (one time for each zxid, inside the run's window);
- lists whose order ZooKeeper leaves open (children, ephemerals, identities) compare sorted, as do the events of one
  closeSession and the entries one `auth` ACL expands to.
"""

import select
import socket
import struct
import time

import jute
import servers

ANSWER_SECONDS_MAX = 15.0
CLOSE_SECONDS_MAX = 3.0
MARKER_XID_FIRST = 0x60000000


class Difference(Exception):
    """The two servers answered differently; carries everything needed to see it again."""


class Wire:
    """One raw connection to one server."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data = b""
        self.closed = False

    def send(self, data):
        if self.closed:
            return
        try:
            self.socket.sendall(data)
        except OSError:
            pass  # What had arrived before the server closed is still to be read.

    def frame(self, seconds=ANSWER_SECONDS_MAX):
        """The next frame's payload; None when the server has closed; raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while True:
            if len(self.data) >= 4:
                length = struct.unpack_from(">i", self.data)[0]
                if length < 0:
                    raise jute.Malformed(f"frame of length {length}: {self.data[:64].hex()}")
                if len(self.data) >= 4 + length:
                    payload, self.data = self.data[4 : 4 + length], self.data[4 + length :]
                    return payload
            if self.closed:
                return None
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise TimeoutError
            try:
                part = self.socket.recv(1 << 18)
            except OSError:
                part = b""
            if not part:
                self.closed = True
            self.data += part

    def close(self):
        self.closed = True
        self.socket.close()


class Side:
    """One of the two servers and what has been learned about it."""

    def __init__(self, name, server):
        self.name, self.server = name, server
        # Session ids in the order they were made, and the last one made since the server started.
        self.sessions = {}
        self.session_last = None
        # (zxid from which on, what to take off it): more than one entry only after an allowed difference.
        self.shifts = [(0, 0)]
        self.times = {}
        self.started_ms = int(time.time() * 1000) - 2000

    def zxid(self, value):
        if value <= 0:
            return value
        for start, shift in reversed(self.shifts):
            if value >= start:
                return value - shift
        return value

    def native_zxid(self, value):
        """The zxid this server gave what the first server calls `value`."""
        return value + self.shifts[-1][1]

    def session(self, value):
        return ("session", self.sessions[value]) if value in self.sessions else value

    def new_session(self, value):
        """Takes note of a session's id; returns its distance from the one made before it."""
        if value == 0 or value in self.sessions:
            return 0
        self.sessions[value] = len(self.sessions)
        step = value - self.session_last if self.session_last else None
        self.session_last = value
        return step

    def time_of(self, zxid, value):
        """A time is good if the same zxid always carries it and it lies in the run."""
        if zxid == 0:
            return value
        known = self.times.setdefault(zxid, value)
        if known != value:
            return f"time {value} of zxid {zxid:#x} was {known} before"
        if not self.started_ms <= value <= time.time() * 1000 + 2000:
            return f"time {value} outside the run"
        return "time"

    def stat(self, stat):
        out = dict(stat)
        out["ctime"] = self.time_of(stat["czxid"], stat["ctime"])
        out["mtime"] = self.time_of(stat["mzxid"], stat["mtime"])
        for name in ("czxid", "mzxid", "pzxid"):
            out[name] = self.zxid(stat[name])
        out["ephemeralOwner"] = self.session(stat["ephemeralOwner"])
        return out

    def value(self, value):
        if isinstance(value, dict):
            return self.stat(value)
        if isinstance(value, tuple) and len(value) == 2 and value[0] in ("children", "identities"):
            return value if value[1] is None else (value[0], sorted(value[1], key=repr))
        if isinstance(value, tuple) and len(value) == 2 and value[0] == "acl":
            return value if value[1] is None else (value[0], sorted_runs(value[1]))
        if isinstance(value, (list, tuple)):
            return type(value)(self.value(item) for item in value)
        return value


def sorted_runs(acl):
    """Neighbouring digest entries of equal perms in one order: `auth` expands in no particular one."""
    out, run = [], []
    for entry in acl + [None]:
        if run and (entry is None or entry[:2] != run[0][:2]):
            out += sorted(run, key=repr)
            run = []
        if entry is None:
            break
        if entry[1] == "digest":
            run.append(entry)
        else:
            out.append(entry)
    return out


class Pair:
    """The same client connection to both servers."""

    def __init__(self, differ, name):
        self.differ, self.name = differ, name
        self.wires = [Wire(side.server.port) for side in differ.sides]
        self.sessions = [None, None]
        self.passwords = [None, None]
        self.opcodes = {}
        self.alive = True

    def opcode_of(self, xid):
        return self.opcodes.get(xid)

    def close_sockets(self):
        for wire in self.wires:
            wire.close()
        self.alive = False


class Request:
    """One request. `body` is bytes, or a function of (side index, pair) for what differs between the servers."""

    def __init__(self, op, body=b"", xid=None, note="", raw=None):
        self.op, self.body, self.xid, self.note, self.raw = op, body, xid, note, raw
        self.opcode = jute.OPCODES[op] if isinstance(op, str) else op

    def payload(self, index, pair):
        return self.body(index, pair) if callable(self.body) else self.body

    def bytes(self, index, pair):
        if self.raw is not None:
            return self.raw
        return jute.request(self.xid, self.opcode, self.payload(index, pair))


class Differ:
    def __init__(self, server_a, server_b, report):
        self.sides = [Side("A", server_a), Side("B", server_b)]
        self.report = report
        self.pairs = []
        self.xid_next = 1
        self.marker_next = MARKER_XID_FIRST
        self.compared = 0
        self.history = []
        self.scenario = ""
        self.closing = False
        self.zxid_last = 0
        # After a difference: go on where the cases of a scenario are independent, else give the scenario up.
        self.keep_going = False
        self.loose = False

    # -- connections ------------------------------------------------------------------------------------------

    def connect(self, name, expect=None, reattach=None, pipelined=(), **fields):
        """Opens a pair and compares the handshake. `reattach` is a pair whose session both sides go on with."""
        pair = Pair(self, name)
        marker = self.prepare(pair, list(pipelined)) if pipelined else None
        for index, wire in enumerate(pair.wires):
            own = dict(fields)
            if reattach is not None:
                own.setdefault("session_id", reattach.sessions[index])
                own.setdefault("password", reattach.passwords[index])
            for key, value in own.items():
                if callable(value):
                    own[key] = value(index, self.sides[index])
            wire.send(jute.connect_request(**own) + (self.encode(pair, pipelined, index, marker) if marker else b""))
        answers = []
        for index, (side, wire) in enumerate(zip(self.sides, pair.wires)):
            try:
                payload = wire.frame()
            except TimeoutError:
                answers.append("no answer")
                continue
            if payload is None:
                answers.append("closed")
                continue
            try:
                answer = jute.decode_connect_response(payload)
            except jute.Malformed as error:
                answers.append(f"{error}: {payload.hex()}")
                continue
            session = answer["session_id"]
            answer["step"] = side.new_session(session)
            pair.sessions[index], pair.passwords[index] = session, answer["password"]
            if session and answer["password"] == jute.password_of(session):
                answer["password"] = "derived"
            answer["session_id"] = side.session(session)
            if session == 0:
                answer["then"] = self.ending(wire)
            answers.append(answer)
        self.compare(f"connect {name} {fields_text(fields)}", pair, answers[0], answers[1])
        if isinstance(answers[0], dict) and answers[0]["timeout_ms"] and isinstance(answers[1], dict):
            self.pairs.append(pair)
            if marker:
                self.finish_step(pair, list(pipelined), marker)
            else:
                self.settle()
        else:
            pair.close_sockets()
        return pair

    def ending(self, wire):
        """What follows a last answer: the server should close."""
        try:
            payload = wire.frame(CLOSE_SECONDS_MAX)
        except TimeoutError:
            return "open"
        return "closed" if payload is None else f"more: {payload.hex()}"

    def drop(self, pair):
        """The client goes away without a word."""
        pair.close_sockets()
        if pair in self.pairs:
            self.pairs.remove(pair)

    # -- steps -------------------------------------------------------------------------------------------------

    def prepare(self, pair, requests):
        for request in requests:
            if request.xid is None:
                request.xid = self.xid_next
                self.xid_next += 1
            if request.raw is None and request.op not in ("ping",):
                pair.opcodes[request.xid] = request.opcode
        return self.marker(pair)

    def marker(self, pair):
        xid = self.marker_next
        self.marker_next += 1
        pair.opcodes[xid] = jute.OPCODES["sync"]
        return xid

    def encode(self, pair, requests, index, marker):
        tail = jute.request(marker, jute.OPCODES["sync"], jute.ustring("/")) if marker else b""
        return b"".join(request.bytes(index, pair) for request in requests) + tail

    def step(self, pair, *requests):
        """One batch on one pair, then quiescence everywhere.

        A batch ends after a setACL: ZooKeeper 3.9.5 checks what is already in its pipeline against the old list or
        the new one, as it happens.
        """
        for at, request in enumerate(requests[:-1]):
            if request.op == "setACL":
                self.step(pair, *requests[: at + 1])
                return self.step(pair, *requests[at + 1 :])
        marker = self.prepare(pair, requests)
        for index, wire in enumerate(pair.wires):
            wire.send(self.encode(pair, requests, index, marker))
        self.finish_step(pair, list(requests), marker)

    def finish_step(self, pair, requests, marker):
        frames = [self.read_until(index, pair, marker) for index in (0, 1)]
        self.judge(pair, requests, frames)
        self.settle(but=pair)

    def settle(self, but=None):
        """A marker on every other pair: brings in the events other connections are owed."""
        others = [pair for pair in self.pairs if pair is not but and pair.alive]
        markers = [self.marker(pair) for pair in others]
        for pair, marker in zip(others, markers):
            for index, wire in enumerate(pair.wires):
                wire.send(jute.request(marker, jute.OPCODES["sync"], jute.ustring("/")))
        for pair, marker in zip(others, markers):
            frames = [self.read_until(index, pair, marker) for index in (0, 1)]
            self.judge(pair, [], frames)

    def last_words(self, pair, request):
        """A request after which the server should close: sent alone, everything read until the end."""
        self.prepare(pair, [request])
        for index, wire in enumerate(pair.wires):
            wire.send(request.bytes(index, pair))
        frames = []
        for index, wire in enumerate(pair.wires):
            got = []
            while True:
                try:
                    payload = wire.frame(CLOSE_SECONDS_MAX)
                except TimeoutError:
                    got.append(("open",))
                    break
                except jute.Malformed as error:
                    got.append(("malformed", str(error)))
                    break
                if payload is None:
                    got.append(("closed",))
                    break
                got.append(self.decode(index, pair, payload))
            frames.append(got)
        self.closing = request.op == "closeSession"
        self.judge(pair, [request], frames)
        self.drop(pair)
        self.settle()
        self.closing = False

    def await_event(self, pair, path, count, prefix=None):
        """Waits until both servers have sent `count` events of deletion or change by their own doing.

        `path` is among the deleted; the events are compared as one sorted list, then a marker ends the step.
        """
        frames = []
        for index, wire in enumerate(pair.wires):
            got = []
            while len(got) < count:
                try:
                    payload = wire.frame()
                except TimeoutError:
                    got.append(("no answer",))
                    break
                if payload is None:
                    got.append(("closed",))
                    break
                got.append(self.decode(index, pair, payload))
            frames.append(sorted(got, key=repr))
        self.judge(pair, [Request("notification", xid=0, note=f"waiting for the end of {prefix or path}")], frames)
        self.step(pair)

    def read_until(self, index, pair, marker):
        """Every frame up to and including the marker's answer."""
        out = []
        while True:
            try:
                payload = pair.wires[index].frame()
            except TimeoutError:
                return out + [("no answer",)]
            except jute.Malformed as error:
                return out + [("malformed", str(error))]
            if payload is None:
                return out + [("closed",)]
            decoded = self.decode(index, pair, payload)
            out.append(decoded)
            if decoded[0] == "reply" and decoded[1] == marker:
                return out

    def decode(self, index, pair, payload):
        side = self.sides[index]
        try:
            kind, xid, zxid, err, body = jute.decode_reply(payload, pair.opcode_of)
        except (jute.Malformed, UnicodeError, struct.error) as error:
            return ("undecodable", str(error), payload.hex())
        # A header tells of now, whatever was true when that zxid was given.
        now = zxid if zxid <= 0 else zxid - side.shifts[-1][1]
        self.zxid_last = max(self.zxid_last, now)
        return (kind, xid, now, err, side.value(body))

    def judge(self, pair, requests, frames):
        a, b = frames
        if requests:
            self.frames = frames
        if self.closing:
            a, b = sorted_events(a), sorted_events(b)
        if self.loose:
            a, b = without_zxids(a), without_zxids(b)
        self.compared += max(len(a), len(b))
        text = [describe(request, pair) for request in requests]
        if text:
            self.history.append(f"{pair.name}: " + " + ".join(text))
        if a != b or ("no answer",) in a:
            where = (
                " + ".join(text)
                if text
                else f"marker on {pair.name} after {self.history[-1] if self.history else '?'}"
            )
            self.differ_at(pair, where, requests, a, b)
        if any(frame == ("closed",) or frame == ("no answer",) for frame in a + b):
            pair.alive = False
            self.drop(pair)

    def compare(self, what, pair, a, b):
        self.compared += 1
        self.history.append(f"{pair.name}: {what}")
        if a != b:
            self.differ_at(pair, what, [], [a], [b])

    def differ_at(self, pair, where, requests, a, b):
        self.report.add(self.scenario, where, requests, pair, a, b, self.history[-8:])
        lost = any(frame in (("closed",), ("no answer",), "closed", "no answer") for frame in a[-1:] + b[-1:])
        if not self.keep_going or (lost and a[-1:] != b[-1:] and requests):
            raise Difference(where)
        self.resync()

    # -- scenarios ---------------------------------------------------------------------------------------------

    def begin(self, name, keep_going=False):
        """Forgets what an abandoned scenario left open and finds how far apart the zxids are now."""
        for pair in list(self.pairs):
            self.drop(pair)
        self.scenario, self.history, self.closing, self.loose = name, [], False, False
        self.keep_going = keep_going
        self.resync()

    def resync(self):
        """Maps B's zxids onto A's from here on (equal numbers, unless something differed)."""
        last = []
        for side in self.sides:
            text = servers.word(side.server.port, "srvr").decode()
            last.append(int([line for line in text.splitlines() if line.startswith("Zxid:")][0].split()[1], 16))
        shift = last[1] - last[0]
        if shift != self.sides[1].shifts[-1][1]:
            self.sides[1].shifts.append((last[1] + 1, shift))
        self.zxid_last = last[0]

    def step_loose(self, pair, *requests):
        """A step whose use of zxids is not compared: see ALLOWED in scenarios.py."""
        self.loose = True
        self.step(pair, *requests)
        self.loose = False
        self.resync()

    def restart(self, how, pairs, change=None):
        """Restarts both servers, or puts `change(index, server)` in their place; the sessions go on."""
        for pair in pairs:
            pair.close_sockets()
        self.pairs.clear()
        for index, side in enumerate(self.sides):
            side.session_last = None
            side.server = change(index, side.server) if change else side.server.restart(how)
        self.history.append(f"restart with {how!r}")
        return [self.connect(pair.name, reattach=pair) for pair in pairs]

    def walk(self, pair, make_requests):
        """Goes through the whole tree, comparing what `make_requests(path)` is answered; children come first."""
        queue, count = ["/"], 0
        while queue:
            path = queue.pop()
            self.step(pair, *make_requests(path))
            count += 1
            reply = next(frame for frame in self.frames[0] if frame[0] != "event")
            if reply[0] == "reply" and reply[3] == 0:
                queue += [f"{path.rstrip('/')}/{name}" for name in reply[4][0][1]]
        return count

    def end(self):
        """Closes every session, so that no ephemeral and no watch outlives its scenario."""
        for pair in list(self.pairs):
            self.last_words(pair, Request("closeSession"))


def sorted_events(frames):
    """Runs of events that share a zxid, sorted: one closeSession deletes in any order."""
    out, run = [], []
    for frame in frames + [None]:
        if run and (frame is None or frame[0] != "event" or frame[2] != run[0][2]):
            out += sorted(run, key=repr)
            run = []
        if frame is None:
            break
        if frame[0] == "event":
            run.append(frame)
        else:
            out.append(frame)
    return out


def without_zxids(frames):
    return [frame[:2] + (0,) + frame[3:] if frame[0] in ("reply", "event") else frame for frame in frames]


def fields_text(fields):
    return " ".join(f"{key}={value!r}" for key, value in fields.items() if not callable(value))


def describe(request, pair):
    if request.raw is not None:
        return f"raw {request.raw[:80].hex()}{'…' if len(request.raw) > 80 else ''} {request.note}"
    body = request.payload(0, pair)
    shown = body[:120].hex() + ("…" if len(body) > 120 else "")
    return f"{jute.OPNAMES.get(request.opcode, request.opcode)}[xid {request.xid}] {request.note} {shown}".replace(
        "  ", " "
    )


class Report:
    """Collects differences, each with the request it shows at and what was sent before."""

    def __init__(self, names):
        self.names = names
        self.items = []

    def add(self, scenario, where, requests, pair, a, b, history):
        first = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
        # The frame that differs answers one request of the batch.
        xids = [frame[first][1] for frame in (a, b) if first < len(frame) and frame[first][0] == "reply"]
        at = next((describe(request, pair) for request in requests if request.xid in xids), where)
        self.items.append(
            {
                "scenario": scenario,
                "at": at,
                "a": a[first : first + 2],
                "b": b[first : first + 2],
                "batch": where,
                "history": list(history),
            }
        )

    def print(self, out, limit=40):
        for number, item in enumerate(self.items[:limit], 1):
            print(f"\n--- difference {number} in {item['scenario']}", file=out)
            print(f"    at: {short(item['at'])}", file=out)
            for name, side in zip(self.names, ("a", "b")):
                print(f"    {name}:", file=out)
                for frame in item[side] or ["(nothing more)"]:
                    print(f"        {short(repr(frame))}", file=out)
            if item["batch"] != item["at"]:
                print(f"    in the batch: {short(item['batch'])}", file=out)
            print("    before it:", file=out)
            for line in item["history"][:-1]:
                print(f"        {short(line, 240)}", file=out)
        if len(self.items) > limit:
            print(f"\n({len(self.items) - limit} more differences, in short)", file=out)
            for item in self.items[limit : limit + 400]:
                shown = [short(repr(item[side][0]) if item[side] else "nothing", 140) for side in ("a", "b")]
                print(f"    {item['scenario']}: {short(item['at'], 140)}: {shown[0]} against {shown[1]}", file=out)


def short(text, chars=600):
    return text if len(text) <= chars else text[:chars] + "…"
