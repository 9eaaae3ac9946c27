//! ConnectRequest and ConnectResponse, the only packets without a header (rows C2-C4, C10, C11).

use crate::{
    ids::{SessionId, Zxid},
    jute::{self, DecodeError, Decoder},
};
use bytes::BufMut;

/// Bytes of a session password (C11: the C client hard-codes them).
pub const PASSWORD_BYTES: usize = 16;

/// The client's first packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectRequest<'a> {
    /// Ignored by every server; clients send 0.
    pub protocol_version: i32,
    /// The newest zxid that the client has seen (C6).
    pub last_zxid_seen: Zxid,
    /// Wanted session timeout, milliseconds.
    pub timeout_ms: i32,
    /// Session to resume, or 0 for a new one.
    pub session: SessionId,
    /// Password of that session; null reads as empty.
    pub password: &'a [u8],
    /// Whether a read-only server would do; `None` if the client does not know the field (C4).
    pub read_only: Option<bool>,
}

impl<'a> ConnectRequest<'a> {
    /// Reads the five fields and, if a byte is left, the sixth.
    pub fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            protocol_version: decoder.i32("ConnectRequest.protocolVersion")?,
            last_zxid_seen: Zxid(decoder.i64("ConnectRequest.lastZxidSeen")?),
            timeout_ms: decoder.i32("ConnectRequest.timeOut")?,
            session: SessionId(decoder.i64("ConnectRequest.sessionId")?),
            password: decoder.buffer("ConnectRequest.passwd")?.unwrap_or_default(),
            read_only: match decoder.remaining() {
                0 => None,
                _ => Some(decoder.bool("ConnectRequest.readOnly")?),
            },
        })
    }

    /// Writes the fields, without a frame.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_i32(self.protocol_version);
        out.put_i64(self.last_zxid_seen.0);
        out.put_i32(self.timeout_ms);
        out.put_i64(self.session.0);
        jute::put_buffer(out, Some(self.password));
        if let Some(read_only) = self.read_only {
            jute::put_bool(out, read_only);
        }
    }
}

/// The server's first packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectResponse {
    /// Negotiated timeout, milliseconds; 0 refuses the session.
    pub timeout_ms: i32,
    /// The session, 0 if refused.
    pub session: SessionId,
    /// Its password, zeroes if refused.
    pub password: [u8; PASSWORD_BYTES],
    /// Whether this server is read-only; present exactly if the request had the field (C3).
    pub read_only: Option<bool>,
}

impl ConnectResponse {
    /// The refusal of a session (C10): clients read it as "expired".
    pub const fn refused(read_only: Option<bool>) -> Self {
        Self { timeout_ms: 0, session: SessionId(0), password: [0; PASSWORD_BYTES], read_only }
    }

    /// Reads the fields. A password of another length is kept only if it is 16 bytes long, as in every client.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        decoder.i32("ConnectResponse.protocolVersion")?;
        let timeout_ms = decoder.i32("ConnectResponse.timeOut")?;
        let session = SessionId(decoder.i64("ConnectResponse.sessionId")?);
        let at = decoder.clone();
        let password = decoder.buffer("ConnectResponse.passwd")?.unwrap_or_default();
        let password = password.try_into().map_err(|_| {
            at.error(
                "ConnectResponse.passwd",
                jute::Reason::Length(password.len().try_into().unwrap_or(i32::MAX)),
            )
        })?;
        let read_only = match decoder.remaining() {
            0 => None,
            _ => Some(decoder.bool("ConnectResponse.readOnly")?),
        };
        Ok(Self { timeout_ms, session, password, read_only })
    }

    /// Writes the fields, without a frame.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_i32(0);
        out.put_i32(self.timeout_ms);
        out.put_i64(self.session.0);
        jute::put_buffer(out, Some(&self.password));
        if let Some(read_only) = self.read_only {
            jute::put_bool(out, read_only);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(request: &ConnectRequest<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        request.encode(&mut out);
        out
    }

    /// G24: old clients leave out the flag, new sessions come without a password.
    #[test]
    fn the_four_lengths_of_a_connect_request_are_all_read() {
        let base = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid(7),
            timeout_ms: 30_000,
            session: SessionId(-5),
            password: &[3; 16],
            read_only: Some(true),
        };
        for (request, bytes) in [
            (base, 45),
            (ConnectRequest { read_only: None, ..base }, 44),
            (ConnectRequest { password: &[], ..base }, 29),
            (ConnectRequest { password: &[], read_only: None, ..base }, 28),
        ] {
            let out = encoded(&request);
            assert_eq!(out.len(), bytes);
            assert_eq!(ConnectRequest::decode(&mut Decoder::new(&out)), Ok(request));
        }
        let mut null_password = encoded(&ConnectRequest { password: &[], read_only: None, ..base });
        null_password[24..28].copy_from_slice(&[0xff; 4]);
        assert_eq!(ConnectRequest::decode(&mut Decoder::new(&null_password)).unwrap().password, b"");
    }

    #[test]
    fn the_response_carries_the_flag_only_where_the_request_did() {
        for (read_only, bytes) in [(None, 36), (Some(false), 37)] {
            let response =
                ConnectResponse { timeout_ms: 4000, session: SessionId(9), password: [7; 16], read_only };
            let mut out = Vec::new();
            response.encode(&mut out);
            assert_eq!(out.len(), bytes);
            assert_eq!(ConnectResponse::decode(&mut Decoder::new(&out)), Ok(response));
        }
    }
}
