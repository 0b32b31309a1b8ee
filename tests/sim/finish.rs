//! The end of a run: faults stop, everything must come to rest, and what was seen must fit together.

use std::collections::{BTreeMap, BTreeSet};

use ringkeeper::node::Serving;
use ringkeeper::proto::NodeKind;
use ringkeeper::request::Database;
use ringkeeper::tree::NodeId;
use ringkeeper::types::SessionId;

use super::check::{self, Summary};
use super::history::Violation;
use super::model::Model;
use super::world::{BEGIN, Class, Event, Failure, MS, World};

/// Virtual seconds in which nobody asks for anything, and how many turns a server may take in one of them besides those its
/// clients' pings cause.
const QUIET_S: u64 = 5;
const QUIET_TURNS_MAX: u64 = 1000;

impl World {
    /// The whole run.
    pub fn run(&mut self) -> Result<Summary, Failure> {
        self.run_until(BEGIN + self.shape.duration_ms * MS)?;
        self.heal();
        self.come_to_rest()?;
        self.stay_at_rest()?;
        Ok(self.check_all()?)
    }

    /// No faults from here on: what is down starts, what stands still goes on.
    fn heal(&mut self) {
        self.draining = true;
        self.note("faults end".into());
        let now = self.now;
        self.blocked_until.clear();
        for server in 0..self.servers.len() {
            let machine = &mut self.servers[server];
            machine.disk.is_full = false;
            machine.write_fails = false;
            machine.dies_after = None;
            machine.stalled_until = now;
            machine.paused_until = machine.paused_until.min(now + 100 * MS);
            if machine.node.is_none() {
                self.at(now + MS, Event::Start { server });
            } else {
                for core in 0..=self.shape.fronts {
                    self.plan_soon(server, core);
                }
            }
        }
        for client in 0..self.clients.len() {
            self.clients[client].silent_until = 0;
            self.plan_client(client, MS);
        }
    }

    /// L1: all that was asked is answered, and every client can write, within a bounded time.
    fn come_to_rest(&mut self) -> Result<(), Failure> {
        let bound_ms = 40 * self.shape.tick_ms + 6 * self.shape.session_timeout_ms as u64 + 30_000;
        let until = self.now + bound_ms * MS;
        while self.clients.iter().any(|client| !client.is_done) {
            if self.now >= until {
                let waiting: Vec<usize> =
                    (0..self.clients.len()).filter(|client| !self.clients[*client].is_done).collect();
                for &client in &waiting {
                    let text = self.describe(client);
                    self.note(text);
                }
                self.describe_restless();
                return Err(Failure {
                    class: Class::Liveness,
                    violation: Violation::new(
                        "L1",
                        format!("clients {waiting:?} have no answer {bound_ms} ms after the last fault"),
                    ),
                });
            }
            self.run_until(self.now + 100 * MS)?;
        }
        // L3: whoever follows what is no leader any more gives up after initLimit, and looks again.
        let until = self.now + (bound_ms + 25 * self.shape.tick_ms) * MS;
        while self.now < until && !self.all_take_part() {
            self.run_until(self.now + 100 * MS)?;
        }
        Ok(())
    }

    fn all_take_part(&self) -> bool {
        self.servers.iter().all(|server| {
            server
                .node
                .as_ref()
                .is_some_and(|node| node.pipeline.serving() == Serving::Yes || node.pipeline.leads())
        })
    }

    /// What a client waits for.
    fn describe(&self, number: usize) -> String {
        let client = &self.clients[number];
        let since_ms = |time: u64| (self.now - time.min(self.now)) / MS;
        let Some(end) = client.stream.and_then(|id| self.ends.get(&id)) else {
            return format!("client {number} has no connection, session {}", client.session);
        };
        let pending: Vec<&super::ops::Op> =
            end.pending.iter().take(3).map(|index| &self.history.asked[*index].op).collect();
        format!(
            "client {number}, session {}, heard {} ms and spoke {} ms ago, connection {:?}, waits for {} answers: {pending:?}",
            client.session,
            since_ms(client.heard),
            since_ms(client.spoke),
            end.connection,
            end.pending.len(),
        )
    }

    /// L2: with nothing to do, nothing is done.
    fn stay_at_rest(&mut self) -> Result<(), Failure> {
        self.run_until(self.now + 2000 * MS)?;
        let turns = self.turns;
        self.run_until(self.now + QUIET_S * 1000 * MS)?;
        let taken = self.turns - turns;
        let pings_max = QUIET_S * 1000 * 4 / self.shape.session_timeout_ms as u64 + 8;
        let max = self.servers.len() as u64
            * (QUIET_S * QUIET_TURNS_MAX + self.clients.len() as u64 * pings_max * 12);
        if taken > max {
            return Err(Failure {
                class: Class::Liveness,
                violation: Violation::new(
                    "L2",
                    format!("{taken} turns in {QUIET_S} s of rest, {max} may be"),
                ),
            });
        }
        Ok(())
    }

    fn check_all(&mut self) -> Result<Summary, Violation> {
        let (model, summary) = check::check(&self.history, &self.committed)?;
        for server in 0..self.servers.len() {
            let Some(node) = &self.servers[server].node else { continue };
            let database = node.pipeline.database();
            derived(database)?;
            let at = database.zxid_applied();
            let is_out = node.pipeline.serving() != Serving::Yes && !node.pipeline.leads();
            let is_behind = at < model.zxid || is_out;
            if is_behind {
                let text = format!("server {server} rests at {at}, the log ends at {}", model.zxid);
                self.describe_restless();
                return Err(Violation::new("L3", text));
            }
            same(&model, database)
                .map_err(|text| Violation::new("G10", format!("server {server}: {text}")))?;
        }
        Ok(summary)
    }
}

/// The whole state, node by node.
fn same(model: &Model, database: &Database) -> Result<(), String> {
    let tree = &database.tree;
    for (path, node) in model.nodes() {
        let found = tree.find(path).ok_or_else(|| format!("{path} is missing"))?;
        if tree.data(found) != node.data.as_deref() {
            return Err(format!("{path} has other data"));
        }
        if tree.stat(found) != node.stat {
            return Err(format!("{path} has stat {:?}, the model {:?}", tree.stat(found), node.stat));
        }
        let list: Vec<_> = tree.acl_list(tree.acl(found)).entries().collect();
        if list != node.acl.entries() {
            return Err(format!("{path} has access list {list:?}, the model {:?}", node.acl));
        }
    }
    if tree.node_count() != model.nodes().count() {
        return Err(format!("{} nodes, the model has {}", tree.node_count(), model.nodes().count()));
    }
    let sessions: BTreeSet<SessionId> = database.sessions.iter().map(|session| session.id).collect();
    if sessions != model.sessions {
        return Err(format!("sessions {sessions:?}, the model has {:?}", model.sessions));
    }
    Ok(())
}

/// S7: derived tables equal what they are derived from.
pub fn derived(database: &Database) -> Result<(), Violation> {
    let tree = &database.tree;
    let fail = |text: String| Err(Violation::new("S7", text));
    let mut owned: BTreeMap<SessionId, BTreeSet<u32>> = BTreeMap::new();
    let mut count = 0;
    let mut waiting: Vec<NodeId> = vec![tree.root()];
    while let Some(node) = waiting.pop() {
        count += 1;
        let children: Vec<NodeId> = tree.children(node).collect();
        if children.len() != tree.child_count(node) {
            return fail(format!(
                "{} has {} children and counts {}",
                tree.path(node),
                children.len(),
                tree.child_count(node)
            ));
        }
        if tree.find(&tree.path(node)) != Some(node) {
            return fail(format!("{} is not found under its path", tree.path(node)));
        }
        if let NodeKind::Ephemeral(session) = tree.stat(node).kind() {
            owned.entry(session).or_default().insert(node.0);
        }
        waiting.extend(children);
    }
    if count != tree.node_count() {
        return fail(format!("{count} nodes are reached, {} are counted", tree.node_count()));
    }
    let sessions: BTreeSet<SessionId> = database.ephemerals().sessions().into_iter().collect();
    if sessions != owned.keys().copied().collect() {
        return fail(format!(
            "ephemeral nodes are kept of {sessions:?}, there are some of {:?}",
            owned.keys()
        ));
    }
    for (session, nodes) in owned {
        let kept: BTreeSet<u32> = database.ephemerals_of(session).map(|node| node.0).collect();
        if kept != nodes {
            return fail(format!("session {session} has other ephemeral nodes than are kept of it"));
        }
        if !database.sessions.contains(session) {
            return fail(format!("session {session} has ephemeral nodes and is not there"));
        }
    }
    Ok(())
}
