//! Operation codes (rows OP1-OP31; ZooKeeper's `ZooDefs.OpCode`).

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        /// What a request asks for.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(i32)]
        pub enum OpCode {
            $($(#[$doc])* $name = $value,)*
        }

        impl OpCode {
            /// The operation with this number, if there is one.
            pub const fn from_i32(value: i32) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Every operation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}

ops! {
    /// Create a node; the reply has its path.
    Create = 1;
    /// Delete a node.
    Delete = 2;
    /// Stat of a node that may be absent.
    Exists = 3;
    /// Data and stat.
    GetData = 4;
    /// Replace the data.
    SetData = 5;
    /// ACL and stat.
    GetAcl = 6;
    /// Replace the ACL.
    SetAcl = 7;
    /// Names of the children.
    GetChildren = 8;
    /// Barrier behind the leader's last proposal.
    Sync = 9;
    /// Keep-alive.
    Ping = 11;
    /// Names of the children and stat.
    GetChildren2 = 12;
    /// Version check; only inside a multi.
    Check = 13;
    /// Several writes as one transaction.
    Multi = 14;
    /// Create a node; the reply has path and stat.
    Create2 = 15;
    /// Change the membership.
    Reconfig = 16;
    /// Ask whether a watch is set.
    CheckWatches = 17;
    /// Remove a watch.
    RemoveWatches = 18;
    /// Create a container node.
    CreateContainer = 19;
    /// Reap a container or TTL node; internal.
    DeleteContainer = 20;
    /// Create a TTL node.
    CreateTtl = 21;
    /// Several reads in one request.
    MultiRead = 22;
    /// Add an identity to the connection.
    Auth = 100;
    /// Re-register one-shot watches.
    SetWatches = 101;
    /// SASL token.
    Sasl = 102;
    /// Ephemerals of the own session.
    GetEphemerals = 103;
    /// Number of descendants.
    GetAllChildrenNumber = 104;
    /// Re-register watches of every mode.
    SetWatches2 = 105;
    /// Add a persistent watch.
    AddWatch = 106;
    /// Identities of the connection.
    WhoAmI = 107;
    /// Session creation; internal.
    CreateSession = -10;
    /// End of a session.
    CloseSession = -11;
    /// Failed transaction; internal.
    Error = -1;
}

impl OpCode {
    /// The number on the wire.
    pub const fn to_i32(self) -> i32 {
        self as i32
    }

    /// Whether a client's request of this kind becomes a transaction (column "Q" of section 2.2).
    pub const fn is_write(self) -> bool {
        matches!(
            self,
            Self::Create
                | Self::Create2
                | Self::CreateContainer
                | Self::CreateTtl
                | Self::Delete
                | Self::SetData
                | Self::SetAcl
                | Self::Multi
                | Self::Reconfig
                | Self::CloseSession
        )
    }
}
