//! A flag one task of a core waits for and others raise: raising it twice wakes once.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

#[derive(Default)]
pub(super) struct Signal {
    raised: Cell<bool>,
    waiting: Cell<Option<Waker>>,
}

impl Signal {
    pub(super) fn raise(&self) {
        if !self.raised.replace(true)
            && let Some(waker) = self.waiting.take()
        {
            waker.wake();
        }
    }

    pub(super) fn is_raised(&self) -> bool {
        self.raised.get()
    }

    /// Ready, and lowered again, once raised. One task at a time may wait.
    pub(super) fn poll_raised(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.raised.replace(false) {
            return Poll::Ready(());
        }
        let waker = match self.waiting.take() {
            Some(waker) if waker.will_wake(cx.waker()) => waker,
            _ => cx.waker().clone(),
        };
        self.waiting.set(Some(waker));
        Poll::Pending
    }

    pub(super) async fn raised(&self) {
        poll_fn(|cx| self.poll_raised(cx)).await;
    }
}
