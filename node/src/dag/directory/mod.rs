//! Names: directories written as one node, and read as one node or as the trie they are spread over.
//!
//! Imports `block`, `codec` and `source`. It never hands out a name that could lead anywhere but into the directory it
//! stands in, or that a terminal would act on, and never writes one; it never follows more links than its caller
//! allows entries.
//!
//! A node that is too large for Kubo to write it so (its threshold is 256 KiB) still is written as one node here.
//! A trie (HAMT) is only read, and without hashing a name: a link's name begins with its slot in hexadecimal digits,
//! and one that ends there leads to another node of the trie.

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt as _};

use crate::block::{Block, CODEC_DAG_PB, Cid, MAX_BLOCK_BYTES};
use crate::dag::codec::{
    CodecError, Kind, Link, PbNode, UnixFs, decode_node, decode_unixfs, encode_node, encode_unixfs,
};
use crate::dag::source::{BlockSource, LoadError, load};
use crate::dag::{MAX_DEPTH, MAX_NODE_LINKS};

/// Longest name in bytes, which is what file systems take.
pub const MAX_NAME_BYTES: usize = 255;
/// Widest node of a trie that is read (boxo's limit; Kubo writes 256).
const MAX_FANOUT: u64 = 1024;
/// Nodes of a trie fetched at a time; each is at most a block.
const NODES_AT_A_TIME: usize = 8;
/// Entries of a directory that a path leads through: as many as one node can have.
const MAX_PATH_ENTRIES: usize = MAX_NODE_LINKS;

/// A directory's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name: no `/`, no control character, neither `.` nor `..`, 1 to [`MAX_NAME_BYTES`] bytes.
    pub name: String,
    /// What it names.
    pub cid: Cid,
    /// The cumulative size of that in bytes. True of what was built here, a claim in what was read.
    pub size: u64,
}

/// Writes a directory, as Kubo does below its threshold for tries, and states its cumulative size.
///
/// # Errors
/// [`DirectoryError`] for names that no directory may have, twice the same name, or more entries than a block holds.
pub fn encode_directory(mut entries: Vec<Entry>) -> Result<(Block, u64), DirectoryError> {
    for entry in &entries {
        check_name(&entry.name)?;
    }
    sort(&mut entries)?;
    let links: Vec<Link> = entries
        .into_iter()
        .map(|entry| Link { cid: entry.cid, name: Bytes::from(entry.name), size: entry.size })
        .collect();
    let unixfs = UnixFs {
        kind: Kind::Directory,
        data: Bytes::new(),
        file_size: None,
        block_sizes: Vec::new(),
        hash_type: None,
        fanout: None,
    };
    let data = encode_node(&links, &encode_unixfs(&unixfs));
    if links.len() > MAX_NODE_LINKS {
        return Err(DirectoryError::TooMany { limit: MAX_NODE_LINKS });
    }
    if data.len() > MAX_BLOCK_BYTES {
        return Err(DirectoryError::TooLarge { size: data.len() });
    }
    let cumulative = links
        .iter()
        .try_fold(data.len() as u64, |sum, link| sum.checked_add(link.size))
        .ok_or(DirectoryError::Overflow)?;
    Ok((Block::dag_pb(data), cumulative))
}

/// Lists a directory, whichever way it is stored, sorted by name.
///
/// Fetches one block, or about one for every few entries of a trie, a few at a time. Dropping it gives them up.
///
/// # Errors
/// [`DirectoryError`] when it is none, when it is malformed, has more than `limit` entries, or any name is refused.
pub async fn list_directory(source: &dyn BlockSource, cid: &Cid, limit: usize) -> Result<Vec<Entry>, DirectoryError> {
    let root = load(source, cid).await?;
    let mut trie = Trie { entries: Vec::new(), below: Vec::new(), nodes: 0, width: 0, limit };
    let (node, unixfs) = decode(&root)?;
    match unixfs.kind {
        Kind::Directory => trie.add_entries(node.links, 0)?,
        Kind::HamtShard => {
            trie.width = slot_digits(&unixfs, cid)?;
            trie.add_node(node, cid, 0)?;
        }
        _ => return Err(DirectoryError::NotADirectory { cid: *cid }),
    }
    let mut fetches = FuturesUnordered::new();
    loop {
        while fetches.len() < NODES_AT_A_TIME
            && let Some((cid, depth)) = trie.below.pop()
        {
            fetches.push(async move { (load(source, &cid).await, depth) });
        }
        let Some((block, depth)) = fetches.next().await else { break };
        let block = block?;
        let (node, unixfs) = decode(&block)?;
        if unixfs.kind != Kind::HamtShard || slot_digits(&unixfs, block.cid())? != trie.width {
            return Err(DirectoryError::Trie { cid: *block.cid() });
        }
        trie.add_node(node, block.cid(), depth)?;
    }
    sort(&mut trie.entries)?;
    Ok(trie.entries)
}

/// Follows `path` down from `root`, one name a step; the empty path is `root` itself.
///
/// # Errors
/// [`DirectoryError::NotFound`], and those of [`list_directory`] for each directory on the way.
pub async fn resolve_path(source: &dyn BlockSource, root: &Cid, path: &[&str]) -> Result<Cid, DirectoryError> {
    let mut cid = *root;
    for name in path {
        let entries = list_directory(source, &cid, MAX_PATH_ENTRIES).await?;
        let found = entries.binary_search_by(|entry| entry.name.as_str().cmp(name));
        let index = found.map_err(|_| DirectoryError::NotFound { cid, name: (*name).to_owned() })?;
        cid = entries[index].cid;
    }
    Ok(cid)
}

/// What was read of a directory, and what is still to be read.
struct Trie {
    entries: Vec<Entry>,
    /// Nodes still to be read, with their distance from the root.
    below: Vec<(Cid, usize)>,
    /// Nodes found so far, read or not.
    nodes: usize,
    /// Digits of a slot in front of each name.
    width: usize,
    limit: usize,
}

impl Trie {
    fn add_entries(&mut self, links: Vec<Link>, prefix: usize) -> Result<(), DirectoryError> {
        if links.len() > self.limit - self.entries.len() {
            return Err(DirectoryError::TooMany { limit: self.limit });
        }
        for link in links {
            let name = name_of(&link.name[prefix..])?;
            self.entries.push(Entry { name, cid: link.cid, size: link.size });
        }
        Ok(())
    }

    /// Takes in one node of a trie. A node holds an entry or leads to one, but for a few on the way of a collision, so
    /// one that leads to more nodes than the directory may have entries is a bomb.
    fn add_node(&mut self, node: PbNode, cid: &Cid, depth: usize) -> Result<(), DirectoryError> {
        if depth > MAX_DEPTH {
            return Err(DirectoryError::Trie { cid: *cid });
        }
        let slot = |link: &Link| link.name.get(..self.width).is_some_and(|slot| slot.iter().all(u8::is_ascii_hexdigit));
        if !node.links.iter().all(slot) {
            return Err(DirectoryError::Trie { cid: *cid });
        }
        let (entries, nodes): (Vec<Link>, Vec<Link>) =
            node.links.into_iter().partition(|link| link.name.len() > self.width);
        self.nodes += nodes.len();
        if self.nodes > self.limit.saturating_add(MAX_DEPTH) {
            return Err(DirectoryError::TooMany { limit: self.limit });
        }
        self.below.extend(nodes.into_iter().map(|link| (link.cid, depth + 1)));
        self.add_entries(entries, self.width)
    }
}

fn decode(block: &Block) -> Result<(PbNode, UnixFs), DirectoryError> {
    let cid = *block.cid();
    if cid.codec() != CODEC_DAG_PB {
        return Err(DirectoryError::NotADirectory { cid });
    }
    let malformed = |source| DirectoryError::Malformed { cid, source: Box::new(source) };
    let node = decode_node(block.data()).map_err(malformed)?;
    let unixfs = decode_unixfs(&node.data).map_err(malformed)?;
    Ok((node, unixfs))
}

/// Hexadecimal digits that a slot of this node takes.
fn slot_digits(unixfs: &UnixFs, cid: &Cid) -> Result<usize, DirectoryError> {
    match unixfs.fanout {
        Some(fanout @ 2..=MAX_FANOUT) if fanout.is_power_of_two() => Ok(format!("{:X}", fanout - 1).len()),
        fanout => Err(DirectoryError::Fanout { cid: *cid, fanout: fanout.unwrap_or(0) }),
    }
}

fn sort(entries: &mut [Entry]) -> Result<(), DirectoryError> {
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    match entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(DirectoryError::Twice { name: pair[0].name.clone() }),
        None => Ok(()),
    }
}

fn name_of(bytes: &[u8]) -> Result<String, DirectoryError> {
    match str::from_utf8(bytes) {
        Ok(name) => check_name(name).map(|()| name.to_owned()),
        Err(_) => Err(refused_name(&String::from_utf8_lossy(bytes))),
    }
}

fn check_name(name: &str) -> Result<(), DirectoryError> {
    let refused = |c: char| c == '/' || c.is_control();
    if matches!(name, "" | "." | "..") || name.len() > MAX_NAME_BYTES || name.contains(refused) {
        return Err(refused_name(name));
    }
    Ok(())
}

/// Names come from strangers, and a block may be one single name: an error holds no more of it than a name may have.
fn refused_name(name: &str) -> DirectoryError {
    DirectoryError::Name { name: name.chars().take(MAX_NAME_BYTES).collect() }
}

/// Why a directory cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// A block is not to be had.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The bytes are no node.
    #[error("block `{cid}` is no UnixFS node")]
    Malformed {
        /// The block.
        cid: Cid,
        /// What is wrong with them.
        source: Box<CodecError>,
    },
    /// A file or something else where a directory was expected.
    #[error("`{cid}` is not a directory")]
    NotADirectory {
        /// The block.
        cid: Cid,
    },
    /// A name that leads out of the directory, upsets a terminal, or fits no file system.
    #[error("a directory entry is named `{}`", .name.escape_debug())]
    Name {
        /// The name as it is, shortened when it is too long: not to be printed.
        name: String,
    },
    /// Two entries of one name.
    #[error("two directory entries are named `{}`", .name.escape_debug())]
    Twice {
        /// The name.
        name: String,
    },
    /// More entries, or more nodes than so many entries need.
    #[error("the directory has more than {limit} entries")]
    TooMany {
        /// How many are accepted.
        limit: usize,
    },
    /// The one node a directory is written as would be larger than a block.
    #[error("the directory takes {size} bytes, a block of at most {MAX_BLOCK_BYTES} must hold it")]
    TooLarge {
        /// Its bytes.
        size: usize,
    },
    /// Sizes add up to more than 64 bits hold.
    #[error("the sizes of the directory's entries add up to more than 2^64 bytes")]
    Overflow,
    /// A trie whose nodes have an impossible number of slots.
    #[error("directory node `{cid}` has {fanout} slots, a power of two up to {MAX_FANOUT} is expected")]
    Fanout {
        /// The block.
        cid: Cid,
        /// Its slots.
        fanout: u64,
    },
    /// A node that does not fit into the trie it hangs in.
    #[error("directory node `{cid}` does not belong where it hangs")]
    Trie {
        /// The block.
        cid: Cid,
    },
    /// A path leads nowhere.
    #[error("directory `{cid}` has no entry `{}`", .name.escape_debug())]
    NotFound {
        /// The directory.
        cid: Cid,
        /// The name looked for.
        name: String,
    },
}

#[cfg(test)]
mod tests;
