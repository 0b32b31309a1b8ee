// Apache ZooKeeper's Java client over TLS, with JKS and PKCS12 stores.
//
// Called with the server's secure address and the directory of the stores.

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.client.FourLetterWordMain;
import org.apache.zookeeper.client.ZKClientConfig;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.data.ACL;

public final class TlsSuite {
    private static final long WAIT_SECONDS = 20;
    /** How long a session that is not to be is waited for. */
    private static final long REFUSED_SECONDS = 2;
    private static final String CLIENT = "CN=client one,OU=Ops,O=Acme\\, Inc,ST=Berlin,C=DE";
    private static String hosts;
    private static String stores;
    private static int passed;

    /** A client with its events. */
    private static final class Client implements AutoCloseable {
        final BlockingQueue<WatchedEvent> events = new LinkedBlockingQueue<>();
        final ZooKeeper zk;

        Client(ZKClientConfig config) throws Exception {
            zk = new ZooKeeper(hosts, 10_000, events::add, config);
        }

        boolean connects(long waitSeconds) throws Exception {
            WatchedEvent event = events.poll(waitSeconds, TimeUnit.SECONDS);
            return event != null && event.getState() == KeeperState.SyncConnected;
        }

        @Override
        public void close() throws Exception {
            zk.close();
        }
    }

    private static ZKClientConfig config(String key, String type, String trust, String protocols) {
        ZKClientConfig config = new ZKClientConfig();
        config.setProperty(ZKClientConfig.SECURE_CLIENT, "true");
        config.setProperty(ZKClientConfig.ZOOKEEPER_CLIENT_CNXN_SOCKET, "org.apache.zookeeper.ClientCnxnSocketNetty");
        if (key != null) {
            config.setProperty("zookeeper.ssl.keyStore.location", stores + "/" + key);
            // With a password a PEM file has to be encrypted.
            config.setProperty("zookeeper.ssl.keyStore.password", type.equals("PEM") ? "" : "secret");
            config.setProperty("zookeeper.ssl.keyStore.type", type);
        }
        config.setProperty("zookeeper.ssl.trustStore.location", stores + "/" + trust);
        config.setProperty("zookeeper.ssl.trustStore.password", "secret");
        config.setProperty("zookeeper.ssl.enabledProtocols", protocols);
        return config;
    }

    private static void check(boolean right, String what) {
        if (!right) {
            throw new AssertionError(what);
        }
    }

    private static void serves(ZKClientConfig config, String subject) throws Exception {
        try (Client client = new Client(config)) {
            check(client.connects(WAIT_SECONDS), "no session");
            List<String> known =
                    client.zk.whoAmI().stream().map(i -> i.getAuthScheme() + ":" + i.getUser()).sorted().collect(Collectors.toList());
            check(known.equals(Arrays.asList("ip:127.0.0.1", "x509:" + subject)), "whoAmI says " + known);
            byte[] data = new byte[1_000_000];
            Arrays.fill(data, (byte) 'x');
            String path = client.zk.create("/tls-", data, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT_SEQUENTIAL);
            check(Arrays.equals(client.zk.getData(path, true, null), data), "other data came back");
            List<ACL> list = client.zk.getACL(path, null);
            check(list.get(0).getId().getId().equals(subject), "the list is " + list);
            client.zk.setData(path, "new".getBytes(StandardCharsets.UTF_8), 0);
            WatchedEvent event = client.events.poll(WAIT_SECONDS, TimeUnit.SECONDS);
            check(event != null && event.getType() == EventType.NodeDataChanged, "the event is " + event);
            client.zk.delete(path, -1);
            try {
                client.zk.create("/tls-no", data, Arrays.asList(new ACL(31, new org.apache.zookeeper.data.Id("x509", "bob"))),
                        CreateMode.PERSISTENT);
                check(false, "a name that is none was taken");
            } catch (KeeperException.InvalidACLException expected) {
                // As it should be.
            }
        }
    }

    private static void test(String name, boolean good) {
        check(good, name);
        passed++;
        System.out.println("ok " + name);
    }

    public static void main(String[] arguments) throws Exception {
        hosts = arguments[0];
        stores = arguments[1];
        int failed = 0;
        try {
            serves(config("client.jks", "JKS", "trust.jks", "TLSv1.3"), CLIENT);
            test("JKS, TLS 1.3", true);
            serves(config("client.jks", "PKCS12", "trust-keytool.p12", "TLSv1.2"), CLIENT);
            test("PKCS12, TLS 1.2", true);
            serves(config("odd.pem", "PEM", "ca.pem", "TLSv1.3,TLSv1.2"), "CN=\\ \\#\u00fc\\,\\\"\\\\\\;\\<\\>\\=\\+\\ ,O=a+OU=b,1.2.840.113549.1.9.1=#1603614062,DC=org");
            test("PEM, an odd subject", true);
            try (Client client = new Client(config(null, null, "trust.jks", "TLSv1.3,TLSv1.2"))) {
                test("no certificate, no session", !client.connects(REFUSED_SECONDS));
            }
            try (Client client = new Client(config("stranger.pem", "PEM", "trust.jks", "TLSv1.3,TLSv1.2"))) {
                test("a stranger, no session", !client.connects(REFUSED_SECONDS));
            }
            System.setProperty("zookeeper.ssl.keyStore.location", stores + "/client.jks");
            System.setProperty("zookeeper.ssl.keyStore.password", "secret");
            System.setProperty("zookeeper.ssl.trustStore.location", stores + "/trust.jks");
            System.setProperty("zookeeper.ssl.trustStore.password", "secret");
            String[] host = hosts.split(":");
            String answer = FourLetterWordMain.send4LetterWord(host[0], Integer.parseInt(host[1]), "srvr", true);
            test("words", answer.contains("Mode: standalone"));
        } catch (Exception | AssertionError error) {
            error.printStackTrace(System.out);
            failed = 1;
        }
        System.out.println(passed + " passed, " + failed + " failed");
        System.exit(failed);
    }
}
