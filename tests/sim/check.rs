//! The history checker: C1-C8 by replay of the committed log (T-HIST).
//!
//! zxids are handed to clients and transactions carry session and cxid, so the log is a witness for the order of all writes, and
//! the zxid of a read's reply says which state it shows. So the whole history is checked by one pass over the log, with the
//! reads and watches of each state looked at when the pass has come to it. Linear in the history, apart from sorting.

use std::collections::{BTreeMap, BTreeSet};

use ringkeeper::client::Response;
use ringkeeper::proto::ErrorCode;
use ringkeeper::proto::client::EventType;
use ringkeeper::proto::txn::{Txn, TxnEntry, kind};
use ringkeeper::txnlog::follows;
use ringkeeper::types::{SessionId, Zxid};

use super::history::{Answer, Asked, Connection, Heard, History, Logged, Violation};
use super::model::{Expected, Model, Watches};
use super::ops::Op;

/// What a checked history held.
#[derive(Clone, Default, Debug)]
pub struct Summary {
    pub writes: u64,
    pub reads: u64,
    pub events: u64,
    /// Writes that nobody was told the outcome of, and that were done.
    pub unacknowledged: u64,
    /// Refused because their session had moved to another server.
    pub moved: u64,
    /// Answers by error code.
    pub codes: BTreeMap<i32, u64>,
}

/// An event as it is compared.
type Told = (EventType, String);

/// Checks all that clients saw against the committed log from its very beginning. Gives the state at its end.
pub fn check(history: &History, log: &[Logged]) -> Result<(Model, Summary), Violation> {
    let mut checker = Checker::new(history)?;
    checker.real_time()?;
    checker.connections()?;
    checker.replay(log)?;
    checker.events()?;
    Ok((checker.model, checker.summary))
}

struct Checker<'h> {
    history: &'h History,
    model: Model,
    summary: Summary,
    /// Every write by session and xid.
    writes: BTreeMap<(SessionId, i32), usize>,
    /// Answered requests that show a state, by zxid, connection and place.
    reads: Vec<(Zxid, usize, usize, usize)>,
    watches: Vec<Watches>,
    due: Vec<BTreeMap<Zxid, Vec<Told>>>,
    came: Vec<BTreeMap<Zxid, Vec<Told>>>,
    /// The greatest zxid among the replies of a connection.
    replied: Vec<Zxid>,
    /// Events a setWatches fired at once.
    caught_up: BTreeMap<usize, Vec<Told>>,
    /// Last sequence number of each parent, by path and creation.
    sequences: BTreeMap<(String, Zxid), i64>,
    ended: BTreeMap<SessionId, Zxid>,
}

impl<'h> Checker<'h> {
    fn new(history: &'h History) -> Result<Checker<'h>, Violation> {
        let count = history.connections.len();
        let mut writes = BTreeMap::new();
        for (index, asked) in history.asked.iter().enumerate().filter(|(_, asked)| asked.op.is_write()) {
            let session = history.connections[asked.connection].session;
            assert!(writes.insert((session, asked.xid), index).is_none(), "xids are unique in a session");
        }
        Ok(Checker {
            history,
            model: Model::new(),
            summary: Summary::default(),
            writes,
            reads: Vec::new(),
            watches: vec![Watches::default(); count],
            due: vec![BTreeMap::new(); count],
            came: vec![BTreeMap::new(); count],
            replied: vec![Zxid::ZERO; count],
            caught_up: BTreeMap::new(),
            sequences: BTreeMap::new(),
            ended: BTreeMap::new(),
        })
    }

    fn connection(&self, asked: &Asked) -> &'h Connection {
        &self.history.connections[asked.connection]
    }

    /// C3: what ended before another began comes before it; and what `sync` promises (P6).
    fn real_time(&self) -> Result<(), Violation> {
        // Answered writes by the moment they ended, each with the greatest zxid up to there.
        let mut ended: Vec<(u64, Zxid)> = self
            .history
            .asked
            .iter()
            .filter(|asked| asked.op.is_write())
            .filter_map(|asked| asked.answer.as_ref().map(|answer| (answer.ended, answer.zxid)))
            .collect();
        ended.sort_unstable();
        let mut greatest = Zxid::ZERO;
        for (_, zxid) in &mut ended {
            greatest = greatest.max(*zxid);
            *zxid = greatest;
        }
        let completed_before = |moment: u64| match ended.partition_point(|(ended, _)| *ended < moment) {
            0 => Zxid::ZERO,
            place => ended[place - 1].1,
        };
        for asked in self.history.asked.iter().filter(|asked| asked.op.is_write()) {
            let Some(answer) = &asked.answer else { continue };
            let before = completed_before(asked.begun);
            if answer.zxid <= before {
                return Err(Violation::new(
                    "C3",
                    format!(
                        "{} was given to a write begun after {before} was answered: {asked:?}",
                        answer.zxid
                    ),
                ));
            }
        }
        for (number, connection) in self.history.connections.iter().enumerate() {
            let mut floor = Zxid::ZERO;
            for index in replies(connection) {
                let asked = &self.history.asked[index];
                let answer = answer_of(asked);
                if asked.op.is_outside() {
                    continue;
                }
                if answer.zxid < floor {
                    return Err(Violation::new(
                        "C5",
                        format!(
                            "connection {number}: {asked:?} shows a state before {floor}, which sync covered"
                        ),
                    ));
                }
                if matches!(asked.op, Op::Sync { .. }) && answer.err == 0 {
                    floor = floor.max(completed_before(asked.begun));
                }
            }
        }
        Ok(())
    }

    /// The order of messages on each connection, and what its replies say of zxids.
    fn connections(&mut self) -> Result<(), Violation> {
        for (number, connection) in self.history.connections.iter().enumerate() {
            let fail =
                |promise, text: String| Err(Violation::new(promise, format!("connection {number}: {text}")));
            let mut seen = connection.zxid_seen;
            let mut last_reply = Zxid::ZERO;
            let mut last_event = Zxid::ZERO;
            let mut last_asked = None;
            let mut caught_up = Vec::new();
            for (place, message) in connection.messages.iter().enumerate() {
                match message {
                    Heard::Event { zxid: Zxid(-1), kind, path } => caught_up.push((*kind, path.clone())),
                    Heard::Event { zxid, kind, path } => {
                        if *zxid <= last_reply {
                            return fail(
                                "C6",
                                format!(
                                    "the event {kind:?} {path} of {zxid} came after a reply of {last_reply}"
                                ),
                            );
                        }
                        if *zxid < last_event {
                            return fail("C6", format!("an event of {zxid} came after one of {last_event}"));
                        }
                        last_event = *zxid;
                        self.came[number].entry(*zxid).or_default().push((*kind, path.clone()));
                        self.summary.events += 1;
                    }
                    Heard::Reply(index) => {
                        let asked = &self.history.asked[*index];
                        let answer = answer_of(asked);
                        if asked.op.is_outside() {
                            if answer.err != 0 {
                                return fail("P15", format!("{asked:?} failed"));
                            }
                            continue;
                        }
                        if !matches!(asked.op, Op::Ping) && last_asked.is_some_and(|last| last > *index) {
                            return fail("C4", format!("{asked:?} was answered after a later request"));
                        }
                        if !matches!(asked.op, Op::Ping) {
                            last_asked = Some(*index);
                        }
                        if answer.zxid < seen {
                            return fail(
                                "C5",
                                format!("{asked:?} shows a state older than {seen}, seen before"),
                            );
                        }
                        if asked.op.is_write() && is_entered(answer) && answer.zxid <= last_reply {
                            return fail(
                                "C4",
                                format!("{asked:?} has its effect before {last_reply}, replied before"),
                            );
                        }
                        seen = answer.zxid;
                        last_reply = answer.zxid;
                        self.replied[number] = answer.zxid;
                        if matches!(asked.op, Op::SetWatches(_)) {
                            self.caught_up.insert(*index, std::mem::take(&mut caught_up));
                        }
                        *self.summary.codes.entry(answer.err).or_default() += 1;
                        if !asked.op.is_write() {
                            self.reads.push((answer.zxid, number, place, *index));
                        }
                    }
                }
                if !caught_up.is_empty() && matches!(message, Heard::Reply(_)) {
                    return fail("C6", format!("{caught_up:?} came with zxid -1 and no setWatches"));
                }
            }
        }
        self.reads.sort_unstable();
        // From the last to the first, so that the next is at the end.
        self.reads.reverse();
        Ok(())
    }

    fn replay(&mut self, log: &[Logged]) -> Result<(), Violation> {
        let mut done = BTreeSet::new();
        let mut last_xid: BTreeMap<SessionId, i32> = BTreeMap::new();
        self.reads_here(log.first().map(|first| first.zxid))?;
        for (place, logged) in log.iter().enumerate() {
            let zxid = logged.zxid;
            let fail = |promise, text: String| Err(Violation::new(promise, format!("{zxid}: {text}")));
            if !follows(self.model.zxid, zxid) {
                return fail("S3", format!("it does not follow {}", self.model.zxid));
            }
            let entry = match TxnEntry::decode(&logged.entry) {
                Ok(entry) if entry.header.zxid == zxid => entry,
                other => return fail("G2", format!("its entry is {other:?}")),
            };
            let (session, cxid) = (entry.header.session, entry.header.cxid);
            self.model.begin(zxid);
            if cxid == 0 {
                self.own(&entry)?;
            } else {
                if !done.insert((session, cxid)) {
                    return fail("C1", format!("session {session} xid {cxid} is in the log twice"));
                }
                let Some(&index) = self.writes.get(&(session, cxid)) else {
                    return fail("C1", format!("session {session} never asked for xid {cxid}"));
                };
                let is_moved = self.asked(&entry, index)?;
                if !is_moved && last_xid.insert(session, cxid).is_some_and(|last| last > cxid) {
                    let text = format!(
                        "session {session} asked for xid {cxid} before one in the log already: {:?}",
                        self.history.asked[index]
                    );
                    return fail("C4", text);
                }
            }
            if let Some(digest) = entry.digest
                && digest.tree_digest != self.model.digest()
            {
                return fail("C2", format!("the log's digest is not the model's after {:?}", entry.txn));
            }
            self.fire();
            self.reads_here(log.get(place + 1).map(|next| next.zxid))?;
        }
        let missing = self.writes.iter().find(|(key, index)| {
            let answer = self.history.asked[**index].answer.as_ref();
            answer.is_some_and(is_entered) && !done.contains(key)
        });
        if let Some((_, index)) = missing {
            return Err(Violation::new(
                "C1",
                format!("answered, and not in the log: {:?}", self.history.asked[*index]),
            ));
        }
        for (number, connection) in self.history.connections.iter().enumerate() {
            let ended = self.ended.get(&connection.session);
            if connection.refused && ended.is_none() {
                return Err(Violation::new(
                    "P9",
                    format!(
                        "connection {number}: session {} was refused and never ended",
                        connection.session
                    ),
                ));
            }
        }
        Ok(())
    }

    /// A transaction no client asked for.
    fn own(&mut self, entry: &TxnEntry<'_>) -> Result<(), Violation> {
        let session = entry.header.session;
        let zxid = self.model.zxid;
        let fail = |promise, text: String| Err(Violation::new(promise, format!("{zxid}: {text}")));
        match (entry.header.kind, &entry.txn) {
            (kind::CREATE_SESSION, Txn::CreateSession { .. }) => {
                if self.ended.contains_key(&session) || !self.model.sessions.insert(session) {
                    return fail("P9", format!("session {session} was opened before"));
                }
            }
            (kind::CLOSE_SESSION, Txn::CloseSession { .. }) => {
                if !self.model.sessions.contains(&session) {
                    return fail("P9", format!("session {session} is ended, and is not there"));
                }
                self.close(entry)?;
            }
            (kind::DELETE_CONTAINER, Txn::Delete { path }) => {
                if !self.model.sweep(path) {
                    return fail(
                        "C2",
                        format!("{path} is neither an empty container nor a node with a time to live"),
                    );
                }
            }
            (number, txn) => return fail("C1", format!("nobody asked for type {number}: {txn:?}")),
        }
        Ok(())
    }

    /// C7: a session's end takes exactly its ephemerals.
    fn close(&mut self, entry: &TxnEntry<'_>) -> Result<(), Violation> {
        let session = entry.header.session;
        let zxid = entry.header.zxid;
        let gone = self.model.end_session(session);
        if let Txn::CloseSession { paths: Some(paths) } = &entry.txn {
            let mut logged: Vec<&str> = paths.iter().map(|path| &**path).collect();
            logged.sort_unstable();
            if logged != gone {
                return Err(Violation::new(
                    "C7",
                    format!("{zxid}: session {session} ends and takes {logged:?}, it has {gone:?}"),
                ));
            }
        }
        self.ended.insert(session, zxid);
        Ok(())
    }

    /// A client's write at its place in the log. Whether it was refused because its session had moved.
    fn asked(&mut self, entry: &TxnEntry<'_>, index: usize) -> Result<bool, Violation> {
        let asked = &self.history.asked[index];
        let connection = self.connection(asked);
        let zxid = self.model.zxid;
        let fail = |promise, text: String| Err(Violation::new(promise, format!("{zxid}: {text}")));
        // A session that has moved to another server has what still comes from the old one refused.
        let moved = ErrorCode::SessionMoved;
        let is_moved = match &entry.txn {
            Txn::Error { err } => *err == moved.code(),
            Txn::Multi(multi) => multi.ops().any(|(_, op)| op == Txn::Error { err: moved.code() }),
            _ => false,
        };
        if is_moved {
            self.summary.moved += 1;
            let is_told_otherwise = asked
                .answer
                .as_ref()
                .is_some_and(|answer| answer.err == 0 && !matches!(answer.response, Response::Multi(_)));
            if is_told_otherwise {
                return fail("C2", format!("its session had moved, and it was answered: {asked:?}"));
            }
            return Ok(true);
        }
        let expected = if matches!(asked.op, Op::Close) && self.model.sessions.contains(&connection.session) {
            self.close(entry)?;
            Ok(Response::None)
        } else {
            self.model.write(connection.session, connection.users, &asked.op, entry.header.time_ms)
        };
        // A multi that failed is one all the same, with errors in it.
        let logged = match &entry.txn {
            Txn::Error { err } => *err,
            _ => 0,
        };
        if logged != expected.as_ref().map_or_else(|error| error.code(), |_| 0) {
            let promise = if self.ended.contains_key(&connection.session) { "C7" } else { "C2" };
            return fail(
                promise,
                format!("the log has {:?}, the model {expected:?} for {asked:?}", entry.txn),
            );
        }
        self.summary.writes += 1;
        match &asked.answer {
            None => self.summary.unacknowledged += 1,
            Some(answer) => {
                if answer.zxid != zxid {
                    return fail("C1", format!("it was answered with another zxid: {asked:?}"));
                }
                self.compare(asked, answer, &expected, "C2")?;
            }
        }
        self.sequence(asked, &expected)?;
        Ok(false)
    }

    /// C8: numbers under a parent ascend.
    fn sequence(&mut self, asked: &Asked, expected: &Expected) -> Result<(), Violation> {
        let (Op::Create { path, flags: 2 | 3 | 6, .. }, Ok(response)) = (&asked.op, expected) else {
            return Ok(());
        };
        let (Response::Path(Some(made)) | Response::Created { path: made, .. }) = response else {
            return Ok(());
        };
        let parent = super::model::split(path).0;
        let czxid = self.model.node(parent).expect("a parent of what was made").stat.czxid;
        let number: i64 = made[path.len()..].parse().expect("a number");
        let last = self.sequences.insert((parent.to_owned(), czxid), number);
        match last {
            Some(last) if last >= number => {
                Err(Violation::new("C8", format!("{made} after number {last} under {parent}")))
            }
            _ => Ok(()),
        }
    }

    /// The events of the transaction applied last.
    fn fire(&mut self) {
        if self.model.changes.is_empty() {
            return;
        }
        let zxid = self.model.zxid;
        for (number, watches) in
            self.watches.iter_mut().enumerate().filter(|(_, watches)| !watches.is_empty())
        {
            let users = self.history.connections[number].users;
            let mut events = Vec::new();
            for change in &self.model.changes {
                watches.fire(change, users, &mut events);
            }
            if !events.is_empty() {
                self.due[number].entry(zxid).or_default().extend(events);
            }
        }
    }

    /// The reads whose zxid is below the next transaction's.
    fn reads_here(&mut self, next: Option<Zxid>) -> Result<(), Violation> {
        while let Some(&(zxid, number, _, index)) = self.reads.last() {
            if next.is_some_and(|next| zxid >= next) {
                return Ok(());
            }
            self.reads.pop();
            let asked = &self.history.asked[index];
            let answer = answer_of(asked);
            // A leader's reign begins at counter zero, before its first transaction.
            let is_state = zxid == self.model.zxid || zxid.counter() == 0 && zxid > self.model.zxid;
            if !is_state {
                return Err(Violation::new("C5", format!("{zxid} is no state there was: {asked:?}")));
            }
            self.read(number, index, asked, answer)?;
        }
        Ok(())
    }

    fn read(&mut self, number: usize, index: usize, asked: &Asked, answer: &Answer) -> Result<(), Violation> {
        let connection = &self.history.connections[number];
        self.summary.reads += 1;
        if let Some(ended) = self.ended.get(&connection.session)
            && !is_refusal(answer.err)
        {
            return Err(Violation::new(
                "C7",
                format!("served after its session ended at {ended}: {asked:?}"),
            ));
        }
        if is_refusal(answer.err) {
            return Ok(());
        }
        match &asked.op {
            Op::RemoveWatches { path, kind } => {
                let found = self.watches[number].remove(path, *kind);
                let expected = if found { Ok(Response::None) } else { Err(ErrorCode::NoWatcher) };
                return self.compare(asked, answer, &expected, "C6");
            }
            Op::SetWatches(rearm) => {
                let mut expected = self.watches[number].rearm(rearm, &self.model);
                let mut caught_up = self.caught_up.remove(&index).unwrap_or_default();
                expected.sort_by_key(key);
                caught_up.sort_by_key(key);
                if caught_up != expected {
                    return Err(Violation::new(
                        "C6",
                        format!(
                            "connection {number}: {caught_up:?} came before {asked:?}, due is {expected:?}"
                        ),
                    ));
                }
            }
            op => self.watches[number].register(op, answer.err),
        }
        let expected = self.model.read(connection.session, connection.users, &asked.op);
        self.compare(asked, answer, &expected, "C5")
    }

    fn compare(
        &self,
        asked: &Asked,
        answer: &Answer,
        expected: &Expected,
        promise: &'static str,
    ) -> Result<(), Violation> {
        let same = match expected {
            Ok(response) => answer.err == 0 && sorted(&answer.response) == sorted(response),
            Err(error) => answer.err == error.code(),
        };
        if same {
            return Ok(());
        }
        Err(Violation::new(promise, format!("at {}: expected {expected:?}: {asked:?}", self.model.zxid)))
    }

    /// C6: on every connection all that was due and nothing else, as far as its last message reaches.
    fn events(&self) -> Result<(), Violation> {
        for number in 0..self.history.connections.len() {
            let (due, came) = (&self.due[number], &self.came[number]);
            let last_event = came.last_key_value().map_or(Zxid::ZERO, |(zxid, _)| *zxid);
            let zxids: BTreeSet<Zxid> = due.keys().chain(came.keys()).copied().collect();
            for zxid in zxids {
                let list = |map: &BTreeMap<Zxid, Vec<Told>>| {
                    let mut list = map.get(&zxid).cloned().unwrap_or_default();
                    list.sort_by_key(key);
                    list
                };
                let (mut due, came) = (list(due), list(came));
                let is_over = zxid <= self.replied[number] || zxid < last_event;
                if !is_over {
                    // The connection may have ended in between: any of them may be missing.
                    let mut left = came.clone();
                    due.retain(|event| {
                        let place = left.iter().position(|other| other == event);
                        place.map(|place| left.remove(place)).is_some()
                    });
                }
                if due != came {
                    return Err(Violation::new(
                        "C6",
                        format!("connection {number}: events of {zxid} are {came:?}, due are {due:?}"),
                    ));
                }
            }
        }
        Ok(())
    }
}

fn key(told: &Told) -> (i32, String) {
    (told.0 as i32, told.1.clone())
}

fn replies(connection: &Connection) -> impl Iterator<Item = usize> + '_ {
    connection.messages.iter().filter_map(|message| match message {
        Heard::Reply(index) => Some(*index),
        Heard::Event { .. } => None,
    })
}

fn answer_of(asked: &Asked) -> &Answer {
    asked.answer.as_ref().expect("a reply is an answer")
}

/// Errors that become no transaction and show no state.
fn is_refusal(err: i32) -> bool {
    [ErrorCode::SessionMoved, ErrorCode::ThrottledOp, ErrorCode::SessionExpired]
        .iter()
        .any(|code| code.code() == err)
}

/// Whether the answered write is in the log.
fn is_entered(answer: &Answer) -> bool {
    !is_refusal(answer.err)
}

fn sorted(response: &Response) -> Response {
    match response.clone() {
        Response::Paths(mut children) => {
            children.sort();
            Response::Paths(children)
        }
        Response::Children { mut children, stat } => {
            children.sort();
            Response::Children { children, stat }
        }
        other => other,
    }
}
