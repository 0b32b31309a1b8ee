"""Random operations over a small tree, so that they collide, from several connections that watch one another."""

from differ import Request
from ops import (
    ALL,
    OPEN,
    READ,
    READ_ONLY,
    TTL_MAX,
    WEIRD_PATHS,
    auth,
    by_path,
    create,
    delete,
    digest_id,
    multi,
    ping,
    read,
    set_acl,
    set_data,
    set_watches,
    sub_op,
    who_am_i,
    with_int,
)


class Mix:
    """One scenario under one top node."""

    def __init__(self, differ, rng, options, number, weights):
        self.differ, self.rng, self.options = differ, rng, options
        self.top = f"/r{number}"
        self.weights = weights
        names = [
            "",
            "/a",
            "/b",
            "/a/x",
            "/a/y",
            "/b/x",
            "/a/x/deep",
            "/e",
            "/s-0000000000",
            "/s-0000000001",
            "/s-0000000002",
        ]
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
        return self.rng.choice(
            (
                READ_ONLY,
                [(ALL, "auth", "")],
                [(ALL, "digest", digest_id("u1:p"))],
                [(ALL & ~READ, "world", "anyone")],
                [(ALL, "ip", "127.0.0.1/8")],
                [(READ, "digest", digest_id("u2:p")), (ALL & ~READ, "world", "anyone")],
                [],
            )
        )

    def watch(self):
        return self.rng.random() < 0.4

    def sub(self):
        rng = self.rng
        kind = rng.choice(
            (
                "create",
                "create",
                "create2",
                "delete",
                "delete",
                "setData",
                "setData",
                "check",
                "createContainer",
                "createTTL",
            )
        )
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
            return multi(
                [
                    sub_op(rng.choice(("getData", "getChildren")), self.path(), watch=self.watch())
                    for _ in range(rng.randrange(5))
                ],
                op="multiRead",
            )
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


EVEN = {
    "create": 10,
    "create2": 5,
    "createContainer": 1,
    "createTTL": 1,
    "delete": 9,
    "setData": 8,
    "setACL": 3,
    "exists": 5,
    "getData": 5,
    "getChildren": 4,
    "getChildren2": 4,
    "getACL": 2,
    "sync": 1,
    "getAllChildrenNumber": 1,
    "getEphemerals": 2,
    "ping": 1,
    "whoAmI": 1,
    "multi": 6,
    "multiRead": 2,
    "addWatch": 2,
    "checkWatches": 1,
    "removeWatches": 2,
    "setWatches": 1,
}
WATCHFUL = {
    **EVEN,
    "exists": 12,
    "getData": 10,
    "getChildren": 10,
    "addWatch": 8,
    "removeWatches": 5,
    "setWatches": 6,
    "checkWatches": 4,
}
WRITING = {**EVEN, "create": 20, "delete": 15, "setData": 15, "multi": 25}
