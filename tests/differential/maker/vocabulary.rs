//! The words of which streams are made: paths, good and bad, and texts of quotas.

/// Names below the stream's root. Few and short, so that operations meet.
pub const VALID: &[&str] = &[
    "",
    "/a",
    "/b",
    "/c",
    "/a/a",
    "/a/b",
    "/a/c",
    "/b/a",
    "/b/b",
    "/a/a/a",
    "/a/a/b",
    "/a/b/a",
    "/c/a",
    "/c/b",
    "/d",
    "/d/a",
    "/ä",
    "/日本",
    "/a b",
    "/s0000000000",
    "/s0000000001",
    "/a/s0000000000",
    "/a/s0000000001",
    "/a/0000000000",
    "/a.",
    "/.a",
    "/a..b",
];
/// Names that are wrong in some way.
pub const INVALID: &[&str] = &[
    "/",
    "/a/",
    "//",
    "/a//b",
    "/.",
    "/..",
    "/a/.",
    "/a/..",
    "/a/../b",
    "/a/./b",
    "a",
    "/a\0",
    "/a\0b",
    "/\u{1}",
    "/a\u{1f}b",
    "/\u{7f}",
    "/\u{9f}",
    "/\u{e000}",
    "/\u{f8ff}",
    "/\u{fff0}",
    "/\u{fffd}",
    "/no/such/node",
    "/\u{1f600}",
];
/// Paths outside the root that can be asked for without harm to the next stream.
pub const OUTSIDE: &[&str] = &[
    "/",
    "/zookeeper",
    "/zookeeper/config",
    "/zookeeper/quota",
    "/zookeeper/none",
    "",
    "a",
    "none/such",
    "//",
];
/// Paths outside the root that every server refuses to change.
pub const PROTECTED: &[&str] =
    &["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota", "/zookeeper/none", "", "a", "a/b", "//"];

/// Below these a stream may set quotas.
pub const UNDER_QUOTA: &[&str] = &["", "/a", "/a/a", "/b"];
/// Texts of limits: soft ones, and from [`SOFT`] on hard ones, which are low enough to be met.
pub const LIMITS: &[&str] = &[
    "count=3,bytes=-1",
    "count=-1,bytes=40",
    "count=100,bytes=100000",
    "count=4,bytes=-1=;byteHardLimit=-1;countHardLimit=6",
    "count=-1,bytes=-1=;byteHardLimit=200;countHardLimit=-1",
    "count=2,bytes=10=;byteHardLimit=6000;countHardLimit=4",
    "count=-1,bytes=-1=;countHardLimit=9",
    "count=20,bytes=500=;byteHardLimit=60",
    "byteHardLimit=90;countHardLimit=12,bytes=1000,count=5",
    "count=0,bytes=0=;byteHardLimit=128;countHardLimit=0",
];
/// How many of [`LIMITS`] are soft.
pub const SOFT: usize = 3;
