"""kazoo's client and every recipe of it, against one server.

Called with the server's address. `@restart` on standard output asks whoever started this to restart the server and
to answer with one line.
"""

import queue
import socket
import sys
import threading
import time
import traceback
import uuid

from kazoo.client import KazooClient, KazooState, TransactionRequest
from kazoo.exceptions import (
    AuthFailedError,
    BadArgumentsError,
    BadVersionError,
    CancelledError,
    InvalidACLError,
    LockTimeout,
    NoAuthError,
    NoChildrenForEphemeralsError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.protocol.states import EventType
from kazoo.recipe.cache import TreeCache, TreeEvent
from kazoo.recipe.partitioner import PartitionState
from kazoo.retry import KazooRetry
from kazoo.security import ACL, CREATOR_ALL_ACL, OPEN_ACL_UNSAFE, Permissions, make_acl, make_digest_acl

WAIT = 20.0
HOSTS = sys.argv[1]
TESTS = []
CLIENTS = []


def test(function):
    TESTS.append(function)
    return function


def client(**options):
    options.setdefault("timeout", 10.0)
    zk = KazooClient(hosts=options.pop("hosts", HOSTS), **options)
    zk.start(timeout=WAIT)
    CLIENTS.append(zk)
    return zk


def fresh(zk):
    path = f"/kazoo-{uuid.uuid4().hex[:10]}"
    zk.ensure_path(path)
    return path


def eventually(condition, what):
    """Waits until `condition` holds; it is asked again whenever a little time has passed, up to a deadline."""
    deadline = time.monotonic() + WAIT
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        tick.wait(0.01)


def raises(error, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except error as caught:
        return caught
    raise AssertionError(f"{error} expected")


def spawn(function, *arguments):
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def joined(*threads):
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive(), "a thread is stuck"


def vanish(zk):
    """The client goes away without closing its session, as in a crash."""
    zk._stopped.set()
    zk._connection._socket.shutdown(socket.SHUT_RDWR)
    assert zk._connection.connection_stopped.wait(WAIT)


def ask_restart(how="@restart"):
    print(how, flush=True)
    assert sys.stdin.readline(), "nobody restarts the server"


# -- plain calls ---------------------------------------------------------------------------------------------------


@test
def create_get_set_delete():
    zk = client()
    top = fresh(zk)
    assert zk.create(top + "/a", b"one") == top + "/a"
    data, stat = zk.get(top + "/a")
    assert data == b"one" and stat.version == 0 and stat.dataLength == 3 and stat.numChildren == 0
    assert stat.czxid == stat.mzxid == stat.pzxid > 0 and abs(stat.created - time.time()) < 60
    assert zk.set(top + "/a", b"two", version=0).version == 1
    raises(BadVersionError, zk.set, top + "/a", b"x", 0)
    raises(NodeExistsError, zk.create, top + "/a")
    raises(NoNodeError, zk.create, top + "/none/x")
    raises(NoNodeError, zk.get, top + "/none")
    raises(BadVersionError, zk.delete, top + "/a", 5)
    zk.create(top + "/a/kid")
    raises(NotEmptyError, zk.delete, top + "/a")
    assert zk.get_children(top) == ["a"]
    children, stat = zk.get_children(top + "/a", include_data=True)
    assert children == ["kid"] and stat.numChildren == 1 and stat.cversion == 1
    zk.delete(top, recursive=True)
    assert zk.exists(top) is None


@test
def create_variants():
    zk = client()
    top = fresh(zk)
    assert zk.create(top + "/a/b/c", b"x", makepath=True) == top + "/a/b/c"
    path, stat = zk.create(top + "/s", b"abc", include_data=True)
    assert path == top + "/s" and stat.dataLength == 3
    names = [zk.create(top + "/seq-", sequence=True) for _ in range(3)]
    assert names == [f"{top}/seq-{n:010d}" for n in (2, 3, 4)]
    assert zk.create(top + "/e-", ephemeral=True, sequence=True) == top + "/e-0000000005"
    _, stat = zk.get(top + "/e-0000000005")
    assert stat.ephemeralOwner == zk.client_id[0] and stat.owner_session_id == zk.client_id[0]
    raises(NoChildrenForEphemeralsError, zk.create, top + "/e-0000000005/kid")
    assert zk.ensure_path(top + "/p/q") and zk.exists(top + "/p/q")


@test
def empty_and_large_data():
    zk = client()
    top = fresh(zk)
    zk.create(top + "/empty", b"")
    assert zk.get(top + "/empty")[0] == b""
    zk.set(top + "/empty", None)
    assert zk.get(top + "/empty")[0] in (None, b"")
    blob = bytes(range(256)) * 3900
    zk.create(top + "/blob", blob)
    assert zk.get(top + "/blob")[0] == blob


@test
def unicode_paths():
    zk = client()
    top = fresh(zk)
    for name in ("ünïcödé", "日本語", "кириллица", "a b", "ῆ", "%20"):
        path = f"{top}/{name}"
        assert zk.create(path, name.encode()) == path
        assert zk.get(path)[0] == name.encode()
        assert name in zk.get_children(top)
    assert zk.create(f"{top}/ü-", sequence=True) == f"{top}/ü-0000000006"
    raises(BadArgumentsError, zk.create, top + "/bad\x01name")


@test
def asynchronous_calls():
    zk = client()
    top = fresh(zk)
    created = [zk.create_async(f"{top}/{n}", str(n).encode()) for n in range(200)]
    assert [c.get(timeout=WAIT) for c in created] == [f"{top}/{n}" for n in range(200)]
    read = [zk.get_async(f"{top}/{n}") for n in range(200)]
    assert [r.get(timeout=WAIT)[0] for r in read] == [str(n).encode() for n in range(200)]
    seen = queue.Queue()
    zk.exists_async(top).rawlink(seen.put)
    assert seen.get(timeout=WAIT).get().numChildren == 200
    missing = zk.get_async(top + "/none")
    raises(NoNodeError, missing.get, timeout=WAIT)
    assert zk.sync(top) == top
    deleted = [zk.delete_async(f"{top}/{n}") for n in range(200)]
    assert all(d.get(timeout=WAIT) for d in deleted)


@test
def chroot():
    zk = client()
    top = fresh(zk)
    inner = client(hosts=HOSTS + top)
    assert inner.create("/a", b"in") == "/a" and zk.get(top + "/a")[0] == b"in"
    assert inner.create("/s-", sequence=True) == "/s-0000000001"
    assert sorted(inner.get_children("/")) == ["a", "s-0000000001"]
    result = inner.transaction()
    result.create("/t")
    assert result.commit() == ["/t"]


@test
def watches():
    zk = client()
    other = client()
    top = fresh(zk)
    events = queue.Queue()
    assert zk.exists(top + "/n", watch=events.put) is None
    other.create(top + "/n", b"1")
    event = events.get(timeout=WAIT)
    assert event.type == EventType.CREATED and event.path == top + "/n" and event.state == "CONNECTED"
    zk.get(top + "/n", watch=events.put)
    other.set(top + "/n", b"2")
    assert events.get(timeout=WAIT).type == EventType.CHANGED
    zk.get_children(top, watch=events.put)
    other.create(top + "/m")
    event = events.get(timeout=WAIT)
    assert event.type == EventType.CHILD and event.path == top
    zk.get(top + "/n", watch=events.put)
    zk.get_children(top, watch=events.put)
    other.delete(top + "/n")
    assert {(e.type, e.path) for e in (events.get(timeout=WAIT), events.get(timeout=WAIT))} == {
        (EventType.DELETED, top + "/n"),
        (EventType.CHILD, top),
    }
    assert events.empty()


@test
def transactions():
    zk = client()
    top = fresh(zk)
    zk.create(top + "/v", b"0")
    request = zk.transaction()
    request.create(top + "/a", b"x")
    request.create(top + "/s-", sequence=True)
    request.create(top + "/e", ephemeral=True)
    request.set_data(top + "/v", b"1", 0)
    request.check(top + "/v", 1)
    request.delete(top + "/a")
    results = request.commit()
    assert results[0] == top + "/a" and results[1] == top + "/s-0000000002" and results[2] == top + "/e"
    assert results[3].version == 1 and results[4] is True and results[5] is True, results
    request = zk.transaction()
    request.create(top + "/b")
    request.check(top + "/v", 77)
    request.delete(top + "/v")
    results = request.commit()
    assert [type(r) for r in results] == [RolledBackError, BadVersionError, RuntimeInconsistency]
    assert zk.exists(top + "/b") is None and zk.exists(top + "/v")
    with zk.transaction() as block:
        block.create(top + "/c", b"in a block")
    assert zk.get(top + "/c")[0] == b"in a block"
    assert TransactionRequest(zk).commit() == []


@test
def acls():
    top = fresh(client())
    owner = client()
    owner.add_auth("digest", "user:secret")
    stranger = client()
    owner.create(top + "/mine", b"x", acl=CREATOR_ALL_ACL)
    acl, stat = owner.get_acls(top + "/mine")
    assert acl == [make_digest_acl("user", "secret", all=True)] and stat.aversion == 0
    raises(NoAuthError, stranger.get, top + "/mine")
    raises(NoAuthError, stranger.set, top + "/mine", b"y")
    raises(NoAuthError, stranger.set_acls, top + "/mine", OPEN_ACL_UNSAFE)
    assert owner.get(top + "/mine")[0] == b"x"
    assert (
        owner.set_acls(
            top + "/mine", [make_digest_acl("user", "secret", all=True), make_acl("world", "anyone", read=True)]
        ).aversion
        == 1
    )
    assert stranger.get(top + "/mine")[0] == b"x"
    shown = stranger.get_acls(top + "/mine")[0]
    assert {a.id.id for a in shown} == {"user:x", "anyone"}, shown
    raises(BadVersionError, owner.set_acls, top + "/mine", OPEN_ACL_UNSAFE, 0)
    raises(InvalidACLError, stranger.create, top + "/bad", b"", CREATOR_ALL_ACL)
    raises(InvalidACLError, stranger.create, top + "/bad", b"", [make_acl("nope", "x", all=True)])
    local = [make_acl("ip", "127.0.0.1", all=True)]
    owner.create(top + "/ip", acl=local)
    assert stranger.get(top + "/ip")[0] == b"" and stranger.get_acls(top + "/ip")[0] == local
    owner.create(top + "/none", acl=[ACL(Permissions.READ, make_acl("ip", "10.9.8.7").id)])
    raises(NoAuthError, stranger.get, top + "/none")
    raises(NoAuthError, stranger.exists, top + "/none")


@test
def authentication():
    zk = client(auth_data=[("digest", "user:secret"), ("digest", "second:secret")])
    top = fresh(zk)
    zk.create(top + "/n", acl=CREATOR_ALL_ACL)
    assert len(zk.get_acls(top + "/n")[0]) == 2
    refused = client()
    raises(AuthFailedError, refused.add_auth, "unknown-scheme", "x")
    # Authentication belongs to the connection; the client sends it again on the next one.
    zk.stop()
    zk.start(timeout=WAIT)
    assert zk.get(top + "/n")[0] == b""


@test
def commands():
    zk = client()
    assert zk.command(b"ruok") == "imok"
    assert zk.command(b"isro") == "rw"
    # kazoo reads once, so the end of a long answer may be missing.
    monitored = dict(line.split("\t", 1) for line in zk.command(b"mntr").splitlines() if "\t" in line)
    assert monitored["zk_server_state"] == "standalone" and int(monitored["zk_num_alive_connections"]) >= 1
    assert zk.server_version() >= (3, 5), zk.server_version()
    assert "Mode: standalone" in zk.command(b"srvr")
    assert "Zookeeper version" in zk.command(b"stat")
    assert "clientPort=" in zk.command(b"conf")
    assert "not executed" not in zk.command(b"cons")


# -- sessions ------------------------------------------------------------------------------------------------------


@test
def ephemerals_end_with_their_session():
    zk, watcher = client(), client()
    top = fresh(zk)
    zk.create(top + "/e", ephemeral=True)
    gone = threading.Event()
    watcher.exists(top + "/e", watch=lambda event: gone.set())
    zk.stop()
    assert gone.wait(WAIT) and watcher.exists(top + "/e") is None


@test
def sessions_expire():
    watcher = client()
    top = fresh(watcher)
    short = client(timeout=1.0)
    short.create(top + "/e", ephemeral=True)
    gone = threading.Event()
    watcher.exists(top + "/e", watch=lambda event: gone.set())
    session = short.client_id
    vanish(short)
    assert gone.wait(WAIT), "the ephemeral outlived its session"
    # A connection that comes back for it is told that it is over.
    states = queue.Queue()
    late = KazooClient(hosts=HOSTS, client_id=session, timeout=10.0)
    late.add_listener(states.put)
    late.start(timeout=WAIT)
    CLIENTS.append(late)
    seen = [states.get(timeout=WAIT)]
    while seen[-1] != KazooState.CONNECTED:
        seen.append(states.get(timeout=WAIT))
    assert late.client_id[0] != session[0]


@test
def sessions_reattach():
    first = client()
    top = fresh(first)
    first.create(top + "/e", ephemeral=True)
    session = first.client_id
    vanish(first)
    second = KazooClient(hosts=HOSTS, client_id=session, timeout=10.0)
    second.start(timeout=WAIT)
    CLIENTS.append(second)
    assert second.client_id == session
    assert second.get(top + "/e")[1].ephemeralOwner == session[0]
    second.create(top + "/e2", ephemeral=True)


@test
def sessions_survive_a_restart():
    _survive("@restart")


@test
def sessions_survive_a_kill():
    _survive("@kill")


def _survive(how):
    zk = client(timeout=20.0)
    top = fresh(zk)
    zk.create(top + "/e", b"1", ephemeral=True)
    zk.create(top + "/p", b"1")
    zk.create(top + "/s-", sequence=True)
    zk.set(top + "/p", b"2")
    session, stat = zk.client_id, zk.get(top + "/p")[1]
    states = queue.Queue()
    zk.add_listener(states.put)
    ask_restart(how)
    seen = [states.get(timeout=WAIT)]
    while seen[-1] != KazooState.CONNECTED:
        seen.append(states.get(timeout=WAIT))
    assert KazooState.LOST not in seen, seen
    assert zk.client_id[0] == session[0]
    assert zk.get(top + "/e")[1].ephemeralOwner == session[0]
    assert zk.get(top + "/p") == (b"2", stat)
    assert zk.create(top + "/s-", sequence=True) == top + "/s-0000000003"


@test
def retries():
    zk = client()
    top = fresh(zk)
    assert zk.retry(zk.create, top + "/r", b"x") == top + "/r"
    calls = []

    def flaky():
        calls.append(1)
        if len(calls) < 3:
            from kazoo.exceptions import ConnectionLoss

            raise ConnectionLoss()
        return zk.get(top + "/r")[0]

    assert KazooRetry(max_tries=5, delay=0.01)(flaky) == b"x" and len(calls) == 3
    raises(NoNodeError, zk.retry, zk.get, top + "/none")


# -- recipes -------------------------------------------------------------------------------------------------------


@test
def recipe_lock():
    one, two = client(), client()
    path = fresh(one) + "/lock"
    first, second = one.Lock(path, "first"), two.Lock(path, "second")
    assert first.acquire(timeout=WAIT)
    assert not second.acquire(blocking=False)
    raises(LockTimeout, second.acquire, timeout=0.2)
    order = []
    waiter = spawn(lambda: order.append(second.acquire(timeout=WAIT)))
    eventually(lambda: len(first.contenders()) == 2, "two contenders")
    assert first.contenders() == ["first", "second"]
    assert not order and first.release()
    joined(waiter)
    assert order == [True] and second.is_acquired and second.release()
    with one.Lock(path):
        third = two.Lock(path, "third")
        cancelled = []
        waiter = spawn(lambda: cancelled.append(raises(CancelledError, third.acquire)))
        eventually(lambda: len(third.contenders()) == 2, "the one to cancel waits")
        third.cancel()
        joined(waiter)
    assert len(cancelled) == 1


@test
def recipe_lock_contention():
    clients = [client() for _ in range(4)]
    path = fresh(clients[0]) + "/lock"
    inside, most, turns = [0], [0], [0]

    def work(zk):
        for _ in range(10):
            with zk.Lock(path):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                turns[0] += 1
                zk.sync("/")
                inside[0] -= 1

    joined(*[spawn(work, zk) for zk in clients])
    assert most[0] == 1 and turns[0] == 40


@test
def recipe_read_write_lock():
    one, two, three = client(), client(), client()
    path = fresh(one) + "/rw"
    readers = [one.ReadLock(path, "r1"), two.ReadLock(path, "r2")]
    assert all(reader.acquire(timeout=WAIT) for reader in readers)
    writer = three.WriteLock(path, "w")
    assert not writer.acquire(blocking=False)
    got = []
    waiter = spawn(lambda: got.append(writer.acquire(timeout=WAIT)))
    eventually(lambda: len(writer.contenders()) == 3, "the writer waits")
    assert not two.ReadLock(path, "r3").acquire(blocking=False)
    for reader in readers:
        reader.release()
    joined(waiter)
    assert got == [True]
    assert not readers[0].acquire(blocking=False)
    writer.release()
    assert readers[0].acquire(timeout=WAIT)
    readers[0].release()


@test
def recipe_semaphore():
    one, two, three = client(), client(), client()
    path = fresh(one) + "/sem"
    leases = [zk.Semaphore(path, str(n), max_leases=2) for n, zk in enumerate((one, two, three))]
    assert leases[0].acquire() and leases[1].acquire()
    assert not leases[2].acquire(blocking=False)
    assert leases[0].lease_holders() and len(leases[0].lease_holders()) == 2
    got = []
    waiter = spawn(lambda: got.append(leases[2].acquire(timeout=WAIT)))
    leases[0].release()
    joined(waiter)
    assert got == [True]
    leases[1].release()
    leases[2].release()
    raises(ValueError, one.Semaphore(path, max_leases=3).acquire)


@test
def recipe_election():
    one, two = client(), client()
    path = fresh(one) + "/elect"
    order, release = [], threading.Event()
    first, second = one.Election(path, "one"), two.Election(path, "two")

    def lead(name):
        order.append(name)
        release.wait(WAIT)

    threads = [spawn(first.run, lead, "one")]
    eventually(lambda: order == ["one"], "a first leader")
    threads.append(spawn(second.run, lead, "two"))
    eventually(lambda: first.contenders() == ["one", "two"], "two candidates")
    release.set()
    joined(*threads)
    assert order == ["one", "two"]
    threads = [spawn(first.run, lambda: None)]
    joined(*threads)


@test
def recipe_barrier():
    one, two = client(), client()
    path = fresh(one) + "/barrier"
    barrier = one.Barrier(path)
    assert barrier.wait(timeout=0.5)
    barrier.create()
    passed = []
    assert not two.Barrier(path).wait(timeout=0.2)
    waiter = spawn(lambda: passed.append(two.Barrier(path).wait(timeout=WAIT)))
    barrier.remove()
    joined(waiter)
    assert passed == [True] and barrier.remove() is False


@test
def recipe_double_barrier():
    clients = [client() for _ in range(3)]
    path = fresh(clients[0]) + "/double"
    entered, left = [], []

    def take_part(zk):
        barrier = zk.DoubleBarrier(path, 3)
        barrier.enter()
        entered.append(barrier.participating)
        barrier.leave()
        left.append(not barrier.participating)

    joined(*[spawn(take_part, zk) for zk in clients])
    assert entered == [True] * 3 and left == [True] * 3


@test
def recipe_counter():
    clients = [client() for _ in range(3)]
    path = fresh(clients[0]) + "/counter"

    def count(zk):
        counter = zk.Counter(path)
        for _ in range(20):
            counter += 1

    joined(*[spawn(count, zk) for zk in clients])
    counter = clients[0].Counter(path)
    assert counter.value == 60
    counter -= 10
    assert counter.value == 50
    real = clients[0].Counter(path + "-float", default=1.5)
    real += 0.5
    assert real.value == 2.0


@test
def recipe_queue():
    zk = client()
    path = fresh(zk) + "/queue"
    q = zk.Queue(path)
    assert q.get() is None
    q.put(b"one")
    q.put(b"two")
    q.put(b"first", priority=1)
    assert len(q) == 3 and [q.get() for _ in range(4)] == [b"first", b"one", b"two", None]


@test
def recipe_locking_queue():
    one, two = client(), client()
    path = fresh(one) + "/locking"
    mine, theirs = one.LockingQueue(path), two.LockingQueue(path)
    mine.put(b"a")
    mine.put_all([b"b", b"c"])
    assert mine.get(timeout=5) == b"a" and mine.holds_lock()
    assert theirs.get(timeout=5) == b"b" and theirs.consume()
    assert mine.release() and theirs.get(timeout=5) == b"a" and theirs.consume()
    assert mine.get(timeout=5) == b"c" and mine.consume() and mine.get(timeout=0.2) is None


@test
def recipe_party():
    one, two = client(), client()
    path = fresh(one) + "/party"
    for kind in ("Party", "ShallowParty"):
        first, second = getattr(one, kind)(path + kind, "one"), getattr(two, kind)(path + kind, "two")
        first.join()
        second.join()
        assert len(first) == 2 and set(first) == {"one", "two"}
        second.leave()
        assert set(first) == {"one"}
        first.leave()
        assert len(first) == 0


@test
def recipe_set_partitioner():
    clients = [client() for _ in range(2)]
    path = fresh(clients[0]) + "/partition"
    parts = [
        zk.SetPartitioner(path, set=range(6), identifier=str(n), time_boundary=0.5) for n, zk in enumerate(clients)
    ]

    def settled():
        for part in parts:
            if part.state == PartitionState.ALLOCATING:
                part.wait_for_acquire(1)
            elif part.state == PartitionState.RELEASE:
                part.release_set()
        return all(part.acquired for part in parts) and sum(len(list(part)) for part in parts) == 6

    eventually(settled, "the set is divided")
    assert set(parts[0]) | set(parts[1]) == set(range(6)) and len(list(parts[0])) == 3
    parts[1].finish()
    eventually(lambda: settled_alone(parts[0]), "the rest is taken over")
    parts[0].finish()


def settled_alone(part):
    if part.state == PartitionState.ALLOCATING:
        part.wait_for_acquire(1)
    elif part.state == PartitionState.RELEASE:
        part.release_set()
    return part.acquired and len(list(part)) == 6


@test
def recipe_tree_cache():
    zk, other = client(), client()
    path = fresh(zk)
    other.create(path + "/a/b", b"deep", makepath=True)
    events = queue.Queue()
    cache = TreeCache(zk, path)
    cache.listen(events.put)
    cache.start()
    kinds = []

    def until(kind, name=None):
        while True:
            event = events.get(timeout=WAIT)
            kinds.append(event.event_type)
            if event.event_type == kind and (name is None or event.event_data.path == path + name):
                return event

    until(TreeEvent.INITIALIZED)
    assert cache.get_data(path + "/a/b").data == b"deep" and cache.get_children(path) == frozenset(["a"])
    other.create(path + "/a/c", b"new")
    assert until(TreeEvent.NODE_ADDED, "/a/c").event_data.data == b"new"
    other.set(path + "/a/c", b"newer")
    assert until(TreeEvent.NODE_UPDATED, "/a/c").event_data.data == b"newer"
    other.delete(path + "/a/b")
    until(TreeEvent.NODE_REMOVED, "/a/b")
    assert cache.get_data(path + "/a/b") is None
    cache.close()


@test
def recipe_data_watch():
    zk, other = client(), client()
    path = fresh(zk) + "/data"
    seen = queue.Queue()

    @zk.DataWatch(path)
    def changed(data, stat, event):
        seen.put((data, stat and stat.version, event and event.type))

    assert seen.get(timeout=WAIT) == (None, None, None)
    other.create(path, b"1")
    assert seen.get(timeout=WAIT) == (b"1", 0, EventType.CREATED)
    other.set(path, b"2")
    assert seen.get(timeout=WAIT) == (b"2", 1, EventType.CHANGED)
    other.delete(path)
    assert seen.get(timeout=WAIT) == (None, None, EventType.DELETED)
    other.create(path, b"3")
    assert seen.get(timeout=WAIT) == (b"3", 0, EventType.CREATED)


@test
def recipe_children_watch():
    zk, other = client(), client()
    path = fresh(zk)
    seen = queue.Queue()

    @zk.ChildrenWatch(path, send_event=True)
    def changed(children, event):
        seen.put(sorted(children))

    assert seen.get(timeout=WAIT) == []
    other.create(path + "/b")
    assert seen.get(timeout=WAIT) == ["b"]
    other.create(path + "/a")
    assert seen.get(timeout=WAIT) == ["a", "b"]
    other.delete(path + "/b")
    assert seen.get(timeout=WAIT) == ["a"]


@test
def recipe_patient_children_watch():
    from kazoo.recipe.watchers import PatientChildrenWatch

    zk = client()
    path = fresh(zk)
    zk.create(path + "/a")
    children, async_result = PatientChildrenWatch(zk, path, time_boundary=0.2).start().get(timeout=WAIT)
    assert children == ["a"]
    zk.create(path + "/b")
    async_result.get(timeout=WAIT)


@test
def recipe_lease():
    from datetime import timedelta

    from kazoo.recipe.lease import MultiNonBlockingLease, NonBlockingLease

    one, two = client(), client()
    path = fresh(one)
    held = NonBlockingLease(one, path + "/lease", timedelta(hours=1), identifier="one")
    assert held and not NonBlockingLease(two, path + "/lease", timedelta(hours=1), identifier="two")
    assert MultiNonBlockingLease(one, 2, path + "/multi", timedelta(hours=1), identifier="one")
    assert MultiNonBlockingLease(two, 2, path + "/multi", timedelta(hours=1), identifier="two")
    assert not MultiNonBlockingLease(two, 2, path + "/multi", timedelta(hours=1), identifier="three")


@test
def watchers_survive_a_restart():
    zk = client(timeout=20.0)
    path = fresh(zk)
    seen = queue.Queue()

    @zk.DataWatch(path)
    def changed(data, stat):
        seen.put(data)

    assert seen.get(timeout=WAIT) == b""
    ask_restart()
    assert zk.retry(zk.set, path, b"after") and seen.get(timeout=WAIT) == b"after"


def main():
    wanted = sys.argv[2:]
    failed = 0
    tests = [t for t in TESTS if not wanted or t.__name__ in wanted]
    for function in tests:
        began = time.monotonic()
        try:
            function()
            print(f"ok {function.__name__} ({time.monotonic() - began:.2f} s)", flush=True)
        except BaseException as error:  # noqa: B902 a suite reports whatever stops a test
            if isinstance(error, KeyboardInterrupt):
                raise
            failed += 1
            print(f"FAILED {function.__name__}\n{traceback.format_exc()}", flush=True)
        for zk in CLIENTS:
            try:
                zk.stop()
                zk.close()
            except Exception as error:  # A client that a test broke on purpose.
                print(f"  (closing a client of {function.__name__}: {error})", flush=True)
        CLIENTS.clear()
    print(f"{len(tests) - failed} passed, {failed} failed")
    return 1 if failed or not tests else 0


if __name__ == "__main__":
    sys.exit(main())
