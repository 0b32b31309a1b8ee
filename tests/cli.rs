//! The built program from outside: the verbs of `zkServer.sh`, their words and exit codes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory with a `zoo.cfg`; stops what runs there when it goes.
struct Home {
    directory: tempfile::TempDir,
    port: u16,
}

impl Home {
    fn new(more: &str) -> Home {
        let directory = tempfile::tempdir().expect("a directory for a test");
        // Free a moment ago; the server takes it next.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let home = Home { directory, port };
        let text = format!(
            "tickTime=2000\nclientPort={port}\nclientPortAddress=127.0.0.1\ndataDir={}\npreAllocSize=1024\n{more}\n",
            home.path("data").display()
        );
        std::fs::write(home.path("zoo.cfg"), text).unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, verb: &str) -> Output {
        run(&[verb, self.path("zoo.cfg").to_str().unwrap()], self.directory.path())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.run("stop");
    }
}

/// Runs the program without any variable that would lead it elsewhere.
fn run(words: &[&str], directory: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringkeeper"));
    for name in [
        "ZOOCFGDIR",
        "ZOOCFG",
        "ZOOPIDFILE",
        "ZOO_LOG_DIR",
        "ZOO_LOG_FILE",
        "SERVER_JVMFLAGS",
        "JVMFLAGS",
        "RUST_LOG",
        "ZOO_DATADIR_AUTOCREATE_DISABLE",
    ] {
        command.env_remove(name);
    }
    command.args(words).current_dir(directory).output().expect("the program runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_server_is_started_asked_restarted_and_stopped() {
    let home = Home::new("");
    let started = home.run("start");
    assert_eq!(out(&started), "Starting zookeeper ... STARTED\n", "{}", err(&started));
    assert_eq!(started.status.code(), Some(0));
    let pid = std::fs::read_to_string(home.path("data/zookeeper_server.pid")).unwrap();

    let again = home.run("start");
    assert_eq!(out(&again), format!("Starting zookeeper ... already running as process {pid}.\n"));
    assert_eq!(again.status.code(), Some(1));

    let status = home.run("status");
    let port = home.port;
    assert_eq!(
        out(&status),
        format!(
            "Client port found: {port}. Client address: 127.0.0.1. Client SSL: false.\nMode: standalone\n"
        )
    );
    assert_eq!(status.status.code(), Some(0));

    let restarted = home.run("restart");
    assert_eq!(
        out(&restarted),
        "Stopping zookeeper ... STOPPED\nStarting zookeeper ... STARTED\n",
        "{}",
        err(&restarted)
    );
    assert_ne!(std::fs::read_to_string(home.path("data/zookeeper_server.pid")).unwrap(), pid);

    let stopped = home.run("stop");
    assert_eq!(
        (out(&stopped).as_str(), stopped.status.code()),
        ("Stopping zookeeper ... STOPPED\n", Some(0))
    );
    assert!(!home.path("data/zookeeper_server.pid").exists());
    let stopped = home.run("stop");
    assert!(out(&stopped).starts_with("Stopping zookeeper ... no zookeeper to stop (could not find file "));
    assert_eq!(stopped.status.code(), Some(0));

    let status = home.run("status");
    assert!(out(&status).ends_with("Error contacting service. It is probably not running.\n"));
    assert_eq!(status.status.code(), Some(1));
}

/// A server that is reached in TLS alone is asked in TLS, with its own certificate.
#[test]
fn a_server_of_a_secure_port_alone_is_asked_in_tls() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let stores = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tls");
    let secure = format!(
        "clientPort=0\nclientPortAddress=\nsecureClientPort={port}\nsecureClientPortAddress=127.0.0.1\n\
         ssl.keyStore.location={0}/server.jks\nssl.keyStore.password=secret\nssl.trustStore.location={0}/ca.pem",
        stores.display()
    );
    let home = Home::new(&secure);
    let check = home.run("check");
    assert!(check.status.success() && out(&check).contains("the configuration is sound"), "{}", err(&check));
    let start = home.run("start");
    assert!(out(&start).contains("STARTED"), "{}", err(&start));
    let status = home.run("status");
    let said = out(&status);
    assert!(
        said.contains(&format!("Client port found: {port}. Client address: 127.0.0.1. Client SSL: true."))
    );
    assert!(said.contains("Mode: standalone") && status.status.success(), "{said}");
    assert!(out(&home.run("stop")).contains("STOPPED"));
    assert!(out(&home.run("status")).contains("Error contacting service"));
    let wrong = Home::new(&secure.replace("=secret", "=wrong"));
    let check = wrong.run("check");
    assert_eq!(check.status.code(), Some(2));
    assert!(err(&check).contains("the password does not fit"), "{}", err(&check));
}

#[test]
fn what_a_stopped_server_holds_is_exported() {
    let home = Home::new("");
    let exported = home.run("export");
    assert_eq!(exported.status.code(), Some(1));
    assert!(err(&exported).contains("holds no data of ringkeeper"), "{}", err(&exported));
    assert_eq!(home.run("start").status.code(), Some(0));
    let exported = home.run("export");
    assert!(err(&exported).contains("in use by another server"), "{}", err(&exported));
    home.run("stop");
    let exported = home.run("export");
    assert_eq!(exported.status.code(), Some(0), "{}", err(&exported));
    let text = out(&exported);
    assert!(text.contains(&format!("written: {}\n", home.path("data/version-2").display())), "{text}");
    assert!(text.ends_with("snapshot 0x0, 0 transactions behind it, up to 0x0\n"), "{text}");
    assert!(home.path("data/version-2/snapshot.0").exists());
    assert_eq!(std::fs::read_to_string(home.path("data/version-2/currentEpoch")).unwrap(), "0");
}

#[test]
fn words_answer_as_the_whitelist_says() {
    let home = Home::new("4lw.commands.whitelist=ruok, conf");
    assert_eq!(home.run("start").status.code(), Some(0));
    let say = |word: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", home.port)).unwrap();
        stream.write_all(word.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert_eq!(say("ruok"), "imok");
    assert!(say("srvr").contains("\nMode: standalone\n"));
    assert_eq!(say("mntr\n"), "mntr is not executed because it is not in the whitelist.\n");
    let conf = say("conf");
    assert!(conf.contains(&format!("dataDir={}/version-2\n", home.path("data").display())), "{conf}");
    assert!(
        conf.contains(
            "\ntickTime=2000\nmaxClientCnxns=60\nminSessionTimeout=4000\nmaxSessionTimeout=40000\n"
        ),
        "{conf}"
    );
}

#[test]
fn wrong_configurations_are_refused_with_code_two() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.cfg");
    for (text, reason) in [
        ("dataDir=d\nclientPort=abc", "bad.cfg:2: clientPort=abc: expected a whole number from 0 to 65535"),
        ("clientPort=2181", "bad.cfg:1: dataDir is missing"),
        ("dataDir=d\nsecureClientPort=2281", "bad.cfg:2: ssl.keyStore.location is missing"),
        (
            "dataDir=d\nserver.1=a:1:2\nserver.2=b:1:2",
            "d/myid: no such file; a member of an ensemble has its own id there",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        for verb in ["serve", "start-foreground", "start", "check"] {
            let output = run(&[verb, "bad.cfg"], directory.path());
            assert_eq!(output.status.code(), Some(2), "{verb}: {text}");
            assert!(err(&output).contains(reason), "{verb}: {}", err(&output));
            assert!(err(&output).ends_with("Invalid config, exiting abnormally\n"), "{verb}");
        }
    }
    for words in [
        &["serve", "nowhere.cfg"][..],
        &["serve", "1", "2", "3", "4", "5"],
        &["no-such-verb"],
        &["serve", "--set", "x"],
    ] {
        assert_eq!(run(words, directory.path()).status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn a_port_in_use_is_one_clear_line_and_code_two() {
    let home = Home::new("");
    let _other = TcpListener::bind(("127.0.0.1", home.port)).unwrap();
    let served = home.run("serve");
    assert_eq!(served.status.code(), Some(2), "{}", out(&served));
    assert!(out(&served).contains(&format!("127.0.0.1:{}", home.port)), "{}", out(&served));
    let started = home.run("start");
    assert_eq!(out(&started), "Starting zookeeper ... FAILED TO START\n");
    assert_eq!(started.status.code(), Some(1));
    assert!(!home.path("data/zookeeper_server.pid").exists());
}

#[test]
fn a_stale_pid_file_harms_nobody() {
    let home = Home::new("");
    std::fs::create_dir_all(home.path("data")).unwrap();
    let pid_file = home.path("data/zookeeper_server.pid");
    // A live process that is not ours: the one that runs this test.
    std::fs::write(&pid_file, std::process::id().to_string()).unwrap();
    let stopped = home.run("stop");
    assert_eq!(
        (out(&stopped).as_str(), stopped.status.code()),
        ("Stopping zookeeper ... STOPPED\n", Some(0))
    );
    assert!(!pid_file.exists());
    std::fs::write(&pid_file, "999999999").unwrap();
    assert_eq!(out(&home.run("start")), "Starting zookeeper ... STARTED\n");
}

#[test]
fn what_would_be_run_and_what_this_is_are_printed() {
    let home = Home::new("");
    let printed = out(&home.run("print-cmd"));
    let file = home.path("zoo.cfg").display().to_string();
    assert!(
        printed.contains(&format!("\"serve\" \"{file}\" > ")) && printed.ends_with(" 2>&1 < /dev/null\n"),
        "{printed}"
    );
    let version = out(&run(&["version"], home.directory.path()));
    assert!(version.starts_with("ringkeeper, version 3.9.5-ringkeeper-"), "{version}");
    let checked = home.run("check");
    assert!(out(&checked).ends_with("the configuration is sound\n"), "{}", out(&checked));
}
