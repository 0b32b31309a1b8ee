//! One standing election connection: frames in, one message at a time out.

use std::time::Duration;

use bytes::Bytes;

use crate::config::Membership;
use crate::proto::election::{NOTIFICATION_BYTES_MAX, Notification};
use crate::types::Instant;
use crate::zab::PeerConn;

/// A notification, and the membership it brings if that is newer than ours.
pub type Read = (Notification, Option<Box<Membership>>);

/// Whoever looks for a leader repeats itself sooner than this.
const ASKING_GAP_MAX: Duration = Duration::from_millis(1500);

#[derive(Debug)]
pub struct Link {
    pub conn: PeerConn,
    pub since: Instant,
    /// Bytes handed over that have not left.
    pub unsent: usize,
    /// To be sent when all that has left.
    slot: Option<Bytes>,
    /// The beginning of a frame; never longer than the longest one.
    unread: Vec<u8>,
    /// The last text that differed from ours and made a membership.
    text_seen: Vec<u8>,
    /// When something was first said that nothing has been heard since.
    unanswered_since: Option<Instant>,
    last_said: Instant,
}

impl Link {
    pub fn new(conn: PeerConn, now: Instant) -> Link {
        Link {
            conn,
            since: now,
            unsent: 0,
            slot: None,
            unread: Vec::new(),
            text_seen: Vec::new(),
            unanswered_since: None,
            last_said: now,
        }
    }

    /// What to hand over now: the message, unless another is still on its way.
    pub fn say(&mut self, now: Instant, frame: Bytes) -> Option<Bytes> {
        // Servers that have a leader owe no answer; only one that asks again and again has to wait for one.
        if now.since(self.last_said) >= ASKING_GAP_MAX {
            self.unanswered_since = None;
        }
        self.last_said = now;
        self.unanswered_since.get_or_insert(now);
        if self.unsent > 0 {
            self.slot = Some(frame);
            return None;
        }
        self.unsent = frame.len();
        Some(frame)
    }

    /// What to hand over now that so many bytes have left.
    pub fn sent(&mut self, count: usize) -> Option<Bytes> {
        self.unsent = self.unsent.saturating_sub(count);
        let next = self.slot.take_if(|_| self.unsent == 0)?;
        self.unsent = next.len();
        Some(next)
    }

    pub fn is_silent(&self, now: Instant, silent_max: Duration) -> bool {
        self.unanswered_since.is_some_and(|since| now.since(since) >= silent_max)
    }

    /// Whether something was said that nothing was heard after.
    pub fn is_unanswered(&self) -> bool {
        self.unanswered_since.is_some()
    }

    /// Reads what came; the notifications before an error count.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        text: &str,
        version: i64,
        read: &mut Vec<Read>,
    ) -> Result<(), String> {
        self.unanswered_since = None;
        let held = std::mem::take(&mut self.unread);
        if held.is_empty() {
            let used = self.frames(bytes, text, version, read)?;
            self.unread = bytes[used..].to_vec();
        } else {
            let mut held = held;
            held.extend_from_slice(bytes);
            let used = self.frames(&held, text, version, read)?;
            held.drain(..used);
            self.unread = held;
        }
        Ok(())
    }

    /// Reads the frames at the front, and says how many bytes they take.
    fn frames(
        &mut self,
        bytes: &[u8],
        text: &str,
        version: i64,
        read: &mut Vec<Read>,
    ) -> Result<usize, String> {
        let mut used = 0;
        while let Some((length, rest)) = bytes[used..].split_first_chunk() {
            let length = i32::from_be_bytes(*length);
            let length = usize::try_from(length)
                .ok()
                .filter(|length| (1..=NOTIFICATION_BYTES_MAX).contains(length))
                .ok_or_else(|| {
                    format!("a frame of {length} bytes: expected 1 to {NOTIFICATION_BYTES_MAX}")
                })?;
            let Some(frame) = rest.get(..length) else { break };
            let (notification, of_peer) = Notification::decode(frame).map_err(|error| error.to_string())?;
            read.push((notification, self.newer(of_peer, text, version)?));
            used += 4 + length;
        }
        Ok(used)
    }

    fn newer(&mut self, of_peer: &[u8], text: &str, version: i64) -> Result<Option<Box<Membership>>, String> {
        if of_peer.is_empty() || of_peer == text.as_bytes() || of_peer == self.text_seen {
            return Ok(None);
        }
        let membership = Membership::parse(of_peer).map_err(|error| format!("its membership: {error}"))?;
        self.text_seen = of_peer.to_vec();
        Ok((membership.version > version).then(|| Box::new(membership)))
    }
}
