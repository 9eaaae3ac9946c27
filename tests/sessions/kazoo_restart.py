"""A kazoo client below which the server is restarted: python kazoo_restart.py HOST:PORT"""

import sys
import threading

from kazoo.client import KazooClient
from kazoo.protocol.states import KazooState

WAIT_S = 30
zk = KazooClient(hosts=sys.argv[1], timeout=10.0)
zk.start(timeout=WAIT_S)
suspended = threading.Event()
connected = threading.Event()
states = []


def listen(state):
    states.append(state)
    if state == KazooState.SUSPENDED:
        suspended.set()
    elif state == KazooState.CONNECTED:
        connected.set()


zk.add_listener(listen)
session = zk.client_id
_, before = zk.create("/restart", b"here", ephemeral=True, include_data=True)
print("ready", flush=True)
sys.stdin.readline()
assert suspended.wait(WAIT_S) and connected.wait(WAIT_S), states
data, after = zk.get("/restart")
same = zk.client_id == session and data == b"here" and after == before and KazooState.LOST not in states
print("same session, same ephemeral" if same else "%s %s %s %s" % (zk.client_id, session, after, states), flush=True)
sys.stdin.readline()
zk.stop()
