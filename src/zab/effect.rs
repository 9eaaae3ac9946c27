//! What the order asks of its driver. The driver carries effects out in the order of the list, and decides nothing.

use crate::event::LinkId;
use bytes::Bytes;
use zkfast_wire::{Epoch, Notification, Packet, ServerId, SessionId, Zxid, quorum::ForwardedRequest};

/// The two epochs that outlive a server (Q71).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum EpochFile {
    /// `acceptedEpoch`: no leader of an older epoch will be followed.
    Accepted,
    /// `currentEpoch`: the log holds the history that this epoch began with.
    Current,
}

/// What a server is to its clients while it serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// It orders writes itself.
    Leading,
    /// It forwards writes to the leader, and votes.
    Following,
    /// It forwards writes, without a vote.
    Observing,
}

/// Why a server gave up a link or a role. Each has one line in the log and one counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
pub enum Trouble {
    /// The server has just started.
    #[error("started")]
    Started,
    /// The connection broke.
    #[error("the link is down")]
    LinkDown,
    /// Nothing was heard for the time that the phase allows.
    #[error("nothing heard in time")]
    Silent,
    /// A proposal was not acknowledged within syncLimit.
    #[error("a proposal is unacknowledged for longer than syncLimit")]
    Lagging,
    /// The leader could not be reached.
    #[error("the leader cannot be reached")]
    Unreachable,
    /// The other side speaks a packet that has no place in this phase.
    #[error("a packet that has no place in this phase")]
    OutOfPhase,
    /// A transaction, or a commit, does not follow on the last one.
    #[error("a gap in the order")]
    Gap,
    /// The leader's epoch is older than one already accepted.
    #[error("the leader's epoch is older than one already accepted")]
    OldEpoch,
    /// An accepted epoch is the last one that zxids have room for, or none at all: no leader can follow on it.
    #[error("acceptedEpoch leaves no epoch for another leader")]
    EpochsUsedUp,
    /// The follower has a history that this prospective leader lacks (Q47).
    #[error("the follower is ahead of the leader")]
    FollowerAhead,
    /// The follower runs a newer configuration than the leader (Q47).
    #[error("the follower's configuration is newer than the leader's")]
    ConfigAhead,
    /// TRUNC names a transaction that this log does not hold.
    #[error("asked to cut the log at a transaction that it does not hold")]
    CutOutsideHistory,
    /// Too few voters came, or acknowledged, within initLimit.
    #[error("no quorum within initLimit")]
    NoQuorum,
    /// Voters who had elected this server vote for another one, and too few are left.
    #[error("its voters have changed their minds")]
    Outvoted,
    /// Too few voters were heard from within syncLimit.
    #[error("a quorum of followers is lost")]
    QuorumLost,
    /// TRUNC names a transaction that only a snapshot could tell: the next attempt asks for an image.
    #[error("asked to cut the log below its oldest snapshot")]
    CutBelowSnapshot,
    /// The leader's disk has no room for the log, and the others' may have (ZOOKEEPER-2247).
    #[error("this leader's disk is full")]
    DiskFull,
    /// The leader's disk has not completed a write for syncLimit (ZOOKEEPER-2247).
    #[error("this leader's disk hangs")]
    DiskHangs,
    /// The counter of the epoch is used up (ZOOKEEPER-1277).
    #[error("the zxid counter of this epoch is used up")]
    Rollover,
    /// The server does not lead, or not any more.
    #[error("not the leader")]
    NotLeading,
    /// The same server came in on another link.
    #[error("superseded by a newer link of the same server")]
    Superseded,
    /// Another server introduced itself with this server's number.
    #[error("another server has this server's myid")]
    SameServer,
    /// The history that a learner waits for was purged.
    #[error("the history that the learner needs was purged")]
    HistoryGone,
    /// More observers are brought up to date than the configuration allows at once (Q78).
    #[error("too many observers are brought up to date at once; it will come back")]
    TooManyTransfers,
    /// More links, or more pending syncs, than the bound.
    #[error("too many")]
    TooMany,
}

/// Something that must be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    // The disk and the tree.
    /// Append this record to the log; answer with [`Event::Durable`](crate::Event::Durable) once a flush covered it.
    /// Keep it at hand until it is applied.
    Append {
        /// Its place in the order, always above everything appended before.
        zxid: Zxid,
        /// The bytes to log.
        record: Bytes,
    },
    /// Every transaction through this one is committed: apply, in order, what is not applied yet.
    Commit {
        /// The last committed transaction; everything appended through it is committed with it.
        through: Zxid,
    },
    /// Apply through this one as recovery does, for nobody is served yet: it belongs to the history that this server
    /// shares with its leader, or starts to lead with. Unlike a commit, a later [`Effect::Truncate`] may take it back.
    Replay {
        /// The last transaction to apply.
        through: Zxid,
    },
    /// Cut the log after `zxid`. Wait for a flush in flight first and drop its completion. If the tree has applied
    /// more, rebuild it from snapshot and log; no snapshot above `zxid` may survive (ZOOKEEPER-1549). The next event is
    /// [`Event::Truncated`](crate::Event::Truncated): every other waits, or the server would stand for what it is
    /// cutting off. If it cannot be done, end the process (ZOOKEEPER-3701).
    Truncate {
        /// The last record to keep.
        zxid: Zxid,
    },
    /// An image follows raw on this link. Read it beside the tree that is there, writing it to a temporary snapshot
    /// file; if the link ends before the signature, drop it. When it is complete, let every other event wait, and:
    /// sync the temporary file; cut the log after `zxid`; rename the snapshot and sync the directory; delete snapshots
    /// above `zxid`; let it be the tree; deliver [`Event::Installed`](crate::Event::Installed). A crash in between leaves the old state or a prefix
    /// of it, never a mixture (ZOOKEEPER-2872, 3642).
    Install {
        /// Where the image comes from.
        link: LinkId,
        /// Its zxid.
        zxid: Zxid,
    },
    /// Write an epoch file: temporary file, sync, rename, sync of the directory. Answer with
    /// [`Event::EpochSaved`](crate::Event::EpochSaved).
    SaveEpoch {
        /// Which file.
        file: EpochFile,
        /// What to write.
        epoch: Epoch,
    },

    // Learner links.
    /// Connect to this server's quorum port, resolving its name anew; answer with Up or DialFailed.
    Dial {
        /// Whom.
        leader: ServerId,
    },
    /// Close this link, what is queued for it included. Its Down may come, or not.
    Close {
        /// Which.
        link: LinkId,
        /// For the log line.
        because: Trouble,
    },
    /// Queue this packet on a link.
    Send {
        /// Which.
        link: LinkId,
        /// What.
        packet: Packet,
    },
    /// Queue an ACK for each zxid of this run.
    SendAcks {
        /// The leader's link.
        link: LinkId,
        /// The first, of one epoch with `last`.
        first: Zxid,
        /// The last.
        last: Zxid,
    },
    /// Queue a COMMIT for each zxid of this run.
    SendCommits {
        /// A follower's link.
        link: LinkId,
        /// The first, of one epoch with `last`.
        first: Zxid,
        /// The last.
        last: Zxid,
    },
    /// Queue an INFORM with its record for each zxid of this run.
    SendInforms {
        /// An observer's link.
        link: LinkId,
        /// The first, of one epoch with `last`.
        first: Zxid,
        /// The last.
        last: Zxid,
    },
    /// Queue, for each record above `after` and not above `through`: a PROPOSAL and, up to `committed`, its COMMIT.
    /// Records not at hand are read from the log while the link drains; what is queued behind waits. Answer with
    /// [`Event::Transferred`](crate::Event::Transferred) when the last one was handed to the socket.
    SendHistory {
        /// A learner's link.
        link: LinkId,
        /// What the learner has.
        after: Zxid,
        /// The last record to send.
        through: Zxid,
        /// The last one to commit.
        committed: Zxid,
    },
    /// Queue SNAP and an image of the tree, which shows exactly `zxid` at this moment, and the signature. Answer with
    /// [`Event::Transferred`](crate::Event::Transferred).
    SendSnapshot {
        /// A learner's link.
        link: LinkId,
        /// What the tree shows.
        zxid: Zxid,
    },

    // Election links.
    /// Queue this for a peer's election connection, in place of what may be queued there (Q16); dial if there is
    /// none.
    Notify {
        /// Whom.
        to: ServerId,
        /// What.
        notification: Notification,
    },

    // Roles.
    /// Serve clients. Everything that must be visible to them was committed before.
    Serve {
        /// As what.
        service: Service,
        /// In which reign.
        epoch: Epoch,
    },
    /// Serve nobody any more: forget what clients asked and was not answered, discard what was prepared and not
    /// committed.
    StopServing,
    /// In place of [`Effect::StopServing`] when the counter of the epoch is used up (S25): serve nobody, but let clients
    /// keep their connections, and what they asked wait. What is replayed from here on tells which of it was ordered;
    /// with [`Effect::Serve`] the rest is asked again, in its order. A [`Effect::Truncate`] or [`Effect::Install`] that
    /// comes before ends that: then the clients are told as with `StopServing`. A `StopServing` that comes before, because
    /// it was not the end of the epoch after all, ends it too.
    Suspend,
    /// The server looks for a leader now.
    Look {
        /// What ended the role it had.
        because: Trouble,
    },

    // Plumbing between clients and the leader.
    /// On a learner: answer the leader's PING with the sessions touched since the last one.
    AnswerPing {
        /// The leader's link.
        link: LinkId,
        /// To be echoed.
        zxid: Zxid,
    },
    /// On the leader: the sessions that a learner's PING touches, see [`zkfast_wire::quorum::touches`].
    Touched {
        /// The learner's link.
        link: LinkId,
        /// The payload.
        data: Bytes,
    },
    /// On the leader: prepare and submit this. A sync comes back as [`Event::Sync`](crate::Event::Sync) when the
    /// requests before it on this link are submitted.
    Request {
        /// The learner's link; it owns the request.
        link: LinkId,
        /// What a client of that learner asked.
        request: Box<ForwardedRequest>,
    },
    /// On the leader: is this session alive? If so it now belongs to this link (S12).
    RevalidateAsked {
        /// The learner's link.
        link: LinkId,
        /// The session.
        session: SessionId,
        /// The timeout it asks for.
        timeout_ms: i32,
    },
    /// On a learner: the leader's word about a session.
    Revalidated {
        /// The session.
        session: SessionId,
        /// Whether it lives.
        valid: bool,
    },
    /// On a learner: its oldest pending sync is complete.
    SyncDone,
    /// The leader's configuration text, as last seen (Q39, Q55).
    ConfigSeen {
        /// The text (Q60).
        text: Bytes,
    },
}
