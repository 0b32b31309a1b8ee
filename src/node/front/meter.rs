//! What a front counts.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::{FrontCounters, Latency, Metrics};
use crate::proto::client::OpCode;
use crate::types::Instant;

/// Histograms are copied to where others may read them this often.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);

/// The counters of one front, and the histograms behind some of them.
#[derive(Debug)]
pub struct Meter {
    metrics: Arc<Metrics>,
    pub counters: Arc<FrontCounters>,
    reads: Latency,
    updates: Latency,
    resets_seen: u32,
    publish_next: Instant,
    /// Something was recorded since the histograms were published.
    is_stale: bool,
}

impl Meter {
    pub fn new(metrics: Arc<Metrics>, front: usize) -> Meter {
        let counters = metrics.front(front);
        Meter {
            reads: Latency::new(counters.readlatency.clone()),
            updates: Latency::new(counters.updatelatency.clone()),
            resets_seen: metrics.resets(),
            metrics,
            counters,
            publish_next: Instant::default(),
            is_stale: false,
        }
    }

    /// A reply made here, in the turn of its request.
    #[inline]
    pub fn served(&mut self, reply_bytes: usize) {
        self.counters.packets_sent.add(1);
        self.counters.response_bytes.add(reply_bytes as u64);
        self.counters.client_response_size.record(reply_bytes as u64);
        self.counters.request_latency_us.record(0);
        self.reads.record(Duration::ZERO);
        self.is_stale = true;
    }

    /// A reply that came from the pipeline.
    #[inline]
    pub fn relayed(&mut self, took: Duration, reply_bytes: usize) {
        self.counters.packets_sent.add(1);
        self.counters.response_bytes.add(reply_bytes as u64);
        self.counters.client_response_size.record(reply_bytes as u64);
        self.counters.request_latency_us.record(took.as_micros() as u64);
        self.updates.record(took);
        self.is_stale = true;
    }

    #[inline]
    pub fn received(&mut self, op: Option<OpCode>) {
        self.counters.packets_received.add(1);
        if let Some(counter) = op.and_then(|op| self.counters.of_opcode(op.number())) {
            counter.add(1);
        }
    }

    /// Once a turn. Gives whether everything was reset (`srst`).
    pub fn turn(&mut self, now: Instant) -> bool {
        if self.is_stale && now >= self.publish_next {
            self.publish_next = now + PUBLISH_INTERVAL;
            self.is_stale = false;
            self.reads.publish();
            self.updates.publish();
        }
        let resets = self.metrics.resets();
        if resets == self.resets_seen {
            return false;
        }
        self.resets_seen = resets;
        self.counters.reset();
        self.reads.reset();
        self.updates.reset();
        true
    }
}
