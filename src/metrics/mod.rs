//! Plain counters and histograms, owned by whoever counts.
//!
//! Every front and the pipeline count into values of their own, without atomics or sharing; a report for an
//! operator carries copies by message, and [`FrontCounters::merge`] adds them up. Copies are made per report and
//! never per request. What only the machine knows (descriptors, directory sizes) is written by the housekeeper into
//! [`ProcessGauges`], the one thing here that threads share.
//!
//! Names follow ZooKeeper's `mntr`; units come last.

mod latency;
mod process;
mod tally;

pub use latency::{LATENCY_US_MAX, Latency};
pub use process::ProcessGauges;
pub use tally::Tally;

use crate::proto::client::OpCode;

/// What one front counts. A copy is some 40 KB, because of the histograms.
#[derive(Debug, Clone, Default)]
pub struct FrontCounters {
    /// Frames with a request in them, handshakes excluded.
    pub requests: u64,
    /// Handshakes asked for (`connection_request_count`), and answered.
    pub connect_requests: u64,
    pub connect_replies: u64,
    /// Four-letter words taken in.
    pub words: u64,
    /// Replies and watch events handed to connections, and their bytes with framing.
    pub replies: u64,
    pub reply_bytes: u64,
    pub events_sent: u64,
    pub event_bytes: u64,
    pub bytes_received: u64,
    pub connections_accepted: u64,
    /// Closed at once for a limit (`connection_rejected`).
    pub connections_rejected: u64,
    /// Lost without a closeSession (`connection_drop_count`).
    pub connections_dropped: u64,
    pub sessionless_expired: u64,
    pub auth_failed: u64,
    /// Connections that ended within their TLS handshake (`unsuccessful_handshake`).
    pub tls_handshakes_failed: u64,
    pub ensemble_auth_success: u64,
    pub ensemble_auth_fail: u64,
    pub ensemble_auth_skip: u64,
    pub stale_replies: u64,
    pub throttled_ops: u64,
    pub large_requests_rejected: u64,
    /// Requests of each kind, by [`op_index`].
    ops: [u64; OPS.len()],
    /// Microseconds from a request to its reply.
    pub request_latency_us: Tally,
    /// Bytes of one reply.
    pub response_size: Tally,
    /// Watches one change fired.
    pub node_created_watches: Tally,
    pub node_deleted_watches: Tally,
    pub node_changed_watches: Tally,
    pub node_children_watches: Tally,
    /// Replies of requests that change nothing, and of those that do.
    pub read_latency: Latency,
    pub update_latency: Latency,
}

/// Kinds of requests as `op_count_*` tells them apart.
const OPS: [&str; 23] = [
    "add_watch",
    "check",
    "check_watches",
    "close_session",
    "create",
    "create_session",
    "delete",
    "exists",
    "get_acl",
    "get_all_children_number",
    "get_children",
    "get_data",
    "get_ephemerals",
    "multi",
    "multi_read",
    "ping",
    "reconfig",
    "remove_watches",
    "set_acl",
    "set_data",
    "set_watches",
    "sync",
    "who_am_i",
];

/// The place of a request's kind in [`OPS`]; both forms of an operation share one.
fn op_index(op: OpCode) -> Option<usize> {
    use OpCode::*;
    Some(match op {
        AddWatch => 0,
        Check => 1,
        CheckWatches => 2,
        CloseSession => 3,
        Create | Create2 | CreateContainer | CreateTtl => 4,
        CreateSession => 5,
        Delete | DeleteContainer => 6,
        Exists => 7,
        GetAcl => 8,
        GetAllChildrenNumber => 9,
        GetChildren | GetChildren2 => 10,
        GetData => 11,
        GetEphemerals => 12,
        Multi => 13,
        MultiRead => 14,
        Ping => 15,
        Reconfig => 16,
        RemoveWatches => 17,
        SetAcl => 18,
        SetData => 19,
        SetWatches | SetWatches2 => 20,
        Sync => 21,
        WhoAmI => 22,
        Auth | Sasl | Error => return None,
    })
}

/// Whether the request makes a transaction.
fn is_update(op: OpCode) -> bool {
    use OpCode::*;
    matches!(
        op,
        Create
            | Create2
            | CreateContainer
            | CreateTtl
            | Delete
            | DeleteContainer
            | SetData
            | SetAcl
            | Multi
            | Reconfig
            | CreateSession
            | CloseSession
    )
}

impl FrontCounters {
    /// Counts one reply: what it answers, how long it took, how many bytes it has with its framing.
    #[inline]
    pub fn replied(&mut self, op: OpCode, latency_us: u64, bytes: u64) {
        if let Some(index) = op_index(op) {
            self.ops[index] += 1;
        }
        self.replies += 1;
        self.reply_bytes += bytes;
        self.request_latency_us.record(latency_us);
        self.response_size.record(bytes);
        let latency = if is_update(op) { &mut self.update_latency } else { &mut self.read_latency };
        latency.record_us(latency_us);
    }

    /// Replies by kind, as `op_count_*` names them.
    pub fn op_counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        OPS.into_iter().zip(self.ops)
    }

    /// Frames and words taken in (`packets_received`).
    pub fn packets_received(&self) -> u64 {
        self.requests + self.connect_requests + self.words
    }

    /// Frames sent (`packets_sent`).
    pub fn packets_sent(&self) -> u64 {
        self.replies + self.connect_replies + self.events_sent
    }

    /// Adds what another front counted.
    pub fn merge(&mut self, other: &FrontCounters) {
        // Taken apart, so that a new field cannot be forgotten here.
        let FrontCounters {
            requests,
            connect_requests,
            connect_replies,
            words,
            replies,
            reply_bytes,
            events_sent,
            event_bytes,
            bytes_received,
            connections_accepted,
            connections_rejected,
            connections_dropped,
            sessionless_expired,
            auth_failed,
            tls_handshakes_failed,
            ensemble_auth_success,
            ensemble_auth_fail,
            ensemble_auth_skip,
            stale_replies,
            throttled_ops,
            large_requests_rejected,
            ops,
            request_latency_us,
            response_size,
            node_created_watches,
            node_deleted_watches,
            node_changed_watches,
            node_children_watches,
            read_latency,
            update_latency,
        } = other;
        self.requests += requests;
        self.connect_requests += connect_requests;
        self.connect_replies += connect_replies;
        self.words += words;
        self.replies += replies;
        self.reply_bytes += reply_bytes;
        self.events_sent += events_sent;
        self.event_bytes += event_bytes;
        self.bytes_received += bytes_received;
        self.connections_accepted += connections_accepted;
        self.connections_rejected += connections_rejected;
        self.connections_dropped += connections_dropped;
        self.sessionless_expired += sessionless_expired;
        self.auth_failed += auth_failed;
        self.tls_handshakes_failed += tls_handshakes_failed;
        self.ensemble_auth_success += ensemble_auth_success;
        self.ensemble_auth_fail += ensemble_auth_fail;
        self.ensemble_auth_skip += ensemble_auth_skip;
        self.stale_replies += stale_replies;
        self.throttled_ops += throttled_ops;
        self.large_requests_rejected += large_requests_rejected;
        for (mine, theirs) in self.ops.iter_mut().zip(ops) {
            *mine += theirs;
        }
        self.request_latency_us.merge(request_latency_us);
        self.response_size.merge(response_size);
        self.node_created_watches.merge(node_created_watches);
        self.node_deleted_watches.merge(node_deleted_watches);
        self.node_changed_watches.merge(node_changed_watches);
        self.node_children_watches.merge(node_children_watches);
        self.read_latency.merge(read_latency);
        self.update_latency.merge(update_latency);
    }

    /// Back to nothing (`srst`).
    pub fn reset(&mut self) {
        *self = FrontCounters::default();
    }
}

/// What a member of an ensemble counts besides.
#[derive(Debug, Clone, Default)]
pub struct QuorumCounters {
    /// Elections taken part in.
    pub lookings: u64,
    /// Learners brought up to date by a leader, by what they lacked and by a whole tree.
    pub diffs: u64,
    pub snaps: u64,
    /// Sent by a leader.
    pub proposals: u64,
    pub commits: u64,
    /// Come in at a learner.
    pub proposals_received: u64,
    pub commits_received: u64,
    /// Sessions a learner asked its leader about, and all that were taken up again.
    pub revalidations_asked: u64,
    pub revalidations: u64,
    /// Milliseconds from the loss of a leader to a decided election, to serving again, and on a leader to its serving.
    pub election_ms: Tally,
    pub unavailable_ms: Tally,
    pub leader_unavailable_ms: Tally,
    /// Milliseconds a learner took to come up to date.
    pub follower_sync_ms: Tally,
    pub observer_sync_ms: Tally,
    /// Learners being brought up to date when another one began.
    pub snaps_in_flight: Tally,
    pub diffs_in_flight: Tally,
    /// From a request's creation at the leader to its commit here; from a proposal's creation to its arrival; from it to its quorum of
    /// acks; from its commit to that one's arrival.
    pub propagation_latency: Latency,
    pub proposal_latency: Latency,
    pub quorum_ack_latency: Latency,
    pub commit_propagation_latency: Latency,
}

/// What the pipeline counts.
#[derive(Debug, Clone, Default)]
pub struct PipelineCounters {
    /// Transactions proposed, and applied.
    pub proposed: u64,
    pub applied: u64,
    /// Requests that came from fronts.
    pub requests: u64,
    /// Sessions that ended by their timeout (`stale_sessions_expired`).
    pub sessions_expired: u64,
    pub digest_mismatches: u64,
    /// Requests served though nobody may be waiting for them, and dropped for that while requests were throttled.
    pub stale_requests: u64,
    pub stale_requests_dropped: u64,
    /// Stalls of the request throttle, a longer one counted once each stall time.
    pub request_throttle_waits: u64,
    /// From the receipt of a request until the pipeline takes it.
    pub request_throttle_queue_time: Latency,
    /// Tokens the bucket lacked when a handshake was admitted, and the present chance of a random drop.
    pub connection_token_deficit: Tally,
    pub connection_drop_probability: f64,
    pub ttl_nodes_created: u64,
    pub ttl_nodes_deleted: u64,
    pub quota_exceeded: u64,
    pub snapshot_errors: u64,
    /// Log writes slower than `fsync.warningthresholdms`.
    pub fsync_threshold_exceeded: u64,
    pub log_bytes: u64,
    /// Transactions of one log write (`sync_processor_batch_size`).
    pub batch_size: Tally,
    /// Requests found waiting when a turn began (`prep_processor_queue_size`).
    pub queue_size: Tally,
    /// One batch made durable (`fsynctime`).
    pub fsync_time: Latency,
    /// One snapshot from its first node until it is verified (`snapshottime`).
    pub snapshot_time: Latency,
    /// The start: loading the snapshot, replaying the log, how many transactions.
    pub startup_snapshot_load_ms: Tally,
    pub startup_log_load_ms: Tally,
    pub startup_transactions: Tally,
}

impl PipelineCounters {
    /// Back to nothing (`srst`).
    pub fn reset(&mut self) {
        // A gauge stays what it is.
        let connection_drop_probability = self.connection_drop_probability;
        *self = PipelineCounters { connection_drop_probability, ..PipelineCounters::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_count_by_kind_and_reads_apart_from_updates() {
        let mut front = FrontCounters::default();
        front.replied(OpCode::GetData, 100, 40);
        front.replied(OpCode::SetData, 900, 60);
        front.replied(OpCode::Create2, 1100, 60);
        front.replied(OpCode::Sasl, 5, 20);
        let counts: Vec<_> = front.op_counts().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts, [("create", 1), ("get_data", 1), ("set_data", 1)]);
        assert_eq!((front.replies, front.reply_bytes, front.packets_sent()), (4, 180, 4));
        assert_eq!((front.read_latency.exact.count, front.update_latency.exact.count), (2, 2));
        assert_eq!(front.request_latency_us.max, 1100);
    }

    #[test]
    fn merging_adds_every_field() {
        let mut a = FrontCounters { requests: 2, words: 1, ..FrontCounters::default() };
        a.replied(OpCode::GetData, 100, 10);
        let mut b = FrontCounters { requests: 3, connect_requests: 4, ..FrontCounters::default() };
        b.replied(OpCode::GetData, 1000, 30);
        a.merge(&b);
        assert_eq!(a.packets_received(), 10);
        assert_eq!((a.response_size.min, a.response_size.max, a.response_size.sum), (10, 30, 40));
        assert_eq!(a.read_latency.exact.sum, 1100);
        assert_eq!(a.op_counts().find(|(name, _)| *name == "get_data"), Some(("get_data", 2)));
        a.reset();
        assert_eq!(a.packets_received() + a.packets_sent() + a.read_latency.exact.count, 0);
    }

    #[test]
    fn op_indices_are_those_of_their_names() {
        for (op, name) in [
            (OpCode::AddWatch, "add_watch"),
            (OpCode::Check, "check"),
            (OpCode::CheckWatches, "check_watches"),
            (OpCode::CloseSession, "close_session"),
            (OpCode::CreateTtl, "create"),
            (OpCode::CreateSession, "create_session"),
            (OpCode::DeleteContainer, "delete"),
            (OpCode::Exists, "exists"),
            (OpCode::GetAcl, "get_acl"),
            (OpCode::GetAllChildrenNumber, "get_all_children_number"),
            (OpCode::GetChildren2, "get_children"),
            (OpCode::GetData, "get_data"),
            (OpCode::GetEphemerals, "get_ephemerals"),
            (OpCode::Multi, "multi"),
            (OpCode::MultiRead, "multi_read"),
            (OpCode::Ping, "ping"),
            (OpCode::Reconfig, "reconfig"),
            (OpCode::RemoveWatches, "remove_watches"),
            (OpCode::SetAcl, "set_acl"),
            (OpCode::SetData, "set_data"),
            (OpCode::SetWatches2, "set_watches"),
            (OpCode::Sync, "sync"),
            (OpCode::WhoAmI, "who_am_i"),
        ] {
            assert_eq!(OPS[op_index(op).unwrap()], name);
        }
    }
}
