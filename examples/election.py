#!/usr/bin/env python3
"""Election: several application servers agree on one leader, and on the next one when it fails.

Needs kazoo (pip install kazoo) and a running server:

    cargo run --release                 # in one terminal
    python3 examples/election.py        # in another

Here the application servers are threads, each with a session of its own; on real machines each runs the body of
`application_server`. Who leads holds an ephemeral node: when its process or machine dies, the session expires and the
next in line leads.
"""

import argparse
import threading

from kazoo.client import KazooClient

arguments = argparse.ArgumentParser(description="Elect a leader among application servers.")
arguments.add_argument("--hosts", default="127.0.0.1:2181", help="servers, as host:port,host:port")
arguments.add_argument("--servers", type=int, default=4, help="application servers (4)")
options = arguments.parse_args()


def application_server(name):
    client = KazooClient(hosts=options.hosts)
    client.start()
    election = client.Election("/examples/election", name)

    def lead():
        # Runs only while this server is the leader. A real one would work here, and stop when its session is lost
        # (client.add_listener tells).
        waiting = [other for other in election.contenders() if other != name]
        print(f"{name} leads; in line behind it: {', '.join(waiting) or 'nobody'}", flush=True)

    # Blocks until this server is elected, then runs `lead`; coming back from it, or dying, passes the lead on.
    election.run(lead)
    client.stop()


servers = [threading.Thread(target=application_server, args=(f"server-{n}",)) for n in range(options.servers)]
for server in servers:
    server.start()
for server in servers:
    server.join()
print("each has led once")
