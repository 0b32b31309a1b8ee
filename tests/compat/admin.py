"""The admin server: what ringkeeper answers over HTTP against what ZooKeeper answers.

Members of every answer and their kinds must be equal, the text itself where nothing in it is a server's own. Sets that
differ for a reason are named where they are compared.
"""

import http.client
import json
import re
import time

import words

COMMANDS = [
    "configuration",
    "connection_stat_reset",
    "connections",
    "dirs",
    "dump",
    "get_trace_mask",
    "hash",
    "initial_configuration",
    "is_read_only",
    "last_snapshot",
    "leader",
    "observer_connection_stat_reset",
    "observers",
    "ruok",
    "server_stats",
    "stat_reset",
    "stats",
    "voting_view",
    "watch_summary",
    "watches",
    "watches_by_path",
    "zabstate",
]
ALIASES = "conf config crst cons env envi gtmk icfg isro lsnp lead mntr orst obsr srvr srst stat sysp wchs wchc wchp".split()
# The text itself is the same.
EQUAL = [
    "connection_stat_reset",
    "get_trace_mask",
    "is_read_only",
    "leader",
    "observers",
    "ruok",
    "set_trace_mask",
    "set_trace_mask?traceMask=x",
    "set_trace_mask?traceMask=306&traceMask=1",
    "voting_view",
    "watch_summary",
    "zabstate",
    "xxx",
    "srvr/x",
    "%22%0a",
    "",
]
# (method, path, headers): the status is the same.
STATUS = [
    ("GET", "/commands", {}),
    ("GET", "/", {}),
    ("GET", "/x", {}),
    ("HEAD", "/commands/ruok", {}),
    ("PUT", "/commands/ruok", {}),
    ("DELETE", "/commands/ruok", {}),
    ("TRACE", "/commands/ruok", {}),
    ("OPTIONS", "/commands/ruok", {}),
    ("GET", "/commands/snapshot", {}),
    ("GET", "/commands/snapshot", {"Authorization": "world anyone"}),
    ("GET", "/commands/snapshot", {"Authorization": "nonsense"}),
    ("GET", "/commands/snapshot", {"Authorization": "digest"}),
    ("GET", "/commands/snapshot", {"Authorization": "digest a b"}),
    ("POST", "/commands/restore", {}),
]
# Metrics of ZooKeeper 3.9.5 that are not here: the number of bytes by top-level node (unbounded in ZooKeeper).
MISSING = re.compile(r"_(read|write)_per_namespace$")


def settings(port):
    return {
        "admin.enableServer": "true",
        "admin.serverAddress": "127.0.0.1",
        "admin.serverPort": port,
        "admin.snapshot.enabled": "true",
        "admin.rateLimiterIntervalInMS": 1,
    }


def provider(port):
    return {
        "metricsProvider.className": "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider",
        "metricsProvider.httpHost": "127.0.0.1",
        "metricsProvider.httpPort": port,
    }


def ask(port, method, path, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def snapshot(port, query):
    """Asks again while the limit of the rate refuses."""
    deadline = time.monotonic() + 20
    while True:
        answer = ask(port, "GET", f"/commands/snapshot{query}", {"Authorization": "digest a:b"})
        if answer[0] != 429 or time.monotonic() > deadline:
            return answer


def kinds(value, ids):
    """The members of a value and their kinds. Ids are called by what they stand for, moments are not told apart."""
    if isinstance(value, dict):
        named = {}
        for name, member in value.items():
            name = f"session {ids.index(int(name))}" if name.isdigit() and int(name) in ids else name
            named["<moment>" if re.fullmatch(r"\d{7,}", name) else name] = kinds(member, ids)
        return named
    if isinstance(value, list):
        return [kind for index, kind in enumerate(sorted((kinds(item, ids) for item in value), key=repr)) if index < 9]
    if isinstance(value, int) and value in ids:
        return f"session {ids.index(value)}"
    if isinstance(value, str) and value.startswith("/"):
        return value if value.startswith("/w") else "path"
    return type(value).__name__


def families(text):
    """The families of an exposition and their types; the rules of the format are checked on the way."""
    found, family = {}, None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            continue
        if line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            assert family not in found, f"{family} stands twice"
            found[family] = kind
            continue
        sample = re.fullmatch(r'([A-Za-z_:][A-Za-z0-9_:]*)(\{(?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*\})? (\S+)', line)
        assert sample, line
        float(sample[3])
        assert sample[1] in (family, f"{family}_count", f"{family}_sum"), line
    return found


def compare_metrics(reference, reference_port, subject, subject_port):
    """Families and their types, but for most of those of the Java machine."""
    check = words.Check((reference.kind, subject.kind))
    clients = [words.populate(server) for server in (reference, subject)]
    found = []
    for port in (reference_port, subject_port):
        status, kind, body, _ = ask(port, "GET", "/metrics")
        check.equal("status of /metrics", status, 200)
        check.true("a text exposition", kind.lower().startswith("text/plain"))
        check.equal("status of another path", ask(port, "GET", "/metric")[0], 404)
        found.append(families(body.decode()))
    for name, kind in sorted(found[0].items()):
        if name.startswith("jvm_") and name != "jvm_pause_time_ms":
            continue
        check.equal(f"type of {name}", kind, found[1].get(name))
    for name in ("jvm_memory_bytes_used", "jvm_memory_bytes_max", "jvm_threads_current"):
        check.equal(f"type of {name}", *(families_of.get(name) for families_of in found))
    for pair in clients:
        for client in pair:
            client.wire.close()
    return check.passed, check.failed


def compare(a, a_port, b, b_port):
    check = words.Check((a.kind, b.kind))
    ports = (a_port, b_port)
    clients = [words.populate(server) for server in (a, b)]
    ids = [[client.session for client in pair] for pair in clients]
    # ZooKeeper opens this port before it knows its database.
    deadline = time.monotonic() + 20
    while any(json.loads(ask(port, "GET", "/commands/ruok")[2])["error"] for port in ports):
        if time.monotonic() > deadline:
            raise RuntimeError("an admin server never says that it serves")
        time.sleep(0.05)

    for command in COMMANDS:
        (s, t, x, _), (s2, t2, y, _) = (ask(port, "GET", f"/commands/{command}") for port in ports)
        check.equal(f"{command}: status and type", (s, t), (s2, t2))
        x, y = json.loads(x), json.loads(y)
        if command == "dump":
            # Sessions fall into ticks, and the ticks of two servers are not the same.
            for answer in (x, y):
                members = [id for ids_of in answer["expiry_time_to_session_ids"].values() for id in ids_of]
                answer["expiry_time_to_session_ids"] = {"9999999": sorted(members)}
        check.equal(f"{command}: order of members", list(x), list(y))
        check.equal(f"{command}: members", kinds(x, ids[0]), kinds(y, ids[1]))
    for alias in ALIASES:
        first = [json.loads(ask(port, "GET", f"/commands/{alias}")[2])["command"] for port in ports]
        check.equal(f"the first name of {alias}", *first)
    for command in EQUAL:
        check.equal(f"text of {command!r}", *(ask(port, "GET", f"/commands/{command}")[2] for port in ports))
    for method, path, headers in STATUS:
        check.equal(f"{method} {path} {headers}", *(ask(port, method, path, headers)[0] for port in ports))

    x, y = (json.loads(ask(port, "GET", "/commands/environment")[2]) for port in ports)
    check.equal("environment: members", list(x), list(y))
    x, y = (json.loads(ask(port, "GET", "/commands/monitor")[2]) for port in ports)
    check.equal("monitor: missing", [], sorted(name for name in set(x) - set(y) if not MISSING.search(name)))
    for name in sorted(set(x) & set(y)):
        check.equal(f"monitor: kind of {name}", type(x[name]).__name__, type(y[name]).__name__)
    for name in sorted(words.EQUAL_KEYS):
        name = name.removeprefix("zk_")
        check.equal(f"monitor: {name}", x.get(name), y.get(name))

    for query in ("", "?streaming=true", "?streaming=false", "?streaming=x"):
        answers = [snapshot(port, query) for port in ports]
        check.equal(f"snapshot{query}: status and type", *(answer[:2] for answer in answers))
        check.equal(f"snapshot{query}: zxid", *(answer[3].get("last_zxid") for answer in answers))
        for server, answer in zip((a, b), answers):
            if answer[1] == "application/octet-stream":
                check.equal(f"{server.kind}: snapshot_size", len(answer[2]), int(answer[3]["snapshot_size"]))
                check.equal(f"{server.kind}: a snapshot", answer[2][:4], b"ZKSN")
    for pair in clients:
        for client in pair:
            client.wire.close()
    return check.passed, check.failed
