"""The audit log: after the same requests, the same lines."""

import re

import jute
import words

OPEN = jute.acl_vector([(31, "world", "anyone")])


def create(path, flags, extra=b""):
    return jute.ustring(path) + jute.buffer(b"x") + OPEN + jute.i32(flags) + extra


def delete(path, version=-1):
    return jute.ustring(path) + jute.i32(version)


def set_data(path):
    return jute.ustring(path) + jute.buffer(b"y") + jute.i32(-1)


def multi(*ops):
    body = b"".join(jute.i32(jute.OPCODES[op]) + b"\0" + jute.i32(-1) + record for op, record in ops)
    return body + jute.i32(-1) + b"\1" + jute.i32(-1)


def requests():
    ttl = jute.i64(100000)
    yield "create", create("/a", 0)
    yield "create", create("/a", 0)
    yield "create", create("/nobody/x", 0)
    yield "create2", create("/a/s-", 2)
    yield "create", create("/a/e", 1)
    yield "create2", create("/a/es-", 3)
    yield "createContainer", create("/c", 4)
    yield "createTTL", create("/t", 5, ttl)
    yield "createTTL", create("/ts-", 6, ttl)
    yield "create", create("no slash", 0)
    yield "setData", set_data("/a")
    yield "setData", set_data("/none")
    yield "getData", jute.ustring("/a") + b"\0"
    yield "setACL", jute.ustring("/c") + jute.acl_vector([(31, "world", "anyone"), (1, "ip", "10.0.0.0/8")]) + jute.i32(-1)
    yield "setACL", jute.ustring("/none") + OPEN + jute.i32(-1)
    yield "delete", delete("/none")
    yield "delete", delete("/a")
    yield "delete", delete("/c", 7)
    yield "multi", multi(("create", create("/m", 0)), ("setData", set_data("/m")), ("check", delete("/m", 1)))
    yield "multi", multi(("create", create("/m/s-", 2)), ("delete", delete("/c")))
    yield "multi", multi(("create", create("/n", 0)), ("delete", delete("/none")))
    yield "delete", delete("/t")


def lines(server, path, session):
    """The operations' lines, without what is a server's own."""
    text = path.read_text(errors="replace")
    found = [line.split("Slf4jAuditLogger", 1) for line in text.splitlines() if "Slf4jAuditLogger" in line]
    level = [re.search(r"INFO|ERROR", before)[0] for before, _ in found]
    texts = [after.lstrip(" :-").replace(f"0x{session:x}", "<session>") for _, after in found]
    texts = [re.sub(r"user=(?!127)[^\t]*", "user=<server>", text) for text in texts]
    return [f"{one} {text}" for one, text in zip(level, texts)]


def compare(a, b):
    check = words.Check((a.kind, b.kind))
    told = []
    for server in (a, b):
        client = words.Client(server.port)
        for op, body in requests():
            client.call(op, body)
        client.call("closeSession")
        client.wire.close()
        server.stop()
        file = server.directory / "data" / "zookeeper_audit.log"
        told.append(lines(server, file if server.kind == "ringkeeper" else server.log_path, client.session))
    # The nodes of a session go in no particular order.
    ending = "ephemeralZNodeDeletionOnSessionCloseOrExpire"
    for lines_of in told:
        places = [index for index, line in enumerate(lines_of) if ending in line]
        for index, line in zip(places, sorted(lines_of[index] for index in places)):
            lines_of[index] = line
    for index in range(max(len(lines_of) for lines_of in told)):
        check.equal(f"line {index + 1}", *(lines_of[index] if index < len(lines_of) else None for lines_of in told))
    return check.passed, check.failed
