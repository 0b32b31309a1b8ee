// Apache ZooKeeper's Java client over a connection string while servers come and go.
//
// Called with the connection string. Each line `round N` on standard input comes after `/watched` was set to N: the
// watch must have told of it, and the session with its ephemeral must be the one from the start. `end` ends.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;

public final class Companion {
    private static final String PATH = "/companion-java";
    private static final long WAIT_MS = 40_000;

    private interface Call<T> {
        T run() throws Exception;
    }

    private static void check(boolean good, String what) {
        if (!good) {
            throw new AssertionError(what);
        }
    }

    /** A call that may be made again: it reads, or says itself whether it was done before. */
    private static <T> T retry(Call<T> call) throws Exception {
        long until = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(WAIT_MS);
        while (true) {
            try {
                return call.run();
            } catch (KeeperException.ConnectionLossException | KeeperException.RequestTimeoutException error) {
                check(System.nanoTime() < until, "no server answers");
            }
        }
    }

    public static void main(String[] arguments) {
        try {
            run(arguments[0]);
            System.out.println("good end");
            System.exit(0);
        } catch (Throwable error) {
            System.out.println("failed: " + error);
            System.exit(1);
        }
    }

    private static void run(String hosts) throws Exception {
        BlockingQueue<WatchedEvent> events = new LinkedBlockingQueue<>();
        ZooKeeper zk = new ZooKeeper(hosts, 15_000, event -> {
            if (event.getType() != EventType.None) {
                events.add(event);
            }
        });
        retry(() -> {
            try {
                return zk.create(PATH, new byte[0], Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
            } catch (KeeperException.NodeExistsException lost) {
                return PATH;
            }
        });
        long session = zk.getSessionId();
        retry(() -> zk.getData("/watched", true, null));
        System.out.println("good start");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null && !line.equals("end"); line = lines.readLine()) {
            String number = line.substring("round ".length());
            WatchedEvent event = events.poll(WAIT_MS, TimeUnit.MILLISECONDS);
            check(event != null, "no event came");
            check(event.getType() == EventType.NodeDataChanged && event.getPath().equals("/watched"), "" + event);
            check(events.isEmpty(), "more events than one: " + events);
            byte[] data = retry(() -> zk.getData("/watched", true, null));
            check(new String(data, StandardCharsets.UTF_8).equals(number), "/watched has " + new String(data));
            Stat stat = retry(() -> zk.exists(PATH, false));
            check(stat != null, "the ephemeral is gone");
            check(stat.getEphemeralOwner() == session && zk.getSessionId() == session, "the session is another");
            int[] attempts = {0};
            Stat after = retry(() -> {
                attempts[0] += 1;
                return zk.setData(PATH, number.getBytes(StandardCharsets.UTF_8), -1);
            });
            int steps = after.getVersion() - stat.getVersion();
            check(steps >= 1 && steps <= attempts[0], steps + " versions in " + attempts[0] + " attempts");
            System.out.println("good " + number);
        }
        zk.close();
    }
}
