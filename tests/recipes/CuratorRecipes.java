import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.cache.ChildData;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.PathChildrenCache;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.retry.RetryOneTime;

/** Curator's recipes under contention. Each story has several sessions and checks what its recipe promises. */
public class CuratorRecipes {
    private static final int CLIENTS = 5;
    private static final long DEADLINE_S = 30;

    private final List<CuratorFramework> clients = new ArrayList<>();

    private interface Work {
        void run(int index, CuratorFramework client) throws Exception;
    }

    public static void main(String[] words) throws Exception {
        CuratorRecipes recipes = new CuratorRecipes();
        for (int index = 0; index < CLIENTS; index++) {
            CuratorFramework client = CuratorFrameworkFactory.newClient(words[0], 10_000, 15_000, new RetryOneTime(100));
            client.start();
            recipes.clients.add(client);
        }
        recipes.mutex();
        recipes.sharedCount();
        recipes.pathChildrenCache();
        recipes.curatorCache();
        recipes.leaderLatch();
        for (CuratorFramework client : recipes.clients) {
            client.close();
        }
        System.out.println("ok");
        System.exit(0);
    }

    private void together(Work work) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(CLIENTS);
        List<Future<?>> all = new ArrayList<>();
        for (int index = 0; index < CLIENTS; index++) {
            int own = index;
            all.add(threads.submit(() -> {
                work.run(own, clients.get(own));
                return null;
            }));
        }
        for (Future<?> one : all) {
            one.get(DEADLINE_S, TimeUnit.SECONDS);
        }
        threads.shutdownNow();
    }

    private static void check(boolean holds, String promise) {
        if (!holds) {
            throw new AssertionError(promise);
        }
    }

    private static void await(BooleanSupplier condition, String promise) throws InterruptedException {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(DEADLINE_S);
        while (!condition.getAsBoolean()) {
            check(System.nanoTime() < deadline, promise);
            Thread.sleep(5);
        }
    }

    /** Never two holders; its parent is a container. */
    private void mutex() throws Exception {
        AtomicInteger inside = new AtomicInteger();
        AtomicInteger entered = new AtomicInteger();
        together((index, client) -> {
            InterProcessMutex mutex = new InterProcessMutex(client, "/curator/mutex");
            for (int turn = 0; turn < 8; turn++) {
                mutex.acquire();
                check(inside.incrementAndGet() == 1, "one holder");
                client.checkExists().forPath("/curator/mutex");
                entered.incrementAndGet();
                check(inside.decrementAndGet() == 0, "one holder");
                mutex.release();
            }
        });
        check(entered.get() == 8 * CLIENTS, "everybody gets the lock");
    }

    /** No increment is lost. */
    private void sharedCount() throws Exception {
        together((index, client) -> {
            SharedCount count = new SharedCount(client, "/curator/count", 0);
            count.start();
            for (int turn = 0; turn < 8; turn++) {
                while (!count.trySetCount(count.getVersionedValue(), count.getCount() + 1)) {
                    Thread.yield();
                }
            }
            count.close();
        });
        SharedCount count = new SharedCount(clients.get(0), "/curator/count", -1);
        count.start();
        check(count.getCount() == 8 * CLIENTS, "counted " + count.getCount());
        count.close();
    }

    /** Each cache ends with the children that the writers left. */
    private void pathChildrenCache() throws Exception {
        clients.get(0).create().creatingParentsIfNeeded().forPath("/curator/children");
        List<PathChildrenCache> caches = new ArrayList<>();
        for (CuratorFramework client : clients) {
            PathChildrenCache cache = new PathChildrenCache(client, "/curator/children", true);
            cache.start(PathChildrenCache.StartMode.BUILD_INITIAL_CACHE);
            caches.add(cache);
        }
        together((index, client) -> write(index, client, "/curator/children"));
        for (PathChildrenCache cache : caches) {
            await(() -> left(cache.getCurrentData(), "/curator/children"), "a children cache is current");
            cache.close();
        }
    }

    /** The same of a whole subtree, over a persistent recursive watch. */
    private void curatorCache() throws Exception {
        clients.get(0).create().creatingParentContainersIfNeeded().forPath("/curator/tree", new byte[0]);
        List<CuratorCache> caches = new ArrayList<>();
        ConcurrentLinkedQueue<String> heard = new ConcurrentLinkedQueue<>();
        CountDownLatch ready = new CountDownLatch(CLIENTS);
        for (CuratorFramework client : clients) {
            CuratorCache cache = CuratorCache.build(client, "/curator/tree");
            cache.listenable().addListener(new org.apache.curator.framework.recipes.cache.CuratorCacheListener() {
                @Override
                public void event(Type type, ChildData before, ChildData after) {
                    heard.add(type + " " + (after == null ? before : after).getPath());
                }

                @Override
                public void initialized() {
                    ready.countDown();
                }
            });
            cache.start();
            caches.add(cache);
        }
        check(ready.await(DEADLINE_S, TimeUnit.SECONDS), "a tree cache initialises");
        together((index, client) -> write(index, client, "/curator/tree"));
        for (CuratorCache cache : caches) {
            await(() -> {
                List<ChildData> below = new ArrayList<>();
                cache.stream().filter(data -> !data.getPath().equals("/curator/tree")).forEach(below::add);
                return left(below, "/curator/tree");
            }, "a tree cache is current");
        }
        // Of a node that goes again at once a cache may hear nothing: it reads what it hears of. Of one that stays, once.
        await(() -> heard.stream().filter(event -> event.equals("NODE_CREATED /curator/tree/0-0")).count() == CLIENTS,
            "each cache hears of a creation once");
        for (CuratorCache cache : caches) {
            cache.close();
        }
    }

    private void write(int index, CuratorFramework client, String parent) throws Exception {
        for (int number = 0; number < 10; number++) {
            String path = parent + "/" + index + "-" + number;
            client.create().forPath(path, "first".getBytes());
            client.setData().forPath(path, "second".getBytes());
            if (number % 2 == 1) {
                client.delete().forPath(path);
            }
        }
    }

    private boolean left(Iterable<ChildData> found, String parent) {
        Map<String, String> data = new HashMap<>();
        found.forEach(child -> data.put(child.getPath(), new String(child.getData())));
        if (data.size() != 5 * CLIENTS) {
            return false;
        }
        for (int index = 0; index < CLIENTS; index++) {
            for (int number = 0; number < 10; number += 2) {
                if (!"second".equals(data.get(parent + "/" + index + "-" + number))) {
                    return false;
                }
            }
        }
        return true;
    }

    /** One leader; when its session ends another one leads. Last, because it closes its clients. */
    private void leaderLatch() throws Exception {
        List<LeaderLatch> latches = new ArrayList<>();
        for (CuratorFramework client : clients) {
            LeaderLatch latch = new LeaderLatch(client, "/curator/leader");
            latch.start();
            latches.add(latch);
        }
        for (int left = CLIENTS; left > 0; left--) {
            await(() -> latches.stream().anyMatch(LeaderLatch::hasLeadership), "somebody leads");
            check(latches.stream().filter(LeaderLatch::hasLeadership).count() == 1, "one leads");
            LeaderLatch leader = latches.stream().filter(LeaderLatch::hasLeadership).findFirst().get();
            int at = latches.indexOf(leader);
            latches.remove(at);
            if (left % 2 == 0) {
                leader.close();
                clients.remove(at).close();
            } else {
                clients.remove(at).getZookeeperClient().getZooKeeper().close();
            }
        }
    }
}
