//! Results of multi and multiRead (rows T31, T32, OP18).
//!
//! Each result is {MultiHeader, body}; [`put_end`] closes the list. The reply's own header says 0 even when the
//! multi failed.

use crate::{
    error::ErrorCode,
    jute::{self, DecodeError, Decoder, Reason},
    op::OpCode,
    reply,
    request::MultiHeader,
    stat::Stat,
};
use bytes::BufMut;
use std::borrow::Cow;

/// The answer to one part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MultiResult<'a> {
    /// create: the final path.
    Created(Cow<'a, str>),
    /// create2, createContainer and createTTL, which all answer as create2.
    CreatedStat(Cow<'a, str>, Stat),
    /// delete.
    Deleted,
    /// setData.
    DataSet(Stat),
    /// check.
    Checked,
    /// getData, in a multiRead.
    Data(Option<&'a [u8]>, Stat),
    /// getChildren, in a multiRead.
    Children(Vec<Cow<'a, str>>),
    /// The code of this part: 0 before the failing part, its own code at it, -2 behind it.
    Error(ErrorCode),
}

fn put_header(out: &mut impl BufMut, kind: OpCode) {
    MultiHeader { kind: kind.to_i32(), done: false, err: 0 }.encode(out);
}

/// create's result.
pub fn put_created(out: &mut impl BufMut, path: &str) {
    put_header(out, OpCode::Create);
    jute::put_text(out, path);
}

/// create2's, createContainer's and createTTL's result.
pub fn put_created_stat(out: &mut impl BufMut, path: &str, stat: &Stat) {
    put_header(out, OpCode::Create2);
    jute::put_text(out, path);
    stat.encode(out);
}

/// delete's result.
pub fn put_deleted(out: &mut impl BufMut) {
    put_header(out, OpCode::Delete);
}

/// setData's result.
pub fn put_data_set(out: &mut impl BufMut, stat: &Stat) {
    put_header(out, OpCode::SetData);
    stat.encode(out);
}

/// check's result.
pub fn put_checked(out: &mut impl BufMut) {
    put_header(out, OpCode::Check);
}

/// getData's result.
pub fn put_data(out: &mut impl BufMut, data: Option<&[u8]>, stat: &Stat) {
    put_header(out, OpCode::GetData);
    jute::put_buffer(out, data);
    stat.encode(out);
}

/// getChildren's result.
pub fn put_children<'n>(out: &mut Vec<u8>, names: impl Iterator<Item = &'n str>) {
    put_header(out, OpCode::GetChildren);
    reply::put_names(out, names);
}

/// A part's code.
pub fn put_error(out: &mut impl BufMut, code: ErrorCode) {
    MultiHeader { kind: OpCode::Error.to_i32(), done: false, err: code.0 }.encode(out);
    out.put_i32(code.0);
}

/// The end of the list.
pub fn put_end(out: &mut impl BufMut) {
    MultiHeader::END.encode(out);
}

impl<'a> MultiResult<'a> {
    /// Reads all results up to the end mark.
    pub fn decode_list(decoder: &mut Decoder<'a>) -> Result<Vec<Self>, DecodeError> {
        let mut results = Vec::new();
        loop {
            let at = decoder.clone();
            let header = MultiHeader::decode(decoder)?;
            if header.done {
                return Ok(results);
            }
            results.push(match OpCode::from_i32(header.kind) {
                Some(OpCode::Create) => Self::Created(decoder.text("CreateResponse.path")?),
                Some(OpCode::Create2) => {
                    Self::CreatedStat(decoder.text("Create2Response.path")?, Stat::decode(decoder)?)
                }
                Some(OpCode::Delete) => Self::Deleted,
                Some(OpCode::SetData) => Self::DataSet(Stat::decode(decoder)?),
                Some(OpCode::Check) => Self::Checked,
                Some(OpCode::GetData) => {
                    Self::Data(decoder.buffer("GetDataResponse.data")?, Stat::decode(decoder)?)
                }
                Some(OpCode::GetChildren) => Self::Children(decoder.texts("GetChildrenResponse.children")?),
                Some(OpCode::Error) => Self::Error(ErrorCode(decoder.i32("ErrorResponse.err")?)),
                _ => return Err(at.error("MultiHeader.type", Reason::Value(header.kind.into()))),
            });
        }
    }

    /// Writes the results and the end mark.
    pub fn encode_list(results: &[Self], out: &mut Vec<u8>) {
        for result in results {
            match result {
                Self::Created(path) => put_created(out, path),
                Self::CreatedStat(path, stat) => put_created_stat(out, path, stat),
                Self::Deleted => put_deleted(out),
                Self::DataSet(stat) => put_data_set(out, stat),
                Self::Checked => put_checked(out),
                Self::Data(data, stat) => put_data(out, *data, stat),
                Self::Children(names) => put_children(out, names.iter().map(AsRef::as_ref)),
                Self::Error(code) => put_error(out, *code),
            }
        }
        put_end(out);
    }
}
