"""Builders of requests, valid and not, and the guard on what is never sent to Apache ZooKeeper.

Some requests make that release harm itself (upstream faults 14.1 to 14.9 of the protocol notes). The builders refuse
to make those (`Excluded`), whatever a generator draws; faults.py sends them to ringkeeper alone. Faults 14.10 to
14.14 are not a matter of single requests.
"""

import base64
import hashlib

import jute
from differ import Request
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
    return Request(
        op or ("setWatches" if len(lists) == 3 else "setWatches2"),
        lambda index, pair: i64(max(0, sides[index].native_zxid(zxid))) + tail,
        note=f"back {zxid_back} {lists!r}",
    )


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
    return Request(
        op,
        body + (i32(-1) + b"\x01" + i32(-1) if end else b""),
        note=f"of {[jute.OPNAMES.get(code, code) for code, _ in ops]}",
    )


def batches(requests, size):
    requests = list(requests)
    for start in range(0, len(requests), size):
        yield requests[start : start + size]


def several(*makers):
    """Calls each maker and leaves out what may not be sent."""
    out = []
    for maker in makers:
        try:
            out.append(maker())
        except Excluded:
            pass
    return out


WEIRD_PATHS = [
    None,
    b"",
    b"/",
    b"a",
    b"zzz",
    b"a/b",
    b"//",
    b"///",
    b"/p/",
    b"/p//",
    b"/p//q",
    b"//p",
    b"/.",
    b"/..",
    b"/p/.",
    b"/p/..",
    b"/p/../q",
    b"/p/./q",
    b"/...",
    b"/.x",
    b"/x.",
    b"/..x",
    b"/p\x00q",
    b"\x00",
    b"/\x00",
    b"/\x01",
    b"/\x1f",
    b"/ ",
    b"/a b",
    b"/\x7e",
    b"/\x7f",
    "/\x80",
    "/\x9f",
    "/\xa0",
    "/é",
    "/日本",
    "/\ud7ff",
    "/\ue000",
    "/\uf8ff",
    "/\uf900",
    "/\uffef",
    "/\ufff0",
    "/\ufffc",
    "/\ufffd",
    "/\uffff",
    "/\u2028",
    "/😀",
    b"/\xff",
    b"/\xc3",
    b"/\xc3(",
    b"/\xe2\x82",
    b"/\xe2\x82(",
    b"/\xf0\x9f\x98",
    b"/\xc0\x80",
    b"/\xc1\xbf",
    b"/\xe0\x80\x80",
    b"/\xed\xa0\x80",
    b"/\xed\xa0\xbd\xed\xb8\x80",
    b"/\xf4\x90\x80\x80",
    b"/\xf8\x88\x80\x80\x80",
    b"\xff/p",
    b"/%20",
    b"/\\",
    b"/p\\q",
    b"/*",
    b"/'",
    b'/"',
    b"/p/q/r/s",
    b"/p",
    b"/p/q",
    b"/zookeeper",
    b"/zookeeper/",
    b"/zookeeper/quota",
    b"/zookeeper/config",
    b"/zookeeper/x",
    b"/zookeeper/config/x",
    b"/zookeeper/quota/x",
    b"/zookeeperx",
    b"zookeeper",
    b"/" + b"n" * 5000,
    b"/p" * 300,
]
