"""Cases about nodes: every opcode with every odd path, list, flag, version and quota."""

import jute
from differ import Request
from jute import acl_vector, buffer, i32, i64, ustring
from ops import (
    ADMIN,
    ALL,
    CREATE,
    DELETE,
    OPEN,
    READ,
    READ_ONLY,
    SUPER_PASSWORD,
    TTL_MAX,
    WEIRD_PATHS,
    WRITE,
    auth,
    batches,
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
    read,
    set_acl,
    set_data,
    several,
    sub_op,
    who_am_i,
    with_int,
)


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
        differ.step(
            pair,
            multi([sub_op("check", path)]),
            multi([sub_op("setData", path)]),
            multi([sub_op("create", path), sub_op("delete", path)]),
            multi([sub_op("getData", path), sub_op("getChildren", path)], op="multiRead"),
        )
    for kind in (0, 1, 2, 3, 4, 5, 6, -1):
        for batch in batches(WEIRD_PATHS[1:30], 10):
            differ.step(pair, *(with_int("checkWatches", path, kind) for path in batch))
            differ.step(pair, *(with_int("removeWatches", path, kind) for path in batch))
    for mode in (0, 1, 2, -1):
        for batch in batches(
            [path for path in WEIRD_PATHS if path not in (None, b"/") and not is_malformed(path)], 10
        ):
            differ.step(pair, *(with_int("addWatch", path, mode) for path in batch))
            differ.step(pair, *(with_int("removeWatches", path, 3) for path in batch))
    differ.end()


WEIRD_ACLS = [
    None,
    [],
    OPEN,
    [(0, "world", "anyone")],
    [(99, "world", "anyone")],
    [(-1, "world", "anyone")],
    [(31, "world", "x")],
    [(31, "world", "")],
    [(31, "world", "Anyone")],
    [(31, None, "anyone")],
    [(31, "", "")],
    [(31, "World", "anyone")],
    [(31, "auth", "")],
    [(31, "auth", None)],
    [(1, "auth", "ignored")],
    [(31, "auth", ""), (1, "world", "anyone")],
    [(31, "digest", "a:b")],
    [(31, "digest", "a:")],
    [(31, "digest", "a")],
    [(31, "digest", "a:b:c")],
    [(31, "digest", ":b")],
    [(31, "digest", "")],
    [(31, "digest", ":")],
    [(31, "digest", "a::")],
    [(31, "digest", "a:b:")],
    [(31, "digest", "u:é")],
    [(31, "digest", digest_id("user:secret"))],
    [(1, "digest", digest_id("user:secret")), (1, "digest", "a:b")],
    [(31, "ip", "127.0.0.1")],
    [(31, "ip", "127.0.0.1/8")],
    [(31, "ip", "127.0.0.1/0")],
    [(31, "ip", "127.0.0.1/32")],
    [(31, "ip", "127.0.0.1/33")],
    [(31, "ip", "127.0.0.1/-1")],
    [(31, "ip", "127.0.0.1/")],
    [(31, "ip", "127.0.0.1/x")],
    [(31, "ip", "127.0.0.1/8/8")],
    [(31, "ip", "10.0.0.0/8")],
    [(31, "ip", "126.0.0.0/7")],
    [(31, "ip", "127.0.0.2/31")],
    [(31, "ip", "127.0.0.0/31")],
    [(31, "ip", "1.2.3")],
    [(31, "ip", "1.2.3.4.5")],
    [(31, "ip", "1.2.3.4.")],
    [(31, "ip", "01.02.03.004")],
    [(31, "ip", "256.1.1.1")],
    [(31, "ip", "-1.1.1.1")],
    [(31, "ip", "+1.2.3.4")],
    [(31, "ip", " 1.2.3.4")],
    [(31, "ip", "1.2..4")],
    [(31, "ip", "a.b.c.d")],
    [(31, "ip", "localhost")],
    [(31, "ip", "")],
    [(31, "ip", "/8")],
    [(31, "ip", "::1")],
    [(31, "ip", "::")],
    [(31, "ip", "1::2/64")],
    [(31, "ip", "::1/128")],
    [(31, "ip", "::1/129")],
    [(31, "ip", "::1/-1")],
    [(31, "ip", "fe80::1%lo")],
    [(31, "ip", "1:2:3:4:5:6:7:8")],
    [(31, "ip", "1:2:3:4:5:6:7")],
    [(31, "ip", "1:2:3:4:5:6:7:8:9")],
    [(31, "ip", "1::2::3")],
    [(31, "ip", "12345::")],
    [(31, "ip", "g::")],
    [(31, "ip", "::ffff:127.0.0.1")],
    [(31, "ip", "1:2:3:4:5:6:7::")],
    [(31, "ip", ":")],
    [(31, "sasl", "bob")],
    [(31, "x509", "CN=x")],
    [(31, "super", "")],
    [(31, "super", "x")],
    [(31, "key", "x")],
    [(31, "nope", "x")],
    OPEN + OPEN,
    [(1, "world", "anyone"), (2, "world", "anyone"), (1, "world", "anyone")],
    [(31, "digest", "a:b"), (31, "digest", "c:d"), (31, "ip", "127.0.0.1"), (31, "digest", "a:b")],
    [(31, "world", "anyone"), (31, "nope", "x")],
    [(31, "world", None)],
    [(31, "digest", None)],
    [(31, "ip", None)],
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
            differ.step(
                plain,
                by_path("getACL", path),
                get_data(path),
                exists(path),
                set_data(path, b"y"),
                get_children2(path),
                create(path + "/c"),
                set_acl(path, READ_ONLY),
            )
            differ.step(
                authed,
                by_path("getACL", path),
                get_data(path),
                delete(path + "/c"),
                set_acl(path, OPEN),
                by_path("getAllChildrenNumber", path),
            )
            target = f"/acl/s{number}"
            differ.step(
                pair,
                create(target),
                set_acl(target, acl),
                by_path("getACL", target),
                set_acl(target, OPEN, 0),
                set_acl(target, OPEN, 1),
                set_acl(target, OPEN, -2),
                exists(target),
            )
            # Another order of faults: a bad ACL, a missing parent, an existing node.
            differ.step(
                pair,
                create("/none/x", acl=acl),
                create("/acl", acl=acl),
                set_acl("/none", acl),
                create("/acl/" + "é", acl=acl, op="create2"),
                delete("/acl/é"),
                set_acl("/acl/", acl),
            )
    # One bit of permission at a time, on the node and on its parent.
    for perms in (0, READ, WRITE, CREATE, DELETE, ADMIN, READ | ADMIN, ALL & ~READ, ALL & ~ADMIN):
        path = f"/acl/p{perms}"
        mine = [(perms, "digest", digest_id("user:secret"))]
        differ.step(plain, create(path), create(path + "/kid"), set_acl(path, mine))
        for pair in (plain, authed):
            differ.step(
                pair,
                exists(path),
                get_data(path),
                get_children(path),
                get_children2(path),
                by_path("getACL", path),
                by_path("getAllChildrenNumber", path),
                by_path("sync", path),
            )
            differ.step(
                pair,
                set_data(path, b"1"),
                set_data(path, b"1", 7),
                create(path + "/new"),
                create(path + "/kid"),
                create(path + "/bad\x01"),
                create(path + "/kid/sub"),
            )
            differ.step(
                pair,
                delete(path + "/new"),
                delete(path + "/none"),
                delete(path + "/kid", 5),
                delete(path + "/kid"),
                multi([sub_op("check", path)]),
                multi([sub_op("check", path, version=4)]),
                multi([sub_op("getData", path), sub_op("getChildren", path)], op="multiRead"),
            )
            differ.step(pair, set_acl(path, mine, 9), set_acl(path, mine))
    differ.end()


def auth_everywhere(differ, rng, options):
    fine = [
        ("digest", b"u:p"),
        ("digest", b"u"),
        ("digest", b""),
        ("digest", b":"),
        ("digest", b"u:p:q"),
        ("digest", b"u:p"),
        ("digest", "ü:ä".encode()),
        ("digest", b"\xff:\xfe"),
        ("ip", b""),
        ("ip", b"1.2.3.4"),
        ("digest", SUPER_PASSWORD.encode()),
        ("digest", b"super:wrong"),
    ]
    pair, other = differ.connect("c1"), differ.connect("c2")
    differ.step(
        pair,
        create("/auth"),
        create("/auth/locked", acl=[(ALL, "digest", digest_id("u:p"))]),
        create("/auth/none", acl=[(0, "world", "anyone")]),
    )
    for scheme, data in fine:
        differ.step(pair, auth(scheme, data), who_am_i(), get_data("/auth/locked"), get_data("/auth/none"))
        differ.step(pair, create("/auth/a", acl=[(ALL, "auth", "")]), by_path("getACL", "/auth/a"), delete("/auth/a"))
        differ.step(
            pair, set_acl("/auth/none", [(READ, "auth", "")]), set_acl("/auth/none", [(0, "world", "anyone")])
        )
    differ.step(other, auth("digest", b"v:w", kind=7, xid=5), who_am_i())
    differ.step(other, auth("digest", b"v:x", xid=0), auth("digest", b"v:y", xid=-4), who_am_i())
    for scheme, data in [
        ("digest", None),
        ("nope", b""),
        ("world", b""),
        ("world", b"anyone"),
        ("auth", b""),
        ("sasl", b"x"),
        ("super", b""),
        ("x509", b""),
        ("", b""),
        (None, b""),
        ("ip", None),
        ("key", b"x"),
    ]:
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
                        differ.step(
                            pair, request, exists(f"{parent}/n"), get_children2(parent), by_path("getEphemerals", "/")
                        )
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
        differ.step(
            pair,
            create(path, data, op="create2"),
            get_data(path),
            exists(path),
            set_data(path, None),
            get_data(path),
            set_data(path, data, 1),
            get_data(path),
            set_data(path, b"zz", 1),
            set_data(path, b"zz", -2),
        )
        differ.step(
            pair,
            multi([sub_op("setData", path, data=data), sub_op("check", path, version=3)]),
            multi([sub_op("getData", path), sub_op("getData", "/d/none")], op="multiRead"),
        )
    for version in (-(1 << 31), -2, 0, 1, 5, (1 << 31) - 1, -1):
        differ.step(
            pair,
            create("/d/v"),
            set_data("/d/v", b"", version),
            set_acl("/d/v", OPEN, version),
            delete("/d/v", version),
            exists("/d/v"),
        )
    # The largest frame, and a batch of large ones.
    head = len(jute.request(1, 1, create_body("create", "/d/big", b"", OPEN, 0, 0))) - 4
    differ.step(pair, create("/d/big", b"b" * (jute.FRAME_BYTES_MAX - head)), exists("/d/big"))
    differ.step(pair, get_data("/d/big"), delete("/d/big"))
    differ.step(
        pair, *(create(f"/d/l{n}", bytes([n]) * 200000) for n in range(8)), *(get_data(f"/d/l{n}") for n in range(8))
    )
    # Many children, many requests in one write.
    differ.step(pair, create("/d/many"))
    differ.step(pair, *(create("/d/many/s-", flags=2 + n % 2) for n in range(300)))
    differ.step(
        pair,
        get_children2("/d/many"),
        by_path("getEphemerals", "/d/many/s-00000001"),
        by_path("getEphemerals", None),
        by_path("getEphemerals", " "),
        by_path("getEphemerals", " / "),
        *(
            by_path("getEphemerals", blank + "/" + blank)
            for blank in ("\0", "\x01\x1f\t\n", "\x7f", "\u0085", "\u00a0", "\u2003")
        ),
        *(by_path("getEphemerals", blank) for blank in ("\0", "\x1f ", "\x7f", "\u0085", "\u00a0", "\u2003")),
        by_path("getAllChildrenNumber", "/d"),
        by_path("getAllChildrenNumber", "/"),
    )
    differ.step(
        pair,
        *(
            r
            for n in range(60)
            for r in (set_data("/d/0", str(n).encode()), get_data("/d/0"), ping(), exists("/d/0"))
        ),
    )
    differ.end()


def sequences(differ, rng, options):
    pair = differ.connect("c1")
    differ.step(pair, create("/q"))
    differ.step(
        pair,
        create("/q/", flags=2),
        create("/q/a", flags=2),
        create("/q/a0000000003"),
        create("/q/a", flags=2),
        create("/q/a", flags=2),
        create("/q/b"),
        create("/q/a", flags=2),
        delete("/q/b"),
        create("/q/a", flags=3),
    )
    differ.step(
        pair,
        create("/", flags=2),
        create("", flags=2),
        create("/q", flags=2),
        create("/q//", flags=2),
        create("/q/.", flags=2),
        create("/q/..", flags=2),
        create("/none/", flags=2),
        create("/q/\x00", flags=2),
    )
    # A failed multi gives its numbers back; a failed create never took one.
    differ.step(
        pair,
        multi([sub_op("create", "/q/m", flags=2), sub_op("create", "/q/m", flags=2), sub_op("check", "/none")]),
        multi(
            [
                sub_op("create", "/q/m", flags=2),
                sub_op("create2", "/q/m", flags=2),
                sub_op("delete", "/q/b"),
            ]
        ),
        create("/q/m", flags=2),
        create("/q/m", flags=2, acl=[]),
        create("/q/m", flags=2),
        get_children2("/q"),
    )
    differ.step(
        pair,
        create("/q/0", flags=2),
        multi(
            [
                sub_op("create", "/q/x"),
                sub_op("delete", "/q/x"),
                sub_op("create", "/q/x"),
                sub_op("setData", "/q/x", version=0),
                sub_op("check", "/q/x", version=1),
                sub_op("create", "/q/x/y", flags=2),
                sub_op("create2", "/q/x/y", flags=3),
            ]
        ),
        get_children2("/q/x"),
        exists("/q"),
    )
    differ.end()


def multis(differ, rng, options):
    pair = differ.connect("c1")
    differ.step(pair, create("/m"), create("/m/a", b"1"), create("/m/b", b"2"), create("/m/e", flags=1))
    fine = [
        sub_op("create", "/m/n"),
        sub_op("create2", "/m/n2"),
        sub_op("delete", "/m/n"),
        sub_op("setData", "/m/a", data=b"x"),
        sub_op("check", "/m/a"),
        sub_op("createContainer", "/m/c", flags=4),
        sub_op("delete", "/m/c"),
        sub_op("delete", "/m/n2"),
    ]
    bad = [
        sub_op("create", "/m/a"),
        sub_op("create", "/none/x"),
        sub_op("create", "bad"),
        sub_op("create", "/m/e/x"),
        sub_op("create", "/m/x", acl=[]),
        sub_op("create", "/m/x", acl=[(31, "nope", "")]),
        sub_op("delete", "/none"),
        sub_op("delete", "/"),
        sub_op("delete", "/m"),
        sub_op("delete", "/m/a", version=99),
        sub_op("setData", "/none"),
        sub_op("setData", "/m/a", version=99),
        sub_op("setData", "/m/"),
        sub_op("check", "/none"),
        sub_op("check", "/m/a", version=99),
        sub_op("check", ""),
        sub_op("createTTL", "/m/t", flags=5, ttl=-5),
        sub_op("createTTL", "/m/t", flags=5, ttl=100000),
        sub_op("createTTL", "/m/t", flags=0, ttl=-5),
        sub_op("delete", "/m/t"),
    ]
    differ.step(pair, multi([]), multi([], op="multiRead"))
    for op in fine + bad:
        differ.step(pair, multi([op]), exists("/m"), get_children("/m"))
    differ.step(pair, multi(fine), get_children2("/m"), exists("/m/a"))
    for at in range(len(fine) + 1):
        for op in rng.sample(bad, 4):
            differ.step(pair, multi(fine[:at] + [op] + fine[at:]), get_children2("/m"), exists("/m/a"))
    differ.step(pair, multi(fine + fine + fine), get_children2("/m"))
    reads = [
        sub_op("getData", "/m/a"),
        sub_op("getChildren", "/m"),
        sub_op("getData", "/none"),
        sub_op("getChildren", "/none"),
        sub_op("getData", "", watch=True),
        sub_op("getChildren", "/m/a", watch=True),
        sub_op("getData", "/zookeeper/config"),
    ]
    differ.step(pair, multi(reads, op="multiRead"), multi(reads * 20, op="multiRead"))
    differ.step(pair, set_data("/m/a", b"no watch was set"), create("/m/a/kid"))
    # Undecodable ones: the answer is compared, the zxid is not.
    for ops in (
        [reads[0]],
        [fine[0], reads[0]],
        [reads[0], fine[0]],
        [sub_op(9, "", body=ustring("/"))],
        [sub_op(14, "", body=b"")],
        [sub_op(3, "", body=ustring("/m") + b"\x00")],
        [sub_op(0, "")],
        [sub_op(-1, "", body=i32(0))],
        [sub_op(99, "")],
        [sub_op(7, "", body=ustring("/m") + acl_vector(OPEN) + i32(-1))],
    ):
        differ.step_loose(pair, multi(ops), exists("/m/n"))
    differ.step_loose(pair, multi(fine, end=False), exists("/m/n"))
    differ.step_loose(pair, multi([], end=False), exists("/m/n"))
    differ.step(pair, multi(reads, op="multiRead", end=False), multi([], op="multiRead", end=False))
    differ.step(pair, multi([sub_op(9, "", body=ustring("/"))], op="multiRead"))
    differ.end()


def quotas(differ, rng, options):
    pair, watcher = differ.connect("c1"), differ.connect("c2")
    limits = "count=5,bytes=20=;byteHardLimit=30;countHardLimit=6"
    quota = "/zookeeper/quota/qa"
    differ.step(
        pair,
        create("/qa", b"12345"),
        create("/qa/b", b"678"),
        create(quota),
        create(quota + "/zookeeper_limits", limits.encode()),
    )
    differ.step(
        pair,
        create(quota + "/zookeeper_stats", b"count=0,bytes=0"),
        get_data(quota + "/zookeeper_stats"),
        get_data(quota + "/zookeeper_limits"),
    )
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
            change = multi(
                [
                    sub_op("create", path + "m", data=rng.choice(sizes)),
                    sub_op("setData", path, data=rng.choice(sizes)),
                    sub_op("delete", path + "m"),
                ]
            )
        differ.step(pair, change)
        differ.step(pair, get_data(quota + "/zookeeper_stats"))
        if rng.random() < 0.1:
            text = f"count={rng.choice((-1, 3, 10))},bytes={rng.choice((-1, 5, 100))}"
            if rng.random() < 0.6:
                text += f"=;byteHardLimit={rng.choice((-1, 10, 50))};countHardLimit={rng.choice((-1, 2, 8))}"
            differ.step(pair, set_data(quota + "/zookeeper_limits", text.encode()))
    # A deeper quota takes over from the one above; without limits nothing is counted.
    differ.step(
        pair,
        create("/qa/b", b"1"),
        create("/zookeeper/quota/qa/b"),
        create("/zookeeper/quota/qa/b/zookeeper_limits", b"count=-1,bytes=-1"),
        create("/zookeeper/quota/qa/b/zookeeper_stats", b"count=0,bytes=0"),
    )
    differ.step(pair, create("/qa/b/x", b"22"), get_data(quota + "/zookeeper_stats"))
    differ.step(
        pair, get_data("/zookeeper/quota/qa/b/zookeeper_stats"), delete("/zookeeper/quota/qa/b/zookeeper_limits")
    )
    differ.step(pair, create("/qa/b/y", b"333"))
    differ.step(pair, get_data("/zookeeper/quota/qa/b/zookeeper_stats"), get_data(quota + "/zookeeper_stats"))
    differ.step(
        pair,
        delete("/zookeeper/quota/qa/b/zookeeper_stats"),
        delete("/zookeeper/quota/qa/b"),
        delete(quota + "/zookeeper_limits"),
    )
    differ.step(pair, create("/qa/w", b"w"), get_data(quota + "/zookeeper_stats"))
    differ.step(pair, create(quota + "/zookeeper_limits", b"count=-1,bytes=-1"), create("/qa/z", b"w"))
    differ.step(
        pair,
        get_data(quota + "/zookeeper_stats"),
        delete(quota + "/zookeeper_stats"),
        create(quota + "/zookeeper_stats", b"count=9,bytes=9"),
    )
    differ.step(
        pair,
        get_data(quota + "/zookeeper_stats"),
        delete(quota + "/zookeeper_limits"),
        delete(quota + "/zookeeper_stats"),
        delete(quota),
    )
    differ.end()


def predefined(differ, rng, options):
    """The first thing on a fresh server: what is there before anyone wrote."""
    pair = differ.connect("c1")
    for path in ("/", "", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"):
        differ.step(
            pair,
            exists(path),
            get_data(path),
            get_children2(path),
            by_path("getACL", path),
            by_path("getAllChildrenNumber", path or "/"),
        )
        differ.step(
            pair, delete(path), delete(path, 0), set_data(path, b"x", 5), set_acl(path, OPEN, 7), create(path)
        )
    for path in ("/zookeeper", "/zookeeper/quota", "/"):
        differ.step(
            pair,
            set_data(path, b"x"),
            get_data(path),
            set_data(path, b""),
            create(path.rstrip("/") + "/mine"),
            delete(path.rstrip("/") + "/mine"),
            set_acl(path, OPEN),
            get_data(path),
        )
    differ.step(
        pair,
        set_data("/zookeeper/config", b"x"),
        set_acl("/zookeeper/config", OPEN),
        create("/zookeeper/config/x"),
        get_data("/zookeeper/config"),
        Request("reconfig", ustring("server.1=a:1:2;3") + ustring(None) * 2 + i64(-1)),
        Request("reconfig", ustring("") * 3 + i64(5)),
    )
    if options.superuser:
        differ.step(
            pair,
            auth("digest", SUPER_PASSWORD.encode()),
            who_am_i(),
            delete("/zookeeper/config"),
            delete("/zookeeper"),
            set_acl("/zookeeper/config", [(READ | ADMIN, "world", "anyone")]),
            create("/zookeeper/config/x"),
            delete("/zookeeper/config/x"),
            set_acl("/zookeeper/config", READ_ONLY),
            get_data("/zookeeper/config"),
        )
    differ.end()
