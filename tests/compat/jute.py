"""The client protocol as bytes: just enough encoding and decoding for the comparison with Apache ZooKeeper.

Written on its own, from the protocol, and not from ringkeeper's code: a mistake made there is not repeated here.
Decoding is strict: every byte of a reply must be accounted for, so that an extra or a missing field is a difference.
"""

import re
import struct

# Opcodes by ZooKeeper's names.
OPCODES = {
    "notification": 0,
    "create": 1,
    "delete": 2,
    "exists": 3,
    "getData": 4,
    "setData": 5,
    "getACL": 6,
    "setACL": 7,
    "getChildren": 8,
    "sync": 9,
    "ping": 11,
    "getChildren2": 12,
    "check": 13,
    "multi": 14,
    "create2": 15,
    "reconfig": 16,
    "checkWatches": 17,
    "removeWatches": 18,
    "createContainer": 19,
    "createTTL": 21,
    "multiRead": 22,
    "auth": 100,
    "setWatches": 101,
    "sasl": 102,
    "getEphemerals": 103,
    "getAllChildrenNumber": 104,
    "setWatches2": 105,
    "addWatch": 106,
    "whoAmI": 107,
    "closeSession": -11,
}
OPNAMES = {code: name for name, code in OPCODES.items()}

XID_EVENT, XID_PING, XID_AUTH, XID_SET_WATCHES = -1, -2, -4, -8

FRAME_BYTES_MAX = 0xFFFFF


def i32(value):
    return struct.pack(">i", value)


def i64(value):
    return struct.pack(">q", value)


def boolean(value):
    return b"\x01" if value else b"\x00"


def buffer(value):
    """A byte string with its length in front, or the null one."""
    return i32(-1) if value is None else i32(len(value)) + value


def ustring(value):
    """Text, bytes that stand for text as they are (malformed UTF-8 included), or null."""
    return buffer(value.encode() if isinstance(value, str) else value)


def vector(items, encode):
    return i32(-1) if items is None else i32(len(items)) + b"".join(encode(item) for item in items)


def acl_vector(acl):
    return vector(acl, lambda entry: i32(entry[0]) + ustring(entry[1]) + ustring(entry[2]))


def frame(payload):
    return i32(len(payload)) + payload


def request(xid, opcode, body=b""):
    return frame(i32(xid) + i32(opcode) + body)


def connect_request(session_id=0, password=b"\x00" * 16, timeout_ms=60000, last_zxid=0, read_only=False, version=0):
    """`read_only=None` leaves the last byte out, as clients before 3.4 did."""
    tail = b"" if read_only is None else (read_only if isinstance(read_only, bytes) else boolean(read_only))
    return frame(i32(version) + i64(last_zxid) + i32(timeout_ms) + i64(session_id) + buffer(password) + tail)


def password_of(session_id):
    """The password ZooKeeper derives from a session id: sixteen bytes of java.util.Random."""
    state = ((session_id ^ 0xB3415C00) ^ 0x5DEECE66D) & ((1 << 48) - 1)
    out = b""
    for _ in range(4):
        state = (state * 0x5DEECE66D + 0xB) & ((1 << 48) - 1)
        out += struct.pack("<I", (state >> 16) & 0xFFFFFFFF)
    return out


class Malformed(Exception):
    """A reply that does not decode as its record."""


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if count < 0 or self.at + count > len(self.data):
            raise Malformed(f"{count} bytes wanted at {self.at} of {len(self.data)}")
        self.at += count
        return self.data[self.at - count : self.at]

    def i32(self):
        return struct.unpack(">i", self.take(4))[0]

    def i64(self):
        return struct.unpack(">q", self.take(8))[0]

    def boolean(self):
        return self.take(1)[0]

    def buffer(self):
        count = self.i32()
        if count < -1:
            raise Malformed(f"length {count}")
        return None if count == -1 else self.take(count)

    def ustring(self):
        data = self.buffer()
        if data is None:
            return None
        # Java writes each UTF-16 unit on its own; the same character must compare equal to real UTF-8.
        text = data.decode("utf-8", "surrogatepass")
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        # How many replacement characters stand for a malformed sequence is a matter of the language.
        return re.sub("\ufffd+", "\ufffd", text)

    def vector(self, item):
        count = self.i32()
        if count < -1:
            raise Malformed(f"count {count}")
        return None if count == -1 else [item() for _ in range(count)]

    def acl(self):
        return self.vector(lambda: (self.i32(), self.ustring(), self.ustring()))

    def stat(self):
        names = (
            "czxid",
            "mzxid",
            "ctime",
            "mtime",
            "version",
            "cversion",
            "aversion",
            "ephemeralOwner",
            "dataLength",
            "numChildren",
            "pzxid",
        )
        return dict(zip(names, struct.unpack(">qqqqiiiqiiq", self.take(68))))

    def end(self):
        if self.at != len(self.data):
            raise Malformed(f"{len(self.data) - self.at} bytes too many: {self.data[self.at :].hex()}")


def multi_results(reader):
    results = []
    while True:
        kind, done, err = reader.i32(), reader.boolean(), reader.i32()
        if done:
            return results + [("end", kind, err)]
        if kind == OPCODES["create"]:
            body = (reader.ustring(),)
        elif kind in (OPCODES["create2"], OPCODES["createContainer"], OPCODES["createTTL"]):
            body = (reader.ustring(), reader.stat())
        elif kind in (OPCODES["delete"], OPCODES["check"]):
            body = ()
        elif kind == OPCODES["setData"]:
            body = (reader.stat(),)
        elif kind == OPCODES["getData"]:
            body = (reader.buffer(), reader.stat())
        elif kind == OPCODES["getChildren"]:
            body = (("children", reader.vector(reader.ustring)),)
        elif kind == -1:
            body = (reader.i32(),)
        else:
            raise Malformed(f"multi result of type {kind}")
        results.append((kind, err) + body)


def body_of(opcode, reader):
    """The body of a reply without error, as a tuple. Lists whose order means nothing are marked by name."""
    name = OPNAMES.get(opcode)
    if name in ("create", "sync"):
        return (reader.ustring(),)
    if name in ("create2", "createContainer", "createTTL"):
        return (reader.ustring(), reader.stat())
    if name in ("exists", "setData", "setACL"):
        return (reader.stat(),)
    if name in ("getData", "reconfig"):
        return (reader.buffer(), reader.stat())
    if name == "getACL":
        return (("acl", reader.acl()), reader.stat())
    if name in ("getChildren", "getEphemerals"):
        return (("children", reader.vector(reader.ustring)),)
    if name == "getChildren2":
        return (("children", reader.vector(reader.ustring)), reader.stat())
    if name in ("multi", "multiRead"):
        return (multi_results(reader),)
    if name == "sasl":
        return (reader.buffer(),)
    if name == "getAllChildrenNumber":
        return (reader.i32(),)
    if name == "addWatch":
        return (reader.i32(),)
    if name == "whoAmI":
        return (("identities", reader.vector(lambda: (reader.ustring(), reader.ustring()))),)
    return ()


def decode_reply(payload, opcode_of):
    """(kind, xid, zxid, err, body). `opcode_of(xid)` tells which request a reply answers."""
    reader = Reader(payload)
    xid, zxid, err = reader.i32(), reader.i64(), reader.i32()
    if xid == XID_EVENT and opcode_of(xid) is None:
        body = (reader.i32(), reader.i32(), reader.ustring())
        reader.end()
        return ("event", xid, zxid, err, body)
    opcode = opcode_of(xid)
    body = body_of(opcode, reader) if err == 0 else ()
    reader.end()
    return ("reply", xid, zxid, err, body)


def decode_connect_response(payload):
    reader = Reader(payload)
    out = {
        "version": reader.i32(),
        "timeout_ms": reader.i32(),
        "session_id": reader.i64(),
        "password": reader.buffer(),
    }
    out["read_only"] = reader.boolean() if reader.at < len(payload) else None
    reader.end()
    return out
