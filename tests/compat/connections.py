"""Cases about connections: watches, handshakes, damaged frames, and what ends or outlives a session."""

import jute
from differ import Request, Wire
from jute import buffer, i32, i64, ustring, vector
from mix import WRITING, Mix
from ops import (
    ALL,
    OPEN,
    READ,
    READ_ONLY,
    auth,
    by_path,
    create,
    create_body,
    delete,
    digest_id,
    exists,
    get_children,
    get_children2,
    get_data,
    multi,
    ping,
    set_acl,
    set_data,
    set_watches,
    sub_op,
    who_am_i,
    with_int,
)


def watches(differ, rng, options):
    """Each way to set a watch against each change, seen from the one who changes and from two others."""
    actor, same, other = differ.connect("actor"), differ.connect("same"), differ.connect("other")
    differ.step(actor, create("/w"))
    setters = {
        "exists": lambda p: exists(p, True),
        "getData": lambda p: get_data(p, True),
        "getChildren": lambda p: get_children(p, True),
        "getChildren2": lambda p: get_children2(p, True),
        "persistent": lambda p: with_int("addWatch", p, 0),
        "recursive": lambda p: with_int("addWatch", p, 1),
    }
    number = 0
    for name, setter in setters.items():
        for second in [None, *setters]:
            number += 1
            top = f"/w/{number}"
            differ.step(actor, create(top), create(top + "/old"))
            for pair in (actor, other):
                differ.step(
                    pair,
                    *[
                        make(path)
                        for path in (top, top + "/old", top + "/new")
                        for make in (setter, *([setters[second]] if second else []))
                    ],
                )
            for change in (
                create(top + "/new"),
                set_data(top + "/new", b"1"),
                set_data(top + "/old", b"1"),
                set_acl(top + "/old", OPEN),
                create(top + "/old/deep"),
                delete(top + "/old/deep"),
                delete(top + "/new"),
                create(top + "/new"),
                multi(
                    [
                        sub_op("setData", top),
                        sub_op("delete", top + "/new"),
                        sub_op("create", top + "/x"),
                        sub_op("delete", top + "/x"),
                    ]
                ),
                multi([sub_op("setData", top), sub_op("check", "/none")]),
                delete(top + "/old"),
                delete(top),
                create(top),
                create(top + "/old", flags=1),
            ):
                differ.step(actor, change)
            for kind in (1, 2, 4, 5, 3):
                differ.step(
                    other,
                    *(
                        with_int(op, path, kind)
                        for path in (top, top + "/old")
                        for op in ("checkWatches", "removeWatches", "checkWatches")
                    ),
                )
            differ.step(
                actor,
                set_data(top, b"2"),
                delete(top + "/old"),
                create(top + "/z"),
                with_int("removeWatches", top, 3),
                with_int("removeWatches", top + "/old", 3),
                with_int("removeWatches", top + "/new", 3),
            )
    # A recursive watch at the root and one in the middle, on one connection.
    differ.step(
        other,
        with_int("addWatch", "/", 1),
        with_int("addWatch", "/w/1", 1),
        exists("/w/1/z", True),
        get_children("/w/1", True),
    )
    differ.step(
        actor, create("/w/1/z/y"), set_data("/w/1/z", b""), delete("/w/1/z/y"), delete("/w/1/z"), create("/", flags=2)
    )
    differ.step(other, with_int("removeWatches", "/", 5), with_int("removeWatches", "/w/1", 5))
    # What a watcher may not read it does not hear about, and its watch is used up.
    differ.step(same, auth("digest", b"user:secret"))
    differ.step(actor, create("/w/acl"), create("/w/acl/n"))
    locked = [(READ, "digest", digest_id("user:secret")), (ALL & ~READ, "world", "anyone")]
    for pair in (same, other):
        differ.step(
            pair,
            get_data("/w/acl/n", True),
            get_children("/w/acl", True),
            get_children("/w/acl/n", True),
            with_int("addWatch", "/w/acl", 1),
        )
    differ.step(
        actor,
        set_acl("/w/acl/n", locked),
        set_data("/w/acl/n", b"1"),
        delete("/w/acl/n"),
        create("/w/acl/n", acl=locked),
    )
    differ.step(actor, set_acl("/w/acl", locked), set_data("/w/acl", b"1"), create("/w/acl/m"), delete("/w/acl/m"))
    differ.step(
        actor,
        set_acl("/w/acl", OPEN),
        set_acl("/w/acl/n", OPEN),
        set_data("/w/acl/n", b"2"),
        create("/w/acl/k"),
        delete("/w/acl/n"),
    )
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
    differ.step(
        actor,
        set_data("/c/old", b"1"),
        delete("/c/gone"),
        create("/c/kids/k"),
        delete("/c/again"),
        create("/c/again"),
        delete("/c/kids/k"),
        set_acl("/c/old", OPEN),
    )
    paths = ["/c/old", "/c/gone", "/c/kids", "/c/again", "/c/none", "/c", "zz", "", "/c/"]
    for back in (0, 1, 2, 3, 4, 5, 6, 7, 8, 30, 1 << 40, -5):
        for lists in (
            [paths, [], []],
            [[], paths, []],
            [[], [], paths],
            [paths] * 3,
            [[], [], []],
            [[], [], [], paths, []],
            [[], [], [], [], paths],
            [paths[:4]] * 5,
        ):
            differ.step(pair, set_watches(differ, back, lists))
            differ.step(
                pair,
                *(with_int("checkWatches", path, kind) for path in paths[:5] for kind in (1, 2, 4, 5)),
                *(with_int("removeWatches", path, 3) for path in paths),
            )
    for lists in (
        [None, [], []],
        [[], None, []],
        [[], [], None],
        [[], [], [], None, []],
        [[], [], [], [], None],
        [paths] * 3,
    ):
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
    for fields in (
        dict(read_only=None),
        dict(version=7),
        dict(version=-1),
        dict(password=None),
        dict(password=b""),
        dict(password=b"x" * 8),
        dict(password=b"y" * 100),
        dict(read_only=True),
        dict(read_only=b"\x05"),
        dict(timeout_ms=0),
        dict(timeout_ms=-1),
        dict(timeout_ms=1),
        dict(timeout_ms=1234),
        dict(timeout_ms=(1 << 31) - 1),
        dict(timeout_ms=-(1 << 31)),
        dict(read_only=b"\x00trailing"),
        dict(last_zxid=-1),
        dict(last_zxid=1),
    ):
        fields.setdefault("timeout_ms", 60000)
        pair = differ.connect("new", **fields)
        if pair.alive:
            # The shortest timeouts would expire by themselves, at a time of their own.
            differ.last_words(pair, Request("closeSession"))
    for fields in (
        dict(last_zxid=1 << 40),
        dict(last_zxid=(1 << 63) - 1),
        dict(session_id=12345, password=jute.password_of(12345)),
        dict(session_id=12345),
        dict(session_id=-1, password=b""),
        dict(session_id=1, password=None),
        dict(session_id=12345, read_only=None),
        dict(session_id=12345, password=jute.password_of(12345), read_only=None),
    ):
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
    eager = differ.connect(
        "eager", pipelined=[create("/h/g"), exists("/h/g", True), set_data("/h/g", b"1"), ping(), ping(77)]
    )
    differ.step(eager, exists("/h"))
    differ.end()
    for raw in (
        jute.i32(0),
        jute.i32(-1),
        jute.i32(1) + b"x",
        jute.i32(jute.FRAME_BYTES_MAX + 1),
        b"xxxx",
        b"GET / HTTP/1.1\r\n\r\n",
        jute.frame(b"\x00" * 24 + jute.i32(16) + b"\x00" * 15),
        jute.frame(b"\x00" * 8),
        jute.frame(b""),
        jute.frame(b"\x00" * 24 + jute.i32(-2)),
        jute.frame(b"\x00" * 24 + jute.i32(1000)),
        b"\xff\xf4\xff\xfd",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ):
        raw_connection(differ, raw)


def raw_connection(differ, raw):
    """Bytes instead of a handshake: the servers must say the same and close alike."""
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
    reads = [
        ("exists", ustring("/fr") + b"\x01"),
        ("getData", ustring("/fr") + b"\x00"),
        ("getChildren", ustring("/fr") + b"\x00"),
        ("getChildren2", ustring("/fr") + b"\x00"),
        ("getACL", ustring("/fr")),
        ("sync", ustring("/fr")),
        ("getEphemerals", ustring("/fr")),
        ("getAllChildrenNumber", ustring("/fr")),
        ("checkWatches", ustring("/fr") + i32(3)),
        ("removeWatches", ustring("/fr") + i32(3)),
        ("addWatch", ustring("/fr") + i32(0)),
        ("setWatches", i64(0) + vector(["/fr"], ustring) * 3),
        ("setWatches2", i64(0) + vector(["/fr"], ustring) * 5),
        ("multiRead", i32(4) + b"\x00" + i32(-1) + ustring("/fr") + b"\x00" + i32(-1) + b"\x01" + i32(-1)),
    ]
    for op, body in reads:
        differ.step(pair, *(Request(op, body[:cut], note=f"cut at {cut}") for cut in range(len(body))))
        differ.step(
            pair, Request(op, body + b"\x00" * 5, note="bytes too many"), Request(op, body + body, note="twice")
        )
        for value in (b"\x02", b"\xff"):
            differ.step(pair, Request(op, body[:-1] + value, note="odd last byte"))
        differ.step(
            pair,
            Request(op, i32(-2) + body[4:], note="length -2"),
            Request(op, i32(1 << 30) + body[4:], note="length 2^30"),
        )
        differ.step(pair, with_int("removeWatches", "/fr", 3))
    for count in (-5, -1, 0, 1 << 30):
        differ.step(pair, Request("setWatches", i64(0) + i32(count) * 3, note=f"counts {count}"))
    # Writes are sent whole; bytes behind them are ignored, and negative counts are empty lists.
    differ.step(
        pair,
        Request("create", create_body("create", "/fr/x", b"", OPEN, 0, 0) + b"more"),
        exists("/fr/x"),
        Request("setData", ustring("/fr/x") + buffer(b"y") + i32(-1) + b"more"),
        Request("delete", ustring("/fr/x") + i32(-1) + b"more"),
        Request("create", ustring("/fr/y") + buffer(b"") + i32(-5) + i32(0), note="acl count -5"),
        Request("setACL", ustring("/fr") + i32(-7) + i32(-1), note="acl count -7"),
        who_am_i(),
        Request("whoAmI", b"more"),
        ping(),
        ping(5),
        ping(0),
        Request("ping", b"more", xid=-2),
        Request("reconfig", ustring(None) * 3 + i64(-1)),
    )
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
            wire.send(whole[at : at + step])
        at += step
    differ.step(pair, exists("/fr"))
    for opcode in (0, -1, 10, 13, 23, 24, 50, 99, 108, 109, 1000, -2, -9, -12, -100, (1 << 31) - 1, -(1 << 31)):
        victim = differ.connect("victim")
        differ.last_words(victim, Request(opcode, ustring("/fr") + i32(-1)))
    for raw in (
        jute.i32(-1),
        jute.i32(-(1 << 31)),
        jute.i32(jute.FRAME_BYTES_MAX + 1),
        jute.i32((1 << 31) - 1),
        b"ruok",
        b"srvr",
        jute.i32(0),
        jute.frame(b"x"),
        jute.frame(b"\x00" * 7),
        jute.frame(i32(5) + b"\x00\x00\x00"),
    ):
        victim = differ.connect("victim")
        differ.last_words(victim, Request("exists", raw=raw, xid=-77))
    victim = differ.connect("victim")
    differ.last_words(victim, Request("closeSession", b"more bytes"))
    differ.end()


def lifetimes(differ, rng, options):
    """What the servers do by themselves: sessions that expire, containers and TTL nodes that go when left empty.

    Run with short checks configured. One thing ends at a time, and the next begins when both servers have told.
    """
    watcher = differ.connect("watcher")
    differ.step(
        watcher, create("/l"), with_int("addWatch", "/l", 1), get_children("/l", True), get_children("/l", True)
    )
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
        differ.step(
            watcher, create("/l/t", b"x", flags=5, op="createTTL", ttl=300), create("/l/t/kid"), exists("/l/t")
        )
        differ.step(watcher, delete("/l/t/kid"))
        differ.await_event(watcher, "/l/t", 1)
        differ.step(watcher, create("/l/s", b"x", flags=6, op="createTTL", ttl=1))
        differ.await_event(watcher, "/l/s0000000000", 1, prefix="/l/s")
        differ.step(watcher, get_children2("/l"))
    differ.end()


def enforced(differ, rng, options):
    """Authentication is demanded: everything else on a connection without an identity of the scheme is refused."""
    for request in (
        ping(),
        ping(9),
        create("/x"),
        exists("/"),
        get_data("/", True),
        by_path("sync", "/"),
        who_am_i(),
        multi([]),
        with_int("addWatch", "/", 1),
        Request("closeSession"),
        Request(99),
        Request("create", create_body("create", "/x", b"", OPEN, 7, 0)),
    ):
        differ.last_words(differ.connect("stranger"), request)
    differ.last_words(differ.connect("stranger"), auth("nope", b""))
    allowed = differ.connect("allowed")
    differ.step(
        allowed, auth("digest", b"user:secret"), create("/x"), exists("/x", True), set_data("/x", b"1"), ping()
    )
    differ.step(allowed, who_am_i(), multi([sub_op("delete", "/x")]))
    differ.end()


def whole_node(path):
    """Every way to look at one node, its children first."""
    return [
        get_children2(path),
        get_data(path),
        by_path("getACL", path),
        exists(path),
        by_path("getAllChildrenNumber", path),
        get_children(path),
    ]


def recovery(differ, rng, options, how, change=None):
    """A tree with something of everything, a restart, and the tree and the sessions again; then life goes on."""
    pairs = [differ.connect(f"c{n}") for n in range(3)]
    one, two, three = pairs
    differ.step(three, auth("digest", b"user:secret"))
    differ.step(
        one,
        create("/v"),
        create("/v/null", None),
        create("/v/empty", b""),
        create("/v/data", bytes(range(256))),
        create("/v/big", b"b" * 300000),
        create("/v/" + "日本語"),
        create("/v/c", flags=4, op="createContainer"),
        create("/v/c/kid"),
    )
    differ.step(
        one,
        *(create("/v/s-", str(n).encode(), flags=2 + n % 2) for n in range(20)),
        *(delete(f"/v/s-{n:010d}") for n in (8, 10, 12)),
    )
    differ.step(
        three,
        create("/v/acl", acl=[(ALL, "auth", "")]),
        create("/v/acl/locked", acl=[(0, "world", "anyone")]),
        create("/v/ip", acl=[(ALL, "ip", "127.0.0.1/8"), (READ, "world", "anyone")]),
        set_acl("/v/data", [(ALL, "auth", ""), (READ, "world", "anyone")]),
    )
    differ.step(
        two,
        create("/v/e1", flags=1),
        create("/v/e2", flags=1),
        set_data("/v/empty", b"1"),
        set_data("/v/empty", b"2"),
    )
    differ.step(
        one,
        multi([sub_op("create", "/v/m"), sub_op("setData", "/v/m", data=b"m"), sub_op("create2", "/v/m/e", flags=3)]),
        multi([sub_op("delete", "/v/m"), sub_op("create", "/v/n")]),
        set_data("/v/none", b""),
    )
    differ.step(
        one,
        create("/zookeeper/quota/v"),
        create("/zookeeper/quota/v/zookeeper_limits", b"count=1000,bytes=-1"),
        create("/zookeeper/quota/v/zookeeper_stats", b"count=0,bytes=0"),
    )
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
        differ.step(
            two,
            auth("digest", b"user:secret"),
            get_data("/zookeeper/quota/v/zookeeper_stats"),
            by_path("getEphemerals", "/"),
        )
        differ.step(one, by_path("getEphemerals", "/"))
        differ.walk(two, whole_node)
        differ.connect("late", reattach=gone)
        differ.step(
            one,
            create("/v/s-", flags=2),
            create("/v/c/s-", flags=3),
            delete("/v/e1"),
            set_data("/v/data", b"x", 0),
            exists("/v"),
            create("/v/" + "after", acl=READ_ONLY),
            set_watches(differ, 3, [["/v", "/v/data"], [], ["/v"]]),
        )
        for _ in range(30):
            differ.step(rng.choice(pairs), *(mix.request() for _ in range(rng.choice((1, 3, 8)))))
        differ.step(two, get_data("/zookeeper/quota/v/zookeeper_stats"))
    differ.end()
