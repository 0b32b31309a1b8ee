"""Ensembles of ringkeeper and Apache ZooKeeper together: each in each role, joining in each way, replaced one by one.

Each scenario is a story of one ensemble under load. It ends, and pauses on its way, at quiet points: there all
servers hold the same tree, every acknowledged write is in it once, and the sessions with what belongs to them live.
"""

import os
import random
import subprocess
import threading
import time
import traceback

import load
import servers
from ensemble import JAVA, RINGKEEPER, Ensemble, launches, until
from jute import OPCODES, acl_vector, boolean, buffer, i32, i64, ustring
from load import Expired, Failed, Load, Lost, Session, create_body
from servers import HERE

DIFF, SNAP, TRUNC = "DIFF", "SNAP", "TRUNC"
SILENT_MS_MAX = 600_000
# What a server's log says of how it was synchronised. A ringkeeper that says neither had a DIFF.
SYNC_LINES = {
    JAVA: [
        (DIFF, "Getting a diff from the leader"),
        (SNAP, "Getting a snapshot from leader"),
        (TRUNC, "Truncating log to get in sync with the leader"),
    ],
    RINGKEEPER: [
        (SNAP, "the leader's state at "),
        (TRUNC, "the leader's history ends at "),
    ],
}


class Story:
    """One ensemble, its load, its long-lived clients, and what was checked."""

    def __init__(self, setting, version, voters, observers=""):
        kinds = {"j": JAVA, "r": RINGKEEPER}
        self.ensemble = Ensemble(
            launches(setting, version),
            setting.binary,
            [kinds[k] for k in voters],
            [kinds[k] for k in observers],
            setting.keep,
        )
        self.setting = setting
        self.passed = 0
        # Ports of servers that have stood still: what was asked of them waited.
        self.stood = set()
        load.SILENCES.clear()
        self.load = None
        self.watchers = []
        self.companions = []
        self.rounds = 0
        self.began = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *what):
        for companion in self.companions:
            companion.kill()
        if self.load is not None:
            self.load.stop_event.set()
        self.ensemble.__exit__(*what)

    def step(self, text):
        """What holds now."""
        silences = [silence for silence in load.SILENCES if silence[0] not in self.stood]
        load.SILENCES.clear()
        if silences:
            sids = {member.port: str(member) for member in self.ensemble.members}
            raise AssertionError(f"no answer: {[(sids.get(port), *rest) for port, *rest in silences]}")
        self.passed += 1
        print(f"    {time.monotonic() - self.began:5.1f} s  {text}", flush=True)

    def stand(self, sid):
        self.ensemble[sid].pause()
        self.stood.add(self.ensemble[sid].port)

    def start_load(self, **options):
        self.load = Load(self.ensemble.ports(), **options)
        # Silent between quiet points: writers and real clients are those who must keep their sessions alive.
        self.watchers = [Session(self.ensemble.ports(), SILENT_MS_MAX) for _ in range(2)]
        self.watchers[0].create("/watched", b"0")
        self.ephemeral = self.watchers[0].create("/kept", b"", flags=1)
        for watcher in self.watchers:
            watcher.sync("/watched")
            watcher.get_data("/watched", watch=True)

    def watches_fire(self):
        """Watches set before whatever happened fire once for a write after it, wherever their clients are now."""
        self.rounds += 1
        session = Session(self.ensemble.ports())
        session.set_data("/watched", b"%d" % self.rounds)
        session.close()
        for watcher in self.watchers:
            kind, _, path = watcher.event()
            assert (kind, path) == (3, "/watched"), f"event {kind} {path}"
            assert not watcher.events, f"events {list(watcher.events)} behind the one expected"
            watcher.sync("/watched")
            data, _ = watcher.get_data("/watched", watch=True)
            assert data == b"%d" % self.rounds, f"/watched has {data}"
        stat = self.watchers[0].exists(self.ephemeral)
        assert stat is not None and stat["ephemeralOwner"] == self.watchers[0].id, "an ephemeral is gone"
        for companion in self.companions:
            companion.round(self.rounds)

    def quiet(self, text, without=None):
        """Nobody writes; everything is compared; then the load goes on."""
        self.watches_fire()
        self.load.pause(until)
        tree = self.ensemble.agree()
        self.load.check(tree)
        if without is not None:
            assert not [path for path in tree if without in path], f"{without} is still there"
        for member in self.ensemble.running:
            member.alive()
        alarms = self.ensemble.alarms()
        assert not alarms, "\n".join(alarms[:10])
        self.step(f"{text}: {len(tree)} nodes are the same on {len(self.ensemble.running)} servers")
        self.load.resume()

    def joined(self, sid, leader, how=None, start=False):
        """A member that was started follows `leader`, having been brought up to date in the expected way."""
        member = self.ensemble[sid]
        if start:
            member.start()
        mode = member.serves()
        follows = self.ensemble[leader]
        ways = [how] if isinstance(how, str) else how
        got = self.way(member)
        if ways and got not in ways:
            raise AssertionError(f"{member} was synchronised by {got}, not {how}:\n{member.log_tail()}")
        assert self.ensemble.leader() is follows, f"{self.ensemble.leader()} leads"
        # A ZooKeeper sends its tree while it changes: digests of what follows may be of more or less than was sent.
        member.follows_java = follows.kind == JAVA
        if got == SNAP and follows.kind == JAVA:
            member.forgiven = True
        self.write_through(member)
        self.step(f"{member} is {mode} of {follows} by {got}")

    def way(self, member):
        """The last way it was synchronised, as its own log tells it."""
        text = member.log_path.read_bytes()[member.log_mark :].decode(errors="replace")
        last = None
        for line in text.splitlines():
            if " looking for a leader" in line:
                last = None
            elif " following server " in line:
                last = last or DIFF
            for way, pattern in SYNC_LINES[member.kind]:
                if pattern in line:
                    last = way
        return last

    def write_through(self, member):
        """A client of just this server creates, reads, deletes, has a session."""
        session = Session([member.port])
        path = session.create("/through", b"x", flags=1)
        assert session.get_data(path)[0] == b"x"
        session.call("delete", ustring(path) + i32(-1))
        assert session.exists(path) is None
        session.close()

    def start_companions(self):
        hosts = self.ensemble.hosts()
        self.companions = [Companion(name, [*command, hosts]) for name, command in companions(self.setting)]
        for companion in self.companions:
            companion.expect("good start")

    def end(self):
        """The clients leave, and what was theirs with them."""
        self.load.stop()
        for companion in self.companions:
            companion.end()
        for client in (*self.watchers, *(writer.session for writer in self.load.writers)):
            client.close()
        tree = self.ensemble.agree()
        left = [path for path, (_, stat, _) in tree.items() if 0 < dict(stat)["ephemeralOwner"] < 1 << 62]
        assert not left, f"without an owner: {left}"
        self.step(f"sessions closed: {len(tree)} nodes are the same on {len(self.ensemble.running)} servers")

    def carries_on(self, without):
        """Writes go through while one server is away, except where too few are left."""
        voters = [member for member in self.ensemble.running if not member.observer]
        assert len(voters) >= 2, f"{without} is one too many"
        self.ensemble.leader()
        self.load.flows(until, 30)

    def lead(self, sid, *, over):
        """Makes `sid` the leader: of the voters that are left, all but it miss the end of the history."""
        leader = self.ensemble.leader()
        for other in over:
            self.stand(other)
        try:
            self.load.flows(until, 30, each=False)
            leader.kill()
        finally:
            for other in over:
                self.ensemble[other].resume()
        until(lambda: self.ensemble.leader() is self.ensemble[sid], f"{self.ensemble[sid]} leads")
        self.load.flows(until)
        self.step(f"{leader} killed under load; {self.ensemble[sid]} leads")


class Companion:
    """A program with a real client and a connection string; it answers a line for each round."""

    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            bufsize=1,
        )
        self.said = []

    def expect(self, line):
        alarm = threading.Timer(60, self.process.kill)
        alarm.start()
        try:
            for got in self.process.stdout:
                got = got.rstrip("\n")
                self.said.append(got)
                if got == line:
                    return
                if got.startswith("failed"):
                    break
        finally:
            alarm.cancel()
        raise AssertionError(f"{self.name} did not say {line!r}:\n" + "\n".join(self.said[-25:]))

    def tell(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except OSError:
            pass

    def round(self, number):
        self.tell(f"round {number}")
        self.expect(f"good {number}")

    def end(self):
        self.tell("end")
        self.expect("good end")
        self.process.wait(20)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def furnish(ensemble):
    """Nodes of every kind, with lists, versions and quotas, to be carried over by each way of joining."""
    session = Session(ensemble.ports())
    session.create("/kinds", b"")
    for index in range(40):
        session.create(f"/kinds/plain-{index}", b"x" * index)
    for index in range(5):
        session.set_data("/kinds/plain-1", b"%d" % index)
        session.create("/kinds/seq-", b"", flags=2)
    session.call("create", create_body("/kinds/null", None))
    digest = [(31, "digest", "user:W46rmZ0w5AQTGSgNRo8kKUgmTVI="), (1, "world", "anyone")]
    session.create("/kinds/list", b"", acl=digest)
    session.call("setACL", ustring("/kinds/plain-2") + acl_vector([(31, "world", "anyone"), (1, "ip", "10.0.0.0/8")]) + i32(-1))
    session.call("createContainer", create_body("/kinds/container", b"", 4))
    session.create("/kinds/container/child", b"")
    session.call("createTTL", create_body("/kinds/ttl", b"", 5) + i64(3_600_000))
    body = b""
    for op, sub in (
        ("create", create_body("/kinds/multi", b"1")),
        ("setData", ustring("/kinds/multi") + buffer(b"2") + i32(0)),
        ("check", ustring("/kinds/multi") + i32(1)),
    ):
        body += i32(OPCODES[op]) + boolean(False) + i32(-1) + sub
    session.call("multi", body + i32(-1) + boolean(True) + i32(-1))
    for index in range(10):
        session.call("delete", ustring(f"/kinds/plain-{30 + index}") + i32(-1))
    for _ in range(3):
        try:
            session.create("/kinds/plain-1")
            raise AssertionError("created twice")
        except Failed as error:
            assert error.err == -110, error
    session.close()


def tails(story, leader, others, wanted):
    """The leader logs what nobody else hears of, and all three die. The others go on without it; then it comes back."""
    e = story.ensemble
    story.load.pause(until)
    session = Session([e[leader].port])
    for sid in others:
        story.stand(sid)
    marker = f"tail-of-{leader}-in-{e[leader].words()['Zxid']}"
    for index in range(5):
        session.send("create", create_body(f"/{marker}-{index}", marker.encode()))
    until(lambda: e[leader].has_logged(f"{marker}-4"), f"{e[leader]} logs {marker}")
    # What is in the sockets of those that stand still must die with them.
    for sid in (*others, leader):
        e[sid].kill()
    session.drop()
    for sid in others:
        e[sid].start()
    until(lambda: e.leader() is e[wanted], f"{e[wanted]} leads")
    e[leader].start()
    return marker


def in_turn(setting, version):
    """Two Java voters and one of ringkeeper, an observer of each. Each leads, and each is brought up in each way."""
    with Story(setting, version, "jjr", "rj") as story:
        e = story.ensemble
        e[1].start(), e[2].start()
        e.all_serve()
        furnish(e)
        story.start_load()
        story.start_companions()
        story.load.flows(until, 30)
        for sid in (3, 4, 5):
            e[sid].start()
        for sid in (3, 4, 5):
            story.joined(sid, 2, SNAP)
        story.quiet("a Java leader, followers and observers of both")
        # ringkeeper leads.
        story.lead(3, over=[1])
        story.joined(2, 3, DIFF, start=True)
        story.quiet("a ringkeeper leader, Java followers, observers of both")
        e[1].kill().wipe()
        story.joined(1, 3, SNAP, start=True)
        # Its end of the history is nobody's.
        marker = tails(story, 3, (1, 2), wanted=2)
        story.joined(3, 2, TRUNC)
        story.quiet("a cut end of a ringkeeper leader", without=marker)
        story.load.resume()
        story.load.flows(until)
        marker = tails(story, 2, (1, 3), wanted=3)
        story.joined(2, 3, SNAP)
        story.quiet("a cut end of a Java leader", without=marker)
        story.lead(2, over=[1])
        story.joined(3, 2, DIFF, start=True)
        story.quiet("the ringkeeper leader killed under load")
        story.end()
        return story.passed


def replaced(setting, version):
    """All servers are replaced one by one, from Java to ringkeeper and back, under load."""
    with Story(setting, version, "jjj", "j") as story:
        e = story.ensemble
        for member in e.members:
            member.start()
        e.all_serve()
        furnish(e)
        story.start_load()
        story.start_companions()
        story.load.flows(until)
        for kind in (RINGKEEPER, JAVA):
            order = [4] + [sid for sid in (1, 2, 3) if e[sid] is not e.leader()] + [e.leader().sid]
            for sid in order:
                e[sid].become(kind)
                e[sid].serves()
                leader = e.leader()
                if leader is not e[sid]:
                    story.joined(sid, leader.sid)
                story.load.flows(until)
            story.quiet(f"all servers are {kind}")
        story.end()
        return story.passed


# What a storm does to one server. Each leaves a quorum standing, and is over before the next begins.


def fault_kill(story, rng, member):
    member.kill()
    story.carries_on(member)
    member.start()


def fault_stop(story, rng, member):
    member.stop()
    story.carries_on(member)
    member.start()


def fault_stand(story, rng, member):
    """As a machine that swaps: everything is as it was, only late."""
    leads = story.ensemble.leader() is member
    story.stand(member.sid)
    try:
        if leads:
            others = [other for other in story.ensemble.running if other is not member and not other.observer]
            until(lambda: any(other.mode() == "leader" for other in others), "the others elect a leader")
        story.load.flows(until, 30, each=False)
    finally:
        member.resume()


def fault_replace(story, rng, member):
    member.become(JAVA if member.kind == RINGKEEPER else RINGKEEPER)


def fault_wipe(story, rng, member):
    member.kill().wipe()
    story.carries_on(member)
    member.start()


FAULTS = [fault_kill, fault_kill, fault_stop, fault_stand, fault_replace, fault_replace, fault_wipe]


def storm(setting, version, voters, observers):
    """Random faults under load, every server in every role over time."""
    rng = random.Random(f"{setting.seed} {version} {voters} {observers}")
    with Story(setting, version, voters, observers) as story:
        e = story.ensemble
        for member in e.members:
            member.start()
        e.all_serve()
        furnish(e)
        story.start_load()
        story.start_companions()
        story.load.flows(until)
        for number in range(1, setting.rounds + 1):
            leader = e.leader()
            fault = rng.choice(FAULTS)
            member = leader if rng.random() < 0.4 else rng.choice(e.members)
            if fault is fault_stand and member.observer:
                fault = fault_kill
            before = f"{member}{', the leader,' if member is leader else ''}"
            fault(story, rng, member)
            member.serves()
            leader = e.leader()
            if leader is not member:
                story.joined(member.sid, leader.sid)
            story.load.flows(until)
            story.step(f"{number}: {before} {fault.__name__.removeprefix('fault_')}; {leader} leads")
            if number % 5 == 0:
                story.quiet(f"after {number} faults")
        story.end()
        return story.passed


OLD = "3.8.0"
SHORT = {
    "in turn": lambda setting: in_turn(setting, servers.ZOOKEEPER_VERSION),
    "replaced": lambda setting: replaced(setting, servers.ZOOKEEPER_VERSION),
}
LONG = {
    **SHORT,
    f"in turn {OLD}": lambda setting: in_turn(setting, OLD),
    f"replaced {OLD}": lambda setting: replaced(setting, OLD),
    "storm jrj": lambda setting: storm(setting, servers.ZOOKEEPER_VERSION, "jrj", "jr"),
    "storm rjr": lambda setting: storm(setting, servers.ZOOKEEPER_VERSION, "rjr", "rj"),
    f"storm {OLD}": lambda setting: storm(setting, OLD, "rjj", "r"),
}


def companions(setting):
    """Name and command of each real client."""
    jars, classes = servers.maven_jars(setting.work), setting.work / "classes"
    classes.mkdir(exist_ok=True)
    servers.run_checked(
        ["javac", "-nowarn", "-cp", f"{jars}/*", "-d", classes, HERE / "java" / "Companion.java"], "javac Companion.java"
    )
    java = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", f"{classes}{os.pathsep}{jars}/*", "Companion"]
    kazoo = [servers.python_environment(setting.work), HERE / "companion.py"]
    program = setting.work / "c_companion"
    servers.run_checked(
        ["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-DTHREADED", "-o", program]
        + [HERE / "c" / "companion.c", "-lzookeeper_mt", "-lpthread"],
        "compiling the C companion",
    )
    return [("the Java client", java), ("kazoo", kazoo), ("the C client", [program])]


def run(setting):
    """(passed, failed)"""
    if setting.long:
        print(f"    RK_SEED={setting.seed}", flush=True)
    passed = failed = 0
    for name, story in (LONG if setting.long else SHORT).items():
        if setting.only and name not in setting.only:
            continue
        print(f"    -- {name}", flush=True)
        try:
            passed += story(setting)
        except (AssertionError, RuntimeError, OSError, Failed, Lost, Expired) as error:
            print(f"    {name} failed: {type(error).__name__}: {error}")
            for line in traceback.format_exc().splitlines():
                if line.lstrip().startswith("File "):
                    print(f"    {line.strip()}")
            failed += 1
    return passed, failed
