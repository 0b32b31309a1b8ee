//! How fronts and the pipeline reach each other: by plain queues on one thread, by a pair of rings across threads.
//!
//! The state machines see only `FrontLink` and `PipelineLink`. The shell keeps the other handle of each port, publishes
//! a turn's messages at once, wakes the other core at most once for them, and knows when a core may sleep.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use super::door::link::{FrontLink, PipelineLink, ToFront, ToPipeline};
use crate::io::{Bell, Receiver, Sender, channel};

/// Messages that may wait in one direction between one front and the pipeline. A front that finds no room stops
/// reading its sockets.
pub const LINK_MESSAGES_MAX: usize = 2048;

/// A front's side of its link.
pub struct FrontPort(FrontSide);

enum FrontSide {
    Local(Rc<Local>),
    Remote(Rc<FrontRemote>),
}

/// The pipeline's side of the link to one front.
pub struct PipelinePort(PipelineSide);

enum PipelineSide {
    Local(Rc<Local>),
    Remote(Rc<PipelineRemote>),
}

/// A link within one thread.
pub(super) struct Local {
    to_pipeline: RefCell<VecDeque<ToPipeline>>,
    to_front: RefCell<VecDeque<ToFront>>,
    interested: Cell<bool>,
    /// Somebody heard that little room is left in a direction, and may have put work off.
    scarce_to_pipeline: Cell<bool>,
    scarce_to_front: Cell<bool>,
}

/// One end of a link across threads, as the shell sees it.
pub(super) struct Remote<Out: Send, In: Send> {
    tx: RefCell<Sender<Out>>,
    rx: RefCell<Receiver<In>>,
    /// The other core's.
    peer: Arc<Bell>,
    /// Whether the front wants to hear of changes; see `PipelineLink::is_interested`.
    interested: Arc<AtomicBool>,
    /// Something was shown to the other core since its bell was last rung.
    news: Cell<bool>,
}

pub(super) type FrontRemote = Remote<ToPipeline, ToFront>;
pub(super) type PipelineRemote = Remote<ToFront, ToPipeline>;

/// One end that can still be sent to its thread.
pub(super) struct RemoteSeed<Out: Send, In: Send> {
    tx: Sender<Out>,
    rx: Receiver<In>,
    peer: Arc<Bell>,
    interested: Arc<AtomicBool>,
}

/// Makes both ends of a link between the threads of these two bells.
pub(super) fn remote_pair(
    front_bell: &Arc<Bell>,
    pipeline_bell: &Arc<Bell>,
) -> (RemoteSeed<ToPipeline, ToFront>, RemoteSeed<ToFront, ToPipeline>) {
    let (to_pipeline, from_front) = channel(LINK_MESSAGES_MAX);
    let (to_front, from_pipeline) = channel(LINK_MESSAGES_MAX);
    let interested = Arc::new(AtomicBool::new(false));
    (
        RemoteSeed {
            tx: to_pipeline,
            rx: from_pipeline,
            peer: pipeline_bell.clone(),
            interested: interested.clone(),
        },
        RemoteSeed { tx: to_front, rx: from_front, peer: front_bell.clone(), interested },
    )
}

impl<Out: Send, In: Send> RemoteSeed<Out, In> {
    pub(super) fn settle_here(self) -> Rc<Remote<Out, In>> {
        Rc::new(Remote {
            tx: RefCell::new(self.tx),
            rx: RefCell::new(self.rx),
            peer: self.peer,
            interested: self.interested,
            news: Cell::new(false),
        })
    }
}

impl<Out: Send, In: Send> Remote<Out, In> {
    /// The end of a turn: shows the other core what was pushed and gives back what was popped.
    pub(super) fn settle(&self) {
        let news = self.tx.borrow_mut().publish() | self.news.replace(false);
        let room = self.rx.borrow_mut().release();
        if news || room {
            self.peer.ring();
        }
    }

    /// Pushes and shows it to the other core; the turn's end rings its bell.
    fn push_now(&self, message: Out) {
        let mut tx = self.tx.borrow_mut();
        tx.push(message);
        let news = tx.publish();
        self.news.set(self.news.get() | news);
    }

    pub(super) fn has_input(&self) -> bool {
        !self.rx.borrow().is_empty()
    }

    /// Asked after the own bell was told: nothing came, and nobody here waits for room that is there.
    pub(super) fn may_sleep(&self) -> bool {
        self.rx.borrow().is_empty() && self.tx.borrow_mut().wait_for_room()
    }
}

impl Local {
    pub(super) fn new() -> Rc<Local> {
        Rc::new(Local {
            to_pipeline: RefCell::default(),
            to_front: RefCell::default(),
            interested: Cell::new(false),
            scarce_to_pipeline: Cell::new(false),
            scarce_to_front: Cell::new(false),
        })
    }

    /// At the end of a turn: something waits in the queues, or work was put off and there is room for it again.
    pub(super) fn wants_turn(&self) -> bool {
        let room_again = |scarce: &Cell<bool>, room| room > LINK_MESSAGES_MAX / 2 && scarce.replace(false);
        let front = room_again(&self.scarce_to_pipeline, room_in(&self.to_pipeline));
        let pipeline = room_again(&self.scarce_to_front, room_in(&self.to_front));
        front || pipeline || self.has_for_pipeline() || self.has_for_front()
    }

    pub(super) fn has_for_pipeline(&self) -> bool {
        !self.to_pipeline.borrow().is_empty()
    }

    pub(super) fn has_for_front(&self) -> bool {
        !self.to_front.borrow().is_empty()
    }
}

impl FrontPort {
    pub(super) fn local(local: Rc<Local>) -> FrontPort {
        FrontPort(FrontSide::Local(local))
    }

    pub(super) fn remote(remote: Rc<FrontRemote>) -> FrontPort {
        FrontPort(FrontSide::Remote(remote))
    }
}

impl PipelinePort {
    pub(super) fn local(local: Rc<Local>) -> PipelinePort {
        PipelinePort(PipelineSide::Local(local))
    }

    pub(super) fn remote(remote: Rc<PipelineRemote>) -> PipelinePort {
        PipelinePort(PipelineSide::Remote(remote))
    }
}

impl FrontLink for FrontPort {
    fn pop(&mut self) -> Option<ToFront> {
        match &self.0 {
            FrontSide::Local(local) => local.to_front.borrow_mut().pop_front(),
            FrontSide::Remote(remote) => remote.rx.borrow_mut().pop(),
        }
    }

    fn push(&mut self, message: ToPipeline) {
        match &self.0 {
            FrontSide::Local(local) => push_local(&local.to_pipeline, message),
            FrontSide::Remote(remote) => remote.tx.borrow_mut().push(message),
        }
    }

    fn room(&self) -> usize {
        match &self.0 {
            FrontSide::Local(local) => tell_room(&local.to_pipeline, &local.scarce_to_pipeline),
            FrontSide::Remote(remote) => remote.tx.borrow_mut().room(),
        }
    }

    fn set_interested(&mut self, interested: bool) {
        match &self.0 {
            FrontSide::Local(local) => local.interested.set(interested),
            FrontSide::Remote(remote) => {
                remote.interested.store(interested, Ordering::Relaxed);
                // Before the publication is looked at: either it has moved, or the pipeline sees the flag.
                fence(Ordering::SeqCst);
            }
        }
    }
}

impl PipelineLink for PipelinePort {
    fn pop(&mut self) -> Option<ToPipeline> {
        match &self.0 {
            PipelineSide::Local(local) => local.to_pipeline.borrow_mut().pop_front(),
            PipelineSide::Remote(remote) => remote.rx.borrow_mut().pop(),
        }
    }

    fn push(&mut self, message: ToFront) {
        match &self.0 {
            PipelineSide::Local(local) => push_local(&local.to_front, message),
            // Shown at once: what is published next must not be seen before this message can be.
            PipelineSide::Remote(remote) => remote.push_now(message),
        }
    }

    fn is_empty(&self) -> bool {
        match &self.0 {
            PipelineSide::Local(local) => local.to_pipeline.borrow().is_empty(),
            PipelineSide::Remote(remote) => remote.rx.borrow().is_empty(),
        }
    }

    fn is_interested(&self) -> bool {
        match &self.0 {
            PipelineSide::Local(local) => local.interested.get(),
            PipelineSide::Remote(remote) => {
                // After the publication has begun to move: see `set_interested`.
                fence(Ordering::SeqCst);
                remote.interested.load(Ordering::Relaxed)
            }
        }
    }

    fn room(&self) -> usize {
        match &self.0 {
            PipelineSide::Local(local) => tell_room(&local.to_front, &local.scarce_to_front),
            PipelineSide::Remote(remote) => remote.tx.borrow_mut().room(),
        }
    }
}

fn room_in<T>(queue: &RefCell<VecDeque<T>>) -> usize {
    LINK_MESSAGES_MAX - queue.borrow().len()
}

fn tell_room<T>(queue: &RefCell<VecDeque<T>>, scarce: &Cell<bool>) -> usize {
    let room = room_in(queue);
    if room <= LINK_MESSAGES_MAX / 2 {
        scarce.set(true);
    }
    room
}

fn push_local<T>(queue: &RefCell<VecDeque<T>>, message: T) {
    let mut queue = queue.borrow_mut();
    assert!(queue.len() < LINK_MESSAGES_MAX, "pushed into a full link of {LINK_MESSAGES_MAX} messages");
    queue.push_back(message);
}
