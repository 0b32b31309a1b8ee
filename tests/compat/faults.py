"""What is never sent to Apache ZooKeeper, sent to ringkeeper: each request gets a safe answer, the server goes on,
and it comes up again with the same tree.

The numbers are those of the faults in the project's protocol notes, section 14.
"""

import signal

import jute
from differ import Wire
from jute import acl_vector, boolean, buffer, i32, i64, ustring

OPEN = [(31, "world", "anyone")]


class Session:
    def __init__(self, port, session_id=0, password=b"\x00" * 16):
        self.port = port
        self.wire = Wire(port)
        self.wire.send(jute.connect_request(session_id=session_id, password=password, timeout_ms=60000))
        self.answer = jute.decode_connect_response(self.wire.frame())
        self.xid = 0

    def call(self, opcode, body=b""):
        """(err, zxid, body bytes) of the answer; None when the server closes without one."""
        self.xid += 1
        self.wire.send(jute.request(self.xid, opcode, body))
        while True:
            payload = self.wire.frame()
            if payload is None:
                return None
            reader = jute.Reader(payload)
            xid, zxid, err = reader.i32(), reader.i64(), reader.i32()
            if xid == self.xid:
                return err, zxid, payload[16:]

    def create(self, path, data=b"", flags=0, opcode=1, tail=b""):
        return self.call(opcode, ustring(path) + buffer(data) + acl_vector(OPEN) + i32(flags) + tail)

    def err(self, opcode, body=b""):
        answer = self.call(opcode, body)
        return "closed" if answer is None else answer[0]

    def closed(self):
        try:
            return self.wire.frame(3.0) is None
        except TimeoutError:
            return False


def tree(port):
    """Every path with its stat and data."""
    session, found, queue = Session(port), {}, ["/"]
    while queue:
        path = queue.pop()
        err, _, body = session.call(jute.OPCODES["getData"], ustring(path) + boolean(False))
        found[path] = body
        err, _, body = session.call(jute.OPCODES["getChildren"], ustring(path) + boolean(False))
        if err == 0:
            queue += [f"{path.rstrip('/')}/{name}" for name in names_in(body)]
    session.err(jute.OPCODES["closeSession"])
    return found


def names_in(body):
    reader = jute.Reader(body)
    return reader.vector(reader.ustring) or []


class Check:
    def __init__(self):
        self.passed = self.failed = 0

    def among(self, what, got, *good):
        if got in good:
            self.passed += 1
        else:
            self.failed += 1
            print(f"    FAILED {what}: {got!r}, expected {' or '.join(repr(g) for g in good)}")


def run(server):
    check, codes = Check(), jute.OPCODES
    main = Session(server.port)
    main.create("/faults")
    main.create("/faults/kept", b"kept")

    create_body = ustring("/faults/x") + buffer(b"d") + acl_vector(OPEN) + i32(0)
    sub = i32(1) + b"\x00" + i32(-1)
    whole = {
        "create": create_body,
        "create2": create_body,
        "createContainer": create_body[:-4] + i32(4),
        "createTTL": create_body[:-4] + i32(5) + i64(1000),
        "delete": ustring("/faults/kept") + i32(-1),
        "setData": ustring("/faults/kept") + buffer(b"z") + i32(-1),
        "setACL": ustring("/faults/kept") + acl_vector(OPEN) + i32(-1),
        "multi": sub + create_body + i32(-1) + b"\x01" + i32(-1),
        "reconfig": ustring("a") * 3 + i64(-1),
    }
    for op, body in whole.items():
        for cut in range(len(body)):
            check.among(f"14.1 {op} of {cut} bytes", main.err(codes[op], body[:cut]), -5)
        for damage in (i32(-2) + body[4:], i32(1 << 30) + body[4:]):
            if op != "multi":
                check.among(f"14.1 {op} with a bad length", main.err(codes[op], damage), -5)
    check.among(
        "14.1 multi, null list",
        main.err(
            codes["multi"], sub + ustring("/faults/x") + buffer(b"") + i32(-1) + i32(0) + i32(-1) + b"\x01" + i32(-1)
        ),
        -5,
    )
    before = main.call(codes["exists"], ustring("/faults") + boolean(False))[1]
    after = main.create("/faults/next")
    check.among("14.1 the next zxid", (after[0], after[1] - before), (0, 1))

    for flags in range(5):
        for ttl in (-1, -2, -(1 << 63)):
            check.among(
                f"14.2 flags {flags} ttl {ttl}",
                main.create("/faults/x", flags=flags, opcode=codes["createTTL"], tail=i64(ttl))[0],
                -8,
            )

    main.create("/faults/container", flags=4, opcode=codes["createContainer"])
    for path in ("/faults/kept", "/faults/container", "/faults/none"):
        one = Session(server.port)
        check.among(f"14.3 {path}", one.err(20, buffer(path.encode())), -6)
        check.among(f"14.3 {path}: closed", one.closed(), True)
    check.among("14.3 the node", main.err(codes["exists"], ustring("/faults/kept") + boolean(False)), 0)

    check.among("14.4", main.create("/zookeeper/quota/zookeeper_limits", b"count=1,bytes=1")[0], 0, -8)
    check.among("14.4 afterwards", main.create("/faults/a")[0], 0)
    check.among(
        "14.4 and away",
        main.err(codes["delete"], ustring("/zookeeper/quota/zookeeper_limits") + i32(-1)),
        0,
        -8,
        -101,
    )
    for path in ("/zookeeperX", "/zookeeper"):
        main.create(path)
        for name in ("/zookeeper_limits", "/zookeeper_stats"):
            check.among(f"14.5 {path}{name}", main.create(path + name)[0], 0, -8)
            check.among(
                f"14.5 {path}{name} and away", main.err(codes["delete"], ustring(path + name) + i32(-1)), 0, -8, -101
            )
    main.create("/zookeeper/quota/faults")
    main.create("/zookeeper/quota/faults/zookeeper_limits", b"count=5,bytes=5")
    main.create("/zookeeper/quota/faults/zookeeper_stats", b"count=0,bytes=0")
    for text in (b"", b"x", b"count=", b"count=x,bytes=1", b"=,=", b"\xff\xfe", b"count=99999999999999999999", None):
        for name in ("zookeeper_stats", "zookeeper_limits"):
            body = ustring(f"/zookeeper/quota/faults/{name}") + buffer(text) + i32(-1)
            check.among(f"14.6 {name} {text!r}", main.err(codes["setData"], body), 0, -8)
            check.among(
                "14.6 a write below",
                main.err(codes["setData"], ustring("/faults/kept") + buffer(b"kept") + i32(-1)),
                0,
            )
            check.among("14.6 a create below", main.create("/faults/below")[0], 0)
            check.among("14.6 a delete below", main.err(codes["delete"], ustring("/faults/below") + i32(-1)), 0)

    thief = Session(server.port, main.answer["session_id"], b"\x01" * 16)
    check.among("14.7 refused", (thief.answer["session_id"], thief.answer["timeout_ms"]), (0, 0))
    check.among("14.7 the owner", main.err(codes["exists"], ustring("/faults") + boolean(False)), 0)

    one = Session(server.port)
    check.among("14.8", one.err(-10, i32(10000)), -6)
    check.among("14.8 closed", one.closed(), True)
    for opcode, flags in ((1, 4), (15, 4), (19, 0), (19, 1), (19, 2), (19, 3)):
        check.among(
            f"14.9 {opcode} with {flags}",
            main.create(f"/faults/k{opcode}-{flags}", flags=flags, opcode=opcode)[0],
            0,
            -8,
        )

    main.err(codes["closeSession"])
    kept = tree(server.port)
    for how in (signal.SIGTERM, signal.SIGKILL):
        server.restart(how)
        check.among(f"the tree after {how.name}", tree(server.port) == kept, True)
    return check.passed, check.failed
