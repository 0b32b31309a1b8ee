//! What all threads of the server share: the order to stop, the first fatal reason, and everybody's bell.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::tls::{Acceptor, Live};
use crate::io::sys::EventFd;
use crate::io::{Bell, Clock};
use crate::node::limits::ConnectionLimits;

pub(super) struct Shared {
    pub(super) clock: Clock,
    /// One for each core, in the plan's order.
    pub(super) bells: Vec<Arc<Bell>>,
    command: AtomicU8,
    /// Threads of cores that have not ended.
    pub(super) alive: AtomicUsize,
    /// The pipeline has stopped: what it acknowledged is on its way to the fronts, no more will come.
    pub(super) drained: AtomicBool,
    /// Why the server ends, the first reason that was given.
    reason: Mutex<Option<String>>,
    /// Connections of all fronts, by the plain port and by the secure one, which ZooKeeper counts apart. Locked when one
    /// comes or goes, for some lookups.
    limits: [Mutex<ConnectionLimits>; 2],
    /// There where a client port speaks TLS.
    tls: Option<Live<Acceptor>>,
    /// Wakes the supervisor.
    pub(super) event: EventFd,
    /// A stop was asked for from inside the process.
    stop_asked: AtomicBool,
}

/// What the cores are to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Command {
    Run,
    /// Finish what was begun, then end.
    Stop,
    /// End now; acknowledge nothing more.
    Abort,
}

impl Shared {
    pub(super) fn new(
        cores: usize,
        clock: Clock,
        limits: [ConnectionLimits; 2],
        tls: Option<Live<Acceptor>>,
    ) -> std::io::Result<Shared> {
        Ok(Shared {
            clock,
            bells: (0..cores).map(|_| Bell::new().map(Arc::new)).collect::<Result<_, _>>()?,
            command: AtomicU8::new(Command::Run as u8),
            alive: AtomicUsize::new(0),
            drained: AtomicBool::new(false),
            reason: Mutex::new(None),
            limits: limits.map(Mutex::new),
            tls,
            event: EventFd::new()?,
            stop_asked: AtomicBool::new(false),
        })
    }

    pub(super) fn limits(&self, secure_port: bool) -> MutexGuard<'_, ConnectionLimits> {
        self.limits[usize::from(secure_port)].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What a handshake that begins now is to use.
    pub(super) fn acceptor(&self) -> Option<Acceptor> {
        self.tls.as_ref().map(Live::get)
    }

    pub(super) fn command(&self) -> Command {
        match self.command.load(Ordering::Acquire) {
            c if c == Command::Run as u8 => Command::Run,
            c if c == Command::Stop as u8 => Command::Stop,
            _ => Command::Abort,
        }
    }

    /// Gives an order; an earlier, stronger one stays.
    pub(super) fn order(&self, command: Command) {
        self.command.fetch_max(command as u8, Ordering::AcqRel);
        self.ring_all();
    }

    pub(super) fn ring_all(&self) {
        for bell in &self.bells {
            bell.ring_always();
        }
    }

    /// Ends the server for a reason that leaves no choice. The first reason counts.
    pub(super) fn fail(&self, reason: String) {
        {
            let mut first = self.reason.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if first.is_none() {
                tracing::error!("{reason}; the server stops");
                *first = Some(reason);
            }
        }
        self.order(Command::Abort);
        self.event.signal();
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub(super) fn ask_stop(&self) {
        self.stop_asked.store(true, Ordering::Release);
        self.event.signal();
    }

    pub(super) fn stop_asked(&self) -> bool {
        self.stop_asked.load(Ordering::Acquire)
    }
}
