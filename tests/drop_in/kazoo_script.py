"""What kazoo sees of a server, as a transcript: python kazoo_script.py HOST:PORT

Every line depends on the server's answers alone: transaction ids are counted from the script's first write, session
ids are named in the order of appearance and times are only compared with one another. So two servers that are given
the same script print the same text, failed writes and all, or they differ in what a client can see.
"""

import sys
import threading

from kazoo.client import KazooClient
from kazoo.protocol.states import KazooState
from kazoo.security import ACL, OPEN_ACL_UNSAFE, make_acl, make_digest_acl

HOSTS = sys.argv[1]
WAIT_S = 30
sessions = {}
base = None


def show(*words):
    print(*words, flush=True)


def zxid(value):
    return value if value <= 0 else "base%+d" % (value - base)


def owner(value):
    if value == 0:
        return 0
    return sessions.setdefault(value, "session%d" % (len(sessions) + 1))


def stat(s):
    return "czxid=%s mzxid=%s pzxid=%s version=%d cversion=%d aversion=%d owner=%s length=%d children=%d times=%s" % (
        zxid(s.czxid), zxid(s.mzxid), zxid(s.pzxid), s.version, s.cversion, s.aversion,
        owner(s.ephemeralOwner), s.dataLength, s.numChildren,
        "equal" if s.czxid == s.mzxid and s.mtime == s.ctime else "ordered" if s.mtime >= s.ctime else "WRONG")


def attempt(name, call, *args, **kwargs):
    """Prints what a call gave, or the class of what it raised."""
    try:
        result = call(*args, **kwargs)
    except Exception as error:  # the class is what a program sees
        show(name, "->", type(error).__name__)
        return None
    show(name, "->", describe(result))
    return result


def describe(result):
    if isinstance(result, tuple) and len(result) == 2 and hasattr(result[1], "czxid"):
        return "%s %s" % (describe(result[0]), stat(result[1]))
    if hasattr(result, "czxid"):
        return stat(result)
    if isinstance(result, list) and all(isinstance(x, str) for x in result):
        return repr(sorted(result))
    if isinstance(result, list):
        return "[" + ", ".join(describe(x) for x in result) + "]"
    if isinstance(result, Exception):
        return type(result).__name__
    if isinstance(result, ACL):
        return "%d:%s:%s" % (result.perms, result.id.scheme, result.id.id)
    return repr(result)


def client(**kwargs):
    c = KazooClient(hosts=HOSTS, timeout=8.0, **kwargs)
    c.start(timeout=WAIT_S)
    owner(c.client_id[0])
    return c


class Events:
    """Watch events in the order of arrival."""

    def __init__(self):
        self.seen = []
        self.news = threading.Condition()

    def __call__(self, event):
        with self.news:
            self.seen.append("%s %s %s" % (event.type, event.state, event.path))
            self.news.notify_all()

    def expect(self, count, name, ordered=True):
        with self.news:
            ok = self.news.wait_for(lambda: len(self.seen) >= count, WAIT_S)
            show("events", name, "->", self.seen if ordered else sorted(self.seen), "" if ok else "TOO FEW")
            self.seen = []


zk = client()
_, first = zk.create("/script", b"", include_data=True)
base = first.czxid
show("negotiated", zk._session_timeout if hasattr(zk, "_session_timeout") else "", "server", zk.server_version()[:1] == (3,))

show("== create")
for ephemeral in (False, True):
    for sequence in (False, True):
        attempt("create e=%d s=%d" % (ephemeral, sequence), zk.create, "/script/n-%d%d-" % (ephemeral, sequence), b"v",
                ephemeral=ephemeral, sequence=sequence, include_data=True)
attempt("create without stat", zk.create, "/script/plain", b"v")
attempt("create null-ish", zk.create, "/script/empty", b"")
attempt("create again", zk.create, "/script/plain", b"v")
attempt("create without parent", zk.create, "/script/no/parent", b"v")
attempt("create under ephemeral", zk.create, "/script/n-10-/child", b"v")
attempt("create makepath", zk.create, "/script/deep/er/est", b"v", makepath=True)
attempt("create unicode", zk.create, "/script/\u00e9\u4e2d", b"v")
attempt("create sequence in directory", zk.create, "/script/deep/", b"", sequence=True)
attempt("create big", zk.create, "/script/big", b"x" * 500000)
attempt("create bad acl", zk.create, "/script/badacl", b"", acl=[make_acl("nosuch", "x", all=True)])
attempt("create bad digest acl", zk.create, "/script/badacl", b"", acl=[make_acl("digest", "nocolon", all=True)])
attempt("create bad ip acl", zk.create, "/script/badacl", b"", acl=[make_acl("ip", "300.1.1.1", all=True)])
attempt("create auth acl without auth", zk.create, "/script/badacl", b"", acl=[make_acl("auth", "", all=True)])
attempt("create world acl other", zk.create, "/script/badacl", b"", acl=[make_acl("world", "else", all=True)])

show("== read")
attempt("get", zk.get, "/script/plain")
attempt("get big length", lambda: len(zk.get("/script/big")[0]))
attempt("get missing", zk.get, "/script/missing")
attempt("exists", zk.exists, "/script/plain")
attempt("exists missing", zk.exists, "/script/missing")
attempt("children", zk.get_children, "/script")
attempt("children with stat", zk.get_children, "/script", include_data=True)
attempt("children missing", zk.get_children, "/script/missing")
attempt("children of /zookeeper", zk.get_children, "/zookeeper")
attempt("stat of /", lambda: [zk.exists("/").cversion, zk.exists("/").numChildren, zk.exists("/").czxid])
attempt("stat of /zookeeper", zk.exists, "/zookeeper")
attempt("stat of /zookeeper/config", zk.exists, "/zookeeper/config")
attempt("get config", zk.get, "/zookeeper/config")
attempt("acls of /", zk.get_acls, "/")
attempt("acls of config", zk.get_acls, "/zookeeper/config")

show("== write")
attempt("set", zk.set, "/script/plain", b"w")
attempt("set version", zk.set, "/script/plain", b"w2", version=1)
attempt("set old version", zk.set, "/script/plain", b"w3", version=1)
attempt("set missing", zk.set, "/script/missing", b"w")
attempt("set empty", zk.set, "/script/plain", b"")
attempt("set config", zk.set, "/zookeeper/config", b"x")
attempt("delete old version", zk.delete, "/script/plain", version=0)
attempt("delete not empty", zk.delete, "/script/deep")
attempt("delete", zk.delete, "/script/plain", version=3)
attempt("delete missing", zk.delete, "/script/plain")
attempt("delete system", zk.delete, "/zookeeper/quota")
attempt("parent after it all", zk.exists, "/script")
attempt("recursive delete", zk.delete, "/script/deep", recursive=True)
attempt("sync", zk.sync, "/script")
attempt("sync missing", zk.sync, "/nothing/here")

show("== watches")
events = Events()
zk.create("/script/w", b"0")
zk.get("/script/w", watch=events)
zk.exists("/script/w", watch=events)
zk.get_children("/script/w", watch=events)
zk.exists("/script/w/new", watch=events)
zk.create("/script/w/new", b"")
events.expect(2, "child created")
zk.set("/script/w", b"1")
events.expect(1, "data set")
zk.set("/script/w", b"2")
zk.get_children("/script/w", watch=events)
zk.set("/script/w/new", b"2")
zk.delete("/script/w/new")
events.expect(1, "child deleted, after sets that concern nobody")
zk.get("/script/w", watch=events)
zk.get_children("/script/w", watch=events)
zk.get_children("/script", watch=events)
zk.delete("/script/w")
events.expect(3, "deleted")
attempt("get missing with watch", zk.get, "/script/w", watch=events)
zk.create("/script/w", b"")
zk.get("/script/w", watch=events)
transaction = zk.transaction()
transaction.set_data("/script/w", b"t")
transaction.delete("/script/w")
transaction.create("/script/w", b"again")
attempt("transaction on a watched node", transaction.commit)
events.expect(1, "in a transaction")

show("== transactions")


def transact(name, fill):
    t = zk.transaction()
    fill(t)
    attempt(name, t.commit)


def good(t):
    t.create("/script/t", b"a")
    t.create("/script/t/s-", b"b", sequence=True)
    t.create("/script/t/s-", b"b", ephemeral=True, sequence=True)
    t.check("/script/t", 0)
    t.set_data("/script/t", b"c")
    t.check("/script/t", 1)
    t.create("/script/gone", b"")
    t.delete("/script/gone")


def bad_version(t):
    t.set_data("/script/t", b"d")
    t.check("/script/t", 9)
    t.create("/script/never", b"")


def bad_first(t):
    t.delete("/script/missing")
    t.create("/script/never", b"")


def bad_last(t):
    t.create("/script/never", b"")
    t.set_data("/script/never", b"1")
    t.create("/script/t", b"")


transact("good", good)
attempt("after good", zk.get, "/script/t")
attempt("children after good", zk.get_children, "/script/t", include_data=True)
transact("bad version", bad_version)
transact("bad first", bad_first)
transact("bad last", bad_last)
attempt("after bad", zk.get, "/script/t")
attempt("never", zk.exists, "/script/never")
transact("system", lambda t: t.delete("/zookeeper/config"))
attempt("parent after transactions", zk.exists, "/script")

show("== acl")
zk.add_auth("digest", "alice:secret")
alice = make_digest_acl("alice", "secret", all=True)
attempt("create with digest", zk.create, "/script/a", b"", acl=[alice], include_data=True)
attempt("create with auth", zk.create, "/script/auth", b"", acl=[make_acl("auth", "", read=True, admin=True)])
attempt("create with doubles", zk.create, "/script/two", b"",
        acl=[make_acl("world", "anyone", read=True), alice, make_acl("world", "anyone", read=True)])
attempt("acls digest", zk.get_acls, "/script/a")
attempt("acls auth", zk.get_acls, "/script/auth")
attempt("acls doubles", zk.get_acls, "/script/two")
attempt("set where only read", zk.set, "/script/auth", b"x")
attempt("create below without right", zk.create, "/script/auth/x", b"")
attempt("set_acls", zk.set_acls, "/script/a", [alice, make_acl("ip", "127.0.0.1", read=True)])
attempt("set_acls old version", zk.set_acls, "/script/a", OPEN_ACL_UNSAFE, version=0)
attempt("set_acls empty", zk.set_acls, "/script/a", [])
attempt("set_acls missing", zk.set_acls, "/script/missing", OPEN_ACL_UNSAFE)
attempt("ip range", zk.create, "/script/ip", b"", acl=[make_acl("ip", "127.0.0.0/8", read=True, create=True)])
attempt("other ip", zk.create, "/script/ip2", b"", acl=[make_acl("ip", "10.0.0.0/8", all=True)])
attempt("get other ip", zk.get, "/script/ip2")
attempt("acls of other ip", zk.get_acls, "/script/ip2")
other = client()
attempt("other get", other.get, "/script/a")
attempt("other set", other.set, "/script/a", b"x")
attempt("other acls", other.get_acls, "/script/a")
attempt("other acls doubles", other.get_acls, "/script/two")
attempt("other acls auth", other.get_acls, "/script/auth")
attempt("other delete", other.delete, "/script/a")
attempt("other set_acls", other.set_acls, "/script/a", OPEN_ACL_UNSAFE)
attempt("other children", other.get_children, "/script/auth")
attempt("other create below", other.create, "/script/ip/child", b"")
attempt("other delete below", other.delete, "/script/ip/child")
transaction = other.transaction()
transaction.create("/script/never", b"")
transaction.set_data("/script/a", b"")
attempt("other transaction", transaction.commit)

show("== sessions")
other.create("/script/e", b"", ephemeral=True)
other.create("/script/e-", b"", ephemeral=True, sequence=True)
events = Events()
attempt("ephemeral", zk.get, "/script/e", watch=events)
attempt("ephemeral parent", zk.get_children, "/script", watch=events, include_data=True)
attempt("delete ephemeral of other", zk.delete, "/script/e-0000000099")
other.stop()
other.close()
# The order in which a session's ephemerals go is that of a HashSet in Apache.
events.expect(2, "session closed", ordered=False)
attempt("ephemeral gone", zk.exists, "/script/e")
attempt("parent after close", zk.exists, "/script")

lost = Events()
states = []
known = zk.client_id
zk.add_listener(lambda state: (states.append(str(state)), lost(type("E", (), dict(type=state, state="", path="")))))
zk.exists("/script/w", watch=events)
zk._connection._socket.shutdown(2)
with lost.news:
    lost.news.wait_for(lambda: KazooState.CONNECTED in states, WAIT_S)
show("same session after reconnect", zk.client_id == known, states)
attempt("own ephemerals after reconnect", zk.exists, "/script/n-10-")
attempt("write after reconnect", zk.set, "/script/t", b"still here")
second = KazooClient(hosts=HOSTS, timeout=8.0, client_id=(known[0], b"0123456789abcdef"))
expired = Events()
second.add_listener(lambda state: expired(type("E", (), dict(type=state, state="", path=""))))
second.start(timeout=WAIT_S)
show("wrong password gives another session", second.client_id[0] != known[0])
second.stop()
attempt("first client still there", zk.get, "/script/t")
attempt("last", zk.exists, "/script")
zk.stop()
zk.close()
show("end")
