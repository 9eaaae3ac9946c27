#![forbid(unsafe_code)]
//! The replicated state: znodes, sessions, ACLs.
