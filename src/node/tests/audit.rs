//! What the audit log hears of a node's requests.

use super::*;

fn audited() -> World {
    World::with(1, |_, pipeline| pipeline.audit_user = Some("me".into()))
}

impl World {
    /// The lines since the last call, without who did it.
    fn audit_lines(&mut self) -> Vec<String> {
        let texts = self.audit.drain(..).map(|line| line.text);
        texts.map(|text| text[text.find("operation=").unwrap()..].replace('\t', " ")).collect()
    }
}

#[test]
fn changes_are_told_with_their_results_and_reads_are_not() {
    let mut world = audited();
    let client = world.connect(0);
    world.call(client, create("/a"));
    world.call(client, Request::create("/a/s-", b"", CreateMode::EphemeralSequential));
    assert_eq!(world.audit.last().unwrap().text.split('\t').nth(2), Some("ip=127.0.0.1"));
    world.call(client, create("/a"));
    world.call(client, get("/a"));
    world.call(client, set("/a", b"x"));
    world.call(client, Request::Delete { path: "/none", version: None });
    let ops = [create("/b"), set("/a", b"y"), Request::Check { path: "/a", version: None }];
    world.call(client, Request::Multi(&ops));
    let ops = [create("/c"), Request::Delete { path: "/none", version: None }];
    world.call(client, Request::Multi(&ops));
    assert_eq!(
        world.audit_lines(),
        [
            "operation=create znode=/a znode_type=persistent result=success",
            "operation=create znode=/a/s-0000000000 znode_type=ephemeral_sequential result=success",
            "operation=create znode=/a znode_type=persistent result=failure",
            "operation=setData znode=/a result=success",
            "operation=delete znode=/none result=failure",
            "operation=create znode=/b znode_type=persistent result=success",
            "operation=setData znode=/a result=success",
            "operation=multiOperation result=failure",
        ]
    );
    world.call(client, Request::CloseSession);
    assert_eq!(
        world.audit_lines(),
        ["operation=ephemeralZNodeDeletionOnSessionCloseOrExpire znode=/a/s-0000000000 result=success"]
    );
}

#[test]
fn nothing_is_told_unless_configured() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.call(client, create("/a"));
    world.call(client, ephemeral("/e"));
    world.call(client, Request::CloseSession);
    assert!(world.audit.is_empty());
}
