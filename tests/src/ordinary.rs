//! An ordinary user, made by root for one test: with ids that nobody else has, a name, one more group (Debian's `adm`), and
//! ranges of ids if it is to have them.
//!
//! Nothing of the host is changed. What the user's programs see in `/etc` and of `/dev/fuse` is mounted in a namespace that
//! ends with them.

use crate::program;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ids of users that tests make: beyond those of distributions, and small enough for the ranges below.
const IDS: std::ops::Range<u32> = 20_000..60_000;
/// Ids in the range that each of them has. It begins at the user's own number times this.
const RANGE: u32 = 65_536;
/// Gives the files of the folder `$2` their places, then goes on as the user `$1`.
const BECOME: &str = "user=$1; folder=$2; shift 2
for file in passwd subuid subgid; do mount --bind $folder/etc/$file /etc/$file || exit 99; done
mount --bind $folder/etc/fuse /dev/fuse && mount --bind $folder/etc/program $folder/shipfs || exit 99
if [ -d $folder/over ]; then
    mount -t overlay overlay -o lowerdir=$folder/over/lower,upperdir=$folder/over/upper,workdir=$folder/over/work \
        $folder/repository || exit 99
fi
cd $folder && exec setpriv --reuid $user --regid $user --groups 4 --inh-caps=-all \"$@\"";

/// What an ordinary user may do.
#[derive(Clone, Copy)]
pub struct May {
    /// Be more users than one inside of a namespace.
    pub have_ranges: bool,
    /// Mount by FUSE.
    pub use_fuse: bool,
}

impl May {
    /// What users of today's distributions may.
    pub const ALL: Self = Self { have_ranges: true, use_fuse: true };
}

/// A user.
pub struct Ordinary {
    id: u32,
    folder: PathBuf,
}

impl Ordinary {
    /// Makes a user that owns `folder`.
    ///
    /// # Panics
    /// Without root.
    pub fn new(folder: &Path, may: May) -> Self {
        let id = free_id();
        let etc = folder.join("etc");
        std::fs::create_dir(&etc).expect("made");
        let write = |name: &str, text: String| std::fs::write(etc.join(name), text).expect("written");
        let passwd = std::fs::read_to_string("/etc/passwd").expect("every system has one");
        write("passwd", format!("{passwd}shipfs-test:x:{id}:{id}::{}:/bin/sh\n", folder.display()));
        let range = if may.have_ranges { format!("shipfs-test:{}:{RANGE}\n", id * RANGE) } else { String::new() };
        write("subuid", range.clone());
        write("subgid", range);
        // Where it may not, there is a file instead of the device.
        let fuse = etc.join("fuse");
        if may.use_fuse {
            program::run(Command::new("mknod").args(["-m", "666"]).arg(&fuse).args(["c", "10", "229"]));
        } else {
            write("fuse", String::new());
        }
        // It may not reach the place where programs are built.
        std::fs::hard_link(program::shipfs_path(), etc.join("program"))
            .or_else(|_| std::fs::copy(program::shipfs_path(), etc.join("program")).map(drop))
            .expect("a program");
        std::fs::write(folder.join("shipfs"), "").expect("written");
        let user = Self { id, folder: folder.to_owned() };
        user.give(folder);
        user
    }

    /// Its number, and that of its group.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What a user inside of its namespaces is called outside.
    pub fn outside(&self, inside: u32) -> u32 {
        if inside == 0 { self.id } else { self.id * RANGE + inside - 1 }
    }

    /// Makes something its own.
    ///
    /// # Panics
    /// When it is not there.
    pub fn give(&self, path: &Path) {
        chown(path, Some(self.id), Some(self.id)).expect("given");
    }

    /// From now on its repository is an overlay, as it is inside of other engines' containers. An overlay on that is one too
    /// many for the kernel. One command at a time works on it.
    ///
    /// # Panics
    /// When there is a repository already.
    pub fn live_on_an_overlay(&self) {
        for name in ["repository", "over", "over/lower", "over/upper", "over/work"] {
            let path = self.folder.join(name);
            std::fs::create_dir(&path).expect("made");
            self.give(&path);
        }
    }

    /// A command of `shipfs` that it runs, on a repository.
    pub fn shipfs(&self, repository: &Path) -> Command {
        let mut command = self.command(&self.folder.join("shipfs"));
        command.arg("--repo").arg(repository);
        command
    }

    /// A command that it runs.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", BECOME, "sh", &self.id.to_string()]).arg(&self.folder).arg(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", &self.folder);
        command.stdin(std::process::Stdio::null());
        command
    }

    /// Its processes, and those of the users inside of its namespaces.
    pub fn processes(&self) -> Vec<u32> {
        let all = std::fs::read_dir("/proc").expect("processes").flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| user_of(*pid).is_some_and(|user| user == self.id || user / RANGE == self.id)).collect()
    }
}

fn free_id() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let taken: Vec<u32> = std::fs::read_dir("/proc")
        .expect("processes")
        .flatten()
        .filter_map(|entry| user_of(entry.file_name().to_str()?.parse().ok()?))
        .collect();
    let ids = IDS.end - IDS.start;
    loop {
        let number = std::process::id().wrapping_mul(97).wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed));
        let id = IDS.start + number % ids;
        if !taken.iter().any(|user| *user == id || user / RANGE == id) {
            return id;
        }
    }
}

/// Whose process it is.
fn user_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())
}
