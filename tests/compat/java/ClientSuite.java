// Each call of Apache ZooKeeper's Java client, synchronous and asynchronous, against one server.
//
// Called with the server's address. The lines `@restart` and `@kill` on standard output ask whoever started this to
// restart the server and to answer with one line.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.TreeSet;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.KeeperException.Code;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.OpResult;
import org.apache.zookeeper.Transaction;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.Watcher.WatcherType;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.admin.ZooKeeperAdmin;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.ClientInfo;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;
import org.apache.zookeeper.server.auth.DigestAuthenticationProvider;

public final class ClientSuite {
    private static final long WAIT_SECONDS = 20;
    private static final BufferedReader ANSWERS = new BufferedReader(new InputStreamReader(System.in));
    private static final List<ZooKeeper> OPEN = new ArrayList<>();
    private static String hosts;
    private static int next;

    private interface Test {
        void run() throws Exception;
    }

    private interface Call<T> {
        T run() throws Exception;
    }

    /** A watcher that keeps what it is told. */
    private static final class Events implements Watcher {
        final BlockingQueue<WatchedEvent> queue = new LinkedBlockingQueue<>();

        @Override
        public void process(WatchedEvent event) {
            queue.add(event);
        }

        WatchedEvent take() throws Exception {
            WatchedEvent event = queue.poll(WAIT_SECONDS, TimeUnit.SECONDS);
            check(event != null, "an event was expected");
            return event;
        }

        /** The next event that tells of a node, not of the connection. */
        void expect(EventType type, String path) throws Exception {
            WatchedEvent event = take();
            while (event.getType() == EventType.None) {
                event = take();
            }
            equal(type + " " + path, event.getType() + " " + event.getPath());
        }

        void expectState(KeeperState state) throws Exception {
            WatchedEvent event = take();
            while (event.getState() != state) {
                event = take();
            }
        }

        void expectNone() {
            check(queue.isEmpty(), "no event was expected: " + queue);
        }
    }

    /** One answer of an asynchronous call: the code, the path or context, and the result. */
    private static final class Answer {
        final BlockingQueue<Object[]> queue = new ArrayBlockingQueue<>(16);

        void set(Object... parts) {
            queue.add(Arrays.stream(parts).map(part -> part == null ? "null" : part).toArray());
        }

        Object[] get(Code code, String path) throws Exception {
            Object[] parts = queue.poll(WAIT_SECONDS, TimeUnit.SECONDS);
            check(parts != null, "an answer was expected");
            equal(code, Code.get((Integer) parts[0]));
            if (path != null) {
                equal(path, parts[1]);
            }
            return parts;
        }
    }

    private static void check(boolean good, String what) {
        if (!good) {
            throw new AssertionError(what);
        }
    }

    private static void equal(Object expected, Object got) {
        check(expected.equals(got), "expected <" + expected + ">, got <" + got + ">");
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] data) {
        return new String(data, StandardCharsets.UTF_8);
    }

    private static void fails(Code code, Call<?> call) throws Exception {
        try {
            call.run();
        } catch (KeeperException e) {
            equal(code, e.code());
            return;
        }
        throw new AssertionError("expected " + code);
    }

    private static Call<Void> quiet(Test body) {
        return () -> {
            body.run();
            return null;
        };
    }

    private static ZooKeeper connect(int timeoutMs, Events events) throws Exception {
        ZooKeeper zk = new ZooKeeper(hosts, timeoutMs, events);
        events.expectState(KeeperState.SyncConnected);
        OPEN.add(zk);
        return zk;
    }

    private static ZooKeeper connect() throws Exception {
        return connect(20000, new Events());
    }

    private static String fresh(ZooKeeper zk) throws Exception {
        return zk.create("/java" + next++, bytes("top"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
    }

    private static void restart(String how) throws Exception {
        System.out.println(how);
        System.out.flush();
        check(ANSWERS.readLine() != null, "nobody restarts the server");
    }

    // -- synchronous calls -----------------------------------------------------------------------------------------

    private static void createModes() throws Exception {
        ZooKeeper zk = connect();
        String top = fresh(zk);
        equal(top + "/p", zk.create(top + "/p", bytes("x"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        equal(top + "/e", zk.create(top + "/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL));
        equal(top + "/s0000000002", zk.create(top + "/s", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL));
        equal(top + "/s0000000003", zk.create(top + "/s", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL_SEQUENTIAL));
        equal(top + "/c", zk.create(top + "/c", null, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER));
        Stat stat = new Stat();
        equal(top + "/c2", zk.create(top + "/c2", bytes("four"), Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER, stat));
        equal(4, stat.getDataLength());
        equal(0L, stat.getEphemeralOwner());
        stat = new Stat();
        equal(top + "/t", zk.create(top + "/t", bytes("ttl"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, stat, 600000));
        equal(0L, stat.getEphemeralOwner());
        equal(top + "/t0000000007", zk.create(top + "/t", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL, new Stat(), 600000));
        Stat second = new Stat();
        zk.create(top + "/stat", bytes("12345"), Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL, second);
        equal(zk.getSessionId(), second.getEphemeralOwner());
        equal(second, zk.exists(top + "/stat", false));
        fails(Code.NODEEXISTS, () -> zk.create(top + "/p", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        fails(Code.NONODE, () -> zk.create(top + "/no/x", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        fails(Code.NOCHILDRENFOREPHEMERALS, () -> zk.create(top + "/e/x", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        fails(Code.INVALIDACL, () -> zk.create(top + "/x", null, Collections.singletonList(new ACL(31, new Id("nope", ""))), CreateMode.PERSISTENT));
        equal(null == zk.exists(top + "/x", false), true);
    }

    private static void deleteAndVersions() throws Exception {
        ZooKeeper zk = connect();
        String top = fresh(zk);
        zk.create(top + "/a", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        fails(Code.BADVERSION, quiet(() -> zk.delete(top + "/a", 1)));
        fails(Code.NOTEMPTY, quiet(() -> zk.delete(top, -1)));
        zk.delete(top + "/a", 0);
        fails(Code.NONODE, quiet(() -> zk.delete(top + "/a", -1)));
        equal(1, zk.setData(top, bytes("1"), 0).getVersion());
        fails(Code.BADVERSION, () -> zk.setData(top, bytes("1"), 0));
        fails(Code.NONODE, () -> zk.setData(top + "/no", bytes("1"), 0));
        zk.delete(top, 1);
        fails(Code.BADARGUMENTS, quiet(() -> zk.delete("/zookeeper", -1)));
    }

    private static void reads() throws Exception {
        ZooKeeper zk = connect();
        String top = fresh(zk);
        Stat stat = new Stat();
        equal("top", text(zk.getData(top, false, stat)));
        equal(stat, zk.exists(top, false));
        check(zk.exists(top + "/no", false) == null, "no such node");
        for (String name : new String[] {"b", "a", "ü日本"}) {
            zk.create(top + "/" + name, null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        }
        equal(new TreeSet<>(Arrays.asList("a", "b", "ü日本")), new TreeSet<>(zk.getChildren(top, false)));
        equal(3, zk.getChildren(top, false, stat).size());
        equal(3, stat.getNumChildren());
        equal(3, stat.getCversion());
        check(zk.getData(top + "/a", false, null) == null, "null data stays null");
        zk.setData(top + "/a", new byte[0], -1);
        equal(0, zk.getData(top + "/a", false, null).length);
        equal(3, zk.getAllChildrenNumber(top));
        zk.create(top + "/a/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        equal(4, zk.getAllChildrenNumber(top));
        equal(Collections.singletonList(top + "/a/e"), zk.getEphemerals());
        equal(Collections.singletonList(top + "/a/e"), zk.getEphemerals(top));
        equal(Collections.emptyList(), zk.getEphemerals("/nothing"));
        zk.sync(top);
        fails(Code.NONODE, () -> zk.getData(top + "/no", false, null));
        fails(Code.NONODE, () -> zk.getChildren(top + "/no", false));
        fails(Code.NONODE, () -> zk.getACL(top + "/no", null));
        fails(Code.NONODE, () -> zk.getAllChildrenNumber(top + "/no"));
        equal(0, zk.getConfig(false, stat).length);
    }

    private static void acls() throws Exception {
        ZooKeeper zk = connect();
        ZooKeeper stranger = connect();
        String top = fresh(zk);
        zk.addAuthInfo("digest", bytes("user:secret"));
        zk.create(top + "/mine", bytes("x"), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
        Stat stat = new Stat();
        List<ACL> mine = Collections.singletonList(new ACL(ZooDefs.Perms.ALL, new Id("digest", DigestAuthenticationProvider.generateDigest("user:secret"))));
        equal(mine, zk.getACL(top + "/mine", stat));
        equal(0, stat.getAversion());
        fails(Code.NOAUTH, () -> stranger.getData(top + "/mine", false, null));
        fails(Code.NOAUTH, () -> stranger.exists(top + "/mine", false));
        fails(Code.NOAUTH, () -> stranger.setData(top + "/mine", null, -1));
        fails(Code.NOAUTH, () -> stranger.getACL(top + "/mine", null));
        fails(Code.NOAUTH, () -> stranger.setACL(top + "/mine", Ids.OPEN_ACL_UNSAFE, -1));
        fails(Code.NOAUTH, () -> stranger.create(top + "/mine/x", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        fails(Code.BADVERSION, () -> zk.setACL(top + "/mine", Ids.READ_ACL_UNSAFE, 4));
        equal(1, zk.setACL(top + "/mine", Ids.READ_ACL_UNSAFE, 0).getAversion());
        equal("x", text(stranger.getData(top + "/mine", false, null)));
        fails(Code.INVALIDACL, () -> stranger.create(top + "/y", null, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT));
        List<ClientInfo> who = zk.whoAmI();
        equal(2, who.size());
        check(who.contains(new ClientInfo("digest", "user")) && who.contains(new ClientInfo("ip", "127.0.0.1")), who.toString());
        Events events = new Events();
        ZooKeeper refused = connect(20000, events);
        refused.addAuthInfo("unknown", bytes("x"));
        events.expectState(KeeperState.AuthFailed);
        fails(Code.AUTHFAILED, () -> refused.exists("/", false));
    }

    private static void multis() throws Exception {
        ZooKeeper zk = connect();
        String top = fresh(zk);
        List<OpResult> results = zk.multi(Arrays.asList(
            Op.create(top + "/a", bytes("1"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
            Op.create(top + "/s", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL_SEQUENTIAL),
            Op.setData(top + "/a", bytes("22"), 0),
            Op.check(top + "/a", 1),
            Op.create(top + "/c", null, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER),
            Op.create(top + "/t", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, 600000),
            Op.delete(top + "/c", -1)));
        equal(top + "/a", ((OpResult.CreateResult) results.get(0)).getPath());
        equal(top + "/s0000000001", ((OpResult.CreateResult) results.get(1)).getPath());
        equal(2, ((OpResult.SetDataResult) results.get(2)).getStat().getDataLength());
        check(results.get(3) instanceof OpResult.CheckResult, results.get(3).toString());
        equal(top + "/c", ((OpResult.CreateResult) results.get(4)).getPath());
        check(((OpResult.CreateResult) results.get(5)).getStat() != null, "a TTL node's stat");
        check(results.get(6) instanceof OpResult.DeleteResult, results.get(6).toString());
        try {
            zk.multi(Arrays.asList(Op.delete(top + "/a", -1), Op.check(top + "/a", 7), Op.create(top + "/z", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT)));
            throw new AssertionError("the multi should fail");
        } catch (KeeperException e) {
            equal(Code.NONODE, e.code());
            int[] codes = e.getResults().stream().mapToInt(r -> ((OpResult.ErrorResult) r).getErr()).toArray();
            equal("[0, -101, -2]", Arrays.toString(codes));
        }
        check(zk.exists(top + "/a", false) != null && zk.exists(top + "/z", false) == null, "a failed multi changes nothing");
        Transaction transaction = zk.transaction();
        transaction.create(top + "/x", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT).setData(top + "/x", bytes("x"), 0).check(top + "/x", 1).delete(top + "/x", 1);
        equal(4, transaction.commit().size());
        List<OpResult> reads = zk.multi(Arrays.asList(Op.getData(top + "/a"), Op.getChildren(top), Op.getData(top + "/no")));
        equal("22", text(((OpResult.GetDataResult) reads.get(0)).getData()));
        equal(3, ((OpResult.GetChildrenResult) reads.get(1)).getChildren().size());
        equal(-101, ((OpResult.ErrorResult) reads.get(2)).getErr());
        equal(0, zk.multi(Collections.emptyList()).size());
    }

    private static void reconfigIsRefused() throws Exception {
        Events events = new Events();
        try (ZooKeeperAdmin admin = new ZooKeeperAdmin(hosts, 20000, events)) {
            events.expectState(KeeperState.SyncConnected);
            fails(Code.RECONFIGDISABLED, () -> admin.reconfigure("server.1=localhost:1:2;3", null, null, -1, new Stat()));
            fails(Code.RECONFIGDISABLED, () -> admin.reconfigure(null, "2", null, -1, new Stat()));
            fails(Code.RECONFIGDISABLED, () -> admin.reconfigure((String) null, null, "server.1=localhost:1:2;3", 5, new Stat()));
        }
    }

    // -- asynchronous calls ----------------------------------------------------------------------------------------

    private static void asynchronous() throws Exception {
        ZooKeeper zk = connect();
        String top = fresh(zk);
        Answer answer = new Answer();
        zk.create(top + "/a", bytes("1"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT, (rc, path, ctx, name) -> answer.set(rc, path, ctx, name), "context");
        equal("context", answer.get(Code.OK, top + "/a")[2]);
        zk.create(top + "/s", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL, (rc, path, ctx, name, stat) -> answer.set(rc, path, name, stat), null);
        equal(top + "/s0000000001", answer.get(Code.OK, top + "/s")[2]);
        zk.create(top + "/t", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, (rc, path, ctx, name, stat) -> answer.set(rc, path, name, stat), null, 600000);
        equal(top + "/t", answer.get(Code.OK, top + "/t")[2]);
        zk.create(top + "/c", null, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER, (rc, path, ctx, name, stat) -> answer.set(rc, path, name, stat), null);
        equal(top + "/c", answer.get(Code.OK, top + "/c")[2]);
        zk.create(top + "/a", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT, (rc, path, ctx, name) -> answer.set(rc, path), null);
        answer.get(Code.NODEEXISTS, top + "/a");
        zk.exists(top + "/a", false, (rc, path, ctx, stat) -> answer.set(rc, path, stat), null);
        equal(1, ((Stat) answer.get(Code.OK, top + "/a")[2]).getDataLength());
        zk.exists(top + "/no", false, (rc, path, ctx, stat) -> answer.set(rc, path, stat), null);
        answer.get(Code.NONODE, top + "/no");
        zk.getData(top + "/a", false, (rc, path, ctx, data, stat) -> answer.set(rc, path, data, stat), null);
        equal("1", text((byte[]) answer.get(Code.OK, top + "/a")[2]));
        zk.setData(top + "/a", bytes("2"), 0, (rc, path, ctx, stat) -> answer.set(rc, path, stat), null);
        equal(1, ((Stat) answer.get(Code.OK, top + "/a")[2]).getVersion());
        zk.setData(top + "/a", bytes("2"), 0, (rc, path, ctx, stat) -> answer.set(rc, path, stat), null);
        answer.get(Code.BADVERSION, top + "/a");
        zk.getACL(top + "/a", new Stat(), (rc, path, ctx, acl, stat) -> answer.set(rc, path, acl), null);
        equal(Ids.OPEN_ACL_UNSAFE, answer.get(Code.OK, top + "/a")[2]);
        zk.setACL(top + "/a", Ids.READ_ACL_UNSAFE, 0, (rc, path, ctx, stat) -> answer.set(rc, path, stat), null);
        equal(1, ((Stat) answer.get(Code.OK, top + "/a")[2]).getAversion());
        zk.getChildren(top, false, (int rc, String path, Object ctx, List<String> children) -> answer.set(rc, path, children), null);
        equal(4, ((List<?>) answer.get(Code.OK, top)[2]).size());
        zk.getChildren(top, false, (int rc, String path, Object ctx, List<String> children, Stat stat) -> answer.set(rc, path, stat), null);
        equal(4, ((Stat) answer.get(Code.OK, top)[2]).getNumChildren());
        zk.getAllChildrenNumber(top, (rc, path, ctx, number) -> answer.set(rc, path, number), null);
        equal(4, answer.get(Code.OK, top)[2]);
        zk.getEphemerals(top, (rc, ctx, paths) -> answer.set(rc, "", paths), null);
        equal(Collections.emptyList(), answer.get(Code.OK, "")[2]);
        zk.getEphemerals((rc, ctx, paths) -> answer.set(rc, "", paths), null);
        equal(Collections.emptyList(), answer.get(Code.OK, "")[2]);
        zk.sync(top, (rc, path, ctx) -> answer.set(rc, path), null);
        answer.get(Code.OK, top);
        zk.getConfig(false, (rc, path, ctx, data, stat) -> answer.set(rc, path, data), null);
        equal(0, ((byte[]) answer.get(Code.OK, null)[2]).length);
        zk.multi(Arrays.asList(Op.setData(top + "/t", bytes("m"), -1), Op.check(top + "/t", 1)), (rc, path, ctx, results) -> answer.set(rc, "", results), null);
        equal(2, ((List<?>) answer.get(Code.OK, "")[2]).size());
        zk.multi(Arrays.asList(Op.setData(top + "/t", bytes("m"), -1), Op.check(top + "/t", 9)), (rc, path, ctx, results) -> answer.set(rc, "", results), null);
        equal(2, ((List<?>) answer.get(Code.BADVERSION, "")[2]).size());
        zk.multi(Arrays.asList(Op.getData(top + "/t"), Op.getChildren(top)), (rc, path, ctx, results) -> answer.set(rc, "", results), null);
        equal(2, ((List<?>) answer.get(Code.OK, "")[2]).size());
        Events events = new Events();
        zk.addWatch(top, events, AddWatchMode.PERSISTENT, (rc, path, ctx) -> answer.set(rc, path), null);
        answer.get(Code.OK, top);
        zk.removeWatches(top, events, WatcherType.Any, false, (rc, path, ctx) -> answer.set(rc, path), null);
        answer.get(Code.OK, top);
        zk.removeWatches(top, events, WatcherType.Any, true, (rc, path, ctx) -> answer.set(rc, path), null);
        answer.get(Code.NOWATCHER, top);
        zk.addWatch(top, AddWatchMode.PERSISTENT_RECURSIVE, (rc, path, ctx) -> answer.set(rc, path), null);
        answer.get(Code.OK, top);
        zk.removeAllWatches(top, WatcherType.Any, false, (rc, path, ctx) -> answer.set(rc, path), null);
        answer.get(Code.OK, top);
        zk.delete(top + "/a", 9, (rc, path, ctx) -> answer.set(rc, path), null);
        answer.get(Code.BADVERSION, top + "/a");
        zk.delete(top + "/a", 1, (rc, path, ctx) -> answer.set(rc, path), null);
        answer.get(Code.OK, top + "/a");
    }

    private static void pipelined() throws Exception {
        ZooKeeper zk = connect();
        String top = fresh(zk);
        int count = 2000;
        List<String> order = Collections.synchronizedList(new ArrayList<>());
        CountDownLatch done = new CountDownLatch(2 * count);
        for (int i = 0; i < count; i++) {
            String wanted = top + "/" + i;
            zk.create(wanted, bytes("" + i), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT, (rc, path, ctx, name) -> {
                order.add(rc + path);
                done.countDown();
            }, null);
            zk.getData(wanted, false, (rc, path, ctx, data, stat) -> {
                order.add(rc == 0 && path.equals(top + "/" + text(data)) ? "read" : "bad " + rc + path);
                done.countDown();
            }, null);
        }
        check(done.await(WAIT_SECONDS, TimeUnit.SECONDS), "answers are missing");
        for (int i = 0; i < count; i++) {
            equal("0" + top + "/" + i, order.get(2 * i));
            equal("read", order.get(2 * i + 1));
        }
    }

    // -- watches ---------------------------------------------------------------------------------------------------

    private static void oneTimeWatches() throws Exception {
        ZooKeeper zk = connect();
        ZooKeeper other = connect();
        String top = fresh(zk);
        Events events = new Events();
        zk.exists(top + "/n", events);
        other.create(top + "/n", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        events.expect(EventType.NodeCreated, top + "/n");
        zk.getData(top + "/n", events, null);
        long zxid = other.setData(top + "/n", null, -1).getMzxid();
        WatchedEvent event = events.take();
        equal(EventType.NodeDataChanged, event.getType());
        equal(zxid, event.getZxid());
        zk.getChildren(top, events);
        other.create(top + "/m", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        events.expect(EventType.NodeChildrenChanged, top);
        zk.getChildren(top + "/n", events);
        zk.exists(top + "/n", events);
        other.delete(top + "/n", -1);
        events.expect(EventType.NodeDeleted, top + "/n");
        other.create(top + "/n", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        zk.sync(top);
        events.expectNone();
        Events defaults = new Events();
        zk.register(defaults);
        zk.exists(top + "/n", true);
        zk.getChildren(top, true);
        other.delete(top + "/n", -1);
        defaults.expect(EventType.NodeDeleted, top + "/n");
        defaults.expect(EventType.NodeChildrenChanged, top);
        zk.getConfig(defaults, null);
    }

    private static void persistentWatches() throws Exception {
        ZooKeeper zk = connect();
        ZooKeeper other = connect();
        String top = fresh(zk);
        Events flat = new Events();
        Events deep = new Events();
        zk.addWatch(top, flat, AddWatchMode.PERSISTENT);
        zk.addWatch(top, deep, AddWatchMode.PERSISTENT_RECURSIVE);
        for (int round = 0; round < 3; round++) {
            other.create(top + "/a", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            other.setData(top, null, -1);
            other.create(top + "/a/b", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            other.delete(top + "/a/b", -1);
            other.delete(top + "/a", -1);
            flat.expect(EventType.NodeChildrenChanged, top);
            flat.expect(EventType.NodeDataChanged, top);
            flat.expect(EventType.NodeChildrenChanged, top);
            deep.expect(EventType.NodeCreated, top + "/a");
            deep.expect(EventType.NodeDataChanged, top);
            deep.expect(EventType.NodeCreated, top + "/a/b");
            deep.expect(EventType.NodeDeleted, top + "/a/b");
            deep.expect(EventType.NodeDeleted, top + "/a");
        }
        zk.removeWatches(top, flat, WatcherType.Any, false);
        flat.expect(EventType.PersistentWatchRemoved, top);
        other.setData(top, null, -1);
        deep.expect(EventType.NodeDataChanged, top);
        zk.removeWatches(top, deep, WatcherType.Any, false);
        other.setData(top, null, -1);
        zk.sync(top);
        flat.expectNone();
    }

    private static void removedWatches() throws Exception {
        ZooKeeper zk = connect();
        ZooKeeper other = connect();
        String top = fresh(zk);
        Events data = new Events();
        Events children = new Events();
        zk.getData(top, data, null);
        zk.getChildren(top, children);
        zk.removeWatches(top, data, WatcherType.Data, false);
        data.expect(EventType.DataWatchRemoved, top);
        fails(Code.NOWATCHER, quiet(() -> zk.removeWatches(top, data, WatcherType.Data, false)));
        zk.removeAllWatches(top, WatcherType.Children, false);
        children.expect(EventType.ChildWatchRemoved, top);
        fails(Code.NOWATCHER, quiet(() -> zk.removeAllWatches(top, WatcherType.Any, false)));
        zk.exists(top, data);
        zk.getChildren(top, children);
        zk.addWatch(top, data, AddWatchMode.PERSISTENT);
        zk.removeAllWatches(top, WatcherType.Any, false);
        other.setData(top, null, -1);
        other.create(top + "/x", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        zk.sync(top);
        for (Events events : Arrays.asList(data, children)) {
            events.queue.removeIf(event -> event.getType() == EventType.DataWatchRemoved || event.getType() == EventType.ChildWatchRemoved
                || event.getType() == EventType.PersistentWatchRemoved);
            events.expectNone();
        }
    }

    // -- sessions --------------------------------------------------------------------------------------------------

    private static void reattach() throws Exception {
        ZooKeeper zk = connect();
        String top = fresh(zk);
        zk.create(top + "/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        long session = zk.getSessionId();
        Events events = new Events();
        ZooKeeper second = new ZooKeeper(hosts, 20000, events, session, zk.getSessionPasswd());
        // The first client loses its connection to the second; it must not take it back.
        events.expectState(KeeperState.SyncConnected);
        OPEN.add(second);
        equal(session, second.getSessionId());
        equal(session, second.exists(top + "/e", false).getEphemeralOwner());
        zk.close();
        second.close();
        ZooKeeper observer = connect();
        check(observer.exists(top + "/e", false) == null, "closing ends the ephemerals");
        Events late = new Events();
        OPEN.add(new ZooKeeper(hosts, 20000, late, session, second.getSessionPasswd()));
        late.expectState(KeeperState.Expired);
    }

    private static void expiry() throws Exception {
        ZooKeeper observer = connect();
        String top = fresh(observer);
        Events own = new Events();
        ZooKeeper zk = connect(1000, own);
        equal(1000, zk.getSessionTimeout());
        zk.create(top + "/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        Events events = new Events();
        observer.exists(top + "/e", events);
        zk.getTestable().injectSessionExpiration();
        own.expectState(KeeperState.Expired);
        fails(Code.SESSIONEXPIRED, () -> zk.exists(top, false));
        events.expect(EventType.NodeDeleted, top + "/e");
    }

    private static void closing() throws Exception {
        ZooKeeper zk = connect();
        ZooKeeper observer = connect();
        String top = fresh(zk);
        for (int i = 0; i < 20; i++) {
            zk.create(top + "/e" + i, null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        }
        equal(20, observer.getChildren(top, false).size());
        Events events = new Events();
        observer.addWatch(top, events, AddWatchMode.PERSISTENT_RECURSIVE);
        check(zk.close(20000), "close took too long");
        for (int i = 0; i < 20; i++) {
            equal(EventType.NodeDeleted, events.take().getType());
        }
        equal(0, observer.getChildren(top, false).size());
    }

    private static void survivesRestart() throws Exception {
        survive("@restart");
    }

    private static void survivesKill() throws Exception {
        survive("@kill");
    }

    private static void survive(String how) throws Exception {
        Events states = new Events();
        ZooKeeper zk = connect(30000, states);
        String top = fresh(zk);
        zk.addAuthInfo("digest", bytes("user:secret"));
        zk.create(top + "/mine", bytes("1"), Ids.CREATOR_ALL_ACL, CreateMode.EPHEMERAL);
        zk.create(top + "/c", null, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER);
        Stat before = zk.exists(top + "/mine", false);
        Events one = new Events();
        Events deep = new Events();
        Events children = new Events();
        zk.getData(top + "/mine", one, null);
        zk.getChildren(top, children);
        zk.addWatch(top, deep, AddWatchMode.PERSISTENT_RECURSIVE);
        long session = zk.getSessionId();
        restart(how);
        states.expectState(KeeperState.Disconnected);
        states.expectState(KeeperState.SyncConnected);
        equal(session, zk.getSessionId());
        equal(before, zk.exists(top + "/mine", false));
        equal("1", text(zk.getData(top + "/mine", false, null)));
        one.queue.clear();
        deep.queue.clear();
        children.queue.clear();
        // The client set its watches again by itself.
        zk.setData(top + "/mine", bytes("2"), 0);
        one.expect(EventType.NodeDataChanged, top + "/mine");
        deep.expect(EventType.NodeDataChanged, top + "/mine");
        zk.create(top + "/s", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL);
        children.expect(EventType.NodeChildrenChanged, top);
        deep.expect(EventType.NodeCreated, top + "/s0000000002");
    }

    private static void chroot() throws Exception {
        ZooKeeper zk = connect();
        String top = fresh(zk);
        Events events = new Events();
        ZooKeeper inner = new ZooKeeper(hosts + top, 20000, events);
        events.expectState(KeeperState.SyncConnected);
        OPEN.add(inner);
        equal("/a", inner.create("/a", bytes("in"), Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL));
        equal("in", text(zk.getData(top + "/a", false, null)));
        equal(Collections.singletonList("a"), inner.getChildren("/", events));
        zk.create(top + "/b", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        events.expect(EventType.NodeChildrenChanged, "/");
        // This client does not take the root off what a multi returns.
        check(((OpResult.CreateResult) inner.multi(Collections.singletonList(
            Op.create("/s", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL))).get(0)).getPath().endsWith("/s0000000002"), "the next number");
    }

    private static void largeData() throws Exception {
        ZooKeeper zk = connect();
        String top = fresh(zk);
        byte[] data = new byte[1000000];
        Arrays.fill(data, (byte) 7);
        zk.setData(top, data, -1);
        check(Arrays.equals(data, zk.getData(top, false, null)), "a megabyte comes back as it was");
        try {
            zk.setData(top, new byte[1100000], -1);
            throw new AssertionError("too large a request should not pass");
        } catch (KeeperException e) {
            equal(Code.CONNECTIONLOSS, e.code());
        }
        check(Arrays.equals(data, connect().getData(top, false, null)), "and nothing changed");
    }

    public static void main(String[] arguments) throws Exception {
        hosts = arguments[0];
        Object[][] tests = {
            {"createModes", (Test) ClientSuite::createModes}, {"deleteAndVersions", (Test) ClientSuite::deleteAndVersions},
            {"reads", (Test) ClientSuite::reads}, {"acls", (Test) ClientSuite::acls}, {"multis", (Test) ClientSuite::multis},
            {"reconfigIsRefused", (Test) ClientSuite::reconfigIsRefused}, {"asynchronous", (Test) ClientSuite::asynchronous},
            {"pipelined", (Test) ClientSuite::pipelined}, {"oneTimeWatches", (Test) ClientSuite::oneTimeWatches},
            {"persistentWatches", (Test) ClientSuite::persistentWatches}, {"removedWatches", (Test) ClientSuite::removedWatches},
            {"reattach", (Test) ClientSuite::reattach}, {"expiry", (Test) ClientSuite::expiry}, {"closing", (Test) ClientSuite::closing},
            {"chroot", (Test) ClientSuite::chroot}, {"largeData", (Test) ClientSuite::largeData},
            {"survivesRestart", (Test) ClientSuite::survivesRestart}, {"survivesKill", (Test) ClientSuite::survivesKill},
        };
        int failed = 0;
        for (Object[] test : tests) {
            long began = System.nanoTime();
            try {
                ((Test) test[1]).run();
                System.out.printf("ok %s (%.2f s)%n", test[0], (System.nanoTime() - began) / 1e9);
            } catch (Exception | AssertionError e) {
                failed++;
                System.out.println("FAILED " + test[0]);
                e.printStackTrace(System.out);
            }
            for (ZooKeeper zk : OPEN) {
                zk.close();
            }
            OPEN.clear();
        }
        System.out.printf("%d passed, %d failed%n", tests.length - failed, failed);
        System.exit(failed == 0 ? 0 : 1);
    }
}
