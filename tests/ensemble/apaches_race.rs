//! A race of Apache's own that loses acknowledged writes of an ensemble, and how to tell that it was that (ZOOKEEPER-3598,
//! open; seen in 3.8.0 and 3.9.5, also with three servers of Apache's and none of ours).
//!
//! A follower that loses its leader applies the rest of its log to its tree (`fastForwardDataBase`) without waiting for
//! the thread that applies commits (`CommitProcessor.shutdown` joins its workers alone). What that thread is just
//! applying then lands behind newer writes of the same node: the server's log has them, its tree does not, and if it
//! leads next, its tree is what counts.
//!
//! No member can keep another one from doing that. What is told apart here, so that a test need not fail for it: the
//! log of the server in question has the transaction, and its tree did not. A loss of which that cannot be shown is ours.

use crate::{
    cluster::Cluster,
    history::History,
    peers::{Kind, tree::Tree},
};
use std::path::Path;
use zkfast::storage::{DataDirs, history::LogReader};
use zkfast_wire::Zxid;

/// What Apache's tree lost, in words: the run proves nothing.
#[derive(Debug)]
pub struct ApachesOwn(pub String);

fn logged(data_dir: &Path, zxid: i64) -> bool {
    let before = Zxid(zxid - 1);
    let reader = LogReader::new(&DataDirs::new(data_dir, None), before, Zxid(zxid));
    reader.is_ok_and(|mut reader| matches!(reader.next_record(), Ok(Some((found, _))) if found.0 == zxid))
}

/// Whether a leader of Apache's ordered on a tree that lacked what its log has: all that `history` says was written twice
/// is such a case, and there is one.
pub fn ordered_on_an_old_tree(cluster: &Cluster, history: &History) -> Option<ApachesOwn> {
    let logs: Vec<String> = (0..cluster.size()).map(|index| cluster.log_text(index)).collect();
    let led_once: Vec<usize> =
        (0..cluster.size()).filter(|index| logs[*index].contains("LEADING - LEADER ELECTION TOOK")).collect();
    let is_apaches = |(earlier, later): &(i64, i64)| {
        let epoch = Zxid(*later).epoch();
        let is_ours = logs.iter().any(|log| log.contains(&format!("leading in epoch {}:", epoch.0)));
        epoch > Zxid(*earlier).epoch()
            && !is_ours
            && !led_once.is_empty()
            && led_once.iter().all(|index| logged(&cluster.data_dir(*index), *earlier))
    };
    let rewritten = history.rewritten();
    let (earlier, later) = rewritten.first()?;
    rewritten.iter().all(is_apaches).then(|| {
        ApachesOwn(format!(
            "a leader of Apache's had {} transactions in its log and not in its tree, first {earlier:#x}, overwritten \
             by {later:#x}",
            rewritten.len()
        ))
    })
}

/// Whether the tree of a server of Apache's lacks what its log has, and nothing else.
pub fn has_an_old_tree(cluster: &Cluster, index: usize, theirs: &Tree, others: &Tree) -> Option<ApachesOwn> {
    let is_apaches = |path: &String| {
        let (Some(theirs), Some(others)) = (theirs.get(path), others.get(path)) else { return false };
        theirs.stat.mzxid < others.stat.mzxid && logged(&cluster.data_dir(index), others.stat.mzxid.0)
    };
    let differs = |path: &&String| theirs.get(*path) != others.get(*path);
    let paths: Vec<&String> = theirs.keys().chain(others.keys()).filter(differs).collect();
    (cluster.kind(index) == Kind::Apache && !paths.is_empty() && paths.into_iter().all(is_apaches))
        .then(|| ApachesOwn(format!("server {} has what its log says, but not in its tree", index + 1)))
}
