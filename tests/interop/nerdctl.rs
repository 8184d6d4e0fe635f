//! nerdctl with a containerd of its own: it pulls through Kubo what we serve, and we pull what it pushed.
//!
//! Debian's containerd, as root; nothing but loopback and Unix sockets.

use shipfs_tests::engines::Containerd;
use shipfs_tests::image;
use shipfs_tests::peers::{Kubo, KuboOptions, program};
use shipfs_tests::program::{privileged, run, shipfs, tool};
use shipfs_tests::repository::Repository;
use shipfs_tests::runnable;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A containerd, and nerdctl on it.
pub(crate) struct Nerdctl {
    containerd: Containerd,
    _folder: TempDir,
    program: PathBuf,
}

impl Nerdctl {
    pub(crate) fn start(program: &Path) -> Self {
        let folder = TempDir::new().expect("a temporary directory");
        Self { containerd: Containerd::start(folder.path()), _folder: folder, program: program.to_owned() }
    }

    fn ctr(&self) -> Command {
        let mut command = self.containerd.ctr_command();
        command.args(["-n", "default"]);
        command
    }

    /// A command of it, with Kubo for images on IPFS.
    pub(crate) fn command(&self, kubo: &Kubo, arguments: &[&str]) -> Command {
        let mut command = self.containerd.nerdctl(&self.program);
        command.env("IPFS_PATH", kubo.repository()).args(arguments);
        command
    }

    /// Runs such a command and gives what it prints.
    pub(crate) fn nerdctl(&self, kubo: &Kubo, arguments: &[&str]) -> String {
        run(&mut self.command(kubo, arguments))
    }

    /// The digests of all its content, in hexadecimal, each checked against its bytes.
    pub(crate) fn content(&self) -> BTreeSet<String> {
        let listed = run(self.ctr().args(["content", "ls", "--quiet"]));
        let digests: BTreeSet<_> = listed.lines().map(|line| line.trim_start_matches("sha256:").to_owned()).collect();
        for digest in &digests {
            let got = self.ctr().args(["content", "get", &format!("sha256:{digest}")]).output().expect("it starts");
            assert!(got.status.success());
            assert_eq!(image::hex(&<sha2::Sha256 as sha2::Digest>::digest(&got.stdout)), *digest);
        }
        digests
    }
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/source-layout")
}

/// Everything that the test needs; `None` when something is not here.
pub(crate) fn needed(test: &str) -> Option<PathBuf> {
    let here = privileged(test) && tool(test, "containerd") && tool(test, "ctr");
    if here { program(test, "nerdctl") } else { None }
}

#[test]
fn privileged_interop_nerdctl_pulls_through_kubo_what_we_serve() {
    let test = "privileged_interop_nerdctl_pulls_through_kubo_what_we_serve";
    let Some(nerdctl) = needed(test) else { return };
    let Some(kubo) = Kubo::start(test, KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let repository = Repository::new(folder.path().join("repository"));
    let cid = repository.run(&["push", "--all-platforms", &format!("oci:{}", source().display())]);
    let (_daemon, address) = repository.serve();
    kubo.ipfs(&["swarm", "connect", &address]);
    let containerd = Nerdctl::start(&nerdctl);
    containerd.nerdctl(&kubo, &["pull", &format!("ipfs://{cid}")]);
    // Its content is the image as it was pushed, but for the root, which is no content of containerd's.
    let ours: BTreeSet<_> = repository.contents().blobs.into_keys().collect();
    let theirs = containerd.content();
    assert!(theirs.is_subset(&ours), "{theirs:?} {ours:?}");
    assert_eq!(ours.len(), theirs.len() + 1);
    let images = containerd.nerdctl(&kubo, &["images", "--no-trunc", "--quiet"]);
    assert!(theirs.iter().any(|digest| images.contains(digest)), "{images}");
    // And what nerdctl got from us, through Kubo, it gives on under the same CID.
    let listed = run(containerd.ctr().args(["images", "ls", "--quiet"]));
    let name = listed.lines().next().expect("an image").trim().to_owned();
    let pushed = containerd.nerdctl(&kubo, &["push", &format!("ipfs://{name}")]);
    assert_eq!(pushed.lines().last().map(str::trim), Some(cid.as_str()));
}

#[test]
fn privileged_interop_what_nerdctl_pushed_is_pulled_with_the_same_cid() {
    let test = "privileged_interop_what_nerdctl_pushed_is_pulled_with_the_same_cid";
    let Some(nerdctl) = needed(test) else { return };
    let Some(kubo) = Kubo::start(test, KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let archive = folder.path().join("image.tar");
    run(Command::new("tar").arg("-C").arg(source()).arg("-cf").arg(&archive).args([
        "oci-layout",
        "index.json",
        "blobs",
    ]));
    let containerd = Nerdctl::start(&nerdctl);
    run(containerd.ctr().args(["images", "import", "--base-name", "localhost/image"]).arg(&archive));
    let listed = run(containerd.ctr().args(["images", "ls", "--quiet"]));
    let name = listed.lines().next().expect("an image").trim().to_owned();
    let pushed = containerd.nerdctl(&kubo, &["push", &format!("ipfs://{name}")]);
    let cid = pushed.lines().last().expect("a CID").trim().to_owned();
    // Bit for bit what we make of the same archive.
    let own = Repository::new(folder.path().join("own"));
    assert_eq!(own.run(&["push", &format!("oci-archive:{}", archive.display())]), cid);
    // By Bitswap, through Kubo's RPC into our store, and into a layout.
    let address = &kubo.addresses()[0];
    let peer = Repository::new(folder.path().join("peer"));
    run(&mut peer.online(address, &["pull", &cid]));
    let fed = Repository::new(folder.path().join("fed"));
    let with = |arguments: &[&str]| {
        let mut command = shipfs(fed.path());
        run(command.args(["--quiet", "--ipfs-address", &kubo.api()]).args(arguments)).trim().to_owned()
    };
    assert_eq!(with(&["pull", &cid]), cid);
    assert_eq!(peer.contents().blobs, own.contents().blobs);
    assert_eq!(fed.contents().blobs, own.contents().blobs);
    let out = folder.path().join("out");
    with(&["pull", &cid, "--to", &format!("oci:{}", out.display())]);
    // containerd drops the manifest that nerdctl rewrote; everything else is there as it came.
    let (theirs, got) = (containerd.content(), image::check_blobs(&out).expect("a layout"));
    assert_eq!(got.iter().filter(|digest| theirs.contains(*digest)).count(), got.len() - 1, "{got:?} {theirs:?}");
}

/// A layer that was removed and fetched again must not be missing from the next push, whoever pushes.
#[test]
fn privileged_interop_an_image_that_was_removed_is_pulled_and_pushed_again() {
    let test = "privileged_interop_an_image_that_was_removed_is_pulled_and_pushed_again";
    let Some(nerdctl) = needed(test).filter(|_| tool(test, "busybox")) else { return };
    let Some(kubo) = Kubo::start(test, KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let giver = Repository::new(folder.path().join("giver"));
    let layout = runnable::layout(&folder.path().join("layout"), runnable::layers(), &runnable::config());
    let cid = giver.run(&["push", &layout]);
    let (_daemon, address) = giver.serve();
    kubo.ipfs(&["swarm", "connect", &address]);
    let containerd = Nerdctl::start(&nerdctl);
    let image = format!("ipfs://{cid}");
    let own = Repository::new(folder.path().join("own"));
    let ours = |arguments: &[&str]| {
        let mut command = own.online(&address, arguments);
        run(command.env("CONTAINERD_ADDRESS", &containerd.containerd.socket)).trim().to_owned()
    };
    for _ in 0..2 {
        containerd.nerdctl(&kubo, &["pull", &image]);
        let words = ["run", "--rm", "--net", "none", "--ulimit", "nofile=1024:1024", &image, "echo", "hello"];
        assert_eq!(containerd.nerdctl(&kubo, &words), "hello\n");
        // The same image, as containerd has it: nothing is sent to it, nobody is asked.
        let words = ["--quiet", "--offline", "run", "--containerd", "--rm", &image, "echo", "hello"];
        let mut run_it = shipfs(&folder.path().join("empty"));
        assert_eq!(run(run_it.env("CONTAINERD_ADDRESS", &containerd.containerd.socket).args(words)), "hello\n");
        assert_eq!(ours(&["push", &format!("containerd:{cid}")]), cid);
        containerd.nerdctl(&kubo, &["rmi", "-f", &image]);
        ours(&["rmi", &cid]);
        ours(&["gc"]);
    }
    containerd.nerdctl(&kubo, &["pull", &image]);
    let pushed = containerd.nerdctl(&kubo, &["push", &image]);
    assert_eq!(pushed.lines().last().map(str::trim), Some(cid.as_str()));
    containerd.nerdctl(&kubo, &["rmi", "-f", &image]);
    for _ in 0..2 {
        assert_eq!(ours(&["pull", &cid]), cid);
        assert_eq!(ours(&["run", "--rm", &image, "echo", "hello"]), "hello");
        assert_eq!(ours(&["run", "--containerd", "--rm", &image, "echo", "hello"]), "hello");
        assert_eq!(ours(&["push", &image]), cid);
        assert_eq!(ours(&["push", &format!("containerd:{cid}")]), cid);
        ours(&["rmi", &cid]);
        ours(&["gc"]);
        containerd.nerdctl(&kubo, &["rmi", "-f", &image]);
    }
}
