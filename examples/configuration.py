#!/usr/bin/env python3
"""Configuration push: one change reaches many machines at once, and none misses the newest one.

Needs kazoo (pip install kazoo) and a running server:

    cargo run --release                     # in one terminal
    python3 examples/configuration.py       # in another

Here the machines are sessions of this process; a real machine runs the body of `machine`. The watch tells it that there
is something new, reading again tells it what: changes that come in quick succession are seen as the last of them.
"""

import argparse
import threading
import time

from kazoo.client import KazooClient

arguments = argparse.ArgumentParser(description="Push a configuration to many machines.")
arguments.add_argument("--hosts", default="127.0.0.1:2181", help="servers, as host:port,host:port")
arguments.add_argument("--machines", type=int, default=20, help="machines that listen (20)")
options = arguments.parse_args()

PATH = "/examples/configuration"
arrived = {}
news = threading.Condition()


def machine(number):
    client = KazooClient(hosts=options.hosts)
    client.start()

    # Called with what is there now, and again after each change; it survives reconnects by itself.
    @client.DataWatch(PATH)
    def obey(data, stat):
        with news:
            arrived[number] = (stat.version, data.decode())
            news.notify_all()

    return client


publisher = KazooClient(hosts=options.hosts)
publisher.start()
publisher.ensure_path(PATH)
machines = [machine(number) for number in range(options.machines)]

for limit in (100, 250, 500):
    text = f"connections.max={limit}"
    begun = time.monotonic()
    version = publisher.set(PATH, text.encode()).version
    with news:
        reached = news.wait_for(
            lambda: sum(seen == (version, text) for seen in arrived.values()) == options.machines, timeout=30
        )
    if not reached:
        raise SystemExit(f"only {len(arrived)} machines have {text}")
    took_ms = 1000 * (time.monotonic() - begun)
    print(f"{text} is on all {options.machines} machines after {took_ms:.1f} ms", flush=True)

for client in machines + [publisher]:
    client.stop()
