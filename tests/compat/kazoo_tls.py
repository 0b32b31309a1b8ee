"""kazoo over TLS. Called with the server's secure address and the directory of the stores."""

import sys
import traceback

from kazoo.client import KazooClient
from kazoo.security import ACL, Id

SUBJECT = "CN=client one,OU=Ops,O=Acme\\, Inc,ST=Berlin,C=DE"


def client(stores, name, **options):
    pem = f"{stores}/{name}"
    return KazooClient(
        hosts=sys.argv[1], use_ssl=True, certfile=pem, keyfile=pem, ca=f"{stores}/ca.pem", timeout=10.0, **options
    )


def main():
    stores = sys.argv[2]
    try:
        zk = client(stores, "client.pem")
        zk.start(timeout=20)
        data = b"x" * 1_000_000
        zk.create("/kazoo-tls", data, acl=[ACL(31, Id("x509", SUBJECT))])
        assert zk.get("/kazoo-tls")[0] == data
        zk.delete("/kazoo-tls")
        zk.stop()
        zk.close()
        print("ok a session, a list for its subject")
        refused = client(stores, "stranger.pem", connection_retry={"max_tries": 1})
        try:
            refused.start(timeout=2)
            raise AssertionError("a stranger got a session")
        except refused.handler.timeout_exception:
            print("ok a stranger, no session")
        finally:
            refused.stop()
            refused.close()
    except Exception:
        print(traceback.format_exc())
        print("0 passed, 1 failed")
        return 1
    print("2 passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
