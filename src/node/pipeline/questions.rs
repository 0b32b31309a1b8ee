//! What the admin server asks: reports gathered like those of four-letter words, permissions, snapshots; and the snapshot
//! of an orderly stop.

use std::collections::VecDeque;

use bytes::Bytes;

use super::surveys::{Asker, Survey};
use super::{Output, Pipeline};
use crate::admin::{Answer, Ask, Credentials, Permission, QUESTIONS_MAX, Told, What};
use crate::node::link::{PipelineLink, ToFront};
use crate::proto::Perms;
use crate::request::auth::{AuthOptions, AuthOutcome, Identities, authenticate, check_acl};
use crate::tree::Tree;
use crate::words::{self, Word};

/// The number the last snapshot is asked for under; no question of the admin server has it.
const PARTING: u64 = u64::MAX;

/// Each permission on its own: all of them are wanted.
const ALL_PERMISSIONS: [Perms; 5] = [Perms::READ, Perms::WRITE, Perms::CREATE, Perms::DELETE, Perms::ADMIN];

/// Questions that wait for room towards the fronts, and how far the parting snapshot is.
#[derive(Debug, Default)]
pub(super) struct Questions {
    waiting: VecDeque<Ask>,
    parting: Parting,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Parting {
    #[default]
    Not,
    Asked,
    Over,
}

impl Questions {
    /// Whoever asks keeps to [`QUESTIONS_MAX`].
    pub fn push(&mut self, ask: Ask) {
        assert!(self.waiting.len() < QUESTIONS_MAX, "more than {QUESTIONS_MAX} questions at once");
        assert!(ask.number != PARTING, "that number is taken");
        self.waiting.push_back(ask);
    }

    /// The last snapshot has begun: nothing may change any more.
    pub fn is_parting(&self) -> bool {
        self.parting != Parting::Not
    }
}

impl<L: PipelineLink> Pipeline<L> {
    /// Takes up questions as long as the fronts can be asked.
    pub(super) fn ask_waiting(&mut self) {
        while !self.questions.waiting.is_empty() {
            if !self.has_room() {
                self.has_more = true;
                return;
            }
            let Ask { number, what } = self.questions.waiting.pop_front().expect("there is one");
            match what {
                What::Report { word, argument } => {
                    self.begin_survey(Asker::Admin { number }, word, argument);
                }
                What::Permission(credentials) => {
                    let permission =
                        permission(&self.database.tree, &credentials, &self.options.prepare.auth);
                    self.answer_admin(number, Answer::Permission(permission));
                }
                What::Snapshot => self.snapshots.ask(number, self.database.zxid_applied()),
            }
        }
    }

    pub(super) fn begin_survey(&mut self, asker: Asker, word: Word, argument: i64) {
        let survey = self.surveys.begin(asker, word, argument);
        for link in &mut self.links {
            link.push(ToFront::Survey { survey, word });
        }
    }

    pub(super) fn end_survey(&mut self, survey: Survey) {
        let (asker, word) = (survey.asker, survey.word);
        let standing = self.standing(word == Word::Dump);
        let report = self.surveys.report(survey, standing, &self.database, self.now);
        match asker {
            Asker::Client { front, conn } => {
                let text = words::answer(word, &self.options.facts, &report);
                self.links[front].push(ToFront::Text { conn, text: Bytes::from(text) });
            }
            Asker::Admin { number } => self.answer_admin(number, Answer::Report(Box::new(report))),
        }
    }

    /// Hands out what became of the snapshots that were asked for.
    pub(super) fn tell_snapshots(&mut self) {
        for (number, result) in self.snapshots.take_told() {
            if number == PARTING {
                // A failure was told where it happened. The log has everything, so the stop goes on.
                self.questions.parting = Parting::Over;
            } else {
                self.answer_admin(number, Answer::Snapshot(result));
            }
        }
    }

    /// Asked once all is applied that was proposed: whether the stop needs to wait no longer for its snapshot.
    pub(super) fn has_parted(&mut self) -> bool {
        if self.options.snapshot_on_stop && self.questions.parting == Parting::Not {
            self.questions.parting = Parting::Asked;
            self.snapshots.ask(PARTING, self.database.zxid_applied());
            self.has_more = true;
        }
        self.questions.parting != Parting::Asked
    }

    fn answer_admin(&mut self, number: u64, answer: Answer) {
        self.owed.push(Output::Told(Told { number, answer }));
    }
}

/// Source: ZooKeeper `Commands#handleAuthentication`, `Commands#handleAuthorization`.
fn permission(tree: &Tree, credentials: &Credentials, options: &AuthOptions) -> Permission {
    let Credentials { scheme, data, peer } = credentials;
    let mut identities = Identities::new(*peer);
    // The others show nothing by themselves.
    let accepted = matches!(scheme.as_str(), "ip" | "digest")
        && authenticate(Some(scheme), data.as_deref(), &mut identities, options) == AuthOutcome::Ok;
    if !accepted {
        return Permission::NotAuthenticated;
    }
    let root = tree.find("/").expect("every tree has a root");
    let acl = tree.acl_list(tree.acl(root));
    let all = ALL_PERMISSIONS.into_iter().all(|wanted| check_acl(acl, wanted, &identities, options));
    if all { Permission::Granted } else { Permission::NotAuthorized }
}
