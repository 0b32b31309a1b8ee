//! Plain counters and histograms, owned by whoever counts.
//!
//! Every core counts into values of its own: one writer each, so counting is a load and a store without any lock
//! or bus-locked instruction, and readers on other cores ([`Metrics::totals`]) see each value some moment late and
//! never torn. Values of one core need not belong to the same instant.
//!
//! Histograms are hdrhistograms private to their core; [`Latency::publish`] copies their buckets to where others
//! may read, at most once a second, so that quantiles over several cores are those of all their values together.
//!
//! Names are those of ZooKeeper's `mntr` without the `zk_`.

mod counter;
mod latency;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub use counter::{Counter, Gauge, Tally, TallyTotals};
pub use latency::{LATENCY_US_MAX, Latency, LatencyCell, LatencyTotals};

/// Declares what one owner counts, and what the sum over owners looks like.
macro_rules! metrics {
    (
        $(#[$meta:meta])* pub struct $name:ident summed as $totals:ident;
        counters { $($(#[$counter_meta:meta])* $counter:ident,)* }
        gauges { $($(#[$gauge_meta:meta])* $gauge:ident,)* }
        tallies { $($(#[$tally_meta:meta])* $tally:ident,)* }
        latencies { $($(#[$latency_meta:meta])* $latency:ident,)* }
    ) => {
        $(#[$meta])*
        // Two cache lines, because processors fetch them in pairs: owners do not disturb each other.
        #[repr(align(128))]
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[$counter_meta])* pub $counter: Counter,)*
            $($(#[$gauge_meta])* pub $gauge: Gauge,)*
            $($(#[$tally_meta])* pub $tally: Tally,)*
            $($(#[$latency_meta])* pub $latency: Arc<LatencyCell>,)*
        }

        #[doc = concat!("What [`", stringify!($name), "`] of several owners say together.")]
        #[derive(Debug, Clone, Default)]
        pub struct $totals {
            $(pub $counter: u64,)*
            $(pub $gauge: u64,)*
            $(pub $tally: TallyTotals,)*
            $(pub $latency: LatencyTotals,)*
        }

        impl $name {
            /// Everything but the gauges back to nothing. For the owner, who resets its [`Latency`]s too.
            pub fn reset(&self) {
                $(self.$counter.reset();)*
                $(self.$tally.reset();)*
            }

            fn add_to(&self, totals: &mut $totals) {
                $(totals.$counter += self.$counter.get();)*
                $(totals.$gauge += self.$gauge.get();)*
                $(totals.$tally.add(&self.$tally);)*
                $(totals.$latency.add(&self.$latency);)*
            }
        }

        impl $totals {
            /// Counters by name, in the order they are declared.
            pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($counter), self.$counter),)*].into_iter()
            }
        }
    };
}

metrics! {
    /// What one front counts.
    pub struct FrontCounters summed as FrontTotals;
    counters {
        /// Frames and four-letter words taken in; replies and events sent.
        packets_received,
        packets_sent,
        bytes_received_count,
        response_bytes,
        watch_bytes,
        /// Sessions asked for; connections refused by a limit; connections that broke; dropped by the throttle.
        connection_request_count,
        connection_rejected,
        connection_drop_count,
        connection_drop_by_throttle,
        sessionless_connections_expired,
        cnxn_closed_without_zk_server_running,
        auth_failed_count,
        ensemble_auth_success,
        ensemble_auth_fail,
        ensemble_auth_skip,
        stale_requests,
        stale_requests_dropped,
        stale_replies,
        request_throttle_wait_count,
        throttled_ops,
        large_requests_rejected,
        op_count_add_watch,
        op_count_check,
        op_count_check_watches,
        op_count_close_session,
        op_count_create,
        op_count_create_session,
        op_count_delete,
        op_count_exists,
        op_count_get_acl,
        op_count_get_all_children_number,
        op_count_get_children,
        op_count_get_data,
        op_count_get_ephemerals,
        op_count_multi,
        op_count_multi_read,
        op_count_ping,
        op_count_reconfig,
        op_count_remove_watches,
        op_count_set_acl,
        op_count_set_data,
        op_count_set_watches,
        op_count_sync,
        op_count_who_am_i,
    }
    gauges {
        /// Open connections, with a session or without.
        num_alive_connections,
        /// Requests taken in and not answered.
        outstanding_requests,
        watch_count,
    }
    tallies {
        /// Microseconds from a request to its reply, for `srvr`.
        request_latency_us,
        /// Bytes of each reply.
        client_response_size,
        /// Watches fired by one change.
        node_created_watch_count,
        node_deleted_watch_count,
        node_changed_watch_count,
        node_children_watch_count,
    }
    latencies {
        /// Requests answered by the front alone.
        readlatency,
        /// Requests that went through the pipeline.
        updatelatency,
    }
}

metrics! {
    /// What the pipeline counts.
    pub struct PipelineCounters summed as PipelineTotals;
    counters {
        stale_sessions_expired,
        outstanding_changes_queued,
        outstanding_changes_removed,
        prep_processor_request_queued,
        sync_processor_request_queued,
        request_commit_queued,
        digest_mismatches_count,
        unrecoverable_error_count,
        ttl_node_created_count,
        ttl_node_deleted_count,
        quota_exceeded_error_count,
        /// Log writes slower than `fsync.warningthresholdms`.
        fsync_threshold_exceed_count,
        snapshot_error_count,
        /// Bytes and writes that went to the log.
        log_bytes,
        log_writes,
    }
    gauges {
        /// The last transaction applied, as unsigned bits.
        last_processed_zxid,
        znode_count,
        ephemerals_count,
        approximate_data_size,
        global_sessions,
        local_sessions,
    }
    tallies {
        /// Transactions of one log write.
        sync_processor_batch_size,
        /// Requests waiting when a turn begins.
        prep_processor_queue_size,
        /// Milliseconds of the start: loading the snapshot, replaying the log, both; and transactions replayed.
        startup_snap_load_time,
        startup_txns_load_time,
        dbinittime,
        startup_txns_loaded,
    }
    latencies {
        /// Making one batch durable.
        fsynctime,
        /// Writing one snapshot, from its first node until it is verified.
        snapshottime,
    }
}

impl FrontCounters {
    /// The counter of requests with this opcode, if it is one clients send. Both forms of an operation share one.
    pub fn of_opcode(&self, opcode: i32) -> Option<&Counter> {
        Some(match opcode {
            1 | 15 | 19 | 21 => &self.op_count_create,
            2 | 20 => &self.op_count_delete,
            3 => &self.op_count_exists,
            4 => &self.op_count_get_data,
            5 => &self.op_count_set_data,
            6 => &self.op_count_get_acl,
            7 => &self.op_count_set_acl,
            8 | 12 => &self.op_count_get_children,
            9 => &self.op_count_sync,
            11 => &self.op_count_ping,
            13 => &self.op_count_check,
            14 => &self.op_count_multi,
            16 => &self.op_count_reconfig,
            17 => &self.op_count_check_watches,
            18 => &self.op_count_remove_watches,
            22 => &self.op_count_multi_read,
            101 | 105 => &self.op_count_set_watches,
            103 => &self.op_count_get_ephemerals,
            104 => &self.op_count_get_all_children_number,
            106 => &self.op_count_add_watch,
            107 => &self.op_count_who_am_i,
            -10 => &self.op_count_create_session,
            -11 => &self.op_count_close_session,
            _ => return None,
        })
    }
}

/// The counters of a whole process. Made once, before the cores start.
#[derive(Debug)]
pub struct Metrics {
    fronts: Vec<Arc<FrontCounters>>,
    pipeline: Arc<PipelineCounters>,
    /// How often a reset was asked for; owners compare it with what they have seen.
    resets: AtomicU32,
}

/// Sums over all owners.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    pub front: FrontTotals,
    pub pipeline: PipelineTotals,
}

impl Metrics {
    pub fn new(front_count: usize) -> Arc<Metrics> {
        Arc::new(Metrics {
            fronts: (0..front_count).map(|_| Arc::default()).collect(),
            pipeline: Arc::default(),
            resets: AtomicU32::new(0),
        })
    }

    /// The counters of one front; only that front may count into them.
    pub fn front(&self, index: usize) -> Arc<FrontCounters> {
        self.fronts[index].clone()
    }

    /// The counters of the pipeline; only it may count into them.
    pub fn pipeline(&self) -> Arc<PipelineCounters> {
        self.pipeline.clone()
    }

    /// Sums, minima, maxima and quantiles over everyone, as of about now.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for front in &self.fronts {
            front.add_to(&mut totals.front);
        }
        self.pipeline.add_to(&mut totals.pipeline);
        totals
    }

    /// Asks every owner to reset its counters (`srst`); each does so in its next turn.
    pub fn ask_reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    /// How many resets were asked for. An owner that sees this move calls `reset` on what it owns.
    #[inline]
    pub fn resets(&self) -> u32 {
        self.resets.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn totals_are_over_all_fronts() {
        let metrics = Metrics::new(2);
        let (a, b) = (metrics.front(0), metrics.front(1));
        a.packets_received.add(3);
        b.packets_received.add(4);
        a.num_alive_connections.set(2);
        b.request_latency_us.record(50);
        a.request_latency_us.record(10);
        let totals = metrics.totals().front;
        assert_eq!(totals.packets_received, 7);
        assert_eq!(totals.num_alive_connections, 2);
        assert_eq!(totals.request_latency_us, TallyTotals { count: 2, sum: 60, min: 10, max: 50 });
        assert_eq!(totals.counters().next(), Some(("packets_received", 7)));
    }

    #[test]
    fn reset_spares_gauges() {
        let metrics = Metrics::new(1);
        let front = metrics.front(0);
        front.packets_sent.add(1);
        front.watch_count.set(9);
        front.client_response_size.record(5);
        assert_eq!(metrics.resets(), 0);
        metrics.ask_reset();
        assert_eq!(metrics.resets(), 1);
        front.reset();
        let totals = metrics.totals().front;
        assert_eq!((totals.packets_sent, totals.watch_count), (0, 9));
        assert_eq!(totals.client_response_size, TallyTotals::default());
    }

    #[test]
    fn quantiles_are_over_the_values_of_all_cores() {
        let metrics = Metrics::new(2);
        for (index, us) in [(0, 100), (1, 1000)] {
            let mut latency = Latency::new(metrics.front(index).readlatency.clone());
            for _ in 0..100 {
                latency.record(Duration::from_micros(us));
            }
            latency.publish();
        }
        let totals = metrics.totals().front.readlatency;
        assert_eq!((totals.exact.count, totals.exact.sum), (200, 110_000));
        assert!((99..=101).contains(&totals.quantile_us(0.5)), "{}", totals.quantile_us(0.5));
        assert!((990..=1010).contains(&totals.quantile_us(0.99)), "{}", totals.quantile_us(0.99));
    }

    #[test]
    fn every_client_opcode_has_a_counter() {
        let front = FrontCounters::default();
        for opcode in
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 101, 103, 104, 105]
        {
            assert!(front.of_opcode(opcode).is_some(), "{opcode}");
        }
        for opcode in [0, 10, 100, 102, -1, 108, i32::MIN] {
            assert!(front.of_opcode(opcode).is_none(), "{opcode}");
        }
    }
}
