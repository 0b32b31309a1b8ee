"""Four-letter words: what ringkeeper says against what ZooKeeper says, in keys and formats.

Values that count something of the server's own life are compared by their shape: digits become `9`, and so on.
Both servers get the same clients with the same nodes and watches first, so that counts of those are comparable.
"""

import re

import jute
from differ import Wire
from servers import word

# Keys of mntr whose values must be equal after the same requests; all others are compared by shape.
EQUAL_KEYS = {
    "zk_server_state",
    "zk_znode_count",
    "zk_watch_count",
    "zk_ephemerals_count",
    "zk_approximate_data_size",
    "zk_num_alive_connections",
    "zk_outstanding_requests",
    "zk_global_sessions",
    "zk_local_sessions",
}
# What monitoring relies on (of the keys a standalone server has).
WANTED_KEYS = EQUAL_KEYS | {
    "zk_version",
    "zk_avg_latency",
    "zk_min_latency",
    "zk_max_latency",
    "zk_packets_received",
    "zk_packets_sent",
    "zk_open_file_descriptor_count",
    "zk_max_file_descriptor_count",
    "zk_uptime",
}
DATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d \w+ \d{4}")


class Client:
    """A raw session that can send a request and wait for its answer; None where the server closed instead."""

    def __init__(self, port):
        self.wire, self.xid = Wire(port), 0
        self.wire.send(jute.connect_request(timeout_ms=60000))
        self.session = jute.decode_connect_response(self.wire.frame())["session_id"]

    def call(self, op, body=b""):
        self.xid += 1
        self.wire.send(jute.request(self.xid, jute.OPCODES[op], body))
        while True:
            payload = self.wire.frame()
            if payload is None or jute.Reader(payload).i32() == self.xid:
                return payload


def populate(server):
    """Two clients with nodes, an ephemeral and watches of each table."""
    acl = jute.acl_vector([(31, "world", "anyone")])
    one, two = Client(server.port), Client(server.port)
    for path, flags in (("/w", 0), ("/w/a", 0), ("/w/e1", 1), ("/w/e2", 1)):
        one.call("create", jute.ustring(path) + jute.buffer(b"12345") + acl + jute.i32(flags))
    two.call("create", jute.ustring("/w/e3") + jute.buffer(b"") + acl + jute.i32(1))
    one.call("exists", jute.ustring("/w") + b"\x01")
    two.call("getData", jute.ustring("/w/a") + b"\x01")
    return one, two


def shape(text, ids):
    """Text without what is a server's own: ids by name, dates and numbers by kind."""
    for number, session in enumerate(ids):
        text = text.replace(f"0x{session:x}", f"<session {number}>")
    text = DATE.sub("<date>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "<built>", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "<peer>", text)
    text = re.sub(r"\d+\.\d+E-?\d+|\d+\.\d+", "9.9", text)
    text = re.sub(r"(?<![\w<])-?\d+(?![\w>])", "9", text)
    return text


def keys(text, separator):
    return [line.split(separator, 1)[0] for line in text.splitlines() if separator in line]


class Check:
    def __init__(self, names):
        self.names, self.passed, self.failed = names, 0, 0

    def equal(self, what, a, b):
        if a == b:
            self.passed += 1
        else:
            self.failed += 1
            print(f"    FAILED {what}\n        {self.names[0]}: {a!r}\n        {self.names[1]}: {b!r}")

    def true(self, what, good):
        self.equal(what, True, bool(good))


def compare(reference, subject):
    check = Check((reference.kind, subject.kind))
    servers = (reference, subject)
    clients = [populate(server) for server in servers]
    ids = [[client.session for client in pair] for pair in clients]

    def both(text):
        return [word(server.port, text).decode() for server in servers]

    for text in ("ruok", "isro", "gtmk", "ruok\n", "crst", "srst"):
        check.equal(text, *both(text))
    check.equal("stmk", *both(b"stmk" + (306).to_bytes(8, "big")))
    for text in ("xxxx", "abcd", "lsnp", "RUOK"):
        check.equal(text, *both(text))
    a, b = both("srvr")
    check.equal("srvr", without_version(shape(a, ids[0])), without_version(shape(b, ids[1])))
    for answer in (a, b):
        check.true(
            "srvr names a version 3.x",
            re.match(r"Zookeeper version: 3\.\d+\.\d+.*, built on \d{4}-\d\d-\d\d \d\d:\d\d UTC\n", answer),
        )
    check.equal("srvr zxid", *(line_of(answer, "Zxid:") for answer in (a, b)))
    check.equal("srvr nodes", *(line_of(answer, "Node count:") for answer in (a, b)))
    check.equal(
        "stat", *(sorted(without_version(shape(answer, own)).splitlines()) for answer, own in zip(both("stat"), ids))
    )
    for text in ("cons",):
        check.equal(text, *(sorted(lines_by_session(shape(answer, own))) for answer, own in zip(both(text), ids)))
    check.equal("conf keys", *(keys(answer, "=") for answer in both("conf")))
    check.equal(
        "conf values",
        *(
            {
                line
                for line in answer.splitlines()
                if line.startswith(
                    ("tickTime", "maxClient", "minSession", "maxSession", "secure", "clientPortListen", "serverId")
                )
            }
            for answer in both("conf")
        ),
    )
    check.equal("dirs keys", *(keys(answer, ": ") for answer in both("dirs")))
    check.equal("envi keys", *(keys(answer, "=") for answer in both("envi")))
    check.equal("envi head", *(answer.splitlines()[0] for answer in both("envi")))
    check.equal(
        "dump",
        *(
            sorted(re.sub(r"\(\d+\)", "(n)", line) for line in set(shape(answer, own).splitlines()))
            for answer, own in zip(both("dump"), ids)
        ),
    )
    # ZooKeeper leaves the child watches out of these; there are none here.
    for text in ("wchs", "wchc", "wchp"):
        check.equal(text, *(sorted(shape(answer, own).splitlines()) for answer, own in zip(both(text), ids)))
    check.equal("wchs exactly", *both("wchs"))
    check.equal("hash", *(answer == "" or ":" in answer for answer in both("hash")))
    monitored = [dict(line.split("\t", 1) for line in answer.splitlines()) for answer in both("mntr")]
    check.equal(
        "mntr without a broken line", *(all("\t" in line for line in answer.splitlines()) for answer in both("mntr"))
    )
    for key in sorted(WANTED_KEYS):
        check.equal(f"mntr has {key}", key in monitored[0], key in monitored[1])
        if key in EQUAL_KEYS:
            check.equal(f"mntr {key}", monitored[0].get(key), monitored[1].get(key))
        elif key != "zk_version":
            check.equal(
                f"mntr shape of {key}", shape(monitored[0].get(key, ""), []), shape(monitored[1].get(key, ""), [])
            )
    missing = sorted(set(monitored[0]) - set(monitored[1]))
    if missing:
        # Many of ZooKeeper's keys describe its own inner queues and Java; not having those is no fault.
        print(f"    (keys of mntr only {reference.kind} has: {len(missing)}: {' '.join(missing)})")
    for pair in clients:
        for client in pair:
            client.wire.close()
    return check.passed, check.failed


def without_version(text):
    return re.sub(r"Zookeeper version: .*", "Zookeeper version: <version>", text)


def line_of(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def lines_by_session(text):
    """cons: the last operation and its numbers differ by when one looks; the fields and their order must not."""
    return [re.sub(r"\[\d+\]", "[n]", line) for line in text.splitlines()]


def compare_whitelist(reference, subject):
    """The default list: srvr alone is answered."""
    check = Check((reference.kind, subject.kind))
    for text in ("srvr", "ruok", "mntr", "conf", "isro", "stat", "dump", "gtmk", "crst"):
        a, b = (word(server.port, text).decode() for server in (reference, subject))
        check.equal(f"{text}, default whitelist", without_version(shape(a, [])), without_version(shape(b, [])))
    return check.passed, check.failed
