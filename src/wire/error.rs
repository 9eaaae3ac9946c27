//! Reply codes (rows E1-E34; ZooKeeper's `KeeperException.Code`).

/// The `err` field of a reply. 0 is success.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(pub i32);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl ErrorCode {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The name that operators know the code by.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($value => $text,)*
                    _ => "unknown code",
                }
            }
        }
    };
}

codes! {
    /// Success.
    OK = 0, "OK";
    /// Something that the client cannot help: the log's disk is full.
    SYSTEM_ERROR = -1, "SYSTEMERROR";
    /// An operation after the failing one of a multi.
    RUNTIME_INCONSISTENCY = -2, "RUNTIMEINCONSISTENCY";
    /// The body cannot be parsed.
    MARSHALLING_ERROR = -5, "MARSHALLINGERROR";
    /// Unknown or disabled operation.
    UNIMPLEMENTED = -6, "UNIMPLEMENTED";
    /// Bad path, flags or TTL.
    BAD_ARGUMENTS = -8, "BADARGUMENTS";
    /// No synced quorum of the new config.
    NEW_CONFIG_NO_QUORUM = -13, "NEWCONFIGNOQUORUM";
    /// Another reconfig is pending.
    RECONFIG_IN_PROGRESS = -14, "RECONFIGINPROGRESS";
    /// The node does not exist.
    NO_NODE = -101, "NONODE";
    /// The ACL refuses.
    NO_AUTH = -102, "NOAUTH";
    /// Version mismatch.
    BAD_VERSION = -103, "BADVERSION";
    /// The parent is ephemeral.
    NO_CHILDREN_FOR_EPHEMERALS = -108, "NOCHILDRENFOREPHEMERALS";
    /// The node exists already.
    NODE_EXISTS = -110, "NODEEXISTS";
    /// delete of a node with children.
    NOT_EMPTY = -111, "NOTEMPTY";
    /// Write on an expired or closing session.
    SESSION_EXPIRED = -112, "SESSIONEXPIRED";
    /// Empty list, unknown scheme, bad id, `auth` without identity.
    INVALID_ACL = -114, "INVALIDACL";
    /// Refused auth packet; the connection closes.
    AUTH_FAILED = -115, "AUTHFAILED";
    /// The session lives on another server now.
    SESSION_MOVED = -118, "SESSIONMOVED";
    /// Write on a read-only server.
    NOT_READ_ONLY = -119, "NOTREADONLY";
    /// Ephemeral on a local session.
    EPHEMERAL_ON_LOCAL_SESSION = -120, "EPHEMERALONLOCALSESSION";
    /// No such watch.
    NO_WATCHER = -121, "NOWATCHER";
    /// `reconfigEnabled=false`.
    RECONFIG_DISABLED = -123, "RECONFIGDISABLED";
    /// Enforced authentication is missing.
    SESSION_CLOSED_REQUIRE_AUTH = -124, "SESSIONCLOSEDREQUIRESASLAUTH";
    /// Hard quota.
    QUOTA_EXCEEDED = -125, "QUOTAEXCEEDED";
    /// Waited longer than `throttled_op_wait_time`.
    THROTTLED_OP = -127, "THROTTLEDOP";
}

impl ErrorCode {
    /// Whether this is success.
    pub const fn is_ok(self) -> bool {
        self.0 == 0
    }
}

impl std::fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}
