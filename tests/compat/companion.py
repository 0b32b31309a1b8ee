"""kazoo's client over a connection string while servers come and go.

Called with the connection string. Each line `round N` on standard input comes after `/watched` was set to N: the
watch must have told of it, and the session with its ephemeral must be the one from the start. `end` ends.
"""

import sys
import threading

from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss, OperationTimeoutError, SessionExpiredError
from kazoo.retry import KazooRetry

WAIT = 40.0
PATH = "/companion-kazoo"


def main():
    retry = KazooRetry(max_tries=-1, delay=0.05, max_delay=0.2, deadline=WAIT)
    zk = KazooClient(hosts=sys.argv[1], timeout=15.0, connection_retry=KazooRetry(max_tries=-1, max_delay=0.2))
    zk.start(timeout=WAIT)
    retry(zk.create, PATH, b"", ephemeral=True)
    session = zk.client_id[0]
    seen, told = [], threading.Condition()

    @zk.DataWatch("/watched")
    def watch(data, stat):
        with told:
            seen.append(int(data))
            told.notify_all()

    writes = 0
    print("good start", flush=True)
    for line in sys.stdin:
        if line == "end\n":
            break
        number = int(line.split()[1])
        with told:
            assert told.wait_for(lambda: number in seen, WAIT), f"the watch told of {seen}, not of {number}"
            assert seen == sorted(set(seen)), f"the watch told of {seen}"
        stat = retry(zk.exists, PATH)
        assert stat is not None, "the ephemeral is gone"
        assert stat.owner_session_id == session == zk.client_id[0], "the session is another"
        # One version each, though an attempt may be lost; nothing is done twice that was asked for once.
        before = stat.version
        attempts = 0
        while True:
            attempts += 1
            try:
                after = zk.set(PATH, line.encode()).version
                break
            except (ConnectionLoss, SessionExpiredError, OperationTimeoutError):
                assert attempts < 200, "no write goes through"
        writes += 1
        assert before < after <= before + attempts, f"version {after} after {attempts} attempts on {before}"
        print(f"good {number}", flush=True)
    zk.stop()
    zk.close()
    print("good end", flush=True)


try:
    main()
except Exception as error:
    print(f"failed: {error!r}", flush=True)
    sys.exit(1)
