//! Questions of threads beside the data path to the pipeline, and its answers.
//!
//! Whoever asks waits; the pipeline's core takes questions up at the beginning of a turn and hands answers over at its
//! end, and waits for nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use crate::admin::{Answer, Ask, QUESTIONS_MAX, Told, What};
use crate::io::Bell;

/// How long a snapshot may take. Whoever asked for one may leave earlier; it is made nevertheless.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(3600);
/// How long anything else may take.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Asks the pipeline. Clones share its room for questions.
#[derive(Clone)]
pub(super) struct Questioner {
    questions: SyncSender<Question>,
    bell: Arc<Bell>,
}

struct Question {
    what: What,
    answer: SyncSender<Answer>,
}

impl Questioner {
    /// `bell` is the pipeline core's.
    pub(super) fn new(bell: Arc<Bell>) -> (Questioner, Questions) {
        let (questions, inbox) = sync_channel(QUESTIONS_MAX);
        let inbox = Questions { inbox, asked: BTreeMap::new(), next: 0 };
        (Questioner { questions, bell }, inbox)
    }

    /// Waits for the answer. `None`: too much is asked already, or the pipeline does not answer in time or any more.
    pub(super) fn ask(&self, what: What) -> Option<Answer> {
        let wait = if what == What::Snapshot { SNAPSHOT_WAIT } else { ANSWER_WAIT };
        let (answer, answered) = sync_channel(1);
        match self.questions.try_send(Question { what, answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return None,
        }
        self.bell.ring_always();
        answered.recv_timeout(wait).ok()
    }
}

/// The pipeline core's end.
pub(super) struct Questions {
    inbox: Receiver<Question>,
    asked: BTreeMap<u64, SyncSender<Answer>>,
    next: u64,
}

impl Questions {
    /// The next question, while fewer than [`QUESTIONS_MAX`] have no answer yet.
    pub(super) fn take(&mut self) -> Option<Ask> {
        if self.asked.len() == QUESTIONS_MAX {
            return None;
        }
        let Question { what, answer } = self.inbox.try_recv().ok()?;
        self.next += 1;
        self.asked.insert(self.next, answer);
        Some(Ask { number: self.next, what })
    }

    /// Passes an answer on.
    pub(super) fn told(&mut self, told: Told) {
        if let Some(answer) = self.asked.remove(&told.number) {
            // Whoever asked may have given up.
            let _ = answer.try_send(told.answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Permission;
    use crate::words::Word;

    const WHAT: What = What::Report { word: Word::Ruok, argument: 0 };

    #[test]
    fn answers_find_whoever_asked() {
        let (questioner, mut questions) = Questioner::new(Arc::new(Bell::new().unwrap()));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let questioner = questioner.clone();
                std::thread::spawn(move || questioner.ask(WHAT))
            })
            .collect();
        let mut numbers = Vec::new();
        while numbers.len() < 3 {
            match questions.take() {
                Some(ask) => numbers.push(ask.number),
                None => std::thread::yield_now(),
            }
        }
        for number in numbers {
            questions.told(Told { number, answer: Answer::Permission(Permission::Granted) });
        }
        // An answer nobody waits for.
        questions.told(Told { number: 99, answer: Answer::Permission(Permission::Granted) });
        for thread in threads {
            assert!(matches!(thread.join().unwrap(), Some(Answer::Permission(Permission::Granted))));
        }
        drop(questions);
        assert!(questioner.ask(WHAT).is_none());
    }

    #[test]
    fn questions_are_bounded() {
        let (questioner, mut questions) = Questioner::new(Arc::new(Bell::new().unwrap()));
        for _ in 0..QUESTIONS_MAX {
            let (answer, _) = sync_channel(1);
            questioner.questions.try_send(Question { what: WHAT, answer }).unwrap();
        }
        assert!(questioner.ask(WHAT).is_none());
        let numbers: Vec<u64> = std::iter::from_fn(|| questions.take()).map(|ask| ask.number).collect();
        assert_eq!(numbers.len(), QUESTIONS_MAX);
        let (answer, _) = sync_channel(1);
        questioner.questions.try_send(Question { what: WHAT, answer }).unwrap();
        assert!(questions.take().is_none());
        questions.told(Told { number: numbers[0], answer: Answer::Permission(Permission::Granted) });
        assert!(questions.take().is_some());
    }
}
