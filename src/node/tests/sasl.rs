//! SASL exchanges of clients.

use std::collections::BTreeMap;

use super::*;
use crate::config::Secret;
use crate::proto::Perms;
use crate::request::auth::sasl::{CLIENTS, respond};

fn world(adjust: impl Fn(&mut AuthOptions)) -> World {
    World::with(1, |front, pipeline| {
        let users = [("bob", "b0b"), ("boss", "b0ss")];
        let users: BTreeMap<String, Secret> =
            users.map(|(user, password)| (user.to_owned(), Secret(password.to_owned()))).into();
        front.auth.sasl_users = Some(Arc::new(users));
        front.auth.sasl_enabled = true;
        front.auth.sasl_super_users = vec!["boss".into()];
        adjust(&mut front.auth);
        pipeline.prepare.auth = front.auth.clone();
    })
}

impl World {
    fn token(&mut self, client: Handle, token: &[u8]) -> (i32, Option<Vec<u8>>) {
        let reply = self.call(client, Request::Sasl { token: Some(token) });
        assert_eq!(reply.zxid, Zxid::ZERO);
        match reply.response {
            Response::Token(token) => (reply.err, token),
            other => (reply.err, panic_unless_failed(reply.err, &other)),
        }
    }

    /// Both steps; gives the error and the token of the second.
    fn authenticate(&mut self, client: Handle, user: &str, password: &str) -> (i32, Option<Vec<u8>>) {
        let (err, challenge) = self.token(client, b"");
        assert_eq!(err, 0);
        let challenge = challenge.expect("a challenge");
        let (answer, _) = respond(&CLIENTS, &challenge, user, password, "cnonce").expect("a challenge");
        self.token(client, &answer)
    }

    fn is_closed(&mut self, client: Handle) -> bool {
        self.settle();
        self.client(client).closed
    }
}

fn panic_unless_failed(err: i32, response: &Response) -> Option<Vec<u8>> {
    assert_ne!(err, 0, "{response:?}");
    None
}

#[test]
fn who_authenticates_has_the_identity_and_super_users_may_do_everything() {
    let mut world = world(|_| {});
    let (bob, boss, nobody) = (world.connect(0), world.connect(0), world.connect(0));
    let (err, token) = world.authenticate(bob, "bob", "b0b");
    assert!(err == 0 && token.unwrap().starts_with(b"rspauth="));
    let acl =
        [crate::proto::AclEntry { perms: Perms(31), scheme: Some("sasl".into()), id: Some("bob".into()) }];
    let secret = Request::Create {
        op: OpCode::Create,
        path: "/secret",
        data: None,
        acl: Some(&acl),
        flags: 0,
        ttl_ms: 0,
    };
    assert_eq!(world.call(bob, secret).err, 0);
    assert_eq!(world.call(bob, get("/secret")).err, 0);
    assert_eq!(world.call(nobody, get("/secret")).err, ErrorCode::NoAuth.code());
    assert_eq!(world.call(boss, get("/secret")).err, ErrorCode::NoAuth.code());
    assert_eq!(world.authenticate(boss, "boss", "b0ss").0, 0);
    assert_eq!(world.call(boss, get("/secret")).err, 0);
    // A packet after the end.
    assert_eq!(world.token(bob, b"").0, ErrorCode::AuthFailed.code());
    assert!(world.is_closed(bob));
}

#[test]
fn who_fails_is_closed_unless_that_is_allowed() {
    let mut strict = world(|_| {});
    let client = strict.connect(0);
    assert_eq!(strict.authenticate(client, "bob", "wrong"), (ErrorCode::AuthFailed.code(), None));
    assert!(strict.is_closed(client));
    let mut lenient = world(|auth| auth.allow_sasl_failed = true);
    let client = lenient.connect(0);
    assert_eq!(lenient.authenticate(client, "bob", "wrong"), (0, None));
    assert!(!lenient.is_closed(client));
    assert_eq!(lenient.call(client, create("/a")).err, 0);
}

#[test]
fn where_sasl_is_required_nothing_goes_without() {
    let mut world = world(|auth| {
        auth.enforce_schemes = vec!["sasl".into()];
        auth.allow_sasl_failed = true;
    });
    let (good, bad, lazy) = (world.connect(0), world.connect(0), world.connect(0));
    assert_eq!(world.authenticate(good, "bob", "b0b").0, 0);
    assert_eq!(world.call(good, create("/a")).err, 0);
    let required = ErrorCode::SessionClosedRequireSaslAuth.code();
    assert_eq!(world.authenticate(bad, "bob", "wrong"), (required, None));
    assert!(world.is_closed(bad));
    assert_eq!(world.call(lazy, get("/a")).err, required);
    assert!(world.is_closed(lazy));
}
