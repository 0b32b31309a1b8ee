"""What is sent to both servers: the cases of every opcode, and random mixes of them.

Never sent to Apache ZooKeeper: the requests by which this release harms itself (upstream faults 14.1 to 14.9 of the
protocol notes). The builders below refuse to make them (`Excluded`), whatever a generator draws; ringkeeper's own
tests say what it answers. Faults 14.10 to 14.14 are not a matter of single requests.

ALLOWED differences, and why:

- A multi that does not decode: ZooKeeper 3.9.5 uses a zxid up for it, later versions do not; the answer is compared,
  the zxid is not (`step_loose`).
- How many replacement characters a malformed piece of UTF-8 becomes: runs of them compare as one, and no two paths that
  differ only in that are watched.

Not sent, because ZooKeeper's answer is an accident nobody can want: a null path to the watch operations (taken as a
key), the number of all children of the empty path (counts itself), a null SASL token (drops the connection).
"""

import base64
import hashlib

import jute
from differ import Difference, Request
from jute import acl_vector, boolean, buffer, i32, i64, ustring, vector

READ, WRITE, CREATE, DELETE, ADMIN, ALL = 1, 2, 4, 8, 16, 31
OPEN = [(ALL, "world", "anyone")]
READ_ONLY = [(READ, "world", "anyone")]
TTL_MAX = (1 << 40) - 1
SUPER_PASSWORD = "super:secret"


def digest_id(text):
    user = text.split(":")[0]
    return f"{user}:{base64.b64encode(hashlib.sha1(text.encode()).digest()).decode()}"


class Excluded(Exception):
    """A request that is never sent to Apache ZooKeeper."""


class Options:
    """What the configuration under test switches on."""

    def __init__(self, extended=False, quota=False, superuser=False, skip_acl=False):
        self.extended, self.quota, self.superuser, self.skip_acl = extended, quota, superuser, skip_acl


# -- requests ------------------------------------------------------------------------------------------------------

def is_quota_name(path):
    data = path.encode() if isinstance(path, str) else (path or b"")
    return data.endswith((b"/zookeeper_limits", b"/zookeeper_stats"))


def guard_quota(path, data=None):
    raw = path.encode() if isinstance(path, str) else (path or b"")
    if not is_quota_name(raw):
        return
    parent = raw.rpartition(b"/")[0]
    if not parent.startswith(b"/zookeeper/quota/"):
        raise Excluded("14.4, 14.5")
    if data is not None and not (data.startswith(b"count=") and data.isascii()):
        raise Excluded("14.6")


def guard_create(op, path, data, flags, ttl):
    guard_quota(path, data)
    if op in ("create", "create2") and flags == 4:
        raise Excluded("14.9")
    if op == "createContainer" and flags in (0, 1, 2, 3):
        raise Excluded("14.9")
    if op == "createTTL" and flags in (0, 1, 2, 3, 4) and ttl < 0:
        raise Excluded("14.2")


def create_body(op, path, data, acl, flags, ttl):
    tail = i64(ttl) if op == "createTTL" else b""
    return ustring(path) + buffer(data) + acl_vector(acl) + i32(flags) + tail


def create(path, data=b"", acl=OPEN, flags=0, op="create", ttl=0, **more):
    guard_create(op, path, data, flags, ttl)
    return Request(op, create_body(op, path, data, acl, flags, ttl), note=f"{path!r} flags {flags}", **more)


def delete(path, version=-1):
    guard_quota(path)
    return Request("delete", ustring(path) + i32(version), note=repr(path))


def set_data(path, data, version=-1):
    guard_quota(path, data)
    return Request("setData", ustring(path) + buffer(data) + i32(version), note=f"{path!r} v{version}")


def set_acl(path, acl, version=-1):
    return Request("setACL", ustring(path) + acl_vector(acl) + i32(version), note=f"{path!r} {acl!r}")


def read(op, path, watch=False):
    return Request(op, ustring(path) + boolean(watch), note=f"{path!r}{' watch' if watch else ''}")


def exists(path, watch=False):
    return read("exists", path, watch)


def get_data(path, watch=False):
    return read("getData", path, watch)


def get_children(path, watch=False):
    return read("getChildren", path, watch)


def get_children2(path, watch=False):
    return read("getChildren2", path, watch)


def by_path(op, path):
    return Request(op, ustring(path), note=repr(path))


def with_int(op, path, number):
    return Request(op, ustring(path) + i32(number), note=f"{path!r} {number}")


def ping(xid=jute.XID_PING):
    return Request("ping", xid=xid)


def who_am_i():
    return Request("whoAmI")


def auth(scheme, data, kind=0, xid=jute.XID_AUTH):
    return Request("auth", i32(kind) + ustring(scheme) + buffer(data), xid=xid, note=f"{scheme} {data!r}")


def set_watches(differ, zxid_back, lists, op=None):
    """`zxid_back` counts back from the newest zxid seen; `lists` has three lists, or five for setWatches2."""
    zxid = max(0, differ.zxid_last - zxid_back)
    tail = b"".join(vector(items, ustring) for items in lists)
    sides = differ.sides
    return Request(op or ("setWatches" if len(lists) == 3 else "setWatches2"),
                   lambda index, pair: i64(max(0, sides[index].native_zxid(zxid))) + tail, note=f"back {zxid_back} {lists!r}")


def sub_op(kind, path, **fields):
    """One operation of a multi: (type, body)."""
    code = jute.OPCODES[kind] if isinstance(kind, str) else kind
    data, version = fields.get("data", b""), fields.get("version", -1)
    if kind in ("create", "create2", "createContainer", "createTTL"):
        guard_quota(path, data)
        acl = fields.get("acl", OPEN)
        if acl is None:
            raise Excluded("14.1")
        return code, create_body(kind, path, data, acl, fields.get("flags", 0), fields.get("ttl", 0))
    if kind == "delete":
        guard_quota(path)
        return code, ustring(path) + i32(version)
    if kind == "setData":
        guard_quota(path, data)
        return code, ustring(path) + buffer(data) + i32(version)
    if kind == "check":
        return code, ustring(path) + i32(version)
    if kind in ("getData", "getChildren"):
        return code, ustring(path) + boolean(fields.get("watch", False))
    return code, fields.get("body", b"")


def multi(ops, op="multi", end=True):
    body = b"".join(i32(code) + b"\x00" + i32(-1) + data for code, data in ops)
    return Request(op, body + (i32(-1) + b"\x01" + i32(-1) if end else b""),
                   note=f"of {[jute.OPNAMES.get(code, code) for code, _ in ops]}")


def batches(requests, size):
    requests = list(requests)
    for start in range(0, len(requests), size):
        yield requests[start:start + size]


def several(*makers):
    """Calls each maker and leaves out what may not be sent."""
    out = []
    for maker in makers:
        try:
            out.append(maker())
        except Excluded:
            pass
    return out


# -- every case of something ---------------------------------------------------------------------------------------

WEIRD_PATHS = [
    None, b"", b"/", b"a", b"zzz", b"a/b", b"//", b"///", b"/p/", b"/p//", b"/p//q", b"//p", b"/.", b"/..", b"/p/.",
    b"/p/..", b"/p/../q", b"/p/./q", b"/...", b"/.x", b"/x.", b"/..x", b"/p\x00q", b"\x00", b"/\x00", b"/\x01",
    b"/\x1f", b"/ ", b"/a b", b"/\x7e", b"/\x7f", "/\x80", "/\x9f", "/\xa0", "/é", "/日本", "/\ud7ff", "/\ue000", "/\uf8ff",
    "/\uf900", "/\uffef", "/\ufff0", "/\ufffc", "/\ufffd", "/\uffff", "/\u2028", "/😀", b"/\xff", b"/\xc3", b"/\xc3(", b"/\xe2\x82",
    b"/\xe2\x82(", b"/\xf0\x9f\x98", b"/\xc0\x80", b"/\xc1\xbf", b"/\xe0\x80\x80", b"/\xed\xa0\x80", b"/\xed\xa0\xbd\xed\xb8\x80",
    b"/\xf4\x90\x80\x80", b"/\xf8\x88\x80\x80\x80", b"\xff/p", b"/%20", b"/\\", b"/p\\q", b"/*", b"/'", b"/\"", b"/p/q/r/s", b"/p",
    b"/p/q", b"/zookeeper", b"/zookeeper/", b"/zookeeper/quota", b"/zookeeper/config", b"/zookeeper/x", b"/zookeeper/config/x",
    b"/zookeeper/quota/x", b"/zookeeperx", b"zookeeper", b"/" + b"n" * 5000, b"/p" * 300,
]


def is_malformed(path):
    try:
        path.decode() if isinstance(path, bytes) else None
        return False
    except UnicodeDecodeError:
        return True


def paths_everywhere(differ, rng, options):
    pair = differ.connect("c1")
    differ.step(pair, create("/p", b"d"))
    for op in ("exists", "getData", "getChildren", "getChildren2"):
        for batch in batches(WEIRD_PATHS, 10):
            differ.step(pair, *(read(op, path) for path in batch))
    for op in ("getACL", "sync", "getEphemerals", "getAllChildrenNumber"):
        for batch in batches(WEIRD_PATHS, 10):
            differ.step(pair, *(by_path(op, path) for path in batch if op != "getAllChildrenNumber" or path != b""))
    for path in WEIRD_PATHS:
        differ.step(pair, set_data(path, b"x"), exists(path))
        differ.step(pair, set_acl(path, OPEN), exists(path))
        differ.step(pair, delete(path), exists(path))
    for flags in (0, 2, 1):
        for op in ("create", "create2"):
            differ.step(pair, *several(lambda: create("/p", b"d")))
            for path in WEIRD_PATHS:
                differ.step(pair, create(path, b"x", flags=flags, op=op), exists(path), get_children("/p"))
            for path in WEIRD_PATHS:
                differ.step(pair, delete(path))
    for path in WEIRD_PATHS:
        differ.step(pair, create(path, b"x", flags=4, op="createContainer"), delete(path))
        differ.step(pair, create(path, b"x", flags=6, op="createTTL", ttl=100000), delete(path))
    for path in WEIRD_PATHS[1:]:
        differ.step(pair, multi([sub_op("check", path)]), multi([sub_op("setData", path)]),
                    multi([sub_op("create", path), sub_op("delete", path)]),
                    multi([sub_op("getData", path), sub_op("getChildren", path)], op="multiRead"))
    for kind in (0, 1, 2, 3, 4, 5, 6, -1):
        for batch in batches(WEIRD_PATHS[1:30], 10):
            differ.step(pair, *(with_int("checkWatches", path, kind) for path in batch))
            differ.step(pair, *(with_int("removeWatches", path, kind) for path in batch))
    for mode in (0, 1, 2, -1):
        for batch in batches([path for path in WEIRD_PATHS if path not in (None, b"/") and not is_malformed(path)], 10):
            differ.step(pair, *(with_int("addWatch", path, mode) for path in batch))
            differ.step(pair, *(with_int("removeWatches", path, 3) for path in batch))
    differ.end()


WEIRD_ACLS = [
    None, [], OPEN, [(0, "world", "anyone")], [(99, "world", "anyone")], [(-1, "world", "anyone")], [(31, "world", "x")],
    [(31, "world", "")], [(31, "world", "Anyone")], [(31, None, "anyone")], [(31, "", "")], [(31, "World", "anyone")],
    [(31, "auth", "")], [(31, "auth", None)], [(1, "auth", "ignored")], [(31, "auth", ""), (1, "world", "anyone")],
    [(31, "digest", "a:b")], [(31, "digest", "a:")], [(31, "digest", "a")], [(31, "digest", "a:b:c")], [(31, "digest", ":b")],
    [(31, "digest", "")], [(31, "digest", ":")], [(31, "digest", "a::")], [(31, "digest", "a:b:")], [(31, "digest", "u:é")],
    [(31, "digest", digest_id("user:secret"))], [(1, "digest", digest_id("user:secret")), (1, "digest", "a:b")],
    [(31, "ip", "127.0.0.1")], [(31, "ip", "127.0.0.1/8")], [(31, "ip", "127.0.0.1/0")], [(31, "ip", "127.0.0.1/32")],
    [(31, "ip", "127.0.0.1/33")], [(31, "ip", "127.0.0.1/-1")], [(31, "ip", "127.0.0.1/")], [(31, "ip", "127.0.0.1/x")],
    [(31, "ip", "127.0.0.1/8/8")], [(31, "ip", "10.0.0.0/8")], [(31, "ip", "126.0.0.0/7")], [(31, "ip", "127.0.0.2/31")],
    [(31, "ip", "127.0.0.0/31")], [(31, "ip", "1.2.3")], [(31, "ip", "1.2.3.4.5")], [(31, "ip", "1.2.3.4.")], [(31, "ip", "01.02.03.004")],
    [(31, "ip", "256.1.1.1")], [(31, "ip", "-1.1.1.1")], [(31, "ip", "+1.2.3.4")], [(31, "ip", " 1.2.3.4")], [(31, "ip", "1.2..4")],
    [(31, "ip", "a.b.c.d")], [(31, "ip", "localhost")], [(31, "ip", "")], [(31, "ip", "/8")], [(31, "ip", "::1")], [(31, "ip", "::")],
    [(31, "ip", "1::2/64")], [(31, "ip", "::1/128")], [(31, "ip", "::1/129")], [(31, "ip", "::1/-1")], [(31, "ip", "fe80::1%lo")],
    [(31, "ip", "1:2:3:4:5:6:7:8")], [(31, "ip", "1:2:3:4:5:6:7")], [(31, "ip", "1:2:3:4:5:6:7:8:9")], [(31, "ip", "1::2::3")],
    [(31, "ip", "12345::")], [(31, "ip", "g::")], [(31, "ip", "::ffff:127.0.0.1")], [(31, "ip", "1:2:3:4:5:6:7::")], [(31, "ip", ":")],
    [(31, "sasl", "bob")], [(31, "x509", "CN=x")], [(31, "super", "")], [(31, "super", "x")], [(31, "key", "x")], [(31, "nope", "x")],
    OPEN + OPEN, [(1, "world", "anyone"), (2, "world", "anyone"), (1, "world", "anyone")],
    [(31, "digest", "a:b"), (31, "digest", "c:d"), (31, "ip", "127.0.0.1"), (31, "digest", "a:b")],
    [(31, "world", "anyone"), (31, "nope", "x")], [(31, "world", None)], [(31, "digest", None)], [(31, "ip", None)],
    [(1, "ip", "127.0.0.1"), (16, "digest", digest_id("user:secret"))],
]


def acls_everywhere(differ, rng, options):
    plain, authed = differ.connect("plain"), differ.connect("authed")
    differ.step(authed, auth("digest", b"user:secret"))
    differ.step(plain, create("/acl"))
    differ.step(plain, create("/acl/set"))
    number = 0
    for acl in WEIRD_ACLS:
        for pair in (plain, authed):
            number += 1
            path = f"/acl/n{number}"
            differ.step(pair, create(path, b"x", acl=acl), by_path("getACL", path), get_data(path))
            differ.step(plain, by_path("getACL", path), get_data(path), exists(path), set_data(path, b"y"),
                        get_children2(path), create(path + "/c"), set_acl(path, READ_ONLY))
            differ.step(authed, by_path("getACL", path), get_data(path), delete(path + "/c"), set_acl(path, OPEN),
                        by_path("getAllChildrenNumber", path))
            target = f"/acl/s{number}"
            differ.step(pair, create(target), set_acl(target, acl), by_path("getACL", target), set_acl(target, OPEN, 0),
                        set_acl(target, OPEN, 1), set_acl(target, OPEN, -2), exists(target))
            # Another order of faults: a bad ACL, a missing parent, an existing node.
            differ.step(pair, create("/none/x", acl=acl), create("/acl", acl=acl), set_acl("/none", acl),
                        create("/acl/" + "é", acl=acl, op="create2"), delete("/acl/é"), set_acl("/acl/", acl))
    # One bit of permission at a time, on the node and on its parent.
    for perms in (0, READ, WRITE, CREATE, DELETE, ADMIN, READ | ADMIN, ALL & ~READ, ALL & ~ADMIN):
        path = f"/acl/p{perms}"
        mine = [(perms, "digest", digest_id("user:secret"))]
        differ.step(plain, create(path), create(path + "/kid"), set_acl(path, mine))
        for pair in (plain, authed):
            differ.step(pair, exists(path), get_data(path), get_children(path), get_children2(path), by_path("getACL", path),
                        by_path("getAllChildrenNumber", path), by_path("sync", path))
            differ.step(pair, set_data(path, b"1"), set_data(path, b"1", 7), create(path + "/new"), create(path + "/kid"),
                        create(path + "/bad\x01"), create(path + "/kid/sub"))
            differ.step(pair, delete(path + "/new"), delete(path + "/none"), delete(path + "/kid", 5), delete(path + "/kid"),
                        multi([sub_op("check", path)]), multi([sub_op("check", path, version=4)]),
                        multi([sub_op("getData", path), sub_op("getChildren", path)], op="multiRead"))
            differ.step(pair, set_acl(path, mine, 9), set_acl(path, mine))
    differ.end()


def auth_everywhere(differ, rng, options):
    fine = [("digest", b"u:p"), ("digest", b"u"), ("digest", b""), ("digest", b":"), ("digest", b"u:p:q"), ("digest", b"u:p"),
            ("digest", "ü:ä".encode()), ("digest", b"\xff:\xfe"), ("ip", b""), ("ip", b"1.2.3.4"), ("digest", SUPER_PASSWORD.encode()),
            ("digest", b"super:wrong")]
    pair, other = differ.connect("c1"), differ.connect("c2")
    differ.step(pair, create("/auth"), create("/auth/locked", acl=[(ALL, "digest", digest_id("u:p"))]),
                create("/auth/none", acl=[(0, "world", "anyone")]))
    for scheme, data in fine:
        differ.step(pair, auth(scheme, data), who_am_i(), get_data("/auth/locked"), get_data("/auth/none"))
        differ.step(pair, create("/auth/a", acl=[(ALL, "auth", "")]), by_path("getACL", "/auth/a"), delete("/auth/a"))
        differ.step(pair, set_acl("/auth/none", [(READ, "auth", "")]), set_acl("/auth/none", [(0, "world", "anyone")]))
    differ.step(other, auth("digest", b"v:w", kind=7, xid=5), who_am_i())
    differ.step(other, auth("digest", b"v:x", xid=0), auth("digest", b"v:y", xid=-4), who_am_i())
    for scheme, data in [("digest", None), ("nope", b""), ("world", b""), ("world", b"anyone"), ("auth", b""), ("sasl", b"x"),
                         ("super", b""), ("x509", b""), ("", b""), (None, b""), ("ip", None), ("key", b"x")]:
        victim = differ.connect("victim")
        if scheme == "ip":
            differ.step(victim, auth(scheme, data), who_am_i())
            differ.last_words(victim, Request("closeSession"))
        else:
            differ.last_words(victim, auth(scheme, data))
    victim = differ.connect("victim")
    differ.last_words(victim, Request("auth", i32(0) + ustring("digest"), xid=-4, note="cut short"))
    victim = differ.connect("victim")
    differ.last_words(victim, Request("auth", b"", xid=-4, note="empty"))
    sasl = differ.connect("sasl")
    differ.step(sasl, Request("sasl", buffer(b"")), who_am_i())
    differ.step(sasl, Request("sasl", buffer(b"token")), who_am_i())
    # A new connection of the same session starts with no identity.
    again = differ.connect("again", reattach=pair)
    differ.step(again, who_am_i(), get_data("/auth/locked"))
    differ.end()


def flags_everywhere(differ, rng, options):
    pair = differ.connect("c1")
    differ.step(pair, create("/f"), create("/f/eph", flags=1), create("/f/cont", flags=4, op="createContainer"))
    ttls = [-(1 << 63), -2, -1, 0, 1, 1000000, TTL_MAX, TTL_MAX + 1, (1 << 63) - 1]
    for parent in ("/f", "/f/eph", "/f/none", "/f/cont"):
        for op in ("create", "create2", "createContainer", "createTTL"):
            for flags in (-(1 << 31), -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, (1 << 31) - 1):
                for ttl in ttls if op == "createTTL" and parent == "/f" else [1000000]:
                    for request in several(lambda: create(f"{parent}/n", b"x", flags=flags, op=op, ttl=ttl)):
                        differ.step(pair, request, exists(f"{parent}/n"), get_children2(parent), by_path("getEphemerals", "/"))
                        differ.step(pair, create(f"{parent}/n/kid"), delete(f"{parent}/n/kid"), delete(f"{parent}/n"))
    # The same in multis, where the flag counts for more. Undecodable ones are compared without their zxid.
    for op in ("create", "create2", "createContainer", "createTTL"):
        for flags in (-1, 0, 1, 2, 3, 4, 5, 6, 7):
            for ttl in (-1, 0, 1000000, TTL_MAX + 1) if op == "createTTL" else [0]:
                request = multi([sub_op(op, "/f/m", flags=flags, ttl=ttl, data=b"m")])
                differ.step_loose(pair, request, get_children2("/f"))
                differ.step(pair, create("/f/m/kid"), exists("/f/m"), delete("/f/m/kid"), delete("/f/m"))
    differ.end()


def data_everywhere(differ, rng, options):
    pair = differ.connect("c1")
    differ.step(pair, create("/d"))
    for number, data in enumerate([None, b"", b"x", b"\x00", bytes(range(256)), b"x" * 100000]):
        path = f"/d/{number}"
        differ.step(pair, create(path, data, op="create2"), get_data(path), exists(path), set_data(path, None), get_data(path),
                    set_data(path, data, 1), get_data(path), set_data(path, b"zz", 1), set_data(path, b"zz", -2))
        differ.step(pair, multi([sub_op("setData", path, data=data), sub_op("getData", path)]) if False else
                    multi([sub_op("setData", path, data=data), sub_op("check", path, version=3)]),
                    multi([sub_op("getData", path), sub_op("getData", "/d/none")], op="multiRead"))
    for version in (-(1 << 31), -2, 0, 1, 5, (1 << 31) - 1, -1):
        differ.step(pair, create("/d/v"), set_data("/d/v", b"", version), set_acl("/d/v", OPEN, version), delete("/d/v", version),
                    exists("/d/v"))
    # The largest frame, and a batch of large ones.
    head = len(jute.request(1, 1, create_body("create", "/d/big", b"", OPEN, 0, 0))) - 4
    differ.step(pair, create("/d/big", b"b" * (jute.FRAME_BYTES_MAX - head)), exists("/d/big"))
    differ.step(pair, get_data("/d/big"), delete("/d/big"))
    differ.step(pair, *(create(f"/d/l{n}", bytes([n]) * 200000) for n in range(8)), *(get_data(f"/d/l{n}") for n in range(8)))
    # Many children, many requests in one write.
    differ.step(pair, create("/d/many"))
    differ.step(pair, *(create("/d/many/s-", flags=2 + n % 2) for n in range(300)))
    differ.step(pair, get_children2("/d/many"), by_path("getEphemerals", "/d/many/s-00000001"), by_path("getEphemerals", None),
                by_path("getEphemerals", " "), by_path("getEphemerals", " / "), by_path("getAllChildrenNumber", "/d"),
                by_path("getAllChildrenNumber", "/"))
    differ.step(pair, *(r for n in range(60) for r in (set_data("/d/0", str(n).encode()), get_data("/d/0"), ping(),
                                                       exists("/d/0"))))
    differ.end()


def sequences(differ, rng, options):
    pair = differ.connect("c1")
    differ.step(pair, create("/q"))
    differ.step(pair, create("/q/", flags=2), create("/q/a", flags=2), create("/q/a0000000003"), create("/q/a", flags=2),
                create("/q/a", flags=2), create("/q/b"), create("/q/a", flags=2), delete("/q/b"), create("/q/a", flags=3))
    differ.step(pair, create("/", flags=2), create("", flags=2), create("/q", flags=2), create("/q//", flags=2),
                create("/q/.", flags=2), create("/q/..", flags=2), create("/none/", flags=2), create("/q/\x00", flags=2))
    # A failed multi gives its numbers back; a failed create never took one.
    differ.step(pair, multi([sub_op("create", "/q/m", flags=2), sub_op("create", "/q/m", flags=2), sub_op("check", "/none")]),
                multi([sub_op("create", "/q/m", flags=2), sub_op("create2", "/q/m", flags=2), sub_op("delete", "/q/b"),
                       ]), create("/q/m", flags=2), create("/q/m", flags=2, acl=[]), create("/q/m", flags=2), get_children2("/q"))
    differ.step(pair, create("/q/0", flags=2), multi([sub_op("create", "/q/x"), sub_op("delete", "/q/x"), sub_op("create", "/q/x"),
                sub_op("setData", "/q/x", version=0), sub_op("check", "/q/x", version=1), sub_op("create", "/q/x/y", flags=2),
                sub_op("create2", "/q/x/y", flags=3)]), get_children2("/q/x"), exists("/q"))
    differ.end()


def multis(differ, rng, options):
    pair = differ.connect("c1")
    differ.step(pair, create("/m"), create("/m/a", b"1"), create("/m/b", b"2"), create("/m/e", flags=1))
    fine = [sub_op("create", "/m/n"), sub_op("create2", "/m/n2"), sub_op("delete", "/m/n"), sub_op("setData", "/m/a", data=b"x"),
            sub_op("check", "/m/a"), sub_op("createContainer", "/m/c", flags=4), sub_op("delete", "/m/c"), sub_op("delete", "/m/n2")]
    bad = [sub_op("create", "/m/a"), sub_op("create", "/none/x"), sub_op("create", "bad"), sub_op("create", "/m/e/x"),
           sub_op("create", "/m/x", acl=[]), sub_op("create", "/m/x", acl=[(31, "nope", "")]), sub_op("delete", "/none"),
           sub_op("delete", "/"), sub_op("delete", "/m"), sub_op("delete", "/m/a", version=99), sub_op("setData", "/none"),
           sub_op("setData", "/m/a", version=99), sub_op("setData", "/m/"), sub_op("check", "/none"), sub_op("check", "/m/a", version=99),
           sub_op("check", ""), sub_op("createTTL", "/m/t", flags=5, ttl=-5), sub_op("createTTL", "/m/t", flags=5, ttl=100000),
           sub_op("createTTL", "/m/t", flags=0, ttl=-5), sub_op("delete", "/m/t")]
    differ.step(pair, multi([]), multi([], op="multiRead"))
    for op in fine + bad:
        differ.step(pair, multi([op]), exists("/m"), get_children("/m"))
    differ.step(pair, multi(fine), get_children2("/m"), exists("/m/a"))
    for at in range(len(fine) + 1):
        for op in rng.sample(bad, 4):
            differ.step(pair, multi(fine[:at] + [op] + fine[at:]), get_children2("/m"), exists("/m/a"))
    differ.step(pair, multi(fine + fine + fine), get_children2("/m"))
    reads = [sub_op("getData", "/m/a"), sub_op("getChildren", "/m"), sub_op("getData", "/none"), sub_op("getChildren", "/none"),
             sub_op("getData", "", watch=True), sub_op("getChildren", "/m/a", watch=True), sub_op("getData", "/zookeeper/config")]
    differ.step(pair, multi(reads, op="multiRead"), multi(reads * 20, op="multiRead"))
    differ.step(pair, set_data("/m/a", b"no watch was set"), create("/m/a/kid"))
    # Undecodable ones: the answer is compared, the zxid is not.
    for ops in ([reads[0]], [fine[0], reads[0]], [reads[0], fine[0]], [sub_op(9, "", body=ustring("/"))], [sub_op(14, "", body=b"")],
                [sub_op(3, "", body=ustring("/m") + b"\x00")], [sub_op(0, "")], [sub_op(-1, "", body=i32(0))], [sub_op(99, "")],
                [sub_op(7, "", body=ustring("/m") + acl_vector(OPEN) + i32(-1))]):
        differ.step_loose(pair, multi(ops), exists("/m/n"))
    differ.step_loose(pair, multi(fine, end=False), exists("/m/n"))
    differ.step_loose(pair, multi([], end=False), exists("/m/n"))
    differ.step(pair, multi(reads, op="multiRead", end=False), multi([], op="multiRead", end=False))
    differ.step(pair, multi([sub_op(9, "", body=ustring("/"))], op="multiRead"))
    differ.end()


def watches(differ, rng, options):
    """Each way to set a watch against each change, seen from the one who changes and from two others."""
    actor, same, other = differ.connect("actor"), differ.connect("same"), differ.connect("other")
    differ.step(actor, create("/w"))
    setters = {
        "exists": lambda p: exists(p, True), "getData": lambda p: get_data(p, True), "getChildren": lambda p: get_children(p, True),
        "getChildren2": lambda p: get_children2(p, True), "persistent": lambda p: with_int("addWatch", p, 0),
        "recursive": lambda p: with_int("addWatch", p, 1),
    }
    number = 0
    for name, setter in setters.items():
        for second in [None, *setters]:
            number += 1
            top = f"/w/{number}"
            differ.step(actor, create(top), create(top + "/old"))
            for pair in (actor, other):
                differ.step(pair, *[make(path) for path in (top, top + "/old", top + "/new")
                                    for make in (setter, *([setters[second]] if second else []))])
            for change in (create(top + "/new"), set_data(top + "/new", b"1"), set_data(top + "/old", b"1"), set_acl(top + "/old", OPEN),
                           create(top + "/old/deep"), delete(top + "/old/deep"), delete(top + "/new"), create(top + "/new"),
                           multi([sub_op("setData", top), sub_op("delete", top + "/new"), sub_op("create", top + "/x"),
                                  sub_op("delete", top + "/x")]),
                           multi([sub_op("setData", top), sub_op("check", "/none")]), delete(top + "/old"), delete(top), create(top),
                           create(top + "/old", flags=1)):
                differ.step(actor, change)
            for kind in (1, 2, 4, 5, 3):
                differ.step(other, *(with_int(op, path, kind) for path in (top, top + "/old") for op in ("checkWatches", "removeWatches",
                                                                                                         "checkWatches")))
            differ.step(actor, set_data(top, b"2"), delete(top + "/old"), create(top + "/z"), with_int("removeWatches", top, 3),
                        with_int("removeWatches", top + "/old", 3), with_int("removeWatches", top + "/new", 3))
    # A recursive watch at the root and one in the middle, on one connection.
    differ.step(other, with_int("addWatch", "/", 1), with_int("addWatch", "/w/1", 1), exists("/w/1/z", True), get_children("/w/1", True))
    differ.step(actor, create("/w/1/z/y"), set_data("/w/1/z", b""), delete("/w/1/z/y"), delete("/w/1/z"), create("/", flags=2))
    differ.step(other, with_int("removeWatches", "/", 5), with_int("removeWatches", "/w/1", 5))
    # What a watcher may not read it does not hear about, and its watch is used up.
    differ.step(same, auth("digest", b"user:secret"))
    differ.step(actor, create("/w/acl"), create("/w/acl/n"))
    locked = [(READ, "digest", digest_id("user:secret")), (ALL & ~READ, "world", "anyone")]
    for pair in (same, other):
        differ.step(pair, get_data("/w/acl/n", True), get_children("/w/acl", True), get_children("/w/acl/n", True),
                    with_int("addWatch", "/w/acl", 1))
    differ.step(actor, set_acl("/w/acl/n", locked), set_data("/w/acl/n", b"1"), delete("/w/acl/n"), create("/w/acl/n", acl=locked))
    differ.step(actor, set_acl("/w/acl", locked), set_data("/w/acl", b"1"), create("/w/acl/m"), delete("/w/acl/m"))
    differ.step(actor, set_acl("/w/acl", OPEN), set_acl("/w/acl/n", OPEN), set_data("/w/acl/n", b"2"), create("/w/acl/k"),
                delete("/w/acl/n"))
    # A session's end, seen by those who watch its ephemerals.
    differ.step(same, *(create(f"/w/acl/e{n}", flags=1) for n in range(5)), get_children("/w/acl", True))
    differ.step(other, *(exists(f"/w/acl/e{n}", True) for n in range(5)), get_children("/w/acl", True))
    differ.last_words(same, Request("closeSession"))
    differ.step(other, get_children2("/w/acl"), by_path("getEphemerals", "/"))
    differ.end()


def catch_up(differ, rng, options):
    """setWatches after changes, with the relative zxid before, at and after each of them."""
    pair, actor = differ.connect("watcher"), differ.connect("actor")
    differ.step(actor, create("/c"), create("/c/old"), create("/c/gone"), create("/c/kids"), create("/c/again"))
    differ.step(actor, set_data("/c/old", b"1"), delete("/c/gone"), create("/c/kids/k"), delete("/c/again"), create("/c/again"),
                delete("/c/kids/k"), set_acl("/c/old", OPEN))
    paths = ["/c/old", "/c/gone", "/c/kids", "/c/again", "/c/none", "/c", "zz", "", "/c/"]
    for back in (0, 1, 2, 3, 4, 5, 6, 7, 8, 30, 1 << 40, -5):
        for lists in ([paths, [], []], [[], paths, []], [[], [], paths], [paths] * 3, [[], [], []],
                      [[], [], [], paths, []], [[], [], [], [], paths], [paths[:4]] * 5):
            differ.step(pair, set_watches(differ, back, lists))
            differ.step(pair, *(with_int("checkWatches", path, kind) for path in paths[:5] for kind in (1, 2, 4, 5)),
                        *(with_int("removeWatches", path, 3) for path in paths))
    for lists in ([None, [], []], [[], None, []], [[], [], None], [[], [], [], None, []], [[], [], [], [], None], [paths] * 3):
        differ.step(pair, set_watches(differ, 0, lists))
        differ.step(pair, *(with_int("removeWatches", path, 3) for path in paths))
    request = set_watches(differ, 0, [["/c/old"], ["/c/none"], ["/c"]])
    request.xid = jute.XID_SET_WATCHES
    differ.step(pair, request)
    differ.step(actor, set_data("/c/old", b"2"), create("/c/none"), create("/c/more"))
    # The same over a new connection of the session: the old one's watches are gone.
    differ.step(pair, exists("/c/old", True), with_int("addWatch", "/c", 1))
    again = differ.connect("again", reattach=pair)
    differ.step(actor, set_data("/c/old", b"3"))
    differ.step(again, with_int("checkWatches", "/c", 3), set_watches(differ, 1, [["/c/old"], [], [], [], ["/c"]]))
    differ.step(actor, set_data("/c/old", b"4"), create("/c/more/x"))
    differ.end()


def handshakes(differ, rng, options):
    keeper = differ.connect("keeper")
    for fields in (dict(read_only=None), dict(version=7), dict(version=-1), dict(password=None), dict(password=b""), dict(password=b"x" * 8),
                   dict(password=b"y" * 100), dict(read_only=True), dict(read_only=b"\x05"), dict(timeout_ms=0), dict(timeout_ms=-1),
                   dict(timeout_ms=1), dict(timeout_ms=1234), dict(timeout_ms=(1 << 31) - 1), dict(timeout_ms=-(1 << 31)),
                   dict(read_only=b"\x00trailing"), dict(last_zxid=-1), dict(last_zxid=1)):
        fields.setdefault("timeout_ms", 60000)
        pair = differ.connect("new", **fields)
        if pair.alive:
            # The shortest timeouts would expire by themselves, at a time of their own.
            differ.last_words(pair, Request("closeSession"))
    for fields in (dict(last_zxid=1 << 40), dict(last_zxid=(1 << 63) - 1), dict(session_id=12345, password=jute.password_of(12345)),
                   dict(session_id=12345), dict(session_id=-1, password=b""), dict(session_id=1, password=None),
                   dict(session_id=12345, read_only=None), dict(session_id=12345, password=jute.password_of(12345), read_only=None)):
        differ.connect("refused", **fields)
    differ.step(keeper, create("/h"), create("/h/e", flags=1))
    # Taken over while the old connection is open, and after it is gone; with another timeout.
    second = differ.connect("second", reattach=keeper)
    differ.step(second, exists("/h/e"), by_path("getEphemerals", "/"), create("/h/f", flags=1))
    differ.drop(second)
    third = differ.connect("third", reattach=second, timeout_ms=7000)
    differ.step(third, by_path("getEphemerals", "/"))
    old = differ.connect("old", reattach=third, read_only=None)
    differ.step(old, by_path("getEphemerals", "/h"))
    differ.last_words(old, Request("closeSession"))
    differ.connect("late", reattach=old)
    # Requests right behind the handshake, in the same write.
    eager = differ.connect("eager", pipelined=[create("/h/g"), exists("/h/g", True), set_data("/h/g", b"1"), ping(), ping(77)])
    differ.step(eager, exists("/h"))
    differ.end()
    for raw in (jute.i32(0), jute.i32(-1), jute.i32(1) + b"x", jute.i32(jute.FRAME_BYTES_MAX + 1), b"xxxx", b"GET / HTTP/1.1\r\n\r\n",
                jute.frame(b"\x00" * 24 + jute.i32(16) + b"\x00" * 15), jute.frame(b"\x00" * 8), jute.frame(b""), jute.frame(b"\x00" * 24 + jute.i32(-2)), jute.frame(b"\x00" * 24 + jute.i32(1000)),
                b"\xff\xf4\xff\xfd", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
        raw_connection(differ, raw)


def raw_connection(differ, raw):
    """Bytes instead of a handshake: the servers must say the same and close alike."""
    from differ import Wire
    answers = []
    for side in differ.sides:
        wire = Wire(side.server.port)
        wire.send(raw)
        got = b""
        while True:
            try:
                payload = wire.frame(3.0)
            except (TimeoutError, jute.Malformed):
                got += b"(open)"
                break
            if payload is None:
                got += wire.data + b"(closed)"
                break
            got += payload
        wire.close()
        answers.append(got)
    differ.compare(f"raw handshake {raw[:60].hex()}", RAW_PAIR, *answers)


class RawPair:
    name = "raw"


RAW_PAIR = RawPair()


def frames(differ, rng, options):
    """Requests cut short, with bytes too many, in pieces, of no known type, and frames of impossible lengths."""
    pair = differ.connect("c1")
    differ.step(pair, create("/fr"))
    reads = [("exists", ustring("/fr") + b"\x01"), ("getData", ustring("/fr") + b"\x00"), ("getChildren", ustring("/fr") + b"\x00"),
             ("getChildren2", ustring("/fr") + b"\x00"), ("getACL", ustring("/fr")), ("sync", ustring("/fr")),
             ("getEphemerals", ustring("/fr")), ("getAllChildrenNumber", ustring("/fr")), ("checkWatches", ustring("/fr") + i32(3)),
             ("removeWatches", ustring("/fr") + i32(3)), ("addWatch", ustring("/fr") + i32(0)),
             ("setWatches", i64(0) + vector(["/fr"], ustring) * 3), ("setWatches2", i64(0) + vector(["/fr"], ustring) * 5),
             ("multiRead", i32(4) + b"\x00" + i32(-1) + ustring("/fr") + b"\x00" + i32(-1) + b"\x01" + i32(-1))]
    for op, body in reads:
        differ.step(pair, *(Request(op, body[:cut], note=f"cut at {cut}") for cut in range(len(body))))
        differ.step(pair, Request(op, body + b"\x00" * 5, note="bytes too many"), Request(op, body + body, note="twice"))
        for value in (b"\x02", b"\xff"):
            differ.step(pair, Request(op, body[:-1] + value, note="odd last byte"))
        differ.step(pair, Request(op, i32(-2) + body[4:], note="length -2"), Request(op, i32(1 << 30) + body[4:], note="length 2^30"))
        differ.step(pair, with_int("removeWatches", "/fr", 3))
    for count in (-5, -1, 0, 1 << 30):
        differ.step(pair, Request("setWatches", i64(0) + i32(count) * 3, note=f"counts {count}"))
    # Writes are sent whole; bytes behind them are ignored, and negative counts are empty lists.
    differ.step(pair, Request("create", create_body("create", "/fr/x", b"", OPEN, 0, 0) + b"more"), exists("/fr/x"),
                Request("setData", ustring("/fr/x") + buffer(b"y") + i32(-1) + b"more"), Request("delete", ustring("/fr/x") + i32(-1) + b"more"),
                Request("create", ustring("/fr/y") + buffer(b"") + i32(-5) + i32(0), note="acl count -5"),
                Request("setACL", ustring("/fr") + i32(-7) + i32(-1), note="acl count -7"), who_am_i(), Request("whoAmI", b"more"), ping(), ping(5), ping(0),
                Request("ping", b"more", xid=-2), Request("reconfig", ustring(None) * 3 + i64(-1)))
    for xid in (0, -1, -3, -4, -8, 7, (1 << 31) - 1, -(1 << 31)):
        request = exists("/fr")
        request.xid = xid
        differ.step(pair, request)
        del pair.opcodes[xid]
    whole = b"".join(jute.request(900 + n, jute.OPCODES["exists"], ustring("/fr") + b"\x00") for n in range(20))
    for n in range(20):
        pair.opcodes[900 + n] = jute.OPCODES["exists"]
    at = 0
    while at < len(whole):
        step = rng.choice((1, 1, 2, 3, 4, 5, 7, 12, 30))
        for wire in pair.wires:
            wire.send(whole[at:at + step])
        at += step
    differ.step(pair, exists("/fr"))
    for opcode in (0, -1, 10, 13, 23, 24, 50, 99, 108, 109, 1000, -2, -9, -12, -100, (1 << 31) - 1, -(1 << 31)):
        victim = differ.connect("victim")
        differ.last_words(victim, Request(opcode, ustring("/fr") + i32(-1)))
    for raw in (jute.i32(-1), jute.i32(-(1 << 31)), jute.i32(jute.FRAME_BYTES_MAX + 1), jute.i32((1 << 31) - 1), b"ruok", b"srvr", jute.i32(0),
                jute.frame(b"x"), jute.frame(b"\x00" * 7), jute.frame(i32(5) + b"\x00\x00\x00")):
        victim = differ.connect("victim")
        differ.last_words(victim, Request("exists", raw=raw, xid=-77))
    victim = differ.connect("victim")
    differ.last_words(victim, Request("closeSession", b"more bytes"))
    differ.end()


def quotas(differ, rng, options):
    pair, watcher = differ.connect("c1"), differ.connect("c2")
    limits = "count=5,bytes=20=;byteHardLimit=30;countHardLimit=6"
    quota = "/zookeeper/quota/qa"
    differ.step(pair, create("/qa", b"12345"), create("/qa/b", b"678"), create(quota), create(quota + "/zookeeper_limits", limits.encode()))
    differ.step(pair, create(quota + "/zookeeper_stats", b"count=0,bytes=0"), get_data(quota + "/zookeeper_stats"),
                get_data(quota + "/zookeeper_limits"))
    differ.step(watcher, get_data(quota + "/zookeeper_stats", True))
    sizes = [None, b"", b"x", b"yy", b"12345", b"1234567890", b"x" * 18, b"x" * 31]
    for _ in range(80):
        path = rng.choice(["/qa", "/qa/b", "/qa/c", "/qa/c/d", "/qa/c/e", "/qab", "/qab/c", "/qa/s"])
        kind = rng.randrange(4)
        if kind == 0:
            change = create(path, rng.choice(sizes), flags=rng.choice((0, 0, 1)))
        elif kind == 1:
            change = set_data(path, rng.choice(sizes))
        elif kind == 2:
            change = delete(path)
        else:
            change = multi([sub_op("create", path + "m", data=rng.choice(sizes)), sub_op("setData", path, data=rng.choice(sizes)),
                            sub_op("delete", path + "m")])
        differ.step(pair, change)
        differ.step(pair, get_data(quota + "/zookeeper_stats"))
        if rng.random() < 0.1:
            text = f"count={rng.choice((-1, 3, 10))},bytes={rng.choice((-1, 5, 100))}"
            if rng.random() < 0.6:
                text += f"=;byteHardLimit={rng.choice((-1, 10, 50))};countHardLimit={rng.choice((-1, 2, 8))}"
            differ.step(pair, set_data(quota + "/zookeeper_limits", text.encode()))
    # A deeper quota takes over from the one above; without limits nothing is counted.
    differ.step(pair, create("/qa/b", b"1"), create("/zookeeper/quota/qa/b"), create("/zookeeper/quota/qa/b/zookeeper_limits", b"count=-1,bytes=-1"),
                create("/zookeeper/quota/qa/b/zookeeper_stats", b"count=0,bytes=0"))
    differ.step(pair, create("/qa/b/x", b"22"), get_data(quota + "/zookeeper_stats"))
    differ.step(pair, get_data("/zookeeper/quota/qa/b/zookeeper_stats"), delete("/zookeeper/quota/qa/b/zookeeper_limits"))
    differ.step(pair, create("/qa/b/y", b"333"))
    differ.step(pair, get_data("/zookeeper/quota/qa/b/zookeeper_stats"), get_data(quota + "/zookeeper_stats"))
    differ.step(pair, delete("/zookeeper/quota/qa/b/zookeeper_stats"), delete("/zookeeper/quota/qa/b"), delete(quota + "/zookeeper_limits"))
    differ.step(pair, create("/qa/w", b"w"), get_data(quota + "/zookeeper_stats"))
    differ.step(pair, create(quota + "/zookeeper_limits", b"count=-1,bytes=-1"), create("/qa/z", b"w"))
    differ.step(pair, get_data(quota + "/zookeeper_stats"), delete(quota + "/zookeeper_stats"), create(quota + "/zookeeper_stats", b"count=9,bytes=9"))
    differ.step(pair, get_data(quota + "/zookeeper_stats"), delete(quota + "/zookeeper_limits"), delete(quota + "/zookeeper_stats"), delete(quota))
    differ.end()


def predefined(differ, rng, options):
    """The first thing on a fresh server: what is there before anyone wrote."""
    pair = differ.connect("c1")
    for path in ("/", "", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"):
        differ.step(pair, exists(path), get_data(path), get_children2(path), by_path("getACL", path),
                    by_path("getAllChildrenNumber", path or "/"))
        differ.step(pair, delete(path), delete(path, 0), set_data(path, b"x", 5), set_acl(path, OPEN, 7), create(path))
    for path in ("/zookeeper", "/zookeeper/quota", "/"):
        differ.step(pair, set_data(path, b"x"), get_data(path), set_data(path, b""), create(path.rstrip("/") + "/mine"),
                    delete(path.rstrip("/") + "/mine"), set_acl(path, OPEN), get_data(path))
    differ.step(pair, set_data("/zookeeper/config", b"x"), set_acl("/zookeeper/config", OPEN), create("/zookeeper/config/x"),
                get_data("/zookeeper/config"), Request("reconfig", ustring("server.1=a:1:2;3") + ustring(None) * 2 + i64(-1)),
                Request("reconfig", ustring("") * 3 + i64(5)))
    if options.superuser:
        differ.step(pair, auth("digest", SUPER_PASSWORD.encode()), who_am_i(), delete("/zookeeper/config"), delete("/zookeeper"),
                    set_acl("/zookeeper/config", [(READ | ADMIN, "world", "anyone")]), create("/zookeeper/config/x"),
                    delete("/zookeeper/config/x"), set_acl("/zookeeper/config", READ_ONLY), get_data("/zookeeper/config"))
    differ.end()


def lifetimes(differ, rng, options):
    """What the servers do by themselves: sessions that expire, containers and TTL nodes that go when left empty.

    Run with short checks configured. One thing ends at a time, and the next begins when both servers have told.
    """
    watcher = differ.connect("watcher")
    differ.step(watcher, create("/l"), with_int("addWatch", "/l", 1), get_children("/l", True), get_children("/l", True))
    for ephemerals in (0, 1, 4):
        short = differ.connect("short", timeout_ms=1000)
        differ.step(short, *(create(f"/l/e{n}", flags=1) for n in range(ephemerals)), create("/l/end", flags=1))
        differ.step(watcher, get_children("/l", True))
        differ.drop(short)
        differ.await_event(watcher, "/l/end", ephemerals + 2)
        differ.connect("late", reattach=short)
        differ.step(watcher, get_children2("/l"), exists("/l/end"))
    # A connected client that says nothing is closed at expiry, without a word.
    silent = differ.connect("silent", timeout_ms=1000)
    differ.step(silent, create("/l/silent", flags=1))
    differ.await_event(watcher, "/l/silent", 1)
    differ.step(silent, exists("/l"))
    differ.step(watcher, create("/l/c", flags=4, op="createContainer"), create("/l/c/kid"), exists("/l/c"))
    differ.step(watcher, delete("/l/c/kid"))
    differ.await_event(watcher, "/l/c", 1)
    differ.step(watcher, exists("/l/c"), create("/l/c/kid"))
    if options.extended:
        differ.step(watcher, create("/l/t", b"x", flags=5, op="createTTL", ttl=300), create("/l/t/kid"), exists("/l/t"))
        differ.step(watcher, delete("/l/t/kid"))
        differ.await_event(watcher, "/l/t", 1)
        differ.step(watcher, create("/l/s", b"x", flags=6, op="createTTL", ttl=1))
        differ.await_event(watcher, "/l/s0000000000", 1, prefix="/l/s")
        differ.step(watcher, get_children2("/l"))
    differ.end()


def whole_node(path):
    """Every way to look at one node, its children first."""
    return [get_children2(path), get_data(path), by_path("getACL", path), exists(path), by_path("getAllChildrenNumber", path), get_children(path)]


def recovery(differ, rng, options, how, change=None):
    """A tree with something of everything, a restart, and the tree and the sessions again; then life goes on."""
    pairs = [differ.connect(f"c{n}") for n in range(3)]
    one, two, three = pairs
    differ.step(three, auth("digest", b"user:secret"))
    differ.step(one, create("/v"), create("/v/null", None), create("/v/empty", b""), create("/v/data", bytes(range(256))),
                create("/v/big", b"b" * 300000), create("/v/" + "日本語"), create("/v/c", flags=4, op="createContainer"), create("/v/c/kid"))
    differ.step(one, *(create("/v/s-", str(n).encode(), flags=2 + n % 2) for n in range(20)), *(delete(f"/v/s-{n:010d}") for n in (8, 10, 12)))
    differ.step(three, create("/v/acl", acl=[(ALL, "auth", "")]), create("/v/acl/locked", acl=[(0, "world", "anyone")]),
                create("/v/ip", acl=[(ALL, "ip", "127.0.0.1/8"), (READ, "world", "anyone")]), set_acl("/v/data", [(ALL, "auth", ""), (READ, "world", "anyone")]))
    differ.step(two, create("/v/e1", flags=1), create("/v/e2", flags=1), set_data("/v/empty", b"1"), set_data("/v/empty", b"2"))
    differ.step(one, multi([sub_op("create", "/v/m"), sub_op("setData", "/v/m", data=b"m"), sub_op("create2", "/v/m/e", flags=3)]),
                multi([sub_op("delete", "/v/m"), sub_op("create", "/v/n")]), set_data("/v/none", b""))
    differ.step(one, create("/zookeeper/quota/v"), create("/zookeeper/quota/v/zookeeper_limits", b"count=1000,bytes=-1"),
                create("/zookeeper/quota/v/zookeeper_stats", b"count=0,bytes=0"))
    if options.extended:
        differ.step(one, create("/v/t", b"t", flags=5, op="createTTL", ttl=10**9))
    gone = differ.connect("gone")
    differ.step(gone, create("/v/gone", flags=1), create("/v/s-", flags=3))
    differ.last_words(gone, Request("closeSession"))
    mix = Mix(differ, rng, options, 0, WRITING)
    differ.step(one, create(mix.top))
    for _ in range(80):
        differ.step(rng.choice(pairs), *(mix.request() for _ in range(rng.choice((1, 3, 8)))))
    differ.step(two, auth("digest", b"user:secret"))
    differ.walk(two, whole_node)
    for _ in range(2):
        pairs = differ.restart(how, pairs, change)
        one, two, three = pairs
        change = None
        differ.step(two, auth("digest", b"user:secret"), get_data("/zookeeper/quota/v/zookeeper_stats"), by_path("getEphemerals", "/"))
        differ.step(one, by_path("getEphemerals", "/"))
        differ.walk(two, whole_node)
        differ.connect("late", reattach=gone)
        differ.step(one, create("/v/s-", flags=2), create("/v/c/s-", flags=3), delete("/v/e1"), set_data("/v/data", b"x", 0), exists("/v"),
                    create("/v/" + "after", acl=READ_ONLY), set_watches(differ, 3, [["/v", "/v/data"], [], ["/v"]]))
        for _ in range(30):
            differ.step(rng.choice(pairs), *(mix.request() for _ in range(rng.choice((1, 3, 8)))))
        differ.step(two, get_data("/zookeeper/quota/v/zookeeper_stats"))
    differ.end()


# -- random mixes --------------------------------------------------------------------------------------------------

class Mix:
    """Random operations over a small tree, so that they collide; several connections watch one another."""

    def __init__(self, differ, rng, options, number, weights):
        self.differ, self.rng, self.options = differ, rng, options
        self.top = f"/r{number}"
        self.weights = weights
        names = ["", "/a", "/b", "/a/x", "/a/y", "/b/x", "/a/x/deep", "/e", "/s-0000000000", "/s-0000000001", "/s-0000000002"]
        self.paths = [self.top + name for name in names]

    def path(self):
        if self.rng.random() < 0.03:
            return self.rng.choice(WEIRD_PATHS[1:40])
        return self.rng.choice(self.paths)

    def version(self):
        return self.rng.choice((-1, -1, -1, -1, 0, 0, 1, 2, 3, -2))

    def data(self):
        return self.rng.choice((None, b"", b"1", b"22", b"x" * 50))

    def acl(self):
        choice = self.rng.random()
        if choice < 0.75 or self.options.skip_acl:
            return OPEN
        return self.rng.choice((READ_ONLY, [(ALL, "auth", "")], [(ALL, "digest", digest_id("u1:p"))], [(ALL & ~READ, "world", "anyone")],
                                [(ALL, "ip", "127.0.0.1/8")], [(READ, "digest", digest_id("u2:p")), (ALL & ~READ, "world", "anyone")], []))

    def watch(self):
        return self.rng.random() < 0.4

    def sub(self):
        rng = self.rng
        kind = rng.choice(("create", "create", "create2", "delete", "delete", "setData", "setData", "check", "createContainer", "createTTL"))
        if kind in ("create", "create2"):
            flags = rng.choice((0, 0, 0, 1, 2, 3, 4))
            path = self.top + "/s-" if flags in (2, 3) else self.path()
            return sub_op(kind, path, data=self.data(), acl=self.acl(), flags=flags)
        if kind == "createContainer":
            return sub_op(kind, self.path(), flags=4)
        if kind == "createTTL":
            return sub_op(kind, self.path(), flags=5, ttl=10**9)
        return sub_op(kind, self.path(), version=self.version(), data=self.data())

    def request(self):
        rng = self.rng
        kind = rng.choices(list(self.weights), list(self.weights.values()))[0]
        if kind in ("create", "create2"):
            flags = rng.choice((0, 0, 0, 1, 1, 2, 3))
            path = rng.choice((self.top + "/s-", self.top + "/a/")) if flags in (2, 3) else self.path()
            return create(path, self.data(), self.acl(), flags, kind)
        if kind == "createContainer":
            return create(self.path(), self.data(), self.acl(), 4, kind)
        if kind == "createTTL":
            return create(self.path(), self.data(), self.acl(), 5, kind, rng.choice((10**9, 10**9, 0, TTL_MAX)))
        if kind == "delete":
            return delete(self.path(), self.version())
        if kind == "setData":
            return set_data(self.path(), self.data(), self.version())
        if kind == "setACL":
            return set_acl(self.path(), self.acl(), self.version())
        if kind in ("exists", "getData", "getChildren", "getChildren2"):
            return read(kind, self.path(), self.watch())
        if kind in ("getACL", "sync", "getAllChildrenNumber", "getEphemerals"):
            return by_path(kind, self.path() or "/")
        if kind == "ping":
            return ping()
        if kind == "whoAmI":
            return who_am_i()
        if kind == "multi":
            return multi([self.sub() for _ in range(rng.randrange(6))])
        if kind == "multiRead":
            return multi([sub_op(rng.choice(("getData", "getChildren")), self.path(), watch=self.watch()) for _ in range(rng.randrange(5))],
                         op="multiRead")
        if kind == "addWatch":
            return with_int(kind, rng.choice(self.paths), rng.choice((0, 1)))
        if kind in ("checkWatches", "removeWatches"):
            return with_int(kind, rng.choice(self.paths), rng.choice((1, 2, 3, 4, 5)))
        if kind == "setWatches":
            lists = [rng.sample(self.paths, rng.randrange(4)) for _ in range(rng.choice((3, 5)))]
            return set_watches(self.differ, rng.randrange(12), lists)
        raise AssertionError(kind)

    def run(self, steps):
        differ, rng = self.differ, self.rng
        pairs = [differ.connect(f"c{n}") for n in range(3)]
        differ.step(pairs[0], create(self.top), create(self.top + "/a"), create(self.top + "/b"))
        for _ in range(steps):
            at = rng.randrange(len(pairs))
            luck = rng.random()
            if luck < 0.02:
                pairs[at] = differ.connect(f"c{at}", reattach=pairs[at])
            elif luck < 0.03:
                differ.drop(pairs[at])
                pairs[at] = differ.connect(f"c{at}", reattach=pairs[at])
            elif luck < 0.05:
                differ.last_words(pairs[at], Request("closeSession"))
                pairs[at] = differ.connect(f"c{at}")
            elif luck < 0.07:
                differ.step(pairs[at], auth("digest", rng.choice((b"u1:p", b"u2:p"))), who_am_i())
            else:
                differ.step(pairs[at], *(self.request() for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 8)))))
        differ.end()


EVEN = {"create": 10, "create2": 5, "createContainer": 1, "createTTL": 1, "delete": 9, "setData": 8, "setACL": 3, "exists": 5, "getData": 5,
        "getChildren": 4, "getChildren2": 4, "getACL": 2, "sync": 1, "getAllChildrenNumber": 1, "getEphemerals": 2, "ping": 1, "whoAmI": 1,
        "multi": 6, "multiRead": 2, "addWatch": 2, "checkWatches": 1, "removeWatches": 2, "setWatches": 1}
WATCHFUL = {**EVEN, "exists": 12, "getData": 10, "getChildren": 10, "addWatch": 8, "removeWatches": 5, "setWatches": 6, "checkWatches": 4}
WRITING = {**EVEN, "create": 20, "delete": 15, "setData": 15, "multi": 25}

CASES = [predefined, paths_everywhere, acls_everywhere, auth_everywhere, flags_everywhere, data_everywhere, sequences, multis, watches,
         catch_up, handshakes, frames, quotas]


def run_case(differ, rng, options, case, *more):
    """One scenario from its begin; a difference that leaves nothing to compare ends it."""
    differ.begin(case.__name__, keep_going=True)
    try:
        case(differ, rng, options, *more)
    except Difference:
        pass


def run_all(differ, rng, options, mixes, steps, only=None):
    """Every case once, then `mixes` random scenarios of `steps` steps each."""
    for case in CASES:
        if not only or case.__name__ in only:
            run_case(differ, rng, options, case)
    if only and "mix" not in only:
        return
    for number in range(mixes):
        weights, name = rng.choice(((EVEN, "even"), (WATCHFUL, "watchful"), (WRITING, "writing")))
        differ.begin(f"mix {number} ({name})")
        try:
            Mix(differ, rng, options, number, weights).run(steps)
        except Difference:
            pass
