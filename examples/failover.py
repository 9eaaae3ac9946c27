#!/usr/bin/env python3
"""Failing clients over: with several servers in the connect string, a client goes on with another one.

Needs kazoo (pip install kazoo) and a running server, better several:

    cargo run --release                 # in one terminal
    python3 examples/failover.py --hosts 127.0.0.1:2182,127.0.0.1:2181

Nobody need listen on the first address: the client passes on to the next one. Stop and start servers while it runs: the
session, and with it the ephemeral node that says "I am here", goes on as long as some server is back before the session's
timeout. A write whose answer was lost may have happened; this one is safe to repeat.
"""

import argparse
import time

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import ConnectionLoss
from kazoo.retry import KazooRetry

arguments = argparse.ArgumentParser(description="Keep a session over the failure of servers.")
arguments.add_argument("--hosts", default="127.0.0.1:2181", help="servers, as host:port,host:port")
arguments.add_argument("--writes", type=int, default=20, help="writes, ten a second (20)")
options = arguments.parse_args()

client = KazooClient(hosts=options.hosts, timeout=20, connection_retry=KazooRetry(max_tries=-1, max_delay=1))


def tell(state):
    # LOST means that the session has expired: its ephemeral nodes are gone and must be made again.
    print({KazooState.CONNECTED: "connected", KazooState.SUSPENDED: "looking for a server"}.get(state, "lost"), flush=True)


client.add_listener(tell)
client.start(timeout=30)
session = client.client_id[0]
client.ensure_path("/examples")
here = client.create("/examples/here-", ephemeral=True, sequence=True)

for number in range(options.writes):
    while True:
        try:
            client.retry(client.set, here, str(number).encode())
            break
        except ConnectionLoss:
            continue
    print(f"write {number} is safe", flush=True)
    time.sleep(0.1)

same = client.client_id[0] == session and client.exists(here).ephemeralOwner == session
print("the session is the same" if same else "the session was lost")
client.remove_listener(tell)
client.stop()
