"""kazoo's client with SASL; called with the server's address by sasl.py."""

import sys

from kazoo.client import KazooClient
from kazoo.exceptions import AuthFailedError, ConnectionClosedError, ConnectionLoss, NoAuthError
from kazoo.security import make_acl

HOSTS = sys.argv[1]


def client(user=None, password=None):
    options = {"sasl_options": {"mechanism": "DIGEST-MD5", "username": user, "password": password}} if user else {}
    zk = KazooClient(hosts=HOSTS, timeout=10.0, connection_retry={"max_tries": 0}, **options)
    zk.start(timeout=20)
    return zk


bob = client("bob", 'bob"secret')
bob.create("/kazoo-sasl", b"mine", acl=[make_acl("sasl", "bob", all=True)])
assert bob.get("/kazoo-sasl")[0] == b"mine"
nobody = client()
try:
    nobody.get("/kazoo-sasl")
    raise SystemExit("nobody reads what is bob's")
except NoAuthError:
    pass
boss = client("super", "adminsecret")
assert boss.get("/kazoo-sasl")[0] == b"mine"
try:
    # The failure arrives after start() has come back.
    client("bob", "wrong").get("/kazoo-sasl")
    raise SystemExit("a wrong password is taken")
except (AuthFailedError, ConnectionClosedError, ConnectionLoss):
    pass
for zk in (bob, nobody, boss):
    zk.stop()
    zk.close()
