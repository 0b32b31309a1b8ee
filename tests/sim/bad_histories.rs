//! The checker against histories made by hand (T-HIST): one that is right, and many that each break one promise.

use std::rc::Rc;

use ringkeeper::client::{Response, WatchType};
use ringkeeper::jute::put_i32;
use ringkeeper::proto::ErrorCode;
use ringkeeper::proto::acl::encode_list;
use ringkeeper::proto::client::{EventType, OpCode};
use ringkeeper::proto::txn::{CreateKind, DIGEST_VERSION, TxnDigest, TxnHeader, kind, put};
use ringkeeper::types::{Epoch, SessionId, Zxid};

use super::check::check;
use super::history::{Answer, Asked, Connection, Heard, History, Logged, Violation};
use super::model::Model;
use super::ops::{List, Op, Rearm, Users};

const ONE: SessionId = SessionId(0x100);
const TWO: SessionId = SessionId(0x200);

/// A history in the making, all of it right.
struct Story {
    history: History,
    log: Vec<Logged>,
    model: Model,
    moment: u64,
    xid: i32,
}

impl Story {
    fn new() -> Story {
        Story { history: History::default(), log: Vec::new(), model: Model::new(), moment: 0, xid: 0 }
    }

    fn moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    fn append(&mut self, session: SessionId, cxid: i32, kind: i32, body: Vec<u8>) {
        let zxid = self.model.zxid;
        let mut entry = Vec::new();
        TxnHeader { session, cxid, zxid, time_ms: 5, kind }.encode(&mut entry);
        entry.extend_from_slice(&body);
        if kind != kind::ERROR {
            TxnDigest { version: DIGEST_VERSION, tree_digest: self.model.digest() }.encode(&mut entry);
        }
        self.log.push(Logged { zxid, entry: Rc::from(entry) });
    }

    fn open(&mut self, session: SessionId) {
        self.model.begin(self.model.zxid.next());
        self.model.sessions.insert(session);
        let mut body = Vec::new();
        put::create_session(&mut body, 4000);
        self.append(session, 0, kind::CREATE_SESSION, body);
    }

    fn connect(&mut self, session: SessionId, users: Users) -> usize {
        let zxid_seen = Zxid::ZERO;
        self.history.connections.push(Connection { session, users, zxid_seen, ..Connection::default() });
        self.history.connections.len() - 1
    }

    /// The server ends a session by itself.
    fn expire(&mut self, session: SessionId) {
        self.model.begin(self.model.zxid.next());
        let gone = self.model.end_session(session);
        let mut body = Vec::new();
        put::close_session(&mut body, gone.iter().map(String::as_str));
        self.append(session, 0, kind::CLOSE_SESSION, body);
    }

    /// A request answered as it should be; gives its place.
    fn ask(&mut self, connection: usize, op: Op) -> usize {
        let (begun, ended) = (self.moment(), self.moment());
        let Connection { session, users, .. } = self.history.connections[connection].clone();
        let xid = match op {
            Op::Ping => -2,
            _ => {
                self.xid += 1;
                self.xid
            }
        };
        let expected = if op.is_write() {
            self.model.begin(self.model.zxid.next());
            let mut body = Vec::new();
            if matches!(op, Op::Close) {
                let gone = self.model.end_session(session);
                put::close_session(&mut body, gone.iter().map(String::as_str));
                self.append(session, xid, kind::CLOSE_SESSION, body);
                Ok(Response::None)
            } else {
                let before = self.model.clone();
                let expected = self.model.write(session, users, &op, 5);
                let number = match &expected {
                    Ok(response) => encode(&op, response, &before, &mut body),
                    Err(error) => {
                        put::error(&mut body, error.code());
                        kind::ERROR
                    }
                };
                self.append(session, xid, number, body);
                expected
            }
        } else {
            self.model.read(session, users, &op)
        };
        let (err, response) = match expected {
            Ok(response) => (0, response),
            Err(error) => (error.code(), Response::None),
        };
        let answer = Some(Answer { ended, zxid: self.model.zxid, err, response });
        self.history.asked.push(Asked { connection, xid, op, begun, answer });
        let index = self.history.asked.len() - 1;
        self.history.connections[connection].messages.push(Heard::Reply(index));
        index
    }

    /// An event of the last transaction comes, before the reply to it if that is on the same connection.
    fn event(&mut self, connection: usize, kind: EventType, path: &str) {
        let event = Heard::Event { zxid: self.model.zxid, kind, path: path.to_owned() };
        let messages = &mut self.history.connections[connection].messages;
        let is_told = messages.last().is_some_and(|last| match last {
            Heard::Reply(index) => {
                self.history.asked[*index].answer.as_ref().unwrap().zxid == self.model.zxid
            }
            Heard::Event { .. } => false,
        });
        let place = messages.len() - usize::from(is_told);
        messages.insert(place, event);
    }

    fn answer(&mut self, index: usize) -> &mut Answer {
        self.history.asked[index].answer.as_mut().expect("answered")
    }

    fn check(&self) -> Result<(), Violation> {
        check(&self.history, &self.log).map(|_| ())
    }

    /// Where the reply to a request is among its connection's messages.
    fn place(&self, index: usize) -> (usize, usize) {
        let connection = self.history.asked[index].connection;
        let place = self.history.connections[connection]
            .messages
            .iter()
            .position(|message| *message == Heard::Reply(index))
            .expect("it was answered");
        (connection, place)
    }
}

/// The transaction of a write that succeeds.
fn encode(op: &Op, response: &Response, before: &Model, body: &mut Vec<u8>) -> i32 {
    match op {
        Op::Create { op, path, data, acl, flags, ttl_ms } => {
            let parent = before.node(super::model::split(path).0).expect("it succeeds");
            let made = match response {
                Response::Path(Some(made)) | Response::Created { path: made, .. } => made,
                other => panic!("{other:?}"),
            };
            let (create_kind, number) = match op {
                OpCode::CreateContainer => (CreateKind::Container, kind::CREATE_CONTAINER),
                OpCode::CreateTtl => (CreateKind::Ttl { ttl_ms: *ttl_ms }, kind::CREATE_TTL),
                _ => (CreateKind::Plain { ephemeral: [1, 3].contains(flags) }, kind::CREATE),
            };
            let mut list = Vec::new();
            encode_list(acl.entries(), &mut list);
            put::create(body, made, data.as_deref(), &list, create_kind, parent.stat.cversion + 1);
            number
        }
        Op::Delete { path, .. } => {
            put::delete(body, path);
            kind::DELETE
        }
        Op::SetData { path, data, .. } => {
            let version = before.node(path).expect("it succeeds").stat.version + 1;
            put::set_data(body, path, data.as_deref(), version);
            kind::SET_DATA
        }
        Op::SetAcl { path, acl, .. } => {
            let mut list = Vec::new();
            encode_list(acl.entries(), &mut list);
            put::set_acl(body, path, &list, 1);
            kind::SET_ACL
        }
        // Only the number of its operations matters to the checker, which takes what they do from the request.
        Op::Multi(_) => {
            put_i32(body, 0);
            kind::MULTI
        }
        other => panic!("{other:?} is no transaction"),
    }
}

fn create(path: &str, flags: i32) -> Op {
    let (op, path) = (OpCode::Create, path.to_owned());
    Op::Create { op, path, data: Some(b"x".to_vec()), acl: List::Open, flags, ttl_ms: 0 }
}

fn set(path: &str, data: &[u8], version: Option<i32>) -> Op {
    Op::SetData { path: path.to_owned(), data: Some(data.to_vec()), version }
}

fn get(path: &str, watch: bool) -> Op {
    Op::GetData { path: path.to_owned(), watch }
}

fn children(path: &str, watch: bool) -> Op {
    Op::GetChildren { path: path.to_owned(), watch }
}

/// Places in [`told`]'s history that the cases below speak of.
struct Told {
    story: Story,
    create_a: usize,
    get_watched: usize,
    set_a: usize,
    refused: usize,
    multi: usize,
    sequences: [usize; 2],
    sync: usize,
    after_sync: usize,
    listing: usize,
    rearm: usize,
    last_of_two: usize,
    close: usize,
    ping_one: usize,
}

/// A history with something of everything, and nothing wrong with it.
fn told() -> Told {
    use EventType::*;
    let mut story = Story::new();
    story.open(ONE);
    story.open(TWO);
    let one = story.connect(ONE, Users(1));
    let two = story.connect(TWO, Users(0));
    let create_a = story.ask(one, create("/a", 0));
    let get_watched = story.ask(two, get("/a", true));
    let set_a = story.ask(one, set("/a", b"y", Some(0)));
    story.event(two, NodeDataChanged, "/a");
    story.ask(two, Op::Ping);
    let refused = story.ask(one, set("/a", b"z", Some(0)));
    let check = Op::Check { path: "/a".into(), version: Some(1) };
    let multi = story.ask(one, Op::Multi(vec![check, set("/a", b"m", None)]));
    story.ask(two, Op::AddWatch { path: "/".into(), recursive: false });
    let first = story.ask(one, create("/q-", 2));
    story.event(two, NodeChildrenChanged, "/");
    let second = story.ask(one, create("/q-", 2));
    story.event(two, NodeChildrenChanged, "/");
    let sync = story.ask(two, Op::Sync { path: "/".into() });
    let after_sync = story.ask(two, get("/a", false));
    let listing = story.ask(two, children("/", false));
    story.ask(two, Op::RemoveWatches { path: "/".into(), kind: WatchType::Any });
    // What one may not read, nobody tells it of.
    let hidden = Op::Create {
        op: OpCode::Create,
        path: "/hidden".into(),
        data: None,
        acl: List::Owned(0),
        flags: 0,
        ttl_ms: 0,
    };
    story.ask(one, hidden);
    story.ask(two, Op::Exists { path: "/new".into(), watch: true });
    story.ask(two, Op::AddWatch { path: "/hidden".into(), recursive: true });
    story.ask(one, set("/hidden", b"secret", None));
    story.ask(two, Op::Ping);
    // A second connection of the same session brings its watch again, which has missed a change.
    story.ask(one, create("/new", 1));
    story.event(two, NodeCreated, "/new");
    let seen = story.model.zxid;
    story.ask(two, Op::Ping);
    story.ask(one, set("/new", b"later", None));
    let three = story.connect(TWO, Users(0));
    story.history.connections[three].zxid_seen = seen;
    let catch_up = Heard::Event { zxid: Zxid(-1), kind: NodeDataChanged, path: "/new".into() };
    story.history.connections[three].messages.push(catch_up);
    let data = vec!["/new".to_owned()];
    let child = vec!["/a".to_owned()];
    let rearm = story.ask(three, Op::SetWatches(Rearm { zxid_seen: seen, data, child, ..Rearm::default() }));
    story.ask(one, create("/a/below", 0));
    story.event(three, NodeChildrenChanged, "/a");
    let last_of_two = story.ask(three, get("/new", true));
    let ping_one = story.ask(one, Op::Ping);
    let close = story.ask(one, Op::Close);
    story.event(three, NodeDeleted, "/new");
    story.ask(three, Op::Ping);
    story.expire(TWO);
    Told {
        story,
        create_a,
        get_watched,
        set_a,
        refused,
        multi,
        sequences: [first, second],
        sync,
        after_sync,
        listing,
        rearm,
        last_of_two,
        close,
        ping_one,
    }
}

#[test]
fn a_right_history_passes() {
    told().story.check().unwrap();
}

/// Each history is told, spoiled in one place, and must be refused for the right reason.
#[test]
fn every_wrong_history_is_refused() {
    type Spoil = fn(&mut Told);
    let cases: &[(&str, &[&str], Spoil)] = &[
        ("an answered write is not in the log", &["C1", "C5"], |told| {
            let zxid = told.story.answer(told.close).zxid;
            told.story.log.retain(|logged| logged.zxid < zxid);
        }),
        ("a write is in the log twice", &["C1"], |told| {
            let mut again = told.story.log[2].entry.to_vec();
            let zxid = told.story.log.last().unwrap().zxid.next();
            again[12..20].copy_from_slice(&zxid.0.to_be_bytes());
            told.story.log.push(Logged { zxid, entry: Rc::from(again) });
        }),
        ("a write in the log that nobody asked for", &["C1"], |told| {
            rewrite(told, 2, |entry| entry[8..12].copy_from_slice(&999i32.to_be_bytes()))
        }),
        ("a write of a session that never asked", &["C1"], |told| {
            rewrite(told, 2, |entry| entry[..8].copy_from_slice(&TWO.0.to_be_bytes()))
        }),
        ("a write answered with another's zxid", &["C1", "C3", "C4"], |told| {
            told.story.answer(told.set_a).zxid = Zxid(3)
        }),
        ("a write answered with a zxid nobody has", &["C1", "C3", "C5"], |told| {
            told.story.answer(told.close).zxid = Zxid(99)
        }),
        ("a gap in the log", &["S3"], |told| {
            told.story.log.remove(4);
        }),
        ("an entry that goes back", &["S3"], |told| told.story.log[2].zxid = Zxid(2)),
        ("an epoch that does not begin at one", &["S3"], |told| {
            let last = told.story.log.len() - 1;
            told.story.log[last].zxid = Zxid::new(Epoch(2), 2);
        }),
        ("bytes that are no transaction", &["G2"], |told| {
            told.story.log[3].entry = Rc::from(&b"rubbish"[..])
        }),
        ("an entry under another's zxid", &["G2"], |told| {
            told.story.log[3].entry = told.story.log[4].entry.clone()
        }),
        ("a digest that is not the tree's", &["C2"], |told| {
            rewrite(told, 2, |entry| *entry.last_mut().unwrap() ^= 1);
        }),
        ("a stat with another version", &["C2"], |told| {
            let Response::Stat(stat) = &mut told.story.answer(told.set_a).response else { panic!() };
            stat.version += 1;
        }),
        ("a stat with another mzxid", &["C2"], |told| {
            let Response::Stat(stat) = &mut told.story.answer(told.set_a).response else { panic!() };
            stat.mzxid = Zxid(1);
        }),
        ("a created path that was not asked for", &["C2"], |told| {
            told.story.answer(told.create_a).response = Response::Path(Some("/b".into()));
        }),
        ("an error for what succeeds", &["C2"], |told| {
            *told.story.answer(told.create_a) = Answer {
                err: ErrorCode::NodeExists.code(),
                response: Response::None,
                ..told.story.answer(told.create_a).clone()
            };
        }),
        ("success for what fails", &["C2"], |told| told.story.answer(told.refused).err = 0),
        ("another error than the right one", &["C2"], |told| {
            told.story.answer(told.refused).err = ErrorCode::NoNode.code();
        }),
        ("a multi with half its results", &["C2"], |told| {
            let Response::Multi(results) = &mut told.story.answer(told.multi).response else { panic!() };
            results.pop();
        }),
        ("a logged success that is none", &["C2"], |told| {
            told.story.history.asked[told.set_a].op = set("/a", b"y", Some(7));
        }),
        ("a sweep of a node that stays", &["C2"], |told| sweep(told, "/a")),
        ("a sweep of a node that is not there", &["C2"], |told| sweep(told, "/nowhere")),
        ("a write begun after a later one was answered", &["C3"], |told| {
            // Its reply took its time, or so it says.
            told.story.history.asked[told.create_a].begun = 10_000;
        }),
        ("replies out of order", &["C4"], |told| {
            let (one, first) = told.story.place(told.create_a);
            let (_, second) = told.story.place(told.set_a);
            told.story.history.connections[one].messages.swap(first, second);
        }),
        ("a log out of the order of asking", &["C4"], |told| {
            told.story.history.asked[told.create_a].xid = 500;
            rewrite(told, 2, |entry| entry[8..12].copy_from_slice(&500i32.to_be_bytes()));
        }),
        ("a read that shows the past", &["C5"], |told| {
            let Response::Data { data, .. } = &mut told.story.answer(told.after_sync).response else {
                panic!()
            };
            *data = Some(b"x".to_vec());
        }),
        ("a read that shows the future", &["C5"], |told| {
            let Response::Data { data, .. } = &mut told.story.answer(told.get_watched).response else {
                panic!()
            };
            *data = Some(b"y".to_vec());
        }),
        ("a read of a mixed state", &["C5"], |told| {
            let Response::Data { stat, .. } = &mut told.story.answer(told.after_sync).response else {
                panic!()
            };
            stat.version -= 1;
        }),
        ("a read of a zxid that never was", &["C5"], |told| {
            let last = told.story.history.asked.len() - 1;
            told.story.answer(last).zxid = Zxid(0x1_0000_0005);
        }),
        ("a read whose zxid falls", &["C5"], |told| told.story.answer(told.after_sync).zxid = Zxid(4)),
        ("a connection that begins before what its handshake has seen", &["C5"], |told| {
            told.story.history.connections[1].zxid_seen = Zxid(90);
        }),
        ("a listing without one child", &["C5"], |told| {
            let Response::Paths(paths) = &mut told.story.answer(told.listing).response else { panic!() };
            paths.pop();
        }),
        ("a listing with a child that is not there", &["C5"], |told| {
            let Response::Paths(paths) = &mut told.story.answer(told.listing).response else { panic!() };
            paths.push("ghost".into());
        }),
        ("a read by one who may not", &["C5"], |told| {
            told.story.history.asked[told.last_of_two].op = get("/hidden", false);
        }),
        ("a read after sync that sync did not cover", &["C5"], |told| {
            // The writes before were acknowledged long ago, says this history; and sync and the read show a state before them.
            for index in [told.sync, told.after_sync, told.listing] {
                told.story.answer(index).zxid = told.story.answer(told.multi).zxid;
            }
            let two = &mut told.story.history.connections[1].messages;
            two.retain(|message| !matches!(message, Heard::Event { zxid, kind: EventType::NodeChildrenChanged, .. } if *zxid > Zxid(6)));
        }),
        ("an event that never came", &["C6"], |told| {
            drop_event(told, 1, 0);
        }),
        ("an event that came twice", &["C6"], |told| {
            let event = told.story.history.connections[1].messages[1].clone();
            told.story.history.connections[1].messages.insert(1, event);
        }),
        ("an event nobody waits for", &["C6"], |told| {
            let event = Heard::Event { zxid: Zxid(4), kind: EventType::NodeDataChanged, path: "/a".into() };
            told.story.history.connections[0].messages.insert(1, event);
        }),
        ("an event behind the reply that shows it", &["C6"], |told| {
            let (two, place) = (1, 1);
            told.story.history.connections[two].messages.swap(place, place + 1);
        }),
        ("events in another order than their changes", &["C6"], |told| {
            let messages = &mut told.story.history.connections[1].messages;
            let places: Vec<usize> = (0..messages.len())
                .filter(|place| {
                    matches!(messages[*place], Heard::Event { kind: EventType::NodeChildrenChanged, .. })
                })
                .collect();
            messages.swap(places[0], places[1]);
        }),
        ("an event of another kind", &["C6"], |told| {
            let Heard::Event { kind, .. } = &mut told.story.history.connections[1].messages[1] else {
                panic!()
            };
            *kind = EventType::NodeDeleted;
        }),
        ("an event of another path", &["C6"], |told| {
            let Heard::Event { path, .. } = &mut told.story.history.connections[1].messages[1] else {
                panic!()
            };
            *path = "/b".into();
        }),
        ("an event of another zxid", &["C6"], |told| {
            let Heard::Event { zxid, .. } = &mut told.story.history.connections[1].messages[1] else {
                panic!()
            };
            *zxid = Zxid(3);
        }),
        ("an event to one who may not read", &["C6"], |told| {
            let zxid = told
                .story
                .log
                .iter()
                .find(|logged| logged.entry.windows(6).any(|six| six == b"secret"))
                .unwrap()
                .zxid;
            let messages = &mut told.story.history.connections[1].messages;
            let place = messages.len() - 2;
            messages.insert(
                place,
                Heard::Event { zxid, kind: EventType::NodeDataChanged, path: "/hidden".into() },
            );
        }),
        ("a watch that was removed fires", &["C6"], |told| {
            told.story
                .history
                .asked
                .iter_mut()
                .find(|asked| matches!(asked.op, Op::RemoveWatches { .. }))
                .unwrap()
                .op = Op::RemoveWatches { path: "/".into(), kind: WatchType::Children };
        }),
        ("a watch brought again that says nothing of what it missed", &["C6"], |told| drop_event(told, 2, 0)),
        ("a watch brought again that tells of what it has not missed", &["C6"], |told| {
            let Op::SetWatches(rearm) = &mut told.story.history.asked[told.rearm].op else { panic!() };
            rearm.zxid_seen = Zxid(900);
        }),
        ("what only a setWatches may find, without one", &["C6"], |told| {
            let event = Heard::Event { zxid: Zxid(-1), kind: EventType::NodeDataChanged, path: "/a".into() };
            told.story.history.connections[0].messages.insert(0, event);
        }),
        ("a session's end that leaves one of its nodes", &["C7"], |told| {
            let zxid = told.story.answer(told.close).zxid;
            let place = told.story.log.iter().position(|logged| logged.zxid == zxid).unwrap();
            let mut entry = told.story.log[place].entry[..TxnHeader::BYTES].to_vec();
            put::close_session(&mut entry, [].into_iter());
            told.story.log[place].entry = Rc::from(entry);
        }),
        ("a session's end that takes another's node", &["C7"], |told| {
            let zxid = told.story.answer(told.close).zxid;
            let place = told.story.log.iter().position(|logged| logged.zxid == zxid).unwrap();
            let mut entry = told.story.log[place].entry[..TxnHeader::BYTES].to_vec();
            put::close_session(&mut entry, ["/a", "/new"].into_iter());
            told.story.log[place].entry = Rc::from(entry);
        }),
        ("a write after its session's end", &["C7"], |told| {
            let (zxid, xid) = (told.story.log.last().unwrap().zxid.next(), 800);
            let op = create("/late", 0);
            told.story.history.asked.push(Asked { connection: 0, xid, op, begun: 9000, answer: None });
            let mut entry = Vec::new();
            TxnHeader { session: ONE, cxid: xid, zxid, time_ms: 5, kind: kind::CREATE }.encode(&mut entry);
            let mut list = Vec::new();
            encode_list(List::Open.entries(), &mut list);
            put::create(&mut entry, "/late", Some(b"x"), &list, CreateKind::Plain { ephemeral: false }, 9);
            told.story.log.push(Logged { zxid, entry: Rc::from(entry) });
        }),
        ("a read served after its session's end", &["C7", "C4", "C5"], |told| {
            let end = told.story.log.last().unwrap().zxid;
            let answer = Some(Answer { ended: 9001, zxid: end, err: 0, response: Response::None });
            told.story.history.asked.push(Asked {
                connection: 2,
                xid: -2,
                op: Op::Ping,
                begun: 9000,
                answer,
            });
            let index = told.story.history.asked.len() - 1;
            told.story.history.connections[2].messages.push(Heard::Reply(index));
        }),
        ("a session refused that never ended", &["P9"], |told| {
            let session = SessionId(0x300);
            let refused = Connection { session, refused: true, ..Connection::default() };
            told.story.history.connections.push(refused);
        }),
        ("a session opened twice", &["P9"], |told| {
            rewrite(told, 1, |entry| entry[..8].copy_from_slice(&ONE.0.to_be_bytes()))
        }),
        ("a session ended that is not there", &["P9"], |told| {
            let last = told.story.log.len() - 1;
            rewrite(told, last, |entry| entry[..8].copy_from_slice(&0x300i64.to_be_bytes()));
        }),
        ("a sequence number handed out twice", &["C2", "C8"], |told| {
            let first = told.story.answer(told.sequences[0]).response.clone();
            told.story.answer(told.sequences[1]).response = first;
        }),
        ("credentials that were refused", &["P15"], |told| {
            told.story.history.asked[told.ping_one].op = Op::Auth { user: 0 };
            told.story.answer(told.ping_one).err = ErrorCode::AuthFailed.code();
        }),
    ];
    assert!(cases.len() >= 40, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for (name, promises, spoil) in cases {
        let mut told = told();
        spoil(&mut told);
        match told.story.check() {
            Err(violation) if promises.contains(&violation.promise) => {}
            other => wrong.push(format!("{name}: expected {promises:?}, found {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn rewrite(told: &mut Told, place: usize, change: impl FnOnce(&mut [u8])) {
    let mut entry = told.story.log[place].entry.to_vec();
    change(&mut entry);
    told.story.log[place].entry = Rc::from(entry);
}

/// Takes the connection's event of that number away.
fn drop_event(told: &mut Told, connection: usize, number: usize) {
    let messages = &mut told.story.history.connections[connection].messages;
    let places: Vec<usize> =
        (0..messages.len()).filter(|place| matches!(messages[*place], Heard::Event { .. })).collect();
    messages.remove(places[number]);
}

fn sweep(told: &mut Told, path: &str) {
    let zxid = told.story.log.last().unwrap().zxid.next();
    let mut entry = Vec::new();
    TxnHeader { session: SessionId::NONE, cxid: 0, zxid, time_ms: 5, kind: kind::DELETE_CONTAINER }
        .encode(&mut entry);
    put::delete(&mut entry, path);
    told.story.log.push(Logged { zxid, entry: Rc::from(entry) });
}
