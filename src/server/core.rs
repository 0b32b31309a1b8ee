//! One core's thread: turns of its front and pipeline on a monoio runtime.
//!
//! Tasks of connections only receive and feed the front; they wake one pump, which runs after them, once a turn: it
//! lets pipeline and front work, hands log writes to the device, and sends once for each connection that has something.
//! Between turns the core spins for a while where it is ours alone, or declares itself asleep and lets the runtime
//! wait for sockets, timers, the log device and the core's bell.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Shutdown, TcpListener};
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use hashbrown::HashMap;

use super::audit::Audit;
use super::connection::{Connection, accept_loop};
use super::door::{ConnId, Front, Pipeline, pipeline};
use super::housekeeper::{Housekeeper, Report};
use super::listen::Listener;
use super::peers::{Listening, Peers, PeersOptions};
use super::ports::{FrontPort, FrontRemote, Local, PipelinePort, PipelineRemote};
use super::questions::Questions;
use super::shared::{Command, Shared};
use super::signal::Signal;
use super::spin::Spin;
use crate::io::watched::Watched;
use crate::io::writer::{DurableWriter, FileKey, Write, Written};
use crate::io::{Bell, sys};
use crate::txnlog::SegmentWork;
use crate::types::{Instant, Now};

/// What one receive can take; shared by all connections of a core.
const RECEIVE_BYTES: usize = 256 * 1024;
/// How often front and pipeline of one thread may answer each other within a turn.
const LOCAL_ROUNDS_MAX: usize = 4;
/// How long ended tasks of a stopping core are waited for.
const WIND_DOWN: Duration = Duration::from_millis(50);

/// Everything of one core. Its tasks share it; nothing of it leaves the thread.
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    bell: Arc<Bell>,
    pub(super) front: Option<RefCell<Front<FrontPort>>>,
    pipeline: Option<RefCell<PipelineHalf>>,
    front_remote: Option<Rc<FrontRemote>>,
    pipeline_remotes: Vec<Rc<PipelineRemote>>,
    local: Option<Rc<Local>>,

    pub(super) connections: RefCell<HashMap<u32, Rc<Connection>>>,
    pub(super) receive_buffer: RefCell<Box<[u8]>>,
    /// Where output is encrypted before it is sent; empty in between.
    pub(super) cipher_buffer: RefCell<Vec<u8>>,
    /// Connections the pump must look at though the front may not name them.
    pub(super) revisits: RefCell<Vec<ConnId>>,
    /// Connections being closed, by deadline.
    pub(super) closing: RefCell<VecDeque<(Instant, Weak<Connection>)>>,
    dirty: RefCell<Vec<ConnId>>,

    /// Connections to other servers, on the pipeline's core of a member of an ensemble.
    peers: Option<Rc<Peers>>,
    peer_listeners: RefCell<Vec<Listening>>,

    pub(super) pump: Rc<Signal>,
    /// Another turn is wanted after I/O had its chance.
    again: Signal,
    spin: Spin,
    /// The time of this turn, once somebody asked.
    now: Cell<Option<Now>>,
    /// When the timer task will wake the pump, and its word that this changed.
    timer: Cell<Option<Instant>>,
    timer_changed: Signal,
    asleep: Cell<bool>,
    stopping: Cell<bool>,
    ending: Cell<bool>,
    listeners: RefCell<Vec<TcpListener>>,
    tasks: Cell<usize>,
}

/// The pipeline and what it drives.
pub(super) struct PipelineHalf {
    pub(super) pipeline: Pipeline<PipelinePort>,
    pub(super) writer: DurableWriter,
    pub(super) housekeeper: Housekeeper,
    pub(super) questions: Questions,
    pub(super) audit: Option<Audit>,
    /// Reused lists.
    pub(super) written: Vec<Written>,
    pub(super) owed: Vec<pipeline::Output>,
    /// It said `Stopped`.
    pub(super) stopped: bool,
}

/// What a core is made of.
pub(super) struct CoreParts {
    pub(super) shared: Arc<Shared>,
    pub(super) bell: Arc<Bell>,
    pub(super) front: Option<Front<FrontPort>>,
    pub(super) pipeline: Option<PipelineHalf>,
    pub(super) front_remote: Option<Rc<FrontRemote>>,
    pub(super) pipeline_remotes: Vec<Rc<PipelineRemote>>,
    pub(super) local: Option<Rc<Local>>,
    pub(super) peers: Option<PeersSeed>,
    pub(super) spin_window: Duration,
}

/// What connections to other servers start from.
pub(super) struct PeersSeed {
    pub(super) options: PeersOptions,
    pub(super) listening: Vec<Listening>,
}

/// Why the server must end now.
#[derive(Debug)]
pub(super) struct Fatal(pub(super) String);

enum Next {
    Wait,
    Finished,
}

impl Core {
    pub(super) fn new(parts: CoreParts) -> Rc<Core> {
        let pump = Rc::new(Signal::default());
        let (peers, peer_listeners) = match parts.peers {
            Some(seed) => (Some(Peers::new(seed.options, pump.clone(), parts.bell.clone())), seed.listening),
            None => (None, Vec::new()),
        };
        Rc::new(Core {
            peers,
            peer_listeners: RefCell::new(peer_listeners),
            spin: Spin::new(parts.spin_window, parts.shared.clock),
            shared: parts.shared,
            bell: parts.bell,
            front: parts.front.map(RefCell::new),
            pipeline: parts.pipeline.map(RefCell::new),
            front_remote: parts.front_remote,
            pipeline_remotes: parts.pipeline_remotes,
            local: parts.local,
            connections: RefCell::default(),
            receive_buffer: RefCell::new(vec![0; RECEIVE_BYTES].into()),
            cipher_buffer: RefCell::default(),
            revisits: RefCell::default(),
            closing: RefCell::default(),
            dirty: RefCell::default(),
            pump,
            again: Signal::default(),
            now: Cell::new(None),
            timer: Cell::new(None),
            timer_changed: Signal::default(),
            asleep: Cell::new(false),
            stopping: Cell::new(false),
            ending: Cell::new(false),
            listeners: RefCell::default(),
            tasks: Cell::new(0),
        })
    }

    /// Runs until told to stop. `ready` is called once everything is watched and clients may come.
    pub(super) async fn run(
        self: Rc<Core>,
        listeners: Vec<Listener>,
        ready: impl FnOnce(),
    ) -> Result<(), Fatal> {
        let started = self.start(listeners);
        if let Err(error) = started {
            return Err(Fatal(format!("a core cannot watch its descriptors: {error}")));
        }
        ready();
        self.pump.raise();
        let end = loop {
            self.pump.raised().await;
            match self.turn() {
                Ok(Next::Wait) => {}
                Ok(Next::Finished) => break Ok(()),
                Err(fatal) => break Err(fatal),
            }
        };
        self.wind_down().await;
        end
    }

    fn start(self: &Rc<Self>, listeners: Vec<Listener>) -> io::Result<()> {
        let bell = Watched::new(self.bell.event().try_clone_fd()?)?;
        self.spawn(watch_bell(self.clone(), bell));
        if let Some(half) = &self.pipeline {
            let event = Watched::new(half.borrow().writer.event().try_clone_fd()?)?;
            self.spawn(watch_writer(self.clone(), event));
        }
        if let Some(peers) = &self.peers {
            peers.listen(self.peer_listeners.take())?;
        }
        self.spawn(timer_loop(self.clone()));
        self.spawn(again_loop(self.clone()));
        if self.spin.is_on() {
            self.spawn(spin_loop(self.clone(), 0));
            self.spawn(spin_loop(self.clone(), 1));
        }
        for Listener { socket, speech } in listeners {
            self.listeners.borrow_mut().push(socket.try_clone()?);
            let core = self.clone();
            self.spawn(async move {
                if let Err(error) = accept_loop(core, socket, speech).await {
                    tracing::error!(%error, "a listener failed, no more clients are accepted on it");
                }
            });
        }
        Ok(())
    }

    /// A task that is counted, so that the core can wait for its end.
    pub(super) fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        self.tasks.set(self.tasks.get() + 1);
        let counted = Counted(self.clone());
        monoio::spawn(async move {
            // Moved in as a whole; dropped with the task, however that ends.
            let _counted = counted;
            task.await;
        });
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// The time of this turn: read once, by the first who asks.
    pub(super) fn now(&self) -> Now {
        match self.now.get() {
            Some(now) => now,
            None => {
                let now = self.shared.clock.now();
                self.now.set(Some(now));
                now
            }
        }
    }

    /// Before anything touches the front: it may have declared that it does not look.
    pub(super) fn stir(&self) {
        if self.asleep.replace(false) {
            self.bell.awake();
            if let Some(front) = &self.front {
                front.borrow_mut().after_sleep();
            }
        }
    }

    /// Something came in from outside: spinning is worth it for a while.
    pub(super) fn saw_input(&self) {
        self.spin.touch();
    }

    fn turn(self: &Rc<Self>) -> Result<Next, Fatal> {
        self.stir();
        let now = self.now();
        // Looked up before the turn: whatever was sent before it was set is then part of this turn.
        let command = self.shared.command();
        let drained = self.shared.drained.load(Ordering::Acquire);
        if command == Command::Abort {
            return Ok(Next::Finished);
        }
        if command == Command::Stop && !self.stopping.replace(true) {
            self.stop(now);
        }
        if let Some(half) = &self.pipeline {
            let mut half = half.borrow_mut();
            half.take_completions(now)?;
            self.hear_peers(&mut half, now);
            half.pipeline.turn(now);
        }
        if let Some(front) = &self.front {
            front.borrow_mut().turn(now);
        }
        self.exchange_locally(now);
        if let Some(half) = &self.pipeline {
            half.borrow_mut().pay(self.peers.as_ref())?;
        }
        self.settle_links();
        self.flush_all(now);
        // Sending made room in a connection, and the front may have gone on with its requests.
        self.settle_links();
        self.end_turn(now);
        Ok(self.finished(drained))
    }

    /// Hands over what happened on connections to other servers.
    fn hear_peers(&self, half: &mut PipelineHalf, now: Now) {
        let Some(peers) = &self.peers else { return };
        let mut heard = false;
        peers.take_events(&mut self.receive_buffer.borrow_mut(), |conn, event| {
            heard = true;
            half.pipeline.peer(now, conn, event);
        });
        if heard {
            self.saw_input();
        }
    }

    /// Lets front and pipeline of this thread finish what they started, within bounds.
    fn exchange_locally(&self, now: Now) {
        let (Some(local), Some(half), Some(front)) = (&self.local, &self.pipeline, &self.front) else {
            return;
        };
        for _ in 0..LOCAL_ROUNDS_MAX {
            if local.has_for_pipeline() {
                half.borrow_mut().pipeline.turn(now);
            }
            if !local.has_for_front() {
                return;
            }
            front.borrow_mut().turn(now);
        }
    }

    fn settle_links(&self) {
        self.front_remote.iter().for_each(|r| r.settle());
        self.pipeline_remotes.iter().for_each(|r| r.settle());
    }

    fn flush_all(self: &Rc<Self>, now: Now) {
        let Some(front) = &self.front else { return };
        let mut front = front.borrow_mut();
        let mut dirty = self.dirty.borrow_mut();
        front.take_dirty(&mut dirty);
        // Flushing may ask for another visit; that is for the next turn.
        dirty.append(&mut self.revisits.borrow_mut());
        for id in dirty.drain(..) {
            self.flush(&mut front, now, id);
        }
        front.take_dirty(&mut dirty);
        if !dirty.is_empty() {
            self.again.raise();
        }
        self.cut_off_lingering(&mut front, now);
    }

    fn end_turn(self: &Rc<Self>, now: Now) {
        let mut more = self.local.as_ref().is_some_and(|l| l.wants_turn());
        let mut timer = self.closing.borrow().front().map(|c| c.0);
        let mut earlier = |other: Option<Instant>| {
            timer = match (timer, other) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        };
        if let Some(front) = &self.front {
            let front = front.borrow();
            more |= front.has_more();
            earlier(front.next_timer());
        }
        if let Some(half) = &self.pipeline {
            let half = half.borrow();
            more |= half.pipeline.has_more() || self.peers.as_ref().is_some_and(|peers| peers.has_events());
            earlier(half.pipeline.next_timer());
        }
        self.now.set(None);
        if timer.is_some_and(|t| t <= now.instant) {
            more = true;
        } else if let Some(want) = timer
            && self.timer.get().is_none_or(|armed| want < armed)
        {
            self.timer.set(Some(want));
            self.timer_changed.raise();
        }
        if more {
            self.again.raise();
        } else if !self.spin.is_active() {
            self.sleep();
        }
    }

    /// Declares the core asleep, unless there is something to do after all.
    fn sleep(&self) {
        if self.asleep.get() || self.pump.is_raised() || self.again.is_raised() {
            return;
        }
        self.bell.doze();
        let quiet = self.front_remote.iter().all(|r| r.may_sleep())
            && self.pipeline_remotes.iter().all(|r| r.may_sleep());
        if !quiet {
            self.bell.awake();
            self.again.raise();
            return;
        }
        if let Some(front) = &self.front {
            front.borrow_mut().before_sleep();
        }
        self.asleep.set(true);
    }

    fn has_mail(&self) -> bool {
        self.front_remote.as_ref().is_some_and(|r| r.has_input())
            || self.pipeline_remotes.iter().any(|r| r.has_input())
    }

    /// The order to stop: no more clients, and the pipeline finishes what it has.
    fn stop(&self, now: Now) {
        for listener in self.listeners.borrow_mut().drain(..) {
            // Ends the wait of its accept loop.
            sys::shutdown(listener.as_fd(), Shutdown::Both);
        }
        if let Some(half) = &self.pipeline {
            half.borrow_mut().pipeline.handle(now, pipeline::Input::Stop);
        }
    }

    /// After the order to stop: the pipeline has stopped, its last answers are taken and sent.
    fn finished(&self, drained: bool) -> Next {
        if let Some(half) = &self.pipeline
            && half.borrow().stopped
            && !self.shared.drained.swap(true, Ordering::AcqRel)
        {
            self.shared.ring_all();
        }
        if drained && !self.connections.borrow().values().any(|c| c.is_blocked()) {
            return Next::Finished;
        }
        Next::Wait
    }

    /// Ends all tasks, so that nothing outlives the runtime.
    async fn wind_down(&self) {
        self.stir();
        self.ending.set(true);
        self.stopping.set(true);
        for listener in self.listeners.borrow_mut().drain(..) {
            sys::shutdown(listener.as_fd(), Shutdown::Both);
        }
        let connections = std::mem::take(&mut *self.connections.borrow_mut());
        for connection in connections.into_values() {
            connection.kill();
        }
        for (_, connection) in self.closing.borrow_mut().drain(..) {
            if let Some(connection) = Weak::upgrade(&connection) {
                connection.kill();
            }
        }
        if let Some(peers) = &self.peers {
            peers.stop();
        }
        self.timer_changed.raise();
        self.again.raise();
        self.spin.end();
        self.bell.event().signal();
        if let Some(half) = &self.pipeline {
            half.borrow().writer.event().signal();
        }
        let start = self.shared.clock.instant();
        let tasks = || self.tasks.get() + self.peers.as_ref().map_or(0, |peers| peers.task_count());
        while tasks() > 0 && self.shared.clock.instant().since(start) < WIND_DOWN {
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl PipelineHalf {
    /// What the device and the housekeeper have finished.
    fn take_completions(&mut self, now: Now) -> Result<(), Fatal> {
        self.writer.reap(&mut self.written).map_err(|e| Fatal(format!("the log failed: {e}")))?;
        for written in self.written.drain(..) {
            let id = crate::txnlog::WriteId(written.token);
            self.pipeline.handle(now, pipeline::Input::Written { id, spent: written.spent });
        }
        while let Some(report) = self.housekeeper.report() {
            match report {
                Report::SegmentReady { segment, file, path } => {
                    let said = path.display().to_string();
                    self.writer
                        .add_file(FileKey(segment.0), file, path)
                        .map_err(|e| Fatal(format!("log segment {said} cannot be registered: {e}")))?;
                    self.pipeline.handle(now, pipeline::Input::SegmentReady(segment));
                }
                Report::Snapshot(event) => self.pipeline.handle(now, pipeline::Input::Snapshot(event)),
                Report::Storage(event) => self.pipeline.handle(now, pipeline::Input::Storage(event)),
                Report::Fatal(reason) => return Err(Fatal(reason)),
            }
        }
        while let Some(ask) = self.questions.take() {
            self.pipeline.handle(now, pipeline::Input::Ask(ask));
        }
        Ok(())
    }

    /// Pays what the pipeline owes: log writes first, the device is the slowest.
    fn pay(&mut self, peers: Option<&Rc<Peers>>) -> Result<(), Fatal> {
        self.pipeline.drain(&mut self.owed);
        let mut writes = false;
        for output in self.owed.drain(..) {
            match output {
                pipeline::Output::Write(write) => {
                    writes = true;
                    self.writer.submit(Write {
                        token: write.id.0,
                        file: FileKey(write.segment.0),
                        offset_bytes: write.offset_bytes,
                        bytes: write.bytes,
                    });
                }
                pipeline::Output::Segment(work) => {
                    if let SegmentWork::Retire(segment) = work {
                        self.writer
                            .remove_file(FileKey(segment.0))
                            .map_err(|e| Fatal(format!("log segment {} cannot be closed: {e}", segment.0)))?;
                    }
                    self.housekeeper.segment(work);
                }
                pipeline::Output::Snapshot(work) => self.housekeeper.snapshot(work),
                pipeline::Output::Told(told) => self.questions.told(told),
                pipeline::Output::Audit(line) => {
                    if let Some(audit) = &self.audit {
                        audit.tell(line);
                    }
                }
                pipeline::Output::Storage(work) => self.housekeeper.storage(work),
                pipeline::Output::Peer(work) => {
                    let peers = peers.expect("only a member of an ensemble has peers");
                    peers.execute(work);
                }
                pipeline::Output::Stopped => self.stopped = true,
            }
        }
        if writes {
            self.writer.flush().map_err(|e| Fatal(format!("the log failed: {e}")))?;
        }
        if let Some(peers) = peers {
            peers.flush();
        }
        Ok(())
    }
}

struct Counted(Rc<Core>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.tasks.set(self.0.tasks.get() - 1);
    }
}

/// Wakes the pump when another thread rings.
async fn watch_bell(core: Rc<Core>, bell: Watched) {
    loop {
        if let Err(error) = bell.readable().await {
            core.shared.fail(format!("a core's bell cannot be watched: {error}"));
            return;
        }
        if core.ending.get() {
            return;
        }
        core.bell.event().clear();
        core.saw_input();
        core.pump.raise();
    }
}

/// Wakes the pump when a log write may be complete.
async fn watch_writer(core: Rc<Core>, event: Watched) {
    loop {
        if let Err(error) = event.readable().await {
            core.shared.fail(format!("the log's completions cannot be watched: {error}"));
            return;
        }
        if core.ending.get() {
            return;
        }
        if let Some(half) = &core.pipeline {
            half.borrow().writer.event().clear();
        }
        core.saw_input();
        core.pump.raise();
    }
}

/// Wakes the pump when its timer is due.
async fn timer_loop(core: Rc<Core>) {
    while !core.ending.get() {
        let Some(due) = core.timer.get() else {
            core.timer_changed.raised().await;
            continue;
        };
        let mut sleep = pin!(monoio::time::sleep(due.since(core.shared.clock.instant())));
        let changed = poll_fn(|cx| {
            if core.timer_changed.poll_raised(cx).is_ready() {
                return Poll::Ready(true);
            }
            sleep.as_mut().poll(cx).map(|()| false)
        })
        .await;
        if !changed {
            core.timer.set(None);
            core.pump.raise();
        }
    }
}

/// Wakes the pump for another turn. The pump must not wake itself: the runtime would run it again before any I/O.
async fn again_loop(core: Rc<Core>) {
    while !core.ending.get() {
        core.again.raised().await;
        core.pump.raise();
    }
}

/// One of the two tasks that keep each other awake while the core spins; see [`Spin`].
async fn spin_loop(core: Rc<Core>, me: usize) {
    while !core.ending.get() {
        core.spin
            .pass(me, || {
                if core.has_mail() {
                    core.spin.touch();
                    core.pump.raise();
                }
            })
            .await;
        if !core.spin.is_active() {
            core.sleep();
        }
    }
}
