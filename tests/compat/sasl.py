"""SASL with DIGEST-MD5: the exchange itself beside ZooKeeper's, then kazoo and the Java client.

The server's users are in a login configuration as ZooKeeper's documentation has it.
"""

import re
import subprocess

import jute
import words
from servers import HERE

SECONDS_MAX = 60
PROVIDER = "org.apache.zookeeper.server.auth.SASLAuthenticationProvider"
SERVER = """Server {
    org.apache.zookeeper.server.auth.DigestLoginModule required
    user_super="adminsecret"
    user_bob="bob\\"secret";
};
"""
CLIENT = """Client {
    org.apache.zookeeper.server.auth.DigestLoginModule required
    username="%s"
    password="%s";
};
"""


def properties(work, **more):
    path = work / "jaas.conf"
    path.write_text(SERVER)
    return {
        "java.security.auth.login.config": path,
        "zookeeper.authProvider.1": PROVIDER,
        # On unless told otherwise, and DIGEST-MD5 off with it.
        "zookeeper.fips-mode": "false",
        "zookeeper.superUser": "super",
        **more,
    }


class Exchange:
    """What a server says to tokens, without its nonces."""

    def __init__(self, server):
        self.client, self.said = words.Client(server.port), []

    def say(self, token):
        payload = self.client.call("sasl", jute.buffer(token))
        if payload is None:
            self.said.append("closed")
            return b""
        reader = jute.Reader(payload)
        reader.i32()
        zxid, err = reader.i64(), reader.i32()
        answer = reader.buffer()
        shown = answer and re.sub(rb'nonce="[^"]*"|rspauth=.*', lambda found: found[0][:7], answer)
        self.said.append((zxid, err, shown))
        return answer or b""

    def end(self):
        """Whether the connection is closed: a request behind the tokens is not answered."""
        self.said.append(self.client.call("exists", jute.ustring("/") + b"\0") is None)
        self.client.wire.close()
        return self.said


def conversations(server):
    first = Exchange(server)
    first.say(b"")
    first.say(b"nonsense")
    yield "nonsense for an answer", first.end()
    early = Exchange(server)
    early.say(b"x")
    yield "an initial response", early.end()
    for name, change in (
        ("no user", (b"bob", b"eve")),
        ("another nonce", (b'nonce="', b'nonce="x')),
        ("another service", (b"zookeeper/", b"imap/")),
        ("no response", (b"response=", b"other=")),
        ("a wrong response", (b"response=", b"response=ffffffff")),
    ):
        one = Exchange(server)
        nonce = re.search(rb'nonce="([^"]*)"', one.say(b""))[1]
        token = (
            b'charset=utf-8,username="bob",realm="zk-sasl-md5",nonce="%s",nc=00000001,cnonce="c",'
            b'digest-uri="zookeeper/zk-sasl-md5",maxbuf=65536,response=%s,qop=auth' % (nonce, b"0" * 32)
        )
        one.say(token.replace(*change, 1))
        yield name, one.end()


def compare_raw(a, b):
    check = words.Check((a.kind, b.kind))
    for (name, x), (_, y) in zip(conversations(a), conversations(b)):
        check.equal(name, x, y)
    return check


def run_kazoo(check, python, server):
    script = HERE / "sasl_kazoo.py"
    done = subprocess.run([python, script, server.address], capture_output=True, text=True, timeout=SECONDS_MAX)
    for line in (done.stdout + done.stderr).splitlines():
        print(f"    {line}")
    check.equal("kazoo authenticates by SASL", done.returncode, 0)


def run_java(check, work, java, server):
    def shell(user, password, *command):
        path = work / "client.conf"
        path.write_text(CLIENT % (user, password))
        options = [f"-Djava.security.auth.login.config={path}", "-Dzookeeper.fips-mode=false"]
        words_of = [*java[:-1], *options, java[-1], "-server", server.address, *command]
        done = subprocess.run([str(w) for w in words_of], capture_output=True, text=True, timeout=SECONDS_MAX)
        return done.returncode, done.stdout + done.stderr

    bob = ("bob", 'bob\\"secret')
    code, text = shell(*bob, "whoami")
    check.true(f"whoami says sasl: bob: {text}", code == 0 and "sasl: bob" in text)
    code, text = shell(*bob, "create", "/java-sasl", "data", "sasl:bob:cdrwa")
    check.true(f"a znode of bob's is made: {text}", code == 0 and "Created /java-sasl" in text)
    code, text = shell(*bob, "get", "/java-sasl")
    check.true(f"bob reads it: {text}", code == 0 and "data" in text)
    code, text = shell("super", "adminsecret", "get", "/java-sasl")
    check.true(f"so does the super user: {text}", code == 0 and "data" in text)
