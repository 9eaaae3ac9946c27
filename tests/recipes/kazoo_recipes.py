"""kazoo's recipes under contention: one story each, named on the command line.

    kazoo_recipes.py HOST:PORT STORY

Who dies in a story dies by SIGKILL, in a process of its own: nobody closes its session, which has to expire. Every story has several clients with sessions of their own, checks what its recipe promises and prints "ok STORY". A
promise that is broken is an AssertionError.
"""

import os
import subprocess
import sys
import threading
import time

from kazoo.client import KazooClient
from kazoo.recipe.barrier import DoubleBarrier
from kazoo.recipe.cache import TreeCache, TreeEvent
from kazoo.recipe.counter import Counter
from kazoo.recipe.election import Election
from kazoo.recipe.lock import Lock
from kazoo.recipe.party import Party
from kazoo.recipe.queue import LockingQueue, Queue

DEADLINE_S = 30


class Clients:
    """Sessions with the server; all of them end with the block."""

    def __init__(self, hosts, count):
        self.all = [KazooClient(hosts=hosts, timeout=10) for _ in range(count)]

    def __enter__(self):
        for client in self.all:
            client.start(timeout=DEADLINE_S)
        return self.all

    def __exit__(self, *_):
        for client in self.all:
            client.stop()
            client.close()


# Of a client that dies, in seconds; its lock or entry must stay taken nearly that long, and be free soon after.
MORTAL_TIMEOUT_S = 6


class Mortal:
    """A client in a process of its own that takes hold of something, says "ready" and waits to be killed."""

    def __init__(self, hosts, story):
        self.process = subprocess.Popen(
            [sys.executable, __file__, hosts, story], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "ready\n", "a client that is to die has not come so far"

    def __enter__(self):
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __exit__(self, *_):
        self.kill()


def wait_for_death():
    print("ready", flush=True)
    # The parent holds the other end: should it die first, nobody is left behind.
    sys.stdin.read()
    os._exit(1)


def hold_lock(hosts):
    """Takes the lock and dies with it."""
    client = KazooClient(hosts=hosts, timeout=MORTAL_TIMEOUT_S)
    client.start(timeout=DEADLINE_S)
    Lock(client, "/lock").acquire()
    wait_for_death()


def hold_entry(hosts):
    """Takes an entry and dies before it has consumed it."""
    client = KazooClient(hosts=hosts, timeout=MORTAL_TIMEOUT_S)
    client.start(timeout=DEADLINE_S)
    assert LockingQueue(client, "/locking").get(DEADLINE_S) is not None
    wait_for_death()


def together(work, clients):
    """Runs work(index, client) for all clients at once; the first failure is raised here."""
    failures = []

    def run(index, client):
        try:
            work(index, client)
        except BaseException as failure:  # told to the main thread
            failures.append(failure)

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "a client waits for ever"
    if failures:
        raise failures[0]


def lock(hosts):
    """Never two holders, everybody gets it, and a holder that dies lets the next one in."""
    holders, entered = [], []

    def work(index, client):
        for _ in range(8):
            with Lock(client, "/lock", str(index)):
                holders.append(index)
                seen = len(holders)
                client.exists("/lock")
                assert seen == len(holders) == 1, holders
                entered.append(index)
                holders.remove(index)

    with Clients(hosts, 6) as clients:
        together(work, clients)
        assert len(entered) == 48
        for how in ("killed", "closed"):
            waiting = clients[1]
            got, let_go = threading.Event(), threading.Event()

            def wait():
                with Lock(waiting, "/lock"):
                    got.set()
                    let_go.wait(DEADLINE_S)

            def get_in_line():
                waiter = threading.Thread(target=wait, daemon=True)
                waiter.start()
                # Polled: nobody tells when somebody else has got in line.
                while len(waiting.get_children("/lock")) < 2:
                    time.sleep(0.01)
                assert not got.is_set()
                return waiter

            if how == "killed":
                with Mortal(hosts, "hold_lock") as holder:
                    waiter = get_in_line()
                    holder.kill()
                    killed = time.monotonic()
                    assert got.wait(DEADLINE_S), "the lock of a dead client stays taken"
                    held = time.monotonic() - killed
                    # It pings every third of its timeout, or a little later.
                    assert held > MORTAL_TIMEOUT_S / 4, "free after %.1f s: its session has not expired" % held
            else:
                Lock(clients[0], "/lock").acquire()
                waiter = get_in_line()
                clients[0].stop()
                assert got.wait(DEADLINE_S), "the lock of a closed session stays taken"
            let_go.set()
            waiter.join(DEADLINE_S)


def election(hosts):
    """One leader at a time; each that steps down is followed by another, until all have led."""
    leading, led = [], []

    def work(index, client):
        def lead():
            leading.append(index)
            client.exists("/election")
            assert leading == [index], leading
            led.append(index)
            leading.remove(index)

        Election(client, "/election", str(index)).run(lead)

    with Clients(hosts, 6) as clients:
        together(work, clients)
        assert sorted(led) == list(range(6)), led


def queue(hosts):
    """Each entry reaches one consumer, none is lost, and urgent ones come first."""
    taken = []

    with Clients(hosts, 6) as clients:
        for entry in range(60):
            Queue(clients[entry % 3], "/queue").put(b"%d" % entry, priority=100 if entry else 1)

        def work(_, client):
            own = Queue(client, "/queue")
            while (entry := own.get()) is not None:
                taken.append(int(entry))

        first = Queue(clients[0], "/queue").get()
        assert first == b"0", first
        together(work, clients)
        assert sorted(taken) == list(range(1, 60)), sorted(taken)
        # One that only consumes what it took: the entry of a consumer that dies comes back.
        for entry in range(10):
            LockingQueue(clients[0], "/locking").put(b"%d" % entry)
        consumed = []
        with Mortal(hosts, "hold_entry") as consumer:
            assert len(clients[0].get_children("/locking/taken")) == 1
            consumer.kill()

        def consume(_, client):
            own = LockingQueue(client, "/locking")
            while len(consumed) < 10:
                entry = own.get(0.5)
                if entry is not None:
                    assert own.consume()
                    consumed.append(int(entry))

        together(consume, clients[:5])
        assert sorted(consumed) == list(range(10)), sorted(consumed)


def counter(hosts):
    """No increment is lost, whoever collides with whom."""

    def work(_, client):
        own = Counter(client, "/counter")
        for _ in range(10):
            own += 1

    with Clients(hosts, 6) as clients:
        together(work, clients)
        assert Counter(clients[0], "/counter").value == 60


def party(hosts):
    """Everybody sees who is there, and who has gone is gone with its session."""
    with Clients(hosts, 6) as clients:
        parties = [Party(client, "/party", "guest-%d" % index) for index, client in enumerate(clients)]
        together(lambda index, _: parties[index].join(), clients)
        everybody = sorted("guest-%d" % index for index in range(6))
        for own, client in zip(parties, clients):
            client.sync("/party")
            assert sorted(own) == everybody and len(own) == 6
        parties[0].leave()
        clients[1].stop()
        clients[2].sync("/party")
        assert sorted(parties[2]) == everybody[2:]


def barrier(hosts):
    """Nobody works before all are there, nobody leaves before all are done."""
    arrived, working, done = [], [], []

    def work(index, client):
        gate = DoubleBarrier(client, "/barrier", 6, str(index))
        arrived.append(index)
        gate.enter()
        assert len(arrived) == 6
        working.append(index)
        done.append(index)
        gate.leave()
        assert len(done) == 6

    with Clients(hosts, 6) as clients:
        together(work, clients)
        assert len(working) == 6


def cache(hosts):
    """Every cache ends with the tree that the writers left, and hears of each node's creation and end."""
    with Clients(hosts, 6) as clients:
        clients[0].ensure_path("/cache")
        caches, heard = [], []
        for client in clients[3:]:
            events = []
            own = TreeCache(client, "/cache")
            own.listen(events.append)
            ready = threading.Event()
            own.listen(lambda event, ready=ready: event.event_type == TreeEvent.INITIALIZED and ready.set())
            own.start()
            assert ready.wait(DEADLINE_S)
            caches.append(own)
            heard.append(events)

        def work(index, client):
            for number in range(20):
                path = "/cache/%d-%d" % (index, number)
                client.create(path, b"first")
                client.create(path + "/child", b"child")
                client.set(path, b"second")
                if number % 2:
                    client.delete(path, recursive=True)

        together(work, clients[:3])
        left = {"%d-%d" % (index, number) for index in range(3) for number in range(0, 20, 2)}
        deadline = time.monotonic() + DEADLINE_S

        def is_current(own):
            names = own.get_children("/cache", frozenset())
            return set(names) == left and all(
                getattr(own.get_data("/cache/" + name), "data", None) == b"second" and own.get_children("/cache/" + name) == {"child"}
                for name in names
            )

        while not all(is_current(own) for own in caches):
            assert time.monotonic() < deadline, "a cache does not see what is there"
            # Polled: a cache does not tell when it is through.
            time.sleep(0.01)
        for events in heard:
            added = {event.event_data.path for event in events if event.event_type == TreeEvent.NODE_ADDED}
            assert {"/cache/" + name for name in left} <= added
        for own in caches:
            own.close()


STORIES = {story.__name__: story for story in (lock, election, queue, counter, party, barrier, cache)}
STORIES.update({story.__name__: story for story in (hold_lock, hold_entry)})

if __name__ == "__main__":
    STORIES[sys.argv[2]](sys.argv[1])
    print("ok", sys.argv[2])
