#!/usr/bin/env python3
"""Distributed lock: several workers change the same thing, one at a time.

Needs kazoo (pip install kazoo) and a running server:

    cargo run --release             # in one terminal
    python3 examples/lock.py        # in another

Each worker reads a balance, thinks, and writes a new one: without the lock, changes would be lost. The lock belongs to the
worker's session, so that a worker that dies lets the next one in. A worker that only *seems* dead (a long pause) may wake
up after its session has expired; so the write also says which version it was based on, and is refused if that is gone.
"""

import argparse
import threading

from kazoo.client import KazooClient

arguments = argparse.ArgumentParser(description="Change a shared balance under a lock.")
arguments.add_argument("--hosts", default="127.0.0.1:2181", help="servers, as host:port,host:port")
arguments.add_argument("--workers", type=int, default=5, help="workers (5)")
arguments.add_argument("--deposits", type=int, default=10, help="deposits of each worker (10)")
options = arguments.parse_args()

ACCOUNT = "/examples/account"


def worker(number):
    client = KazooClient(hosts=options.hosts)
    client.start()
    lock = client.Lock("/examples/lock", f"worker-{number}")
    for _ in range(options.deposits):
        with lock:
            balance, stat = client.get(ACCOUNT)
            client.set(ACCOUNT, str(int(balance) + 1).encode(), version=stat.version)
    client.stop()


teller = KazooClient(hosts=options.hosts)
teller.start()
teller.ensure_path(ACCOUNT)
teller.set(ACCOUNT, b"0")
workers = [threading.Thread(target=worker, args=(number,)) for number in range(options.workers)]
for thread in workers:
    thread.start()
for thread in workers:
    thread.join()
balance = int(teller.get(ACCOUNT)[0])
expected = options.workers * options.deposits
print(f"{options.workers} workers, {options.deposits} deposits each: the balance is {balance}")
teller.stop()
if balance != expected:
    raise SystemExit(f"{expected - balance} deposits are lost")
