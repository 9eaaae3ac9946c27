//! Who a client is: auth packets and what they prove (rows A1-A6, A18, A19, A21, C21).

use super::{
    connection::Connection,
    core::{Core, write_reply},
};
use crate::config::protection::DigestAlgorithm;
use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};
use sha2::{Sha224, Sha256, Sha384, Sha512};
use std::{borrow::Cow, sync::Arc};
use zkfast_wire::{Decoder, ErrorCode, Id, OpCode, ReplyHeader, Request, RequestHeader, Xid, Zxid, jute};

/// The identity that `user:password` proves: the user and a digest of the whole (A4).
///
/// Bytes that are no UTF-8 are read as Java's `new String(bytes)` reads them.
pub fn digest_identity(credentials: &[u8], algorithm: DigestAlgorithm) -> String {
    let text = String::from_utf8_lossy(credentials);
    let user = text.split(':').next().unwrap_or_default();
    let digest = match algorithm {
        DigestAlgorithm::Sha1 => STANDARD.encode(Sha1::digest(text.as_bytes())),
        DigestAlgorithm::Sha224 => STANDARD.encode(Sha224::digest(text.as_bytes())),
        DigestAlgorithm::Sha256 => STANDARD.encode(Sha256::digest(text.as_bytes())),
        DigestAlgorithm::Sha384 => STANDARD.encode(Sha384::digest(text.as_bytes())),
        DigestAlgorithm::Sha512 => STANDARD.encode(Sha512::digest(text.as_bytes())),
    };
    format!("{user}:{digest}")
}

/// The name that whoAmI shows for an identity: without the digest's secret part (OP29).
pub fn user_name(id: &Id<'_>) -> String {
    match &*id.scheme {
        "digest" => id.id.split(':').next().unwrap_or_default().to_owned(),
        _ => id.id.clone().into_owned(),
    }
}

impl Core {
    /// Answers an auth packet at once, ahead of what is outstanding.
    pub(super) fn authenticate(&mut self, connection: &mut Connection, xid: Xid, body: &[u8]) {
        let Ok(Request::Auth(request)) = Request::decode(OpCode::Auth, &mut Decoder::new(body)) else {
            log::warn!("Closing {}: an auth packet cannot be read.", connection.name());
            self.counters.connections_dropped.increment();
            return connection.kill();
        };
        let proved = match (&*request.scheme, request.auth) {
            ("digest", Some(credentials)) if self.options.digest_enabled => {
                let id = digest_identity(credentials, self.options.digest_algorithm);
                let is_super = self.options.super_digest.as_deref() == Some(&*id);
                let own = Id { scheme: Cow::Borrowed("digest"), id: Cow::Owned(id) };
                // A6: the one who knows the password behind `superDigest` may do everything.
                let more = is_super.then_some(Id::new("super", ""));
                Some(more.into_iter().chain([own]).collect::<Vec<_>>())
            }
            // The address is proved already.
            ("ip", _) => Some(Vec::new()),
            _ => None,
        };
        match proved {
            Some(ids) => {
                let mut identities = connection.identities.to_vec();
                for id in ids {
                    if !identities.contains(&id) {
                        identities.push(id);
                    }
                }
                connection.outstanding.keep_identities(&connection.identities);
                connection.identities = Arc::from(identities);
                self.reply_outside(connection, xid, ErrorCode::OK, |_| {});
            }
            None => {
                self.counters.auth_failed.increment();
                log::warn!(
                    "Closing {}: authentication failed, scheme {:?}.",
                    connection.name(),
                    request.scheme
                );
                self.reply_outside(connection, xid, ErrorCode::AUTH_FAILED, |_| {});
                self.end(connection);
            }
        }
    }

    /// A21: without a SASL configuration a token is answered by a null token, and the client goes on without.
    /// Without even a token the connection ends, as with Apache.
    pub(super) fn answer_sasl(&mut self, connection: &mut Connection, xid: Xid, body: &[u8]) {
        let Ok(Request::Sasl(Some(_))) = Request::decode(OpCode::Sasl, &mut Decoder::new(body)) else {
            log::warn!("Closing {}: a SASL packet has no token.", connection.name());
            self.counters.connections_dropped.increment();
            return connection.kill();
        };
        self.reply_outside(connection, xid, ErrorCode::OK, |out| jute::put_buffer(out, None));
    }

    /// A18: whether the connection may ask for anything but authentication.
    pub(super) fn may_ask(&self, connection: &Connection, op: Option<OpCode>) -> bool {
        self.options.enforced_schemes.is_empty()
            || matches!(op, Some(OpCode::Auth | OpCode::Sasl))
            || connection
                .identities
                .iter()
                .any(|id| self.options.enforced_schemes.iter().any(|one| *one == id.scheme))
    }

    pub(super) fn refuse_unauthenticated(&mut self, connection: &mut Connection, header: RequestHeader) {
        log::warn!("Closing {}: it has not authenticated, as enforce.auth.schemes asks.", connection.name());
        self.reply_outside(connection, header.xid, ErrorCode::SESSION_CLOSED_REQUIRE_AUTH, |_| {});
        self.end(connection);
    }

    /// A reply outside the order of requests, which carries zxid 0 (C16).
    fn reply_outside(
        &mut self,
        connection: &mut Connection,
        xid: Xid,
        err: ErrorCode,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        let header = ReplyHeader { xid, zxid: Zxid::ZERO, err };
        write_reply(&mut self.spare, &self.counters, connection, header, body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest of Apache's documentation and of zkCli's `addauth digest user1:password1`.
    #[test]
    fn digests_are_those_that_acls_name() {
        let sha1 = |text: &[u8]| digest_identity(text, DigestAlgorithm::Sha1);
        assert_eq!(sha1(b"super:test"), "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
        assert_eq!(sha1(b"user1:password1"), "user1:XDkd2dsEuhc9ImU3q8pa8UOdtpI=");
        assert!(sha1(b"nocolon").starts_with("nocolon:"));
        // The user ends at the first colon (A4), or no list could name him (A5).
        let several = sha1(b"bob:pass:word");
        assert_eq!(several.split(':').collect::<Vec<_>>(), ["bob", "SPSPLmKW+966THWzDOL2lGAgURQ="]);
        // By `printf user1:password1 | openssl dgst -sha256 -binary | base64`.
        let sha256 = digest_identity(b"user1:password1", DigestAlgorithm::Sha256);
        assert_eq!(sha256, "user1:5H+turoKCWLiKx8hdFikQWYmkXyXEGaXljKFRfuNMIE=");
    }

    #[test]
    fn who_am_i_keeps_secrets() {
        assert_eq!(user_name(&Id::new("digest", "bob:secret=")), "bob");
        assert_eq!(user_name(&Id::new("ip", "::1")), "::1");
    }
}
