//! The admin server of the built program: commands over HTTP, snapshots for operators, ports that are taken.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use ringkeeper::client::{Client, Request};
use ringkeeper::proto::client::CreateMode;
use support::{PATIENCE, Server, Shape, Site, free_port, shapes};

/// Status, headers and body of one answer.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }

    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&prefix))
    }
}

fn ask(port: u16, request: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the admin server listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n").unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head, body: all[end + 4..].to_vec() }
}

fn get(port: u16, command: &str) -> String {
    let answer = ask(port, &format!("GET /commands/{command}"), "");
    assert_eq!(answer.status, 200, "{command}");
    answer.text()
}

fn site(shape: Shape) -> (Site, u16) {
    let mut site = Site::new(shape);
    let port = free_port();
    site.set("admin.enableServer", true)
        .set("admin.serverAddress", "127.0.0.1")
        .set("admin.serverPort", port);
    (site, port)
}

fn succeed(client: &mut Client, request: &Request<'_>) {
    let reply = client.call(request).unwrap_or_else(|error| panic!("{request:?}: {error}"));
    assert!(reply.is_ok(), "{request:?}: {}", reply.err);
}

fn create(server: &Server, paths: &[&str]) {
    let mut client = server.client();
    for path in paths {
        succeed(&mut client, &Request::create(path, b"data", CreateMode::Persistent));
    }
}

#[test]
fn commands_are_answered_on_every_shape() {
    for &shape in shapes() {
        let (mut site, port) = site(shape);
        let server = site.start();
        create(&server, &["/a", "/a/b"]);
        let client = server.client();
        for (command, expected) in [
            ("ruok", "\"command\" : \"ruok\",\n  \"error\" : null"),
            ("srvr", "\"server_state\" : \"standalone\""),
            ("mntr", "\"znode_count\" : 7"),
            ("cons", "\"remote_socket_address\" : \"127.0.0.1:"),
            ("conf", "\"tick_time\" : 500"),
            ("dump", "\"expiry_time_to_session_ids\" : {\n    \""),
            ("lsnp", "\"timestamp\" : 1"),
            ("icfg", "dataDir="),
            ("sysp", "\"zookeeper.admin.serverPort\" : \""),
            ("env", "\"zookeeper.version\" : \"3.9.5-ringkeeper-"),
            ("stmk?traceMask=5", "\"tracemask\" : 5"),
            ("gtmk", "\"tracemask\" : 5"),
            ("stmk?traceMask=x", "\"error\" : \"setTraceMask requires long traceMask argument, got x\""),
            ("nonsense", "\"error\" : \"Unknown command: nonsense\""),
        ] {
            let text = get(port, command);
            assert!(text.contains(expected), "{shape:?} {command}: {text}");
        }
        drop(client);
        assert!(
            ask(port, "GET /commands", "").text().contains("<a href=\"/commands/zabstate\">zabstate</a>")
        );
        assert_eq!(ask(port, "GET /", "").status, 404);
        assert_eq!(ask(port, "POST /commands/ruok", "").status, 405);
        assert_eq!(ask(port, "GET /commands/restore", "").status, 405);
    }
}

/// Permissions first, then the switch, then the rate; and what is streamed is a snapshot ZooKeeper reads.
#[test]
fn a_snapshot_wants_permission_a_switch_and_patience() {
    let shape = shapes()[0];
    let (mut site, port) = site(shape);
    let mut server = site.start();
    assert_eq!(ask(port, "GET /commands/snapshot", "").status, 401);
    assert_eq!(ask(port, "GET /commands/snapshot", "Authorization: world anyone\r\n").status, 401);
    // Off unless configured.
    assert_eq!(ask(port, "GET /commands/snapshot", "Authorization: ip\r\n").status, 503);
    assert_eq!(ask(port, "POST /commands/restore", "Authorization: ip\r\n").status, 503);
    server.kill();

    site.set("admin.snapshot.enabled", true);
    let server = site.start();
    create(&server, &["/a", "/b", "/c"]);
    let answer = ask(port, "GET /commands/snapshot", "Authorization: digest a:b\r\n");
    assert_eq!(answer.status, 200, "{}", answer.head);
    let zxid = answer.header("last_zxid").expect("a zxid").to_owned();
    assert_eq!(answer.header("snapshot_size"), Some(answer.body.len().to_string().as_str()));
    assert!(answer.body.starts_with(b"ZKSN"));
    assert!(answer.head.contains("Content-Disposition: attachment; filename=\"snapshot."), "{}", answer.head);
    let name = format!("snapshot.{}", zxid.strip_prefix("0x").unwrap());
    assert_eq!(fs::read(site.files().join(&name)).unwrap(), answer.body, "{name}");
    let last = get(port, "last_snapshot");
    assert!(last.contains(&format!("\"zxid\" : \"{}\"", zxid.strip_prefix("0x").unwrap())), "{last}");
    assert_eq!(ask(port, "GET /commands/snapshot", "Authorization: ip\r\n").status, 429);
    assert!(get(port, "mntr").contains("\"snapshot_rate_limited_count\" : 1"));
}

#[test]
fn prometheus_gets_what_mntr_tells() {
    for &shape in shapes() {
        let mut site = Site::new(shape);
        let port = free_port();
        site.line(
            "metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider",
        )
        .set("metricsProvider.httpHost", "127.0.0.1")
        .set("metricsProvider.httpPort", port);
        let server = site.start();
        create(&server, &["/a"]);
        let answer = ask(port, "GET /metrics", "");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let text = answer.text();
        for line in [
            "# HELP znode_count znode_count\n# TYPE znode_count gauge\nznode_count 6.0\n",
            "# TYPE op_count_create counter\nop_count_create 1.0\n",
            "# TYPE updatelatency summary\nupdatelatency{quantile=\"0.5\",} ",
            "\njvm_memory_bytes_max{area=\"heap\",} ",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        let seconds =
            text.lines().find_map(|line| line.strip_prefix("process_start_time_seconds ")).expect("a start");
        assert!(seconds.parse::<f64>().unwrap() > 1.7e9, "{seconds}");
        assert_eq!(ask(port, "GET /", "").status, 404);
        assert_eq!(ask(port, "POST /metrics", "").status, 405);
    }
}

#[test]
fn a_taken_port_is_told_and_the_server_serves() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut site, _) = site(shapes()[0]);
    site.set("admin.serverPort", taken.local_addr().unwrap().port());
    let server = site.start();
    create(&server, &["/a"]);
    let log = server.log();
    assert_eq!(log.matches("Problem starting AdminServer").count(), 1, "{log}");
    assert!(log.contains(" - ERROR ["), "{log}");
}

/// The snapshot of a stop is the newest state: a ZooKeeper that starts from it alone lacks nothing.
#[test]
fn a_stop_leaves_a_snapshot_of_everything() {
    let mut site = Site::new(shapes()[0]);
    site.set("ringkeeper.snapshotOnStop", true);
    let mut server = site.start();
    create(&server, &["/a", "/b"]);
    assert_eq!(server.terminate().code(), Some(0));
    let newest = newest_snapshot(&site.files());
    // A new server imports nothing but that file.
    let mut other = Site::new(shapes()[0]);
    fs::create_dir_all(other.path("data/version-2")).unwrap();
    fs::copy(&newest, other.path("data/version-2").join(newest.file_name().unwrap())).unwrap();
    let server = other.start();
    let mut client = server.client();
    for path in ["/a", "/b"] {
        succeed(&mut client, &Request::GetData { path, watch: false });
    }
}

fn newest_snapshot(directory: &Path) -> std::path::PathBuf {
    let zxid = |path: &Path| {
        let name = path.file_name()?.to_str()?.strip_prefix("snapshot.")?.to_owned();
        i64::from_str_radix(&name, 16).ok()
    };
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| zxid(path).is_some()).max_by_key(|path| zxid(path)).expect("a snapshot")
}

#[test]
fn the_audit_log_is_a_file_of_zookeepers_lines() {
    let mut site = Site::new(shapes()[0]);
    site.set("audit.enable", true);
    let mut server = site.start();
    create(&server, &["/a", "/b"]);
    assert_eq!(server.terminate().code(), Some(0));
    let text = fs::read_to_string(site.path("data/zookeeper_audit.log")).unwrap();
    let lines: Vec<&str> = text.lines().map(|line| &line[24..]).collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].starts_with("INFO audit.Slf4jAuditLogger: user="), "{text}");
    assert!(lines[0].ends_with("\toperation=serverStart\tresult=success"), "{text}");
    let pairs: Vec<&str> = lines[1].split('\t').collect();
    assert!(pairs[0].starts_with("INFO audit.Slf4jAuditLogger: session=0x"), "{text}");
    assert_eq!(
        pairs[1..],
        [
            "user=127.0.0.1",
            "ip=127.0.0.1",
            "operation=create",
            "znode=/a",
            "znode_type=persistent",
            "result=success"
        ]
    );
    assert!(lines[3].ends_with("\toperation=serverStop\tresult=invoked"), "{text}");
}
