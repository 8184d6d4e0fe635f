//! Why a fetch failed, and whose fault that was.

use crate::block::{BlockError, Cid, CidError};
use crate::dag::WalkError;
use crate::exchange::bitswap::session::Starved;
use crate::net::NetError;
use crate::store::StoreError;
use crate::store::files::hex;
use std::time::Duration;

/// Why something could not be made local.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// It is not here, and this node may not ask anybody.
    #[error("block `{cid}` is not in the repository, and this node is offline")]
    Offline {
        /// The missing block.
        cid: Cid,
    },
    /// Nobody delivered it in time. Trying again later can help.
    #[error("block `{cid}` did not arrive: {}", starved(*.asked, .holders.len(), *.waited))]
    Unavailable {
        /// The missing block.
        cid: Cid,
        /// Peers that were asked.
        asked: usize,
        /// Peers that have it, as far as is known.
        holders: Vec<libp2p::PeerId>,
        /// How long nothing arrived.
        waited: Duration,
    },
    /// The file is another one than its descriptor says. Trying again does not help: the CID names this content.
    #[error("file `{cid}` has digest sha256:{}, its descriptor says sha256:{}", hex(.got), hex(.expected))]
    Digest {
        /// The file.
        cid: Cid,
        /// What the descriptor says.
        expected: [u8; 32],
        /// What the content hashes to.
        got: [u8; 32],
    },
    /// The file has another size than its descriptor says.
    #[error("file `{cid}` has {got} bytes, its descriptor says {expected}")]
    Size {
        /// The file.
        cid: Cid,
        /// What the descriptor says, in bytes.
        expected: u64,
        /// What the DAG holds (or claims), in bytes.
        got: u64,
    },
    /// The file is longer than the caller accepts.
    #[error("file `{cid}` has {got} bytes, at most {limit} are accepted here")]
    TooLong {
        /// The file.
        cid: Cid,
        /// The caller's limit, in bytes.
        limit: u64,
        /// What the DAG holds (or claims), in bytes.
        got: u64,
    },
    /// The DAG is not that of a file, or deeper, wider or longer than it may be.
    #[error("the DAG of file `{cid}` is refused")]
    Dag {
        /// The file.
        cid: Cid,
        /// What is wrong with it.
        #[source]
        source: WalkError,
    },
    /// The file is cut into absurdly many blocks.
    #[error("file `{cid}` of {size} bytes has more than {limit} blocks")]
    TooFine {
        /// The file.
        cid: Cid,
        /// Its size in bytes.
        size: u64,
        /// The most that a file of this size may have.
        limit: u64,
    },
    /// The CID itself is refused.
    #[error("cannot fetch `{cid}`")]
    Cid {
        /// The CID.
        cid: Cid,
        /// Which rule it breaks.
        #[source]
        source: CidError,
    },
    /// A block in the repository is not what it should be; `verify` repairs that.
    #[error("block `{cid}` in the repository is damaged")]
    Damaged {
        /// The block.
        cid: Cid,
        /// How.
        #[source]
        source: BlockError,
    },
    /// The repository failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network cannot be entered.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The caller, or the node's shutdown, ended it. What has arrived is kept.
    #[error("the fetch of `{cid}` was stopped")]
    Stopped {
        /// The file or block.
        cid: Cid,
    },
}

fn starved(asked: usize, holders: usize, waited: Duration) -> String {
    let waited = waited.as_secs_f32();
    match (asked, holders) {
        (0, _) => format!("no peer was found within {waited:.1} s"),
        (asked, 0) => format!("none of the {asked} peers asked within {waited:.1} s has it"),
        (_, holders) => format!("{holders} peers have it, but sent nothing for {waited:.1} s"),
    }
}

/// Nobody delivered `cid`.
pub(crate) fn unavailable(cid: Cid, starved: Starved) -> FetchError {
    FetchError::Unavailable { cid, asked: starved.asked, holders: starved.holders, waited: starved.waited }
}
