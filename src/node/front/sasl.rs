//! A connection's SASL exchange.

use super::Front;
use super::conn::ConnId;
use crate::jute::{Reader, put_buffer};
use crate::node::link::FrontLink;
use crate::proto::ErrorCode;
use crate::proto::client::OpCode;
use crate::request::auth::is_sasl_required;
use crate::request::auth::sasl::{self, SaslStep};
use crate::types::Zxid;

impl<L: FrontLink> Front<L> {
    /// Takes a token and answers with one (client-protocol §8.5). Source: ZooKeeper `ZooKeeperServer#processSasl`.
    pub(super) fn sasl(&mut self, id: ConnId, xid: i32, body: &[u8]) {
        let Ok(Some(token)) = Reader::new(body).buffer() else { return self.close(id) };
        let Some(users) = self.options.auth.sasl_users.clone() else {
            // As a server without SASL does.
            return self.answer_sasl(id, xid, ErrorCode::Ok, None);
        };
        let (front, counter) = (self.options.index, &mut self.nonces);
        let secret = &self.options.nonce_secret;
        let conn = &mut self.conns[id.0 as usize];
        let step = conn.sasl.get_or_insert_default().evaluate(&sasl::CLIENTS, token, &users, || {
            *counter += 1;
            sasl::nonce(secret, front, *counter)
        });
        match step {
            Ok(SaslStep::Challenge(token)) => self.answer_sasl(id, xid, ErrorCode::Ok, Some(&token)),
            Ok(SaslStep::Done { token, user }) => {
                if !conn.identities.add_sasl(&user, &self.options.auth) {
                    return self.close(id);
                }
                self.answer_sasl(id, xid, ErrorCode::Ok, Some(&token));
            }
            Err(error) => {
                self.counters.auth_failed += 1;
                tracing::debug!(peer = %conn.peer, %error, "a client failed to authenticate by SASL");
                let required = is_sasl_required(&self.options.auth);
                if self.options.auth.allow_sasl_failed && !required {
                    return self.answer_sasl(id, xid, ErrorCode::Ok, None);
                }
                let code =
                    if required { ErrorCode::SessionClosedRequireSaslAuth } else { ErrorCode::AuthFailed };
                self.answer_sasl(id, xid, code, None);
                self.close(id);
            }
        }
    }

    fn answer_sasl(&mut self, id: ConnId, xid: i32, err: ErrorCode, token: Option<&[u8]>) {
        let mut body = Vec::new();
        put_buffer(&mut body, token);
        self.answer(id, xid, Some(OpCode::Sasl), Zxid::ZERO, err, &body);
    }
}
