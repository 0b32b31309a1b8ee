"""ZooKeeper's own shell: one script typed into it against both servers, and single commands with their exit codes.

Both servers are fresh, so that what the shell prints must be the same to the letter, zxids included; only times are
taken out. The few lines of EXPECTED are spelled out besides, so that a change in the shell itself is noticed.
"""

import concurrent.futures
import re
import subprocess

SECONDS_MAX = 120

SCRIPT = """
create /a one
create /a again
create -s /a/s- x
create -s -e /a/es- x
create -e /a/e
create -c /a/c
create -t 100000 /a/t
create -t 0 /a/t0
create /a/acl data world:anyone:cdrwa,ip:127.0.0.1:r
create /a/bad data nope:x:r
create /a/none/x
create /a/b/
create relative
create /a/e/kid
create "/a/with blank" "two words"
create /a/ünïcödé 日本語
ls /
ls -s /a
ls -R /a
ls /none
get /a
get -s /a
get /none
get "/a/with blank"
get -b /a
get -x /a
get /a/ünïcödé
stat /a
stat /a/es-0000000001
stat /none
set /a two
set -s /a three
set -v 2 /a four
set -v 9 /a x
set /none x
delete /none
delete /a
delete -v 7 /a/t
delete -v 0 /a/t
delete /zookeeper
getAcl /a
getAcl /a/acl
getAcl -s /a/acl
getAcl /none
setAcl /a/c world:anyone:cr
setAcl -v 9 /a/c world:anyone:cr
setAcl -s -v 1 /a/c ip:127.0.0.1:cdrwa
setAcl /a/c auth::cdrwa
setAcl /a/acl world:anyone:r
set /a/acl y
setAcl /a/acl world:anyone:cdrwa
sync /a
whoami
addauth digest user:secret
whoami
create /a/mine x auth::cdrwa
getAcl /a/mine
setAcl -R /a/c auth::cdrwa
getAcl /a/c
getEphemerals
getEphemerals /a/es
getEphemerals /none
getAllChildrenNumber /a
getAllChildrenNumber /
getAllChildrenNumber /none
setquota -n 5 /a
setquota -b 100 /a
listquota /a
setquota -N 50 /a
setquota -B 1000 /a
listquota /a
get /zookeeper/quota/a/zookeeper_limits
get -s /zookeeper/quota/a/zookeeper_stats
set /a/c 12345
listquota /a
setquota -n 3 /a/c
delquota -n /a
listquota /a
delquota /a
listquota /a
delquota /a
config
config -c
config -s
config -w
reconfig -remove 3
reconfig -add server.5=localhost:1:2;3
addWatch -m PERSISTENT /a
set /a five
removewatches /a -a
addWatch /a
create /a/w
create /a/w/x
removewatches /a -a
removewatches /a -a
ls -w /a
create /a/v
get -w /a/v
set /a/v 1
stat -w /a/v
delete /a/v
deleteall /a/w
deleteall /none
foo
history x
printwatches off
get -w /a
set /a six
deleteall /a
ls /
"""

SINGLE = [
    ["ls", "/"],
    ["-waitforconnection", "create", "/single", "x"],
    ["create", "/single", "x"],
    ["get", "-s", "/single"],
    ["get", "/none"],
    ["foo"],
    ["delete", "/single"],
    ["-timeout", "5000", "ls", "/zookeeper"],
    ["reconfig", "-remove", "1"],
]

EXPECTED = {
    "create /a one": "Created /a",
    "create /a again": "Node already exists: /a",
    "create -s /a/s- x": "Created /a/s-0000000000",
    "get /none": "Node does not exist: /none",
    "set -v 9 /a x": "version No is not valid : /a",
    "delete /a": "Node not empty: /a",
    "create /a/e/kid": "Ephemerals cannot have children: /a/e/kid",
    "sync /a": "Sync is OK",
    "create /a/bad data nope:x:r": "Acl is not valid : /a/bad",
    "reconfig -remove 3": "KeeperErrorCode = Reconfig is disabled",
}

MARKER = "ZooKeeper CLI version:"
CHATTER = ("SLF4J", "Connecting to ", "Welcome to ZooKeeper!", "JLine support is disabled", "WATCHER::")
TIME = re.compile(r"^([cm]time = ).*")
OWNER = re.compile(r"^(ephemeralOwner = )0x[0-9a-f]{2,}")
SHOWN_CHARS = 600


def lines_of(text):
    """Splits output into what a command said and the events, which arrive when they like."""
    said, events = [], []
    # The marker may follow a message that has no line end.
    for line in text.replace(MARKER, "\n" + MARKER).splitlines():
        if line.startswith("WatchedEvent "):
            events.append(line)
        elif line.strip() and not line.startswith(CHATTER):
            line = OWNER.sub(r"\1(session)", TIME.sub(r"\1(time)", line))
            if line.startswith("[/"):
                line = str(sorted(line[1:-1].split(", ")))
            said.append(line)
    return said, events


def typed(server, command):
    """Types the script; returns each command's lines and all events."""
    commands = [line for line in SCRIPT.strip().splitlines()]
    script = "".join(f"{line}\nversion\n" for line in commands) + "quit\n"
    done = subprocess.run(
        [*command, "-waitforconnection", "-server", server.address],
        input=script.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS_MAX,
    )
    said, events = lines_of(done.stdout.decode(errors="replace"))
    answers, current = [], []
    for line in said:
        if line.startswith(MARKER):
            answers.append(current)
            current = []
        else:
            current.append(line)
    return list(zip(commands, answers, strict=True)) if len(answers) == len(commands) else [
        ("the script", said)
    ], sorted(events)


def single(server, command, arguments):
    done = subprocess.run(
        [*command, "-server", server.address, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=SECONDS_MAX,
    )
    return done.returncode, lines_of(done.stdout.decode())[0], lines_of(done.stderr.decode())[0]


def session(server, command):
    answers, events = typed(server, command)
    rows = [(text, said) for text, said in answers] + [("events", events)]
    rows += [(f"single: {' '.join(arguments)}", single(server, command, arguments)) for arguments in SINGLE]
    return rows


def check(reference, subject, command):
    """Runs everything against both servers side by side; returns (passed, failed)."""
    command = [command[0], "-Dfile.encoding=UTF-8", *command[1:]]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        theirs, ours = pool.map(lambda server: session(server, command), (reference, subject))
    passed = failed = 0
    for (text, expected), (_, got) in zip(theirs, ours):
        literal = EXPECTED.get(text)
        if expected != got:
            failed += 1
            print(f"    FAILED {text}")
            for server, said in ((reference, expected), (subject, got)):
                print(f"        {server.kind}: {str(said)[:SHOWN_CHARS]}")
        elif literal is not None and literal not in got:
            failed += 1
            print(f"    FAILED {text}: expected {literal!r}, got {got}")
        else:
            passed += 1
    if len(theirs) != len(ours):
        failed += 1
        print(f"    FAILED: {len(theirs)} answers against {len(ours)}:\n        {str(ours[0])[:SHOWN_CHARS]}")
    return passed, failed
