//! `mntr`: every metric of ZooKeeper by its name, gauges first.
//!
//! Names and layout are those of the default metrics provider, whichever is configured, because tools parse them.
//! Stages ringkeeper does not have appear with zeros, so that panels show 0 and not "no data". Times are milliseconds
//! as in ZooKeeper; our own names with `_us` at the end say the same in microseconds.

use super::number::{four_decimals, java_double};
use super::text::Text;
use super::{Report, ServerFacts, VERSION, ensemble};
use crate::metrics::{Latency, QuorumCounters, Tally};

/// Top-level nodes that are told apart; the others are summed up as `other`.
const NAMESPACES_MAX: usize = 256;

/// Quotas of one top-level node. Limits are -1 where there is none.
#[derive(Debug, Clone, Default)]
pub struct NamespaceReport {
    /// Without the slash.
    pub name: String,
    pub count_limit: i64,
    pub bytes_limit: i64,
    pub count_usage: i64,
    pub bytes_usage: i64,
    pub exceeded: u64,
}

/// Counters of stages and features that are not here, or not yet.
const COUNTERS_ZERO: [&str; 18] = [
    "cnxn_closed_without_zk_server_running",
    "tls_handshake_exceeded",
    "outstanding_changes_queued",
    "outstanding_changes_removed",
    "request_commit_queued",
    "requests_not_forwarded_to_commit_processor",
    "skip_learner_request_to_next_processor_count",
    "quit_leading_due_to_disloyal_voter",
    "unrecoverable_error_count",
    "dead_watchers_queued",
    "dead_watchers_cleared",
    "add_dead_watcher_stall_time",
    "response_packet_cache_hits",
    "response_packet_cache_misses",
    "response_packet_get_children_cache_hits",
    "response_packet_get_children_cache_misses",
    "restore_error_count",
    "restore_rate_limited_count",
];

/// Basic summaries of stages that are not here.
const BASICS_ZERO: [&str; 22] = [
    "restore_time",
    "socket_closing_time",
    "prep_process_time",
    "proposal_process_time",
    "sync_processor_queue_size",
    "sync_process_time",
    "commit_process_time",
    "requests_in_session_queue",
    "pending_session_queue_size",
    "reads_after_write_in_session_queue",
    "reads_issued_from_session_queue",
    "session_queues_drained",
    "time_waiting_empty_pool_in_commit_processor_read_ms",
    "write_batch_time_in_commit_processor",
    "concurrent_request_processing_in_commit_processor",
    "read_commit_proc_req_queued",
    "write_commit_proc_req_queued",
    "commit_commit_proc_req_queued",
    "read_commit_proc_issued",
    "write_commit_proc_issued",
    "learner_request_processor_queue_size",
    "netty_queued_buffer_capacity",
];

/// Detailed summaries of stages that are not here.
const DETAILED_ZERO: [&str; 16] = [
    "prep_processor_queue_time_ms",
    "close_session_prep_time",
    "sync_processor_queue_time_ms",
    "sync_processor_queue_flush_time_ms",
    "sync_processor_queue_and_flush_time_ms",
    "read_commitproc_time_ms",
    "write_commitproc_time_ms",
    "local_write_committed_time_ms",
    "server_write_committed_time_ms",
    "read_final_proc_time_ms",
    "write_final_proc_time_ms",
    "proposal_ack_creation_latency",
    "om_proposal_process_time_ms",
    "om_commit_process_time_ms",
    "dead_watchers_cleaner_latency",
    "jvm_pause_time_ms",
];

/// A value as it is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Whole(i64),
    Real(f64),
}

impl Number {
    pub(super) fn count(count: u64) -> Number {
        Number::Whole(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// With at most four decimals, as averages are told.
    fn average(value: f64) -> Number {
        Number::Real(four_decimals(value))
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Number::Whole(value) => write!(f, "{value}"),
            Number::Real(value) => f.write_str(&java_double(*value)),
        }
    }
}

/// What a metric is. A gauge may go down, a counter only up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Gauge,
    Counter,
    Summary,
}

/// Takes the metrics one by one: the text of `mntr`, the JSON of the admin server, Prometheus' exposition.
pub trait MetricSink {
    fn value(&mut self, kind: MetricKind, name: &str, value: Number);
    /// A set of which nothing may follow: one that has no member yet, or that is not here.
    fn set(&mut self, kind: MetricKind, name: &str);
    /// One of a set, told apart by a top-level node's name.
    fn keyed(&mut self, kind: MetricKind, name: &str, key: &str, value: Number);
    /// A summary; `scale` divides what was recorded into what is told. `latency` has the same values where more than
    /// sums of them is kept.
    fn basic(&mut self, name: &str, tally: &Tally, latency: Option<&Latency>, scale: u64);
    /// A summary with quantiles. `None`: nothing is ever recorded.
    fn detailed(&mut self, name: &str, latency: Option<&Latency>, scale: u64);
}

/// Summaries as the default provider of ZooKeeper names their parts: what `mntr` and the admin server tell.
/// Source: ZooKeeper `AvgMinMaxCounter#values`, `AvgMinMaxPercentileCounter#values`.
pub fn summary_parts(
    name: &str,
    tally: &Tally,
    quantiles: Option<Option<&Latency>>,
    scale: u64,
    mut tell: impl FnMut(&str, Number),
) {
    tell(&format!("avg_{name}"), Number::average(tally.mean() / scale as f64));
    tell(&format!("min_{name}"), Number::count(tally.min / scale));
    tell(&format!("max_{name}"), Number::count(tally.max / scale));
    tell(&format!("cnt_{name}"), Number::count(tally.count));
    tell(&format!("sum_{name}"), Number::count(tally.sum / scale));
    let Some(latency) = quantiles else { return };
    for (label, quantile) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)] {
        let us = latency.map_or(0, |latency| latency.quantile_us(quantile));
        tell(&format!("{label}_{name}"), Number::count(us / scale));
    }
}

/// Sets of summaries that are not here: bytes by top-level node, and what concerns learners.
const SETS_EMPTY: [&str; 5] = [
    "read_per_namespace",
    "write_per_namespace",
    "ack_latency",
    "learner_handler_qp_size",
    "learner_handler_qp_time_ms",
];

struct Lines<'a> {
    text: &'a mut Text,
}

impl Lines<'_> {
    pub(super) fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        self.text.line(&format!("zk_{name}\t{value}"));
    }
}

impl MetricSink for Lines<'_> {
    fn value(&mut self, _: MetricKind, name: &str, value: Number) {
        self.line(name, value);
    }

    fn set(&mut self, _: MetricKind, _: &str) {}

    fn keyed(&mut self, _: MetricKind, name: &str, key: &str, value: Number) {
        self.line(&format!("{}_{name}", metric_name(key)), value);
    }

    fn basic(&mut self, name: &str, tally: &Tally, _: Option<&Latency>, scale: u64) {
        summary_parts(name, tally, None, scale, |part, value| self.line(part, value));
    }

    fn detailed(&mut self, name: &str, latency: Option<&Latency>, scale: u64) {
        let tally = latency.map(|latency| latency.exact).unwrap_or_default();
        summary_parts(name, &tally, Some(latency), scale, |part, value| self.line(part, value));
    }
}

/// Source: ZooKeeper `MonitorCommand`, `ZooKeeperServer#dumpMonitorValues`, `DefaultMetricsProvider#dump`.
pub(super) fn mntr(text: &mut Text, facts: &ServerFacts, report: &Report) {
    let mut lines = Lines { text };
    lines.line("version", VERSION);
    lines.line("server_state", report.mode.name());
    if let Some(member) = &report.ensemble {
        for (name, value) in member.head() {
            lines.line(name, value);
        }
    }
    metrics(&mut lines, facts, report);
}

/// All metrics, gauges first, each under ZooKeeper's name without `zk_`.
pub fn metrics(sink: &mut dyn MetricSink, facts: &ServerFacts, report: &Report) {
    gauges(sink, facts, report);
    if let Some(member) = &report.ensemble {
        ensemble::gauges(sink, member);
    }
    namespaces(sink, &report.namespaces);
    let alone = QuorumCounters::default();
    let quorum = report.ensemble.as_ref().map_or(&alone, |member| &member.counters);
    counters(sink, facts, report, quorum);
    summaries(sink, report, quorum);
}

fn gauges(sink: &mut dyn MetricSink, facts: &ServerFacts, report: &Report) {
    let latency = &report.front.request_latency_us;
    let size = &report.front.response_size;
    // -1 before the first reply. Source: ZooKeeper `BufferStats`.
    let or_none = |bytes: u64| if size.count == 0 { Number::Whole(-1) } else { Number::count(bytes) };
    let process = &facts.process;
    for (name, value) in [
        ("avg_latency", Number::average(latency.mean() / 1000.0)),
        ("max_latency", Number::count(latency.max / 1000)),
        ("min_latency", Number::count(latency.min / 1000)),
        ("packets_received", Number::count(report.front.packets_received())),
        ("packets_sent", Number::count(report.front.packets_sent())),
        ("num_alive_connections", Number::count(report.connection_count)),
        ("outstanding_requests", Number::count(report.outstanding)),
        ("uptime", Number::count(report.uptime_ms)),
        ("znode_count", Number::count(report.tree.node_count)),
        ("watch_count", Number::count(report.watch_count)),
        ("ephemerals_count", Number::count(report.tree.ephemerals_count)),
        ("approximate_data_size", Number::count(report.tree.data_bytes)),
        ("open_file_descriptor_count", Number::count(process.open_file_descriptors.get())),
        ("max_file_descriptor_count", Number::count(process.max_file_descriptors.get())),
        ("global_sessions", Number::count(report.sessions.global)),
        ("local_sessions", Number::count(report.sessions.local)),
        ("connection_drop_probability", Number::Real(report.pipeline.connection_drop_probability)),
        ("last_client_response_size", or_none(size.last)),
        ("max_client_response_size", or_none(size.max)),
        ("min_client_response_size", or_none(size.min)),
        ("outstanding_tls_handshake", Number::count(report.tls_handshakes)),
        ("auth_failed_count", Number::count(report.front.auth_failed)),
        ("non_mtls_remote_conn_count", Number::Whole(0)),
        ("non_mtls_local_conn_count", Number::Whole(0)),
    ] {
        sink.value(MetricKind::Gauge, name, value);
    }
}

fn namespaces(sink: &mut dyn MetricSink, namespaces: &[NamespaceReport]) {
    let mut other = NamespaceReport { name: "other".into(), ..NamespaceReport::default() };
    for namespace in namespaces.iter().skip(NAMESPACES_MAX) {
        other.count_limit = other.count_limit.saturating_add(namespace.count_limit.max(0));
        other.bytes_limit = other.bytes_limit.saturating_add(namespace.bytes_limit.max(0));
        other.count_usage = other.count_usage.saturating_add(namespace.count_usage);
        other.bytes_usage = other.bytes_usage.saturating_add(namespace.bytes_usage);
        other.exceeded += namespace.exceeded;
    }
    let told = || {
        let rest = (namespaces.len() > NAMESPACES_MAX).then_some(&other);
        namespaces.iter().take(NAMESPACES_MAX).chain(rest)
    };
    type Get = fn(&NamespaceReport) -> i64;
    let gauges: [(&str, Get); 4] = [
        ("quota_count_limit_per_namespace", |namespace| namespace.count_limit),
        ("quota_bytes_limit_per_namespace", |namespace| namespace.bytes_limit),
        ("quota_count_usage_per_namespace", |namespace| namespace.count_usage),
        ("quota_bytes_usage_per_namespace", |namespace| namespace.bytes_usage),
    ];
    // Metric by metric, as the exposition wants what belongs together.
    for (name, get) in gauges {
        sink.set(MetricKind::Gauge, name);
        for namespace in told() {
            sink.keyed(MetricKind::Gauge, name, &namespace.name, Number::Whole(get(namespace)));
        }
    }
    let name = "quota_exceeded_error_per_namespace";
    sink.set(MetricKind::Counter, name);
    for namespace in told() {
        sink.keyed(MetricKind::Counter, name, &namespace.name, Number::count(namespace.exceeded));
    }
}

/// A node's name as part of a metric's: tools take only letters, digits and `_`.
fn metric_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn counters(sink: &mut dyn MetricSink, facts: &ServerFacts, report: &Report, quorum: &QuorumCounters) {
    let (front, pipeline) = (&report.front, &report.pipeline);
    let mut count = |name: &str, value: u64| sink.value(MetricKind::Counter, name, Number::count(value));
    for (name, value) in [
        ("connection_request_count", front.connect_requests),
        ("connection_rejected", front.connections_rejected),
        ("connection_drop_count", front.connections_dropped),
        ("sessionless_connections_expired", front.sessionless_expired),
        ("stale_sessions_expired", pipeline.sessions_expired),
        ("bytes_received_count", front.bytes_received),
        ("response_bytes", front.reply_bytes),
        ("watch_bytes", front.event_bytes),
        ("unsuccessful_handshake", front.tls_handshakes_failed),
        ("ensemble_auth_success", front.ensemble_auth_success),
        ("ensemble_auth_fail", front.ensemble_auth_fail),
        ("ensemble_auth_skip", front.ensemble_auth_skip),
        ("stale_requests", pipeline.stale_requests),
        ("stale_requests_dropped", pipeline.stale_requests_dropped),
        ("stale_replies", front.stale_replies),
        ("request_throttle_wait_count", pipeline.request_throttle_waits),
        ("throttled_ops", front.throttled_ops),
        ("large_requests_rejected", front.large_requests_rejected),
        ("prep_processor_request_queued", pipeline.requests),
        ("sync_processor_request_queued", pipeline.proposed),
        ("digest_mismatches_count", pipeline.digest_mismatches),
        ("snapshot_error_count", pipeline.snapshot_errors),
        ("snapshot_rate_limited_count", facts.process.snapshots_rate_limited.get()),
        ("insecure_admin_count", facts.process.insecure_admin_connections.get()),
        ("ttl_node_created_count", pipeline.ttl_nodes_created),
        ("ttl_node_deleted_count", pipeline.ttl_nodes_deleted),
        ("fsync_threshold_exceed_count", pipeline.fsync_threshold_exceeded),
        ("log_bytes", pipeline.log_bytes),
    ] {
        count(name, value);
    }
    ensemble::counters(sink, quorum);
    let mut count = |name: &str, value: u64| sink.value(MetricKind::Counter, name, Number::count(value));
    for name in COUNTERS_ZERO {
        count(name, 0);
    }
    let mut total = 0;
    for (name, times) in front.op_counts() {
        count(&format!("op_count_{name}"), times);
        total += times;
    }
    count("op_count_total", total);
}

fn summaries(sink: &mut dyn MetricSink, report: &Report, quorum: &QuorumCounters) {
    let (front, pipeline) = (&report.front, &report.pipeline);
    sink.basic("fsynctime", &pipeline.fsync_time.exact, Some(&pipeline.fsync_time), 1000);
    sink.basic("snapshottime", &pipeline.snapshot_time.exact, Some(&pipeline.snapshot_time), 1000);
    for name in SETS_EMPTY {
        sink.set(MetricKind::Summary, name);
    }
    let (snapshot, log) = (&pipeline.startup_snapshot_load_ms, &pipeline.startup_log_load_ms);
    let both = Tally {
        count: snapshot.count,
        sum: snapshot.sum + log.sum,
        min: snapshot.min + log.min,
        max: snapshot.max + log.max,
        last: snapshot.last + log.last,
    };
    sink.basic("dbinittime", &both, None, 1);
    sink.basic("startup_txns_loaded", &pipeline.startup_transactions, None, 1);
    sink.basic("startup_txns_load_time", log, None, 1);
    sink.basic("startup_snap_load_time", snapshot, None, 1);
    sink.basic("prep_processor_queue_size", &pipeline.queue_size, None, 1);
    sink.basic("sync_processor_batch_size", &pipeline.batch_size, None, 1);
    sink.basic("node_created_watch_count", &front.node_created_watches, None, 1);
    sink.basic("node_deleted_watch_count", &front.node_deleted_watches, None, 1);
    sink.basic("node_changed_watch_count", &front.node_changed_watches, None, 1);
    sink.basic("node_children_watch_count", &front.node_children_watches, None, 1);
    sink.basic("connection_token_deficit", &pipeline.connection_token_deficit, None, 1);
    ensemble::summaries(sink, quorum);
    for name in BASICS_ZERO {
        sink.basic(name, &Tally::default(), None, 1);
    }
    sink.detailed("readlatency", Some(&front.read_latency), 1000);
    sink.detailed("updatelatency", Some(&front.update_latency), 1000);
    sink.detailed("request_throttle_queue_time_ms", Some(&pipeline.request_throttle_queue_time), 1000);
    ensemble::detailed(sink, quorum);
    for name in DETAILED_ZERO {
        sink.detailed(name, None, 1);
    }
    sink.detailed("read_latency_us", Some(&front.read_latency), 1);
    sink.detailed("update_latency_us", Some(&front.update_latency), 1);
    sink.detailed("fsync_time_us", Some(&pipeline.fsync_time), 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::client::OpCode;

    /// All names of operations §4.2 to §4.4 that a standalone server has.
    const EXPECTED: &str = "avg_latency max_latency min_latency packets_received packets_sent num_alive_connections \
        outstanding_requests uptime znode_count watch_count ephemerals_count approximate_data_size global_sessions \
        local_sessions open_file_descriptor_count max_file_descriptor_count connection_drop_probability \
        last_client_response_size max_client_response_size min_client_response_size outstanding_tls_handshake \
        auth_failed_count non_mtls_remote_conn_count non_mtls_local_conn_count connection_request_count \
        connection_rejected connection_drop_count connection_revalidate_count revalidate_count \
        sessionless_connections_expired stale_sessions_expired cnxn_closed_without_zk_server_running \
        bytes_received_count response_bytes watch_bytes ensemble_auth_success ensemble_auth_fail ensemble_auth_skip \
        unsuccessful_handshake insecure_admin_count tls_handshake_exceeded stale_requests stale_requests_dropped \
        stale_replies request_throttle_wait_count throttled_ops large_requests_rejected outstanding_changes_queued \
        outstanding_changes_removed prep_processor_request_queued sync_processor_request_queued request_commit_queued \
        requests_not_forwarded_to_commit_processor skip_learner_request_to_next_processor_count looking_count \
        diff_count snap_count commit_count proposal_count learner_proposal_received_count \
        learner_commit_received_count quit_leading_due_to_disloyal_voter unrecoverable_error_count \
        digest_mismatches_count dead_watchers_queued dead_watchers_cleared add_dead_watcher_stall_time \
        response_packet_cache_hits response_packet_cache_misses response_packet_get_children_cache_hits \
        response_packet_get_children_cache_misses snapshot_error_count snapshot_rate_limited_count restore_error_count \
        restore_rate_limited_count ttl_node_created_count ttl_node_deleted_count op_count_total op_count_add_watch \
        op_count_check op_count_check_watches op_count_close_session op_count_create op_count_create_session \
        op_count_delete op_count_exists op_count_get_acl op_count_get_all_children_number op_count_get_children \
        op_count_get_data op_count_get_ephemerals op_count_multi op_count_multi_read op_count_ping op_count_reconfig \
        op_count_remove_watches op_count_set_acl op_count_set_data op_count_set_watches op_count_sync op_count_who_am_i";

    const EXPECTED_BASIC: &str = "fsynctime snapshottime restore_time dbinittime startup_txns_loaded \
        startup_txns_load_time startup_snap_load_time election_time unavailable_time leader_unavailable_time \
        follower_sync_time observer_sync_time inflight_snap_count inflight_diff_count socket_closing_time \
        prep_processor_queue_size prep_process_time proposal_process_time sync_processor_queue_size sync_process_time \
        sync_processor_batch_size commit_process_time requests_in_session_queue pending_session_queue_size \
        reads_after_write_in_session_queue reads_issued_from_session_queue session_queues_drained \
        time_waiting_empty_pool_in_commit_processor_read_ms write_batch_time_in_commit_processor \
        concurrent_request_processing_in_commit_processor read_commit_proc_req_queued write_commit_proc_req_queued \
        commit_commit_proc_req_queued read_commit_proc_issued write_commit_proc_issued \
        learner_request_processor_queue_size node_created_watch_count node_deleted_watch_count \
        node_changed_watch_count node_children_watch_count connection_token_deficit netty_queued_buffer_capacity";

    const EXPECTED_DETAILED: &str = "readlatency updatelatency propagation_latency prep_processor_queue_time_ms \
        close_session_prep_time sync_processor_queue_time_ms sync_processor_queue_flush_time_ms \
        sync_processor_queue_and_flush_time_ms read_commitproc_time_ms write_commitproc_time_ms \
        local_write_committed_time_ms server_write_committed_time_ms read_final_proc_time_ms write_final_proc_time_ms \
        proposal_latency proposal_ack_creation_latency commit_propagation_latency quorum_ack_latency \
        om_proposal_process_time_ms om_commit_process_time_ms dead_watchers_cleaner_latency \
        request_throttle_queue_time_ms jvm_pause_time_ms";

    fn text_of(report: &Report) -> String {
        let mut text = Text::default();
        mntr(&mut text, &ServerFacts::default(), report);
        text.finish()
    }

    fn value<'a>(text: &'a str, name: &str) -> &'a str {
        let prefix = format!("zk_{name}\t");
        let mut found = text.lines().filter_map(|line| line.strip_prefix(&prefix));
        let value = found.next().unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(found.next(), None, "{name} twice");
        value
    }

    #[test]
    fn every_name_of_the_reference_is_there_once() {
        let text = text_of(&Report::default());
        for name in EXPECTED.split_whitespace() {
            assert!(value(&text, name).parse::<f64>().is_ok(), "{name}");
        }
        for name in EXPECTED_BASIC.split_whitespace().chain(EXPECTED_DETAILED.split_whitespace()) {
            for part in ["avg", "min", "max", "cnt", "sum"] {
                value(&text, &format!("{part}_{name}"));
            }
        }
        for name in EXPECTED_DETAILED.split_whitespace() {
            for part in ["p50", "p95", "p99", "p999"] {
                value(&text, &format!("{part}_{name}"));
            }
        }
        for line in text.lines() {
            let (name, _) = line.split_once('\t').unwrap();
            assert_eq!(
                text.lines().filter(|other| other.split_once('\t').unwrap().0 == name).count(),
                1,
                "{name}"
            );
        }
    }

    #[test]
    fn lines_parse_with_the_expression_tools_use_and_gauges_come_first() {
        let text = text_of(&Report::default());
        let mut lines = text.lines();
        assert!(lines.next().unwrap().starts_with("zk_version\t3.9.5-ringkeeper-"));
        assert_eq!(lines.next(), Some("zk_server_state\tstandalone"));
        assert_eq!(lines.next(), Some("zk_avg_latency\t0.0"));
        // What one recv of 2048 bytes shows has to hold the gauges tools alert on.
        let head = &text[..2048];
        for name in [
            "znode_count",
            "watch_count",
            "open_file_descriptor_count",
            "outstanding_requests",
            "global_sessions",
        ] {
            assert!(head.contains(&format!("zk_{name}\t")), "{name}");
        }
        for line in text.lines().skip(1) {
            let (name, value) = line.split_once('\t').unwrap();
            assert!(name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()), "{line}");
            assert!(
                !value.is_empty()
                    && value.bytes().all(|b| b == b'.' || b == b'-' || b.is_ascii_alphanumeric()),
                "{line}"
            );
        }
        assert_eq!(value(&text, "last_client_response_size"), "-1");
    }

    #[test]
    fn times_are_milliseconds_and_ours_microseconds() {
        let mut report = Report::default();
        for _ in 0..10 {
            report.front.replied(OpCode::GetData, 2_500, 64);
            report.front.replied(OpCode::SetData, 40_000, 84);
        }
        report.pipeline.fsync_time.record_us(1_700);
        let text = text_of(&report);
        assert_eq!(value(&text, "max_latency"), "40");
        assert_eq!(value(&text, "avg_latency"), "21.25");
        assert_eq!(value(&text, "avg_readlatency"), "2.5");
        assert_eq!(value(&text, "cnt_updatelatency"), "10");
        assert_eq!(value(&text, "sum_updatelatency"), "400");
        assert!(["39", "40"].contains(&value(&text, "p99_updatelatency")));
        assert_eq!(value(&text, "sum_fsynctime"), "1");
        assert_eq!(value(&text, "sum_fsync_time_us"), "1700");
        assert_eq!(value(&text, "op_count_total"), "20");
        assert_eq!(value(&text, "last_client_response_size"), "84");
    }

    #[test]
    fn namespaces_are_bounded_and_their_names_tame() {
        let namespaces = (0..300)
            .map(|index| NamespaceReport {
                name: format!("a-{index}"),
                count_usage: 1,
                count_limit: -1,
                ..NamespaceReport::default()
            })
            .collect();
        let text = text_of(&Report { namespaces, ..Report::default() });
        assert_eq!(value(&text, "a_0_quota_count_usage_per_namespace"), "1");
        assert_eq!(value(&text, "a_0_quota_count_limit_per_namespace"), "-1");
        assert_eq!(value(&text, "other_quota_count_usage_per_namespace"), "44");
        assert!(!text.contains("a_256_"));
    }
}
