//! Unpacked layers, kept and shared by all containers of a repository.
//!
//! ```text
//! <repo>/layers/          0700: there are setuid files inside; `layers-…` where another user than root unpacks
//!   <chain ID>/           one layer on top of certain others, in hexadecimal: its files, as overlayfs wants them
//!   .boot-<chain ID>      the boot of this machine in which it was unpacked
//!   .files-<chain ID>     what it removes is marked by files, which the kernel's overlay does not know
//!   .settled-<chain ID>   it is on the disk whatever happens; without this, a layer of an earlier boot is not used
//! ```
//!
//! Imports [`layer`](crate::layer), which unpacks, and digests. Only the holder of the repository changes it. A layer appears
//! whole or not at all, whatever is killed. A power failure may still cut it, but then the boot is another one: so nobody has
//! to wait for the disk before a container runs.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::state::private_directories;
use crate::{
    layer::{Applied, ApplyError, Staged, remove::remove_all, sweep},
    oci::Digest,
};

/// The folder of the layers in a repository.
const FOLDER: &str = "layers";
/// How the name begins of what says in which boot a layer was unpacked.
const BOOT_MARK: &str = ".boot-";
/// How the name begins of what says that a layer is on the disk.
const SETTLED_MARK: &str = ".settled-";
/// How the name begins of what says that a layer's whiteouts are files.
const FILES_MARK: &str = ".files-";
/// How the name of a layer begins that is being removed.
const OLD: &str = ".old-";
/// Where the kernel says which boot this is.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The unpacked layers of a repository.
#[derive(Clone, Debug)]
pub struct Layers {
    folder: PathBuf,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Layers.
    pub layers: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

impl Layers {
    /// The layers of the repository in `repository`, as root unpacks them.
    pub fn new(repository: &Path) -> Self {
        Self::at(repository.join(FOLDER))
    }

    /// Those that another user unpacks: their owners are those of a user namespace, which `label` tells from others.
    pub fn of_user(repository: &Path, label: &str) -> Self {
        Self::at(repository.join(format!("{FOLDER}-{label}")))
    }

    /// The layers in `folder`.
    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the layers lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the files of a layer lie.
    pub fn tree(&self, chain: &str) -> PathBuf {
        self.folder.join(chain)
    }

    fn mark(&self, mark: &str, chain: &str) -> PathBuf {
        self.folder.join(format!("{mark}{chain}"))
    }

    /// Whether a layer is here and whole.
    pub fn has(&self, chain: &str) -> bool {
        let own = || fs::read(self.mark(BOOT_MARK, chain)).ok();
        let is_of_this_boot = || boot().is_some_and(|boot| own() == Some(boot));
        self.tree(chain).is_dir() && (self.mark(SETTLED_MARK, chain).exists() || is_of_this_boot())
    }

    /// Whether the kernel's overlay understands a layer.
    pub(crate) fn is_for_the_kernel(&self, chain: &str) -> bool {
        !self.mark(FILES_MARK, chain).exists()
    }

    /// Removes what killed processes left, and makes the folder. Only for the holder, while it unpacks nothing.
    ///
    /// # Errors
    /// What the disk says.
    pub fn tidy(&self) -> Result<(), ApplyError> {
        let failed = |source| ApplyError::Place { path: self.folder.display().to_string(), doing: "making it", source };
        private_directories(&self.folder).map_err(failed)?;
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().as_encoded_bytes().starts_with(OLD.as_bytes()) {
                remove_all(&entry.path()).map_err(failed)?;
            }
        }
        sweep(&self.folder).map(drop)
    }

    /// Gives a layer that was unpacked its name. `below` are the chain IDs of those that it lies on, the lowest first.
    ///
    /// # Errors
    /// What the disk says.
    pub fn publish(&self, mut staged: Staged, chain: &str, below: &[String]) -> Result<Applied, ApplyError> {
        let failed =
            |source| ApplyError::Place { path: self.folder.display().to_string(), doing: "naming a layer", source };
        let lowers: Vec<_> = below.iter().rev().map(|chain| self.tree(chain)).collect();
        staged.inherit(&lowers.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
        if self.tree(chain).exists() && !self.has(chain) {
            self.remove(chain).map_err(failed)?;
        }
        if staged.applied().is_some_and(|applied| applied.has_whiteout_files) {
            fs::write(self.mark(FILES_MARK, chain), "").map_err(failed)?;
        }
        fs::write(self.mark(BOOT_MARK, chain), boot().unwrap_or_default()).map_err(failed)?;
        staged.publish(chain)
    }

    /// Removes a layer: out of sight first, so that no half of it is ever taken for one. Gives the bytes that are free now.
    pub(crate) fn remove(&self, chain: &str) -> io::Result<u64> {
        let old = self.mark(OLD, chain);
        let unmark = |mark| match fs::remove_file(self.mark(mark, chain)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        unmark(SETTLED_MARK)?;
        unmark(BOOT_MARK)?;
        fs::rename(self.tree(chain), &old)?;
        unmark(FILES_MARK)?;
        let bytes = size(&old)?;
        remove_all(&old)?;
        Ok(bytes)
    }

    /// Makes layers durable that are not yet. Takes as long as the disk does.
    ///
    /// # Errors
    /// What the disk says.
    pub fn settle(&self, chains: &[String]) -> io::Result<()> {
        let is_new = |chain: &&String| self.tree(chain).is_dir() && !self.mark(SETTLED_MARK, chain).exists();
        let new: Vec<_> = chains.iter().filter(is_new).collect();
        if new.is_empty() {
            return Ok(());
        }
        rustix::fs::syncfs(File::open(&self.folder)?)?;
        for chain in new {
            fs::write(self.mark(SETTLED_MARK, chain), "")?;
        }
        Ok(())
    }

    /// The layers that are not among `kept`.
    pub(crate) fn others(&self, kept: &BTreeSet<String>) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut others = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            others.extend(
                name.to_str().filter(|name| !name.starts_with('.') && !kept.contains(*name)).map(str::to_owned),
            );
        }
        Ok(others)
    }
}

/// The chain IDs of layers with these diff IDs, lowest first: each names a layer and all that lie below it.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<String> {
    let mut chain: Option<Digest> = None;
    let next = |diff: &Digest| {
        let id = match &chain {
            None => diff.clone(),
            Some(below) => Digest::of(format!("{below} {diff}").as_bytes()),
        };
        chain = Some(id.clone());
        id.hex()
    };
    diff_ids.iter().map(next).collect()
}

fn boot() -> Option<Vec<u8>> {
    fs::read(BOOT).ok()
}

/// Bytes on disk of all that lies below a directory.
fn size(folder: &Path) -> io::Result<u64> {
    let (mut total, mut folders) = (0, vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            total += metadata.blocks() * 512;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Options, stage_layer};

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let digests = [Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c")];
        let chains = chain_ids(&digests);
        let second = Digest::of(format!("{} {}", digests[0], digests[1]).as_bytes());
        let third = Digest::of(format!("{second} {}", digests[2]).as_bytes());
        assert_eq!(chains, [digests[0].hex(), second.hex(), third.hex()]);
        assert!(chain_ids(&[]).is_empty());
    }

    fn layers() -> (tempfile::TempDir, Layers) {
        let folder = tempfile::tempdir().expect("a directory");
        let layers = Layers::new(folder.path());
        layers.tidy().expect("tidied");
        (folder, layers)
    }

    /// Unpacks a layer of one file and names it.
    fn put(layers: &Layers, chain: &str) {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(10_000);
        header.set_mode(0o644);
        tar.append_data(&mut header, "file", &vec![1; 10_000][..]).expect("in memory");
        let tar = tar.into_inner().expect("in memory");
        let options = Options {
            sync: false,
            ..if rustix::process::geteuid().is_root() { Options::root() } else { Options::rootless() }
        };
        let staged =
            stage_layer(&tar[..], crate::oci::media::LAYER, None, layers.folder(), &options).expect("unpacked");
        assert!(!layers.has(chain) || layers.tree(chain).is_dir());
        layers.publish(staged, chain, &[]).expect("named");
    }

    #[test]
    fn a_layer_is_there_when_it_is_whole() {
        let (_folder, layers) = layers();
        assert!(!layers.has("aa"));
        put(&layers, "aa");
        assert!(layers.has("aa") && layers.tree("aa").join("file").exists());
        assert_eq!(fs::metadata(layers.folder()).expect("there").mode() & 0o777, 0o700);
    }

    #[test]
    fn a_layer_that_a_power_failure_may_have_cut_is_not_used() {
        let (_folder, layers) = layers();
        put(&layers, "aa");
        let boot = layers.mark(BOOT_MARK, "aa");
        fs::write(&boot, "an earlier one").expect("written");
        fs::write(layers.tree("aa").join("cut"), "").expect("written");
        assert!(!layers.has("aa"));
        put(&layers, "aa");
        assert!(layers.has("aa") && !layers.tree("aa").join("cut").exists(), "another took its place");
        layers.settle(&["aa".to_owned(), "bb".to_owned()]).expect("settled");
        fs::write(&boot, "an earlier one").expect("written");
        assert!(layers.has("aa") && !layers.has("bb"), "it was on the disk before");
    }

    #[test]
    fn what_nobody_keeps_is_removed() {
        let folder = tempfile::tempdir().expect("a directory");
        let layers = Layers::new(folder.path());
        assert!(layers.others(&BTreeSet::new()).expect("listed").is_empty());
        put(&layers, "aa");
        put(&layers, "bb");
        layers.settle(&["aa".to_owned()]).expect("settled");
        fs::create_dir_all(layers.mark(OLD, "cc")).expect("half removed");
        assert_eq!(layers.others(&["bb".to_owned()].into()).expect("listed"), ["aa"]);
        let bytes = layers.remove("aa").expect("removed");
        assert!(bytes >= 10_000 && layers.has("bb") && !layers.has("aa"), "{bytes}");
        layers.tidy().expect("tidied");
        let mut left: Vec<_> =
            fs::read_dir(layers.folder()).expect("listed").map(|one| one.expect("one").file_name()).collect();
        left.sort();
        assert_eq!(left, [".boot-bb", "bb"]);
    }
}
