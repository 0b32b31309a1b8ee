// Curator's recipes against one server, as the many programs use them that never see the plain client.
//
// Called with the server's address; `@restart` on standard output asks whoever started this to restart the server.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.recipes.atomic.AtomicValue;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessMultiLock;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreMutex;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.nodes.PersistentTtlNode;
import org.apache.curator.framework.recipes.queue.SimpleDistributedQueue;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.watch.PersistentWatcher;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.RetryNTimes;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.WatchedEvent;

public final class CuratorSuite {
    private static final int WAIT_SECONDS = 20;
    private static final BufferedReader ANSWERS = new BufferedReader(new InputStreamReader(System.in));
    private static final List<AutoCloseable> OPEN = new ArrayList<>();
    private static final ExecutorService THREADS = Executors.newCachedThreadPool(task -> {
        Thread thread = new Thread(task);
        thread.setDaemon(true);
        return thread;
    });
    private static String hosts;
    private static int next;

    private interface Test {
        void run() throws Exception;
    }

    private interface Condition {
        boolean holds() throws Exception;
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

    private static CuratorFramework client() throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.builder().connectString(hosts).sessionTimeoutMs(20000).connectionTimeoutMs(10000)
            .retryPolicy(new RetryNTimes(100, 50)).build();
        client.start();
        OPEN.add(client);
        check(client.blockUntilConnected(WAIT_SECONDS, TimeUnit.SECONDS), "no connection");
        return client;
    }

    private static String top() {
        return "/curator/" + next++;
    }

    /** Asks again until it holds; there is no event to wait for. */
    private static void eventually(Condition condition, String what) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS);
        CountDownLatch never = new CountDownLatch(1);
        while (!condition.holds()) {
            check(System.nanoTime() < deadline, "never happened: " + what);
            never.await(10, TimeUnit.MILLISECONDS);
        }
    }

    private static <T> T take(BlockingQueue<T> queue) throws Exception {
        T item = queue.poll(WAIT_SECONDS, TimeUnit.SECONDS);
        check(item != null, "nothing came");
        return item;
    }

    private static <T extends AutoCloseable> T opened(T thing) {
        OPEN.add(0, thing);
        return thing;
    }

    // --------------------------------------------------------------------------------------------------------------

    private static void framework() throws Exception {
        CuratorFramework client = client();
        String top = top();
        // Parents are containers, where the server can make them.
        equal(top + "/a/b", client.create().creatingParentContainersIfNeeded().forPath(top + "/a/b", bytes("x")));
        equal("x", new String(client.getData().forPath(top + "/a/b"), StandardCharsets.UTF_8));
        String guarded = client.create().withProtection().withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath(top + "/p-");
        check(guarded.matches(".*/_c_[0-9a-f-]{36}-p-[0-9]{10}"), guarded);
        equal(2, client.getChildren().forPath(top).size());
        client.create().orSetData().forPath(top + "/a/b", bytes("y"));
        equal(1, client.checkExists().forPath(top + "/a/b").getVersion());
        client.delete().guaranteed().deletingChildrenIfNeeded().forPath(top);
        check(client.checkExists().forPath(top) == null, "deleted with children");
        List<CuratorTransactionResult> results = client.transaction().forOperations(
            client.transactionOp().create().forPath(top, bytes("1")), client.transactionOp().setData().withVersion(0).forPath(top, bytes("2")),
            client.transactionOp().check().withVersion(1).forPath(top), client.transactionOp().delete().forPath(top));
        equal(4, results.size());
        BlockingQueue<String> background = new LinkedBlockingQueue<>();
        client.create().inBackground((c, event) -> background.add(event.getResultCode() + event.getPath())).forPath(top);
        equal("0" + top, take(background));
        client.sync().forPath(top);
        check(client.usingNamespace("inner").create().creatingParentsIfNeeded().forPath("/n").equals("/n"), "a namespace");
        check(client.checkExists().forPath("/inner/n") != null, "under its root");
    }

    private static void mutexes() throws Exception {
        CuratorFramework one = client();
        CuratorFramework two = client();
        String top = top();
        AtomicInteger inside = new AtomicInteger();
        AtomicInteger most = new AtomicInteger();
        List<Future<?>> workers = new ArrayList<>();
        for (CuratorFramework client : Arrays.asList(one, two, one, two)) {
            InterProcessMutex lock = new InterProcessMutex(client, top + "/mutex");
            workers.add(THREADS.submit(() -> {
                for (int i = 0; i < 10; i++) {
                    lock.acquire();
                    most.accumulateAndGet(inside.incrementAndGet(), Math::max);
                    lock.acquire();
                    lock.release();
                    inside.decrementAndGet();
                    lock.release();
                }
                return null;
            }));
        }
        for (Future<?> worker : workers) {
            worker.get(WAIT_SECONDS, TimeUnit.SECONDS);
        }
        equal(1, most.get());
        InterProcessSemaphoreMutex plain = new InterProcessSemaphoreMutex(one, top + "/plain");
        InterProcessSemaphoreMutex rival = new InterProcessSemaphoreMutex(two, top + "/plain");
        check(plain.acquire(WAIT_SECONDS, TimeUnit.SECONDS) && !rival.acquire(100, TimeUnit.MILLISECONDS), "one holder");
        plain.release();
        check(rival.acquire(WAIT_SECONDS, TimeUnit.SECONDS), "the next holder");
        InterProcessMultiLock several = new InterProcessMultiLock(one, Arrays.asList(top + "/m1", top + "/m2"));
        check(several.acquire(WAIT_SECONDS, TimeUnit.SECONDS), "several at once");
        several.release();
    }

    private static void readWriteLock() throws Exception {
        String top = top();
        InterProcessReadWriteLock one = new InterProcessReadWriteLock(client(), top);
        InterProcessReadWriteLock two = new InterProcessReadWriteLock(client(), top);
        one.readLock().acquire();
        check(two.readLock().acquire(WAIT_SECONDS, TimeUnit.SECONDS), "two readers");
        two.readLock().release();
        check(!two.writeLock().acquire(100, TimeUnit.MILLISECONDS), "no writer beside a reader");
        one.readLock().release();
        check(two.writeLock().acquire(WAIT_SECONDS, TimeUnit.SECONDS), "the writer");
        check(!one.readLock().acquire(100, TimeUnit.MILLISECONDS), "no reader beside a writer");
        two.writeLock().release();
    }

    private static void semaphore() throws Exception {
        String top = top();
        InterProcessSemaphoreV2 one = new InterProcessSemaphoreV2(client(), top, 2);
        InterProcessSemaphoreV2 two = new InterProcessSemaphoreV2(client(), top, 2);
        Lease first = one.acquire();
        Lease second = two.acquire();
        check(one.acquire(100, TimeUnit.MILLISECONDS) == null, "two leases at most");
        first.close();
        Lease third = one.acquire(WAIT_SECONDS, TimeUnit.SECONDS);
        check(third != null, "a returned lease is given again");
        second.close();
        third.close();
    }

    private static void leaderLatch() throws Exception {
        String top = top();
        LeaderLatch one = opened(new LeaderLatch(client(), top, "one"));
        LeaderLatch two = new LeaderLatch(client(), top, "two");
        one.start();
        check(one.await(WAIT_SECONDS, TimeUnit.SECONDS), "a leader");
        two.start();
        eventually(() -> two.getParticipants().size() == 2, "two candidates");
        check(!two.hasLeadership(), "one leader only");
        equal("one", two.getLeader().getId());
        OPEN.remove(one);
        one.close();
        check(two.await(WAIT_SECONDS, TimeUnit.SECONDS), "the next leader");
        two.close();
    }

    private static void leaderSelector() throws Exception {
        String top = top();
        BlockingQueue<String> order = new LinkedBlockingQueue<>();
        CountDownLatch release = new CountDownLatch(1);
        for (String name : new String[] {"one", "two"}) {
            LeaderSelector selector = opened(new LeaderSelector(client(), top, new LeaderSelectorListenerAdapter() {
                @Override
                public void takeLeadership(CuratorFramework client) throws Exception {
                    order.add(name);
                    release.await(WAIT_SECONDS, TimeUnit.SECONDS);
                }
            }));
            selector.setId(name);
            selector.start();
            if (name.equals("one")) {
                equal("one", take(order));
            }
        }
        release.countDown();
        equal("two", take(order));
    }

    private static void barriers() throws Exception {
        String top = top();
        CuratorFramework client = client();
        DistributedBarrier barrier = new DistributedBarrier(client, top + "/one");
        barrier.setBarrier();
        CuratorFramework other = client();
        Future<Boolean> waiter = THREADS.submit(() -> new DistributedBarrier(other, top + "/one").waitOnBarrier(WAIT_SECONDS, TimeUnit.SECONDS));
        barrier.removeBarrier();
        check(waiter.get(WAIT_SECONDS, TimeUnit.SECONDS), "through the barrier");
        List<Future<Boolean>> members = new ArrayList<>();
        for (CuratorFramework each : Arrays.asList(client, other, client())) {
            members.add(THREADS.submit(() -> {
                DistributedDoubleBarrier both = new DistributedDoubleBarrier(each, top + "/two", 3);
                return both.enter(WAIT_SECONDS, TimeUnit.SECONDS) && both.leave(WAIT_SECONDS, TimeUnit.SECONDS);
            }));
        }
        for (Future<Boolean> member : members) {
            check(member.get(WAIT_SECONDS, TimeUnit.SECONDS), "in and out together");
        }
    }

    private static void counters() throws Exception {
        String top = top();
        List<Future<?>> workers = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            DistributedAtomicLong counter = new DistributedAtomicLong(client(), top + "/atomic", new RetryNTimes(200, 2));
            workers.add(THREADS.submit(() -> {
                for (int n = 0; n < 10; n++) {
                    AtomicValue<Long> value = counter.increment();
                    check(value.succeeded(), "an increment");
                }
                return null;
            }));
        }
        for (Future<?> worker : workers) {
            worker.get(WAIT_SECONDS, TimeUnit.SECONDS);
        }
        equal(30L, new DistributedAtomicLong(client(), top + "/atomic", new RetryNTimes(1, 1)).get().postValue());
        SharedCount one = opened(new SharedCount(client(), top + "/shared", 7));
        SharedCount two = opened(new SharedCount(client(), top + "/shared", 0));
        one.start();
        two.start();
        equal(7, two.getCount());
        one.setCount(8);
        eventually(() -> two.getCount() == 8, "the new count");
    }

    private static void caches() throws Exception {
        CuratorFramework client = client();
        CuratorFramework other = client();
        String top = top();
        other.create().creatingParentsIfNeeded().forPath(top + "/a", bytes("1"));
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        CuratorCache cache = opened(CuratorCache.build(client, top));
        cache.listenable().addListener(CuratorCacheListener.builder()
            .forCreates(node -> events.add("+" + node.getPath())).forChanges((old, node) -> events.add("=" + node.getPath()))
            .forDeletes(node -> events.add("-" + node.getPath())).forInitialized(() -> events.add("ready")).build());
        cache.start();
        List<String> initial = new ArrayList<>(Arrays.asList(take(events), take(events), take(events)));
        initial.sort(null);
        equal(Arrays.asList("+" + top, "+" + top + "/a", "ready"), initial);
        other.create().forPath(top + "/a/deep", bytes("2"));
        equal("+" + top + "/a/deep", take(events));
        other.setData().forPath(top + "/a/deep", bytes("3"));
        equal("=" + top + "/a/deep", take(events));
        equal("3", new String(cache.get(top + "/a/deep").get().getData(), StandardCharsets.UTF_8));
        other.delete().forPath(top + "/a/deep");
        equal("-" + top + "/a/deep", take(events));
    }

    private static void persistentWatcher() throws Exception {
        CuratorFramework client = client();
        String top = top();
        client.create().creatingParentsIfNeeded().forPath(top);
        BlockingQueue<WatchedEvent> events = new LinkedBlockingQueue<>();
        PersistentWatcher watcher = opened(new PersistentWatcher(client, top, true));
        watcher.getListenable().addListener(events::add);
        CountDownLatch set = new CountDownLatch(1);
        watcher.getResetListenable().addListener(set::countDown);
        watcher.start();
        check(set.await(WAIT_SECONDS, TimeUnit.SECONDS), "the watch is set");
        for (int i = 0; i < 3; i++) {
            client.create().forPath(top + "/x");
            equal(top + "/x", take(events).getPath());
            client.delete().forPath(top + "/x");
            equal(top + "/x", take(events).getPath());
        }
    }

    private static void persistentNode() throws Exception {
        CuratorFramework client = client();
        CuratorFramework other = client();
        String top = top();
        PersistentNode node = opened(new PersistentNode(client, CreateMode.EPHEMERAL, false, top + "/node", bytes("mine")));
        node.start();
        check(node.waitForInitialCreate(WAIT_SECONDS, TimeUnit.SECONDS), "made");
        long made = other.checkExists().forPath(top + "/node").getCzxid();
        other.delete().forPath(top + "/node");
        eventually(() -> other.checkExists().forPath(top + "/node") != null && other.checkExists().forPath(top + "/node").getCzxid() != made, "made again");
        GroupMember member = opened(new GroupMember(client, top + "/group", "one", bytes("1")));
        GroupMember second = new GroupMember(other, top + "/group", "two", bytes("2"));
        member.start();
        second.start();
        eventually(() -> member.getCurrentMembers().size() == 2, "two members");
        second.close();
        eventually(() -> member.getCurrentMembers().size() == 1, "one member");
        PersistentTtlNode kept = opened(new PersistentTtlNode(client, top + "/ttl", 600000, bytes("t")));
        kept.start();
        check(kept.waitForInitialCreate(WAIT_SECONDS, TimeUnit.SECONDS), "a node with a time to live");
    }

    private static void queue() throws Exception {
        CuratorFramework client = client();
        SimpleDistributedQueue queue = new SimpleDistributedQueue(client, top() + "/queue");
        Future<byte[]> taker = THREADS.submit(() -> queue.poll(WAIT_SECONDS, TimeUnit.SECONDS));
        check(queue.offer(bytes("one")), "offered");
        equal("one", new String(taker.get(WAIT_SECONDS, TimeUnit.SECONDS), StandardCharsets.UTF_8));
    }

    private static void restart() throws Exception {
        CuratorFramework client = client();
        String top = top();
        BlockingQueue<ConnectionState> states = new LinkedBlockingQueue<>();
        client.getConnectionStateListenable().addListener((c, state) -> states.add(state));
        LeaderLatch latch = opened(new LeaderLatch(client, top + "/latch"));
        latch.start();
        check(latch.await(WAIT_SECONDS, TimeUnit.SECONDS), "a leader");
        String own = client.create().withMode(CreateMode.EPHEMERAL).forPath(top + "/own");
        System.out.println("@restart");
        System.out.flush();
        check(ANSWERS.readLine() != null, "nobody restarts the server");
        equal(ConnectionState.SUSPENDED, take(states));
        equal(ConnectionState.RECONNECTED, take(states));
        check(client.checkExists().forPath(own) != null, "the ephemeral is still there");
        eventually(latch::hasLeadership, "leader again");
        try {
            client.create().forPath(own);
            throw new AssertionError("it should be there");
        } catch (KeeperException.NodeExistsException expected) {
            check(expected.getPath().equals(own), "the path");
        }
    }

    public static void main(String[] arguments) throws Exception {
        hosts = arguments[0];
        Object[][] tests = {
            {"framework", (Test) CuratorSuite::framework}, {"mutexes", (Test) CuratorSuite::mutexes}, {"readWriteLock", (Test) CuratorSuite::readWriteLock},
            {"semaphore", (Test) CuratorSuite::semaphore}, {"leaderLatch", (Test) CuratorSuite::leaderLatch},
            {"leaderSelector", (Test) CuratorSuite::leaderSelector}, {"barriers", (Test) CuratorSuite::barriers}, {"counters", (Test) CuratorSuite::counters},
            {"caches", (Test) CuratorSuite::caches}, {"persistentWatcher", (Test) CuratorSuite::persistentWatcher},
            {"persistentNode", (Test) CuratorSuite::persistentNode}, {"queue", (Test) CuratorSuite::queue}, {"restart", (Test) CuratorSuite::restart},
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
            for (AutoCloseable thing : OPEN) {
                thing.close();
            }
            OPEN.clear();
        }
        System.out.printf("%d passed, %d failed%n", tests.length - failed, failed);
        System.exit(failed == 0 ? 0 : 1);
    }
}
