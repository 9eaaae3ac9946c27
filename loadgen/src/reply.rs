//! A reply as the loads see it: its header read, its body left in the read buffer until somebody asks.

use zkfast_wire::{
    ErrorCode, Xid, Zxid,
    jute::{DecodeError, Decoder},
    reply::ReplyHeader,
    request::MultiHeader,
};

/// A reply or event: its header and the body behind it.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The request's number, or -1 for an event, -2 for a ping.
    pub xid: Xid,
    /// Last transaction that the server had applied.
    pub zxid: Zxid,
    /// 0 is success.
    pub code: ErrorCode,
    /// What follows the header.
    pub body: &'a [u8],
}

impl<'a> Reply<'a> {
    /// Reads the header of one frame's payload.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(payload);
        let ReplyHeader { xid, zxid, err } = ReplyHeader::decode(&mut decoder)?;
        Ok(Self { xid, zxid, code: err, body: decoder.rest() })
    }

    /// The code of the first part of a multi that failed: a failed multi has a successful header (T31).
    pub fn multi_code(&self) -> Result<ErrorCode, DecodeError> {
        if !self.code.is_ok() {
            return Ok(self.code);
        }
        let mut decoder = Decoder::new(self.body);
        let first = MultiHeader::decode(&mut decoder)?;
        if first.done || first.kind != -1 {
            return Ok(ErrorCode::OK);
        }
        let mut code = ErrorCode(decoder.i32("ErrorResult.err")?);
        // Parts before the failed one say 0, those behind it RUNTIMEINCONSISTENCY.
        while code.is_ok() || code == ErrorCode::RUNTIME_INCONSISTENCY {
            let header = MultiHeader::decode(&mut decoder)?;
            if header.done {
                break;
            }
            code = ErrorCode(decoder.i32("ErrorResult.err")?);
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;

    fn multi(codes: &[i32]) -> Vec<u8> {
        let mut out = Vec::new();
        for code in codes {
            MultiHeader { kind: -1, done: false, err: *code }.encode(&mut out);
            out.put_i32(*code);
        }
        MultiHeader::END.encode(&mut out);
        out
    }

    /// A failed multi whose header says 0 must not be counted as a success.
    #[test]
    fn a_failed_multi_is_seen() {
        for (codes, expected) in [(vec![0, -103, -2], -103), (vec![-101, -2], -101), (vec![-2], -2)] {
            let body = multi(&codes);
            let reply = Reply { xid: Xid(1), zxid: Zxid(5), code: ErrorCode::OK, body: &body };
            assert_eq!(reply.multi_code().unwrap(), ErrorCode(expected), "{codes:?}");
        }
        let end = multi(&[]);
        let reply = Reply { xid: Xid(1), zxid: Zxid(5), code: ErrorCode::OK, body: &end };
        assert!(reply.multi_code().unwrap().is_ok());
    }
}
