// A Java client below which the server is restarted: java JavaRestart HOST:PORT

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;

public final class JavaRestart {
    private JavaRestart() {
    }

    public static void main(String[] arguments) throws Exception {
        BlockingQueue<KeeperState> states = new LinkedBlockingQueue<>();
        List<KeeperState> all = new CopyOnWriteArrayList<>();
        ZooKeeper zk = new ZooKeeper(arguments[0], 10000, event -> {
            all.add(event.getState());
            states.add(event.getState());
        });
        expect(states, KeeperState.SyncConnected);
        long session = zk.getSessionId();
        Stat before = new Stat();
        zk.create("/restart", "here".getBytes(), ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL, before);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        System.out.println("ready");
        in.readLine();
        expect(states, KeeperState.Disconnected);
        expect(states, KeeperState.SyncConnected);
        Stat after = new Stat();
        String data = new String(zk.getData("/restart", false, after));
        boolean same = zk.getSessionId() == session && data.equals("here") && after.equals(before);
        System.out.println(same ? "same session, same ephemeral" : session + " " + zk.getSessionId() + " " + all);
        in.readLine();
        zk.close();
    }

    private static void expect(BlockingQueue<KeeperState> states, KeeperState wanted) throws InterruptedException {
        KeeperState state = states.poll(30, TimeUnit.SECONDS);
        if (state != wanted) {
            throw new IllegalStateException(state + " instead of " + wanted);
        }
    }
}
