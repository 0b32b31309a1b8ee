//! Names of servers, looked up off the core: a resolver may take many seconds.
//!
//! Every dial asks anew, because addresses change; who asks for a name that is being looked up waits for the same answer. An address
//! that was good once is used where the resolver fails or is slow.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use hashbrown::HashMap;

use crate::io::Bell;

/// Lookups under way at once, each on a thread of its own.
const LOOKUPS_MAX: usize = 8;
/// Names whose last address is kept; there are at most 255 servers.
const KNOWN_MAX: usize = 1024;
/// Addresses of one name that are tried.
pub(super) const ADDRESSES_MAX: usize = 8;
/// How long a lookup may take before an older answer is used.
const PATIENCE: Duration = Duration::from_secs(1);

/// Addresses, or what the resolver said.
type Answer = Result<Vec<IpAddr>, String>;

/// The core's side of all lookups.
pub(super) struct Names {
    bell: Arc<Bell>,
    answers: Arc<Mutex<Vec<(String, Answer)>>>,
    /// Asked for and not answered.
    lookups: RefCell<HashMap<String, Rc<Lookup>>>,
    /// Those of them that have no thread yet.
    waiting: RefCell<VecDeque<String>>,
    running: Cell<usize>,
    known: RefCell<HashMap<String, Vec<IpAddr>>>,
}

#[derive(Default)]
struct Lookup {
    answer: RefCell<Option<Answer>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Names {
    pub(super) fn new(bell: Arc<Bell>) -> Names {
        Names {
            bell,
            answers: Arc::default(),
            lookups: RefCell::default(),
            waiting: RefCell::default(),
            running: Cell::new(0),
            known: RefCell::default(),
        }
    }

    /// The addresses of a host, those of the older family first, as Java has them.
    pub(super) async fn lookup(&self, host: &str) -> Answer {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        let lookup = self.ask(host);
        let known = self.known.borrow().get(host).cloned();
        let has_older = known.is_some();
        let mut patience = pin!(async move {
            match has_older {
                true => monoio::time::sleep(PATIENCE).await,
                false => std::future::pending().await,
            }
        });
        let answer = poll_fn(|cx| {
            if let Some(answer) = &*lookup.answer.borrow() {
                return Poll::Ready(Some(answer.clone()));
            }
            if patience.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            let mut waiting = lookup.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
        match (answer, known) {
            (Some(Ok(addresses)), _) | (_, Some(addresses)) => Ok(addresses),
            (Some(Err(reason)), None) => Err(reason),
            (None, None) => unreachable!("without an older answer there is no end to patience"),
        }
    }

    fn ask(&self, host: &str) -> Rc<Lookup> {
        if let Some(lookup) = self.lookups.borrow().get(host) {
            return lookup.clone();
        }
        let lookup = Rc::new(Lookup::default());
        self.lookups.borrow_mut().insert(host.to_owned(), lookup.clone());
        self.waiting.borrow_mut().push_back(host.to_owned());
        self.start_more();
        lookup
    }

    fn start_more(&self) {
        while self.running.get() < LOOKUPS_MAX {
            let Some(host) = self.waiting.borrow_mut().pop_front() else { return };
            let (answers, bell, name) = (self.answers.clone(), self.bell.clone(), host.clone());
            let started = std::thread::Builder::new().name("resolver".to_owned()).spawn(move || {
                let answer = resolve(&name);
                answers.lock().unwrap_or_else(PoisonError::into_inner).push((name, answer));
                bell.ring_always();
            });
            match started {
                Ok(_) => self.running.set(self.running.get() + 1),
                Err(error) => self.answered(&host, Err(format!("no thread to look it up: {error}"))),
            }
        }
    }

    /// Takes what the threads found out and wakes who waits for it.
    pub(super) fn collect(&self) {
        if self.running.get() == 0 {
            return;
        }
        let answers = std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner));
        for (host, answer) in answers {
            self.running.set(self.running.get() - 1);
            self.answered(&host, answer);
        }
        self.start_more();
    }

    fn answered(&self, host: &str, answer: Answer) {
        if let Ok(addresses) = &answer {
            let mut known = self.known.borrow_mut();
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            known.insert(host.to_owned(), addresses.clone());
        }
        if let Some(lookup) = self.lookups.borrow_mut().remove(host) {
            *lookup.answer.borrow_mut() = Some(answer);
            lookup.waiting.borrow_mut().drain(..).for_each(Waker::wake);
        }
    }

    /// Lets go of everybody who waits.
    pub(super) fn stop(&self) {
        self.waiting.borrow_mut().clear();
        let hosts: Vec<String> = self.lookups.borrow().keys().cloned().collect();
        for host in hosts {
            self.answered(&host, Err("the server stops".to_owned()));
        }
    }
}

/// Asks the system, which may take its time.
pub(super) fn resolve(host: &str) -> Answer {
    let all = |addresses: io::Result<std::vec::IntoIter<SocketAddr>>| {
        addresses.map(|addresses| addresses.map(|address| address.ip()).collect::<Vec<IpAddr>>())
    };
    let mut addresses = all((host, 0).to_socket_addrs()).map_err(|error| error.to_string())?;
    // Stable: within a family the system knows best.
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    if addresses.is_empty() { Err("the name has no address".to_owned()) } else { Ok(addresses) }
}
