"""Ensembles of ringkeeper and Apache ZooKeeper servers in any mixture, and what must hold of all of them.

A member keeps its id, its ports and its directory while its program may change: `become` stops one implementation and
starts the other on what it left. Everything waits for a condition up to a deadline; nothing waits for a time.
"""

import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import servers
from load import Session, walk

JAVA, RINGKEEPER = "zookeeper", "ringkeeper"
SERVE_SECONDS_MAX = 40
AGREE_SECONDS_MAX = 20
# What a ZooKeeper says when it holds something else than its leader or hears what it does not expect, and what no
# ringkeeper may ever say. A ZooKeeper that loses its leader has exceptions of its own.
DIGEST = "Digests are not matching"
# One of 3.8.0 may bring another of 3.8.0 to that, a ringkeeper never.
SYNC_NULL = "syncWithLeader"
ALARMS = re.compile(
    r"^.*(?:" + DIGEST + r"|panicked at|Committing zxid .* but next pending"
    r"|the tree differs from the leader|is not the tree its digest speaks of"
    r"|NullPointerException[^\n]*(?:\n\tat [^\n]*){0,4}" + SYNC_NULL + r").*$",
    re.MULTILINE,
)

_ports = set()


def port():
    """A free port below those the kernel gives to outgoing connections, so that it is free again after a kill."""
    while True:
        candidate = random.SystemRandom().randrange(20000, 32000)
        if candidate in _ports:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
        _ports.add(candidate)
        return candidate


def until(condition, what, seconds=SERVE_SECONDS_MAX, pause=0.02):
    """Asks until the answer is something true, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise RuntimeError(f"never happened within {seconds} s: {what() if callable(what) else what}")
        time.sleep(pause)


def logging_jars(work, version):
    """A logging backend for the ZooKeeper servers, and the interface of it that they were made for: what they complain
    of is part of the result."""
    directory = work / "logging"
    jars = [directory / f"slf4j-{part}-{version}.jar" for part in ("api", "simple")]
    for jar in jars:
        if not jar.exists():
            artifact = f"org.slf4j:{jar.name.removesuffix(f'-{version}.jar')}:{version}"
            servers.run_checked(
                ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={directory}"],
                "mvn dependency:copy",
            )
    return jars


def debian_jars(work):
    """ZooKeeper 3.8.0 as Debian patches it: its two jars; nothing is installed."""
    directory = work / "debian"
    jars = directory / "files" / "usr" / "share" / "java"
    if not (jars / "zookeeper.jar").exists():
        directory.mkdir(parents=True, exist_ok=True)
        servers.run_checked(["apt-get", "download", "-q", "libzookeeper-java"], "apt-get download", cwd=directory)
        (package,) = directory.glob("libzookeeper-java_3.8.0*.deb")
        servers.run_checked(["dpkg", "-x", package, directory / "files"], "dpkg -x")
    return [jars / "zookeeper.jar", jars / "zookeeper-jute.jar"]


def launches(setting, version):
    """How each kind of server is started. `version` is that of the ZooKeepers."""
    jars = sorted(servers.maven_jars(setting.work).glob("*.jar"))
    if version == servers.ZOOKEEPER_VERSION:
        logging = logging_jars(setting.work, "2.0.13")
    else:
        logging = logging_jars(setting.work, "1.7.36")
        jars = debian_jars(setting.work) + [jar for jar in jars if not jar.name.startswith("zookeeper-")]
    classpath = [str(jar) for jar in (*logging, *jars)]
    return {
        JAVA: java_launch(classpath),
        RINGKEEPER: lambda config: [str(setting.binary), "serve", str(config)],
    }


def java_launch(classpath):
    def launch(config):
        return [
            "java",
            "-Xmx256m",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Xshare:auto",
            # Killed processes lose nothing that the kernel has.
            "-Dzookeeper.forceSync=no",
            "-Dzookeeper.jmx.log4j.disable=true",
            # Its DIFFs from disk are not to be trusted; operators are told to turn them off, too.
            "-Dzookeeper.snapshotSizeFactor=-1",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
            "-cp",
            os.pathsep.join(classpath),
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            str(config),
        ]

    return launch


class Member:
    """One server of an ensemble. `kind` is the program it runs, or ran last."""

    def __init__(self, ensemble, sid, kind, observer):
        self.ensemble, self.sid, self.kind, self.observer = ensemble, sid, kind, observer
        self.port, self.quorum_port, self.election_port = port(), port(), port()
        self.directory = ensemble.directory / f"server-{sid}"
        self.data = self.directory / "data"
        self.data.mkdir(parents=True)
        self.config_path = self.directory / "zoo.cfg"
        self.log_path = self.directory / "server.log"
        self.process = None
        # Where the log's last run and the part not yet looked through begin.
        self.log_mark = self.log_read = 0
        self.forgiven, self.follows_java, self.heard = False, False, []

    def __str__(self):
        return f"{self.kind} {self.sid}"

    @property
    def line(self):
        role = "observer" if self.observer else "participant"
        return f"server.{self.sid}=127.0.0.1:{self.quorum_port}:{self.election_port}:{role}"

    @property
    def runs(self):
        return self.process is not None

    def configure(self):
        lines = {
            **self.ensemble.settings,
            "dataDir": self.data,
            "clientPort": self.port,
        }
        if self.observer:
            lines["peerType"] = "observer"
        text = "".join(f"{key}={value}\n" for key, value in lines.items())
        self.config_path.write_text(text + "".join(f"{member.line}\n" for member in self.ensemble.members))
        (self.data / "myid").write_text(f"{self.sid}\n")

    def start(self, kind=None):
        """Starts it and waits for nothing."""
        assert not self.runs, f"{self} runs"
        self.listen()
        self.forgiven = False
        self.kind = kind or self.kind
        self.configure()
        with open(self.log_path, "ab") as log:
            log.write(f"== {self.kind}\n".encode())
            log.flush()
            self.log_mark = log.tell()
            self.process = subprocess.Popen(
                self.ensemble.launches[self.kind](self.config_path),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "JMXDISABLE": "true"},
                cwd=self.directory,
            )
        return self

    def send_signal(self, how):
        self.process.send_signal(how)

    def pause(self):
        self.send_signal(signal.SIGSTOP)

    def resume(self):
        self.send_signal(signal.SIGCONT)

    def stop(self, how=signal.SIGTERM):
        if not self.runs:
            return self
        if self.process.poll() is None:
            self.send_signal(how)
            try:
                self.process.wait(servers.STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                self.process = None
                raise RuntimeError(f"{self} did not stop:\n{self.log_tail()}") from None
        self.process = None
        return self

    def kill(self):
        return self.stop(signal.SIGKILL)

    def wipe(self):
        """A disk that was lost."""
        assert not self.runs
        shutil.rmtree(self.data)
        self.data.mkdir()
        return self

    def become(self, kind):
        """The other implementation takes the directory over."""
        self.stop()
        if self.kind == RINGKEEPER and kind != RINGKEEPER:
            servers.run_checked([self.ensemble.binary, "export", self.config_path], "export", 60)
        elif kind == RINGKEEPER and self.kind != RINGKEEPER:
            # What it had before the other implementation was there is of no use any more.
            shutil.rmtree(self.data / "ringkeeper", ignore_errors=True)
        return self.start(kind)

    def alive(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self} ended with code {self.process.returncode}:\n{self.log_tail()}")

    def words(self, word="srvr"):
        """The lines `name: value` of an answer; nothing where there is none."""
        try:
            answer = servers.word(self.port, word, 2.0).decode(errors="replace")
        except OSError:
            return {}
        return dict(line.split(": ", 1) for line in answer.splitlines() if ": " in line)

    def mode(self):
        self.alive()
        return self.words().get("Mode")

    def serves(self):
        """Waits until it has a part in the ensemble; returns which."""
        wanted = ("observer",) if self.observer else ("leader", "follower")
        return until(
            lambda: (lambda mode: mode if mode in wanted else None)(self.mode()),
            lambda: f"{self} serves as {' or '.join(wanted)}; its log ends with\n{self.log_tail()}",
        )

    def has_logged(self, text):
        """Whether any of its files has that, from which a restart would know it."""
        files = [path for path in self.data.rglob("*") if path.is_file()]
        return any(text.encode() in path.read_bytes() for path in files)

    def listen(self):
        """Looks through what its log got since the last time."""
        if not self.log_path.exists():
            return
        with open(self.log_path, "rb") as log:
            log.seek(self.log_read)
            text = log.read()
        self.log_read += len(text)
        for alarm in ALARMS.finditer(text.decode(errors="replace")):
            if DIGEST in alarm.group() and self.forgiven or SYNC_NULL in alarm.group() and self.follows_java:
                continue
            self.heard.append(f"{self}: {alarm.group()}")

    def log_tail(self, lines=40):
        try:
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"


class Ensemble:
    """`kinds` has one program for each voter, then one for each observer; ids count from 1."""

    def __init__(self, launches, binary, voters, observers=(), keep=False):
        self.launches, self.binary = launches, binary
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="ringkeeper-mixed-"))
        self.keep = keep
        self.settings = {
            "tickTime": 500,
            "initLimit": 20,
            "syncLimit": 6,
            "clientPortAddress": "127.0.0.1",
            "maxClientCnxns": 0,
            "maxSessionTimeout": 600000,
            "preAllocSize": 4096,
            "snapCount": 1000,
            "4lw.commands.whitelist": "*",
            "admin.enableServer": "false",
            "extendedTypesEnabled": "true",
        }
        self.members = []
        for index, kind in enumerate((*voters, *observers)):
            self.members.append(Member(self, index + 1, kind, index >= len(voters)))

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for member in self.members:
            if member.runs:
                member.process.kill()
                member.process.wait()
                member.process = None
        if kind is None and not self.keep:
            shutil.rmtree(self.directory, ignore_errors=True)
        else:
            print(f"    logs and data are kept in {self.directory}", flush=True)

    def __getitem__(self, sid):
        return self.members[sid - 1]

    @property
    def running(self):
        return [member for member in self.members if member.runs]

    def ports(self, *sids):
        members = [self[sid] for sid in sids] if sids else self.members
        return [member.port for member in members]

    def hosts(self, *sids):
        return ",".join(f"127.0.0.1:{port}" for port in self.ports(*sids))

    def leader(self):
        """The one that leads, once there is one with a following."""

        def look():
            leaders = [member for member in self.running if not member.observer and member.mode() == "leader"]
            return leaders[0] if len(leaders) == 1 else None

        return until(look, lambda: "one leader; " + self.logs())

    def all_serve(self):
        for member in self.running:
            member.serves()
        return self.leader()

    def logs(self):
        return "the logs end with\n" + "\n".join(f"-- {member}\n{member.log_tail(15)}" for member in self.running)

    def alarms(self):
        """What the logs said, since this was last asked, that they must not."""
        found = []
        for member in self.members:
            member.listen()
            found += member.heard
            member.heard = []
        return found

    def agree(self):
        """With nobody writing: all running servers hold the same tree and the same sessions. Returns the tree."""
        trees = {}
        for member in self.running:
            member.serves()
            session = Session([member.port])
            try:
                session.sync("/")
                trees[member] = walk(session)
            finally:
                session.close()
        (first, tree), *others = trees.items()
        for member, other in others:
            if tree != other:
                raise AssertionError(f"{first} and {member} differ:\n" + "\n".join(differences(tree, other)[:20]))
        # Those sessions are closed everywhere before anything is said about the rest.
        until(
            lambda: len({member.words().get("Zxid") for member in self.running}) == 1,
            lambda: f"one zxid everywhere: { {str(m): m.words().get('Zxid') for m in self.running} }",
            AGREE_SECONDS_MAX,
        )
        self.same_digests()
        return tree

    def same_digests(self):
        """Both implementations keep the digests of every 128th transaction they applied."""
        known = {}
        for member in self.running:
            answer = servers.word(member.port, "hash", 5.0).decode()
            for zxid, digest in re.findall(r'"zxid":(\d+)[^}]*?"digest":"?(-?[0-9a-fA-F]+)', answer):
                other = known.setdefault(zxid, (digest, member))
                if other[0] != digest:
                    raise AssertionError(f"at {int(zxid):#x} {other[1]} had digest {other[0]}, {member} {digest}")


def differences(a, b):
    out = []
    for path in sorted(a.keys() | b.keys()):
        if a.get(path) != b.get(path):
            out.append(f"{path}: {a.get(path)} / {b.get(path)}")
    return out
