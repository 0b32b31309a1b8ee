"""Starting and stopping the servers under test, and building what the clients need.

Every server gets a free port of the loopback interface and a directory of its own under the system's temporary
folder; it counts as started when it answers `srvr`, and it is stopped by its process id.
"""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ZOOKEEPER_VERSION = "3.9.5"
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 20


class NotRun(Exception):
    """Something a suite needs is missing. In CI that is an error."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def word(port, text, seconds=10.0):
    """Sends a four-letter word and returns all that comes before the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as s:
        s.settimeout(seconds)
        s.sendall(text if isinstance(text, bytes) else text.encode())
        answer = b""
        while True:
            try:
                part = s.recv(65536)
            except ConnectionResetError:
                return answer
            if not part:
                return answer
            answer += part


class Server:
    """One running server. `kind` is "zookeeper" or "ringkeeper"."""

    def __init__(self, kind, launch, properties=None, settings=None, like=None):
        """`like` is a stopped server whose directory, configuration and port this one takes over."""
        self.kind, self.launch = kind, launch
        self.properties = properties or {}
        self.process = None
        self.port = like.port if like else free_port()
        self.directory = like.directory if like else pathlib.Path(tempfile.mkdtemp(prefix="ringkeeper-compat-"))
        self.log_path = self.directory / "server.log"
        self.config_path = self.directory / "zoo.cfg"
        lines = {
            "tickTime": 500,
            "dataDir": self.directory / "data",
            "clientPort": self.port,
            "clientPortAddress": "127.0.0.1",
            "maxClientCnxns": 0,
            "maxSessionTimeout": 600000,
            "4lw.commands.whitelist": "*",
            "admin.enableServer": "false",
        }
        lines.update(settings or {})
        lines = {key: value for key, value in lines.items() if value is not None}
        self.config_path.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        command, environment = self.launch(self.config_path, self.properties)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                cwd=self.directory,
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        pause = 0.005
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"{self.kind} ended with code {self.process.returncode} at start:\n{self.log_tail()}"
                )
            try:
                if b"Mode:" in word(self.port, "srvr", 2.0):
                    return self
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.kind} does not answer on port {self.port}:\n{self.log_tail()}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.2)

    def stop(self, how=signal.SIGTERM):
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def restart(self, how=signal.SIGTERM):
        self.stop(how)
        return self.start()

    def log_tail(self, lines=30):
        try:
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"

    def remove(self):
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.remove()
            raise

    def __exit__(self, *_):
        self.remove()


def java_classpath(jars):
    return os.pathsep.join([str(jars / "*"), str(HERE / "java")])


def zookeeper_launch(jars):
    def launch(config, properties):
        command = [
            "java",
            "-Xmx256m",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Xshare:auto",
            "-Dzookeeper.forceSync=no",
            "-Dzookeeper.jmx.log4j.disable=true",
        ]
        command += [f"-D{key}={value}" for key, value in properties.items()]
        command += ["-cp", java_classpath(jars), "org.apache.zookeeper.server.ZooKeeperServerMain", str(config)]
        return command, {"JMXDISABLE": "true"}

    return launch


def ringkeeper_launch(binary, extra=()):
    def launch(config, properties):
        command = [str(binary), "serve", str(config), *extra]
        # ZooKeeper's system properties are configuration keys here.
        for key, value in properties.items():
            command += ["--set", f"{key.removeprefix('zookeeper.')}={value}"]
        return command, {}

    return launch


def run_checked(command, what, seconds=600, **options):
    """Runs a tool; a missing or failing one is `NotRun` with its last words."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            **options,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotRun(f"{what}: {error}") from error
    if done.returncode != 0:
        tail = "\n".join(done.stdout.decode(errors="replace").splitlines()[-25:])
        raise NotRun(f"{what} failed with code {done.returncode}:\n{tail}")
    return done.stdout.decode(errors="replace")


def maven_jars(work):
    """ZooKeeper, Curator and what they need, from Maven Central."""
    jars = work / "jars"
    stamp = jars / ".complete"
    wanted = (HERE / "java" / "pom.xml").read_bytes()
    if not stamp.exists() or stamp.read_bytes() != wanted:
        shutil.rmtree(jars, ignore_errors=True)
        run_checked(
            [
                "mvn",
                "-q",
                "-B",
                "-f",
                str(HERE / "java" / "pom.xml"),
                "dependency:copy-dependencies",
                f"-DoutputDirectory={jars}",
            ],
            "mvn dependency:copy-dependencies",
        )
        stamp.write_bytes(wanted)
    return jars


def python_environment(work):
    """A virtual environment with kazoo in it; returns its interpreter."""
    python = work / "venv" / "bin" / "python"
    stamp = work / "venv" / ".complete"
    wanted = (HERE / "requirements.txt").read_bytes()
    if not stamp.exists() or stamp.read_bytes() != wanted:
        run_checked([sys.executable, "-m", "venv", str(work / "venv")], "python3 -m venv")
        run_checked(
            [
                str(python),
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "-r",
                str(HERE / "requirements.txt"),
            ],
            "pip install",
        )
        stamp.write_bytes(wanted)
    return python
