//! zkfast.
