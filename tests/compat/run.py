#!/usr/bin/env python3
"""Real clients and a differential test against a built ringkeeper.

    tests/compat/run.py --server target/quick/ringkeeper            every suite
    tests/compat/run.py --server … differential kazoo               some of them
    tests/compat/run.py --self-check                                Apache ZooKeeper itself in ringkeeper's place
    tests/compat/run.py --server … --long mixed                     the long form: also ZooKeeper 3.8.0, random faults

Suites: differential, recovery, faults, words, admin, audit, sasl, kazoo, java, shell, curator, c, tls, mixed. What they need
(a virtual environment with kazoo, the jars of ZooKeeper and Curator) is fetched once into --work; Debian's libzookeeper-mt-dev
must be installed. A suite that cannot run is an error where CI=true and said plainly elsewhere. RK_SEED in the environment
repeats a random run.
"""

import argparse
import os
import pathlib
import random
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time

import admin
import audit
import connections
import differ
import faults
import mixed
import ops
import sasl
import scenarios
import servers
import shell
import words
from servers import HERE, NotRun, Server

SUITE_SECONDS_MAX = 300


class Setting:
    """Which server is under test, and where things are kept."""

    def __init__(self, arguments):
        self.work = pathlib.Path(arguments.work).resolve()
        self.work.mkdir(parents=True, exist_ok=True)
        self.binary = arguments.server and pathlib.Path(arguments.server).resolve()
        self.seed = int(os.environ.get("RK_SEED") or secrets.randbits(31))
        self.mixes = arguments.mixes
        self.only = arguments.only.split(",") if arguments.only else None
        self.show = arguments.show
        self.long, self.rounds, self.keep = arguments.long, arguments.rounds, arguments.keep

    def jars(self):
        return servers.maven_jars(self.work)

    def reference(self, **more):
        return Server("zookeeper", servers.zookeeper_launch(self.jars()), **more)

    def subject(self, extra=(), **more):
        """A server of the kind under test."""
        if self.binary is None:
            return self.reference(**more)
        return Server("ringkeeper", servers.ringkeeper_launch(self.binary, extra), **more)


def converse(command, server, what, **options):
    """Runs a client program; its lines `@restart` and `@kill` ask for the server to be restarted."""
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        bufsize=1,
        start_new_session=True,
        **options,
    )
    # With it ends whatever it started.
    alarm = threading.Timer(SUITE_SECONDS_MAX, os.killpg, (process.pid, signal.SIGKILL))
    alarm.start()
    last = ""
    try:
        for line in process.stdout:
            line = line.rstrip("\n")
            if line in ("@restart", "@kill"):
                server.restart(signal.SIGTERM if line == "@restart" else signal.SIGKILL)
                process.stdin.write("go\n")
                process.stdin.flush()
                continue
            print(f"    {line}", flush=True)
            last = line or last
        code = process.wait()
    finally:
        alarm.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
    passed, failed = tally(last)
    if code != 0 and not failed:
        print(f"    {what} ended with code {code}; the server's last lines:\n{server.log_tail()}")
        failed = 1
    return passed, failed


def tally(line):
    """Reads "N passed, N failed"."""
    try:
        left, right = line.split(", ")
        return int(left.removesuffix(" passed")), int(right.removesuffix(" failed"))
    except ValueError:
        return 0, 0


# -- suites --------------------------------------------------------------------------------------------------------


def show(setting, name, both, report, began):
    seconds = time.monotonic() - began
    print(
        f"    {name}: {both.compared} answers compared, {len(report.items)} different ({seconds:.1f} s)", flush=True
    )
    report.print(sys.stdout, setting.show)


def suite_differential(setting):
    print(f"    RK_SEED={setting.seed}", flush=True)
    quiet = {"znode.container.checkIntervalMs": 10**9}
    superuser = {"zookeeper.DigestAuthenticationProvider.superDigest": ops.digest_id(ops.SUPER_PASSWORD)}
    extended = {"zookeeper.extendedTypesEnabled": "true", "zookeeper.enforceQuota": "true"}
    # (name, options of the scenarios, properties of both servers, ringkeeper's own arguments)
    configurations = [
        ("default", ops.Options(), quiet, ("--set", "ringkeeper.cores=1")),
        (
            "extended types, quotas, super user",
            ops.Options(extended=True, quota=True, superuser=True),
            {**quiet, **superuser, **extended},
            ("--set", "ringkeeper.cores=2"),
        ),
        (
            "no ACLs, epoll",
            ops.Options(skip_acl=True),
            {**quiet, "zookeeper.skipACL": "yes"},
            ("--set", "ringkeeper.io=epoll"),
        ),
        (
            "enforced",
            ops.Options(),
            {"zookeeper.enforce.auth.enabled": "true", "zookeeper.enforce.auth.schemes": "digest"},
            (),
        ),
        ("lifetimes", ops.Options(extended=True), {**extended, "znode.container.checkIntervalMs": 200}, ()),
    ]
    passed = failed = 0
    for name, options, properties, extra in configurations:
        began = time.monotonic()
        rng = random.Random(setting.seed)
        with setting.reference(properties=properties) as a, setting.subject(extra, properties=properties) as b:
            report = differ.Report([f"ZooKeeper {servers.ZOOKEEPER_VERSION}", b.kind])
            both = differ.Differ(a, b, report)
            if name in ("lifetimes", "enforced"):
                scenarios.run_case(both, rng, options, getattr(connections, name))
            else:
                scenarios.run_all(both, rng, options, setting.mixes, 60, setting.only)
            for server in (a, b):
                if server.process.poll() is not None:
                    report.items.append(
                        {
                            "scenario": name,
                            "at": f"{server.kind} has ended",
                            "batch": "",
                            "a": [],
                            "b": [server.log_tail()],
                            "history": [],
                        }
                    )
        show(setting, name, both, report, began)
        passed += both.compared - len(report.items)
        failed += len(report.items)
    return passed, failed


def suite_recovery(setting):
    """Restarts, kills, a directory that a ZooKeeper left behind, and one exported for it."""
    print(f"    RK_SEED={setting.seed}", flush=True)
    properties = {"znode.container.checkIntervalMs": 10**9, "zookeeper.extendedTypesEnabled": "true"}
    passed = failed = 0
    ways = [("restart", signal.SIGTERM, "own", {}), ("kill", signal.SIGKILL, "own", {})]
    # What ZooKeeper wrote, with several snapshots and logs: plain, and in the two compressed forms it knows.
    ways += [
        (
            f"import, {method or 'plain'}",
            signal.SIGTERM,
            "import",
            {"zookeeper.snapCount": 100, **({"zookeeper.snapshot.compression.method": method} if method else {})},
        )
        for method in (None, "gz", "snappy")
    ]
    if setting.binary:
        ways.append(("export", signal.SIGTERM, "export", {"zookeeper.snapCount": 100}))
    for name, how, way, more in ways:
        began = time.monotonic()
        first = {**properties, **more}
        with (
            setting.reference(properties=first) as a,
            setting.reference(properties=first) if way == "import" else setting.subject(properties=first) as b,
        ):
            subject = []

            def change(index, server):
                if index == 0:
                    return server.restart(how)
                server.stop(how)
                if way == "export":
                    servers.run_checked([setting.binary, "export", server.config_path], "export", 60)
                    subject.append(setting.reference(properties=first, like=server))
                else:
                    subject.append(setting.subject(properties=first, like=server))
                return subject[0].start()

            report = differ.Report(
                [f"ZooKeeper {servers.ZOOKEEPER_VERSION}", "ringkeeper" if setting.binary else "zookeeper"]
            )
            both = differ.Differ(a, b, report)
            try:
                scenarios.run_case(
                    both,
                    random.Random(setting.seed),
                    ops.Options(extended=True),
                    connections.recovery,
                    how,
                    change if way != "own" else None,
                )
            finally:
                for server in subject:
                    server.stop()
        show(setting, name, both, report, began)
        passed += both.compared - len(report.items)
        failed += len(report.items)
    return passed, failed


def suite_faults(setting):
    if setting.binary is None:
        raise NotRun("these requests are never sent to Apache ZooKeeper")
    passed = failed = 0
    for extended in ("false", "true"):
        with setting.subject(
            properties={"zookeeper.extendedTypesEnabled": extended, "zookeeper.enforceQuota": extended}
        ) as server:
            good, bad = faults.run(server)
            passed, failed = passed + good, failed + bad
    return passed, failed


def suite_words(setting):
    with setting.reference() as a, setting.subject() as b:
        passed, failed = words.compare(a, b)
    plain = {"4lw.commands.whitelist": None}
    with setting.reference(settings=plain) as a, setting.subject(settings=plain) as b:
        more, worse = words.compare_whitelist(a, b)
    return passed + more, failed + worse


def suite_admin(setting):
    kinds = (setting.reference, setting.subject)
    ports = [servers.free_port() for _ in kinds]
    a, b = (server_of(settings=admin.settings(port)) for server_of, port in zip(kinds, ports))
    with a, b:
        passed, failed = admin.compare(a, ports[0], b, ports[1])
    a, b = (server_of(settings=admin.provider(port)) for server_of, port in zip(kinds, ports))
    with a, b:
        more, worse = admin.compare_metrics(a, ports[0], b, ports[1])
    return passed + more, failed + worse


def suite_audit(setting):
    properties = {"zookeeper.audit.enable": "true", "zookeeper.extendedTypesEnabled": "true"}
    with setting.reference(properties=properties) as a, setting.subject(properties=properties) as b:
        return audit.compare(a, b)


def suite_sasl(setting):
    python = servers.python_environment(setting.work)
    ways = [
        {},
        {"zookeeper.allowSaslFailedClients": "true"},
        {"zookeeper.sessionRequireClientSASLAuth": "true"},
    ]
    passed = failed = 0
    for number, more in enumerate(ways):
        properties = sasl.properties(setting.work, **more)
        with setting.reference(properties=properties) as a, setting.subject(properties=properties) as b:
            check = sasl.compare_raw(a, b)
            if number == 0:
                sasl.run_kazoo(check, python, b)
                java = java_command(f"{setting.jars()}/*", "org.apache.zookeeper.ZooKeeperMain")
                sasl.run_java(check, setting.work, java, b)
        passed, failed = passed + check.passed, failed + check.failed
    return passed, failed


def suite_kazoo(setting):
    python = servers.python_environment(setting.work)
    with setting.subject() as server:
        return converse(
            [python, HERE / "kazoo_suite.py", server.address, *(setting.only or ())], server, "the kazoo suite"
        )


def java_classes(setting, source):
    """Compiles one program against the jars; returns its class path."""
    jars, classes = setting.jars(), setting.work / "classes"
    classes.mkdir(exist_ok=True)
    servers.run_checked(
        ["javac", "-nowarn", "-Xlint:-options", "-cp", f"{jars}/*", "-d", classes, HERE / "java" / source],
        f"javac {source}",
    )
    return os.pathsep.join([str(classes), f"{jars}/*"])


def java_command(path, main, *arguments):
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=off"
    return ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", quiet, "-cp", path, main, *arguments]


def suite_java(setting):
    path = java_classes(setting, "ClientSuite.java")
    properties = {"zookeeper.extendedTypesEnabled": "true"}
    with setting.subject(properties=properties) as server:
        return converse(java_command(path, "ClientSuite", server.address), server, "the Java suite")


def suite_curator(setting):
    path = java_classes(setting, "CuratorSuite.java")
    with setting.subject(properties={"zookeeper.extendedTypesEnabled": "true"}) as server:
        return converse(java_command(path, "CuratorSuite", server.address), server, "the Curator suite")


def suite_shell(setting):
    properties = {"zookeeper.extendedTypesEnabled": "true"}
    with setting.reference(properties=properties) as reference, setting.subject(properties=properties) as subject:
        return shell.check(
            reference, subject, java_command(f"{setting.jars()}/*", "org.apache.zookeeper.ZooKeeperMain")
        )


def suite_c(setting):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not pathlib.Path("/usr/include/zookeeper/zookeeper.h").exists():
        raise NotRun("gcc and Debian's libzookeeper-mt-dev are needed")
    program = setting.work / "c_suite"
    servers.run_checked(
        [
            compiler,
            "-std=gnu11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-O1",
            "-g",
            "-DTHREADED",
            "-o",
            program,
            HERE / "c" / "suite.c",
            "-lzookeeper_mt",
            "-lpthread",
        ],
        "compiling the C suite",
    )
    with setting.subject(properties={"zookeeper.extendedTypesEnabled": "true"}) as server:
        return converse([program, server.address], server, "the C suite")


def suite_mixed(setting):
    if setting.binary is None:
        raise NotRun("Apache ZooKeeper is not mixed with itself")
    return mixed.run(setting)


def suite_tls(setting):
    """The Java client against both servers on the same stores, so that both know it by the same names; then kazoo."""
    stores = HERE.parent / "golden" / "tls"
    path, python = java_classes(setting, "TlsSuite.java"), servers.python_environment(setting.work)
    passed = failed = 0
    for make in (setting.reference, setting.subject):
        port = servers.free_port()
        settings = {
            "secureClientPort": port,
            "secureClientPortAddress": "127.0.0.1",
            "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
            "ssl.keyStore.location": stores / "server.jks",
            "ssl.keyStore.password": "secret",
            "ssl.trustStore.location": stores / "trust-keytool.p12",
            "ssl.trustStore.passwordPath": stores / "password",
            "ssl.enabledProtocols": "TLSv1.3,TLSv1.2",
        }
        with make(settings=settings) as server:
            print(f"    {server.kind}", flush=True)
            for command in (
                java_command(path, "TlsSuite", f"localhost:{port}", stores),
                [python, HERE / "kazoo_tls.py", f"localhost:{port}", stores],
            ):
                good, bad = converse(command, server, "the TLS suite")
                passed, failed = passed + good, failed + bad
    return passed, failed


SUITES = {
    "differential": suite_differential,
    "recovery": suite_recovery,
    "faults": suite_faults,
    "words": suite_words,
    "admin": suite_admin,
    "audit": suite_audit,
    "sasl": suite_sasl,
    "kazoo": suite_kazoo,
    "java": suite_java,
    "shell": suite_shell,
    "curator": suite_curator,
    "c": suite_c,
    "mixed": suite_mixed,
    "tls": suite_tls,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--server", help="the ringkeeper binary under test")
    which.add_argument("--self-check", action="store_true", help="put Apache ZooKeeper in ringkeeper's place")
    parser.add_argument(
        "--work",
        default=os.environ.get("CARGO_TARGET_DIR", "target") + "/compat",
        help="where downloads and classes are kept",
    )
    parser.add_argument("--mixes", type=int, default=40, help="random scenarios for each configuration")
    parser.add_argument("--only", help="cases of the differential test (or tests of kazoo's suite), comma separated")
    parser.add_argument("--show", type=int, default=25, help="differences shown in full for each configuration")
    parser.add_argument("--long", action="store_true", help="the long form of the suite mixed")
    parser.add_argument("--rounds", type=int, default=30, help="random faults in each story of the long form")
    parser.add_argument("--keep", action="store_true", help="leave logs and data of the suite mixed behind")
    parser.add_argument("suites", nargs="*", metavar="suite", help=", ".join(SUITES))
    arguments = parser.parse_args()
    unknown = [name for name in arguments.suites if name not in SUITES]
    if unknown:
        parser.error(f"unknown suite {unknown[0]}; there are {', '.join(SUITES)}")
    # Told to stop, the servers are stopped first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    setting = Setting(arguments)
    in_ci = os.environ.get("CI") == "true"
    rows, passed, failed = [], 0, 0
    for name in arguments.suites or SUITES:
        print(f"== {name}", flush=True)
        began = time.monotonic()
        try:
            good, bad = SUITES[name](setting)
            text = f"{good} passed, {bad} failed"
            if good == 0 and bad == 0:
                bad, text = 1, "nothing was tested"
        except NotRun as reason:
            good, bad, text = 0, 1 if in_ci else 0, f"not run: {reason}"
        except (RuntimeError, OSError) as error:
            good, bad, text = 0, 1, f"failed: {error}"
        rows.append(f"{name:14} {text} ({time.monotonic() - began:.1f} s)")
        passed, failed = passed + good, failed + bad
    print("== summary")
    print("\n".join(rows))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
