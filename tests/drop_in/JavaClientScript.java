// What Apache's Java client sees of a server, as a transcript: java JavaClientScript HOST:PORT
//
// Transaction ids are counted from the script's first write and session ids are named in the order of appearance, so
// two servers that are given the same script print the same text or differ in what a client can see.

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.OpResult;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.ClientInfo;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;

public final class JavaClientScript {
    private static final int WAIT_SECONDS = 30;
    private static final List<ACL> OPEN = ZooDefs.Ids.OPEN_ACL_UNSAFE;
    private static final Map<Long, String> SESSIONS = new LinkedHashMap<>();
    private static String hosts;
    private static long base;

    private JavaClientScript() {
    }

    private static void show(String line) {
        System.out.println(line);
    }

    private static String zxid(long value) {
        return value <= 0 ? Long.toString(value) : String.format("base%+d", value - base);
    }

    private static String owner(long value) {
        return value == 0 ? "0" : SESSIONS.computeIfAbsent(value, unused -> "session" + (SESSIONS.size() + 1));
    }

    private static String stat(Stat s) {
        String times = s.getCzxid() == s.getMzxid() && s.getMtime() == s.getCtime() ? "equal"
            : s.getMtime() >= s.getCtime() ? "ordered" : "WRONG";
        return String.format("czxid=%s mzxid=%s pzxid=%s version=%d cversion=%d aversion=%d owner=%s length=%d children=%d times=%s",
            zxid(s.getCzxid()), zxid(s.getMzxid()), zxid(s.getPzxid()), s.getVersion(), s.getCversion(), s.getAversion(),
            owner(s.getEphemeralOwner()), s.getDataLength(), s.getNumChildren(), times);
    }

    private static String describe(Object value) {
        if (value instanceof Stat) {
            return stat((Stat) value);
        } else if (value instanceof byte[]) {
            return new String((byte[]) value) + " (" + ((byte[]) value).length + ")";
        } else if (value instanceof ClientInfo) {
            return ((ClientInfo) value).getAuthScheme() + ":" + ((ClientInfo) value).getUser();
        } else if (value instanceof OpResult.CreateResult) {
            OpResult.CreateResult r = (OpResult.CreateResult) value;
            return "create(" + r.getPath() + ", " + describe(r.getStat()) + ")";
        } else if (value instanceof OpResult.SetDataResult) {
            return "set(" + describe(((OpResult.SetDataResult) value).getStat()) + ")";
        } else if (value instanceof OpResult.GetDataResult) {
            OpResult.GetDataResult r = (OpResult.GetDataResult) value;
            return "get(" + describe(r.getData()) + ", " + describe(r.getStat()) + ")";
        } else if (value instanceof OpResult.GetChildrenResult) {
            List<String> names = new ArrayList<>(((OpResult.GetChildrenResult) value).getChildren());
            Collections.sort(names);
            return "children(" + names + ")";
        } else if (value instanceof OpResult.ErrorResult) {
            return "error(" + ((OpResult.ErrorResult) value).getErr() + ")";
        } else if (value instanceof OpResult) {
            return value.getClass().getSimpleName();
        } else if (value instanceof List) {
            List<String> parts = new ArrayList<>();
            boolean names = true;
            for (Object part : (List<?>) value) {
                // Neither children nor identities have an order.
                names &= part instanceof String || part instanceof ClientInfo;
                parts.add(describe(part));
            }
            if (names) {
                Collections.sort(parts);
            }
            return parts.toString();
        }
        return String.valueOf(value).replace('\n', ' ');
    }

    private static <T> T attempt(String name, Callable<T> call) {
        try {
            T result = call.call();
            show(name + " -> " + describe(result));
            return result;
        } catch (KeeperException error) {
            String parts = error.getResults() == null ? "" : " " + describe(error.getResults());
            show(name + " -> " + error.code() + parts);
        } catch (Exception error) {
            show(name + " -> " + error.getClass().getSimpleName());
        }
        return null;
    }

    private static final class Events implements Watcher {
        private final BlockingQueue<String> queue = new LinkedBlockingQueue<>();

        @Override
        public void process(WatchedEvent event) {
            if (event.getType() != Event.EventType.None) {
                queue.add(event.getType() + " " + event.getState() + " " + event.getPath());
            }
        }

        void expect(int count, String name) throws InterruptedException {
            List<String> seen = new ArrayList<>();
            for (int i = 0; i < count; i++) {
                String event = queue.poll(WAIT_SECONDS, TimeUnit.SECONDS);
                seen.add(event == null ? "NOTHING" : event);
            }
            show("events " + name + " -> " + seen);
        }

        void none(ZooKeeper zk, String name) throws Exception {
            // What was sent before this answer has been delivered with it.
            zk.exists("/", false);
            CountDownLatch done = new CountDownLatch(1);
            zk.sync("/", (rc, path, context) -> done.countDown(), null);
            done.await(WAIT_SECONDS, TimeUnit.SECONDS);
            show("events " + name + " -> none beyond: " + queue);
            queue.clear();
        }
    }

    private static ZooKeeper client() throws Exception {
        CountDownLatch connected = new CountDownLatch(1);
        Watcher watcher = event -> {
            if (event.getState() == Watcher.Event.KeeperState.SyncConnected) {
                connected.countDown();
            }
        };
        ZooKeeper zk = new ZooKeeper(hosts, 8000, watcher);
        if (!connected.await(WAIT_SECONDS, TimeUnit.SECONDS)) {
            throw new IllegalStateException("not connected");
        }
        owner(zk.getSessionId());
        return zk;
    }

    public static void main(String[] arguments) throws Exception {
        hosts = arguments[0];
        ZooKeeper zk = client();
        Stat first = new Stat();
        zk.create("/script", null, OPEN, CreateMode.PERSISTENT, first);
        base = first.getCzxid();
        show("negotiated " + zk.getSessionTimeout());

        show("== create");
        for (CreateMode mode : Arrays.asList(CreateMode.PERSISTENT, CreateMode.PERSISTENT_SEQUENTIAL,
                CreateMode.EPHEMERAL, CreateMode.EPHEMERAL_SEQUENTIAL, CreateMode.CONTAINER)) {
            attempt("create " + mode, () -> {
                Stat s = new Stat();
                String path = zk.create("/script/n-" + mode.toFlag() + "-", "v".getBytes(), OPEN, mode, s);
                return path + " " + stat(s);
            });
        }
        attempt("create without stat", () -> zk.create("/script/plain", "v".getBytes(), OPEN, CreateMode.PERSISTENT));
        attempt("create null", () -> zk.create("/script/null", null, OPEN, CreateMode.PERSISTENT));
        attempt("create empty", () -> zk.create("/script/empty", new byte[0], OPEN, CreateMode.PERSISTENT));
        attempt("create again", () -> zk.create("/script/plain", null, OPEN, CreateMode.PERSISTENT));
        attempt("create without parent", () -> zk.create("/script/no/parent", null, OPEN, CreateMode.PERSISTENT));
        attempt("create under ephemeral", () -> zk.create("/script/n-1-/x", null, OPEN, CreateMode.PERSISTENT));
        attempt("create ttl where types are off", () -> zk.create("/script/ttl", null, OPEN,
            CreateMode.PERSISTENT_WITH_TTL, new Stat(), 1000));
        attempt("create bad acl", () -> zk.create("/script/bad", null,
            Collections.singletonList(new ACL(31, new Id("nosuch", "x"))), CreateMode.PERSISTENT));
        attempt("create under container", () -> zk.create("/script/n-4-/x", null, OPEN, CreateMode.PERSISTENT));

        show("== read");
        attempt("get", () -> {
            Stat s = new Stat();
            return describe(zk.getData("/script/plain", false, s)) + " " + stat(s);
        });
        attempt("get null", () -> zk.getData("/script/null", false, null));
        attempt("get empty", () -> zk.getData("/script/empty", false, null));
        attempt("get missing", () -> zk.getData("/script/missing", false, null));
        attempt("exists", () -> zk.exists("/script/plain", false));
        attempt("exists missing", () -> zk.exists("/script/missing", false));
        attempt("children", () -> zk.getChildren("/script", false));
        attempt("children with stat", () -> {
            Stat s = new Stat();
            return describe(zk.getChildren("/script", false, s)) + " " + stat(s);
        });
        attempt("all children number", () -> zk.getAllChildrenNumber("/script"));
        attempt("all children number of root", () -> zk.getAllChildrenNumber("/"));
        attempt("all children number of missing", () -> zk.getAllChildrenNumber("/script/missing"));
        attempt("ephemerals", () -> zk.getEphemerals());
        attempt("ephemerals below", () -> zk.getEphemerals("/script/n-1"));
        attempt("config", () -> zk.getConfig(false, new Stat()));
        attempt("who am i", () -> zk.whoAmI());
        attempt("several reads", () -> zk.multi(Arrays.asList(Op.getData("/script/plain"),
            Op.getChildren("/script/n-4-"), Op.getData("/script/missing"))));

        show("== write");
        attempt("set", () -> zk.setData("/script/plain", "w".getBytes(), -1));
        attempt("set version", () -> zk.setData("/script/plain", "w2".getBytes(), 1));
        attempt("set old version", () -> zk.setData("/script/plain", "w3".getBytes(), 1));
        attempt("set null", () -> zk.setData("/script/plain", null, 2));
        attempt("set missing", () -> zk.setData("/script/missing", null, -1));
        attempt("delete old version", () -> {
            zk.delete("/script/plain", 1);
            return "ok";
        });
        attempt("delete not empty", () -> {
            zk.delete("/script", -1);
            return "ok";
        });
        attempt("delete", () -> {
            zk.delete("/script/plain", 3);
            return "ok";
        });
        attempt("delete root child", () -> {
            zk.delete("/zookeeper", -1);
            return "ok";
        });
        attempt("parent", () -> zk.exists("/script", false));

        show("== watches");
        Events events = new Events();
        zk.create("/script/w", null, OPEN, CreateMode.PERSISTENT);
        zk.getData("/script/w", events, null);
        zk.getChildren("/script/w", events);
        zk.exists("/script/w/x", events);
        zk.create("/script/w/x", null, OPEN, CreateMode.PERSISTENT);
        events.expect(2, "child created");
        zk.setData("/script/w", null, -1);
        events.expect(1, "data set");
        zk.setData("/script/w", null, -1);
        events.none(zk, "one-shot");
        zk.getData("/script/w/x", events, null);
        zk.getChildren("/script/w/x", events);
        zk.delete("/script/w/x", -1);
        events.expect(1, "deleted");
        events.none(zk, "after deletion");
        zk.addWatch("/script/w", events, AddWatchMode.PERSISTENT);
        zk.create("/script/w/x", null, OPEN, CreateMode.PERSISTENT);
        zk.create("/script/w/x/y", null, OPEN, CreateMode.PERSISTENT);
        zk.setData("/script/w", null, -1);
        zk.setData("/script/w/x", null, -1);
        events.expect(2, "persistent");
        events.none(zk, "persistent");
        zk.removeWatches("/script/w", events, Watcher.WatcherType.Any, false);
        events.expect(1, "persistent removed");
        zk.addWatch("/script", events, AddWatchMode.PERSISTENT_RECURSIVE);
        zk.setData("/script/w/x/y", null, -1);
        zk.delete("/script/w/x/y", -1);
        zk.create("/script/w/x/y", null, OPEN, CreateMode.PERSISTENT);
        events.expect(3, "recursive");
        events.none(zk, "recursive");
        attempt("remove where none is", () -> {
            zk.removeWatches("/script/w", events, Watcher.WatcherType.Data, false);
            return "ok";
        });
        zk.removeAllWatches("/script", Watcher.WatcherType.Any, false);
        events.expect(1, "recursive removed");
        zk.setData("/script/w", null, -1);
        events.none(zk, "removed");

        show("== transactions");
        attempt("good", () -> zk.multi(Arrays.asList(
            Op.create("/script/t", "a".getBytes(), OPEN, CreateMode.PERSISTENT),
            Op.create("/script/t/s-", null, OPEN, CreateMode.PERSISTENT_SEQUENTIAL),
            Op.create("/script/t/c", null, OPEN, CreateMode.CONTAINER),
            Op.setData("/script/t", "b".getBytes(), 0),
            Op.check("/script/t", 1),
            Op.create("/script/t/e", null, OPEN, CreateMode.EPHEMERAL),
            Op.delete("/script/t/e", 0))));
        attempt("after good", () -> zk.exists("/script/t", false));
        attempt("refused", () -> zk.multi(Arrays.asList(
            Op.setData("/script/t", "c".getBytes(), -1),
            Op.check("/script/t", 7),
            Op.delete("/script/missing", -1))));
        attempt("after refused", () -> zk.exists("/script/t", false));
        attempt("next sequence", () -> zk.create("/script/t/s-", null, OPEN, CreateMode.PERSISTENT_SEQUENTIAL));

        show("== acl");
        zk.addAuthInfo("digest", "bob:pw".getBytes());
        attempt("who am i", () -> zk.whoAmI());
        attempt("create creator all", () -> zk.create("/script/mine", "m".getBytes(), ZooDefs.Ids.CREATOR_ALL_ACL,
            CreateMode.PERSISTENT));
        attempt("acl", () -> describe(zk.getACL("/script/mine", null)));
        attempt("set acl", () -> zk.setACL("/script/mine", ZooDefs.Ids.CREATOR_ALL_ACL, 0));
        attempt("set acl old version", () -> zk.setACL("/script/mine", OPEN, 0));
        attempt("set read acl", () -> zk.setACL("/script/w", ZooDefs.Ids.READ_ACL_UNSAFE, -1));
        attempt("then set", () -> zk.setData("/script/w", null, -1));
        ZooKeeper other = client();
        attempt("other get", () -> other.getData("/script/mine", false, null));
        attempt("other acl", () -> describe(other.getACL("/script/mine", null)));
        attempt("other set acl", () -> other.setACL("/script/mine", OPEN, -1));
        attempt("other several reads", () -> other.multi(Arrays.asList(Op.getData("/script/mine"), Op.getData("/script/w"))));

        show("== sessions");
        other.create("/script/e", null, OPEN, CreateMode.EPHEMERAL);
        zk.exists("/script/e", events);
        attempt("ephemerals", () -> other.getEphemerals());
        other.close();
        events.expect(1, "closed");
        CountDownLatch expired = new CountDownLatch(1);
        ZooKeeper late = new ZooKeeper(hosts, 8000, event -> {
            if (event.getState() == Watcher.Event.KeeperState.Expired) {
                expired.countDown();
            }
        }, other.getSessionId(), other.getSessionPasswd());
        show("closed session is expired " + expired.await(WAIT_SECONDS, TimeUnit.SECONDS));
        late.close();
        attempt("last", () -> zk.exists("/script", false));
        zk.close();
        show("end");
    }
}
