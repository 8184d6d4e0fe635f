//! stargz-snapshotter: it mounts what we converted before it is there, from our registry and from IPFS, and checks it.
//!
//! containerd 2 and nerdctl, as root, with FUSE; nothing but loopback and Unix sockets.

use flate2::read::MultiGzDecoder;
use serde_json::Value;
use shipfs_tests::archives::{Item, archive, directory, file, hard_link, item, symlink};
use shipfs_tests::crafted::{CONFIG, Layout, MANIFEST, manifest};
use shipfs_tests::engines::{Containerd, Stargz};
use shipfs_tests::image::Noise;
use shipfs_tests::peers::{Kubo, KuboOptions, folder, program};
use shipfs_tests::program::{device, privileged, run, said, shipfs, tool};
use shipfs_tests::repository::Repository;
use shipfs_tests::runnable::{self, Layer};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Bytes of a file that nothing reads.
const UNREAD_BYTES: usize = 16 << 20;

/// containerd with the snapshotter, and nerdctl on it.
struct Lazy {
    // The snapshotter goes last: containerd asks it until then.
    containerd: Containerd,
    stargz: Stargz,
    nerdctl: PathBuf,
    ipfs: PathBuf,
    _folder: TempDir,
}

impl Lazy {
    /// Starts them; layers with a URL on IPFS come from the node with the repository `ipfs`. `None` when a program is
    /// missing.
    fn start(test: &str, ipfs: &Path) -> Option<Self> {
        let here = privileged(test) && device(test, "/dev/fuse") && tool(test, "runc");
        let programs = ["containerd", "ctr", "nerdctl", "stargz-grpc"].map(|name| program(test, name));
        let [Some(_), Some(_), Some(nerdctl), Some(stargz)] = programs else { return None };
        if !here {
            return None;
        }
        let room = TempDir::new().expect("a temporary directory");
        let stargz = Stargz::start(&stargz, &room.path().join("stargz"), ipfs);
        let snapshotter = Some(("stargz", &*stargz.socket));
        let containerd =
            Containerd::with_snapshotter(&folder().join("bin"), &room.path().join("containerd"), snapshotter);
        Some(Self { containerd, stargz, nerdctl, ipfs: ipfs.to_owned(), _folder: room })
    }

    fn command(&self, snapshotter: &str) -> Command {
        let mut command = self.containerd.nerdctl(&self.nerdctl);
        command.env("IPFS_PATH", &self.ipfs).arg(format!("--snapshotter={snapshotter}"));
        command
    }

    fn nerdctl(&self, arguments: &[&str]) -> String {
        run(self.command("stargz").args(arguments))
    }

    fn run(&self, image: &str, command: &[&str]) -> String {
        self.nerdctl(&[&["run", "--rm", "--net", "none", "--ulimit", "nofile=1024:1024", image], command].concat())
    }

    /// Bytes of the layers of a running image that were fetched, and how many they have.
    fn fetched(&self, image: &str) -> (u64, u64) {
        let said = self.run(image, &["sh", "-c", "cat /.stargz-snapshotter/*"]);
        let layers = said.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let number = |layer: &Value, name: &str| layer[name].as_u64().expect("a number");
        layers.fold((0, 0), |(fetched, size), layer| {
            (fetched + number(&layer, "fetchedSize"), size + number(&layer, "size"))
        })
    }
}

/// An image with a large file that nothing reads, some of whose bytes are the same everywhere; gives what to push.
fn layout(folder: &Path) -> String {
    let unread = Layer::default().file("unread", 0o644, &Noise::new(7).bytes(UNREAD_BYTES));
    let mut layers = runnable::layers();
    layers.insert(1, unread);
    runnable::layout(folder, layers, &runnable::config())
}

/// What the state that the snapshotter shows in each container lists.
fn lists_layers(text: &str) -> bool {
    let is_state = |line: &str| {
        let hex = line.strip_prefix("sha256:").and_then(|rest| rest.strip_suffix(".json"));
        hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    text.lines().count() > 0 && text.lines().all(is_state)
}

#[test]
fn privileged_interop_stargz_mounts_lazily_what_our_registry_serves() {
    let test = "privileged_interop_stargz_mounts_lazily_what_our_registry_serves";
    let room = TempDir::new().expect("a temporary directory");
    let Some(lazy) = Lazy::start(test, &room.path().join("no-ipfs")) else { return };
    let repository = Repository::new(room.path().join("repository"));
    let cid = repository.run(&["push", "--estargz", &layout(&room.path().join("source"))]);
    let (_registry, address) = repository.registry(&["--offline"], &[]);
    let image = format!("localhost:{}/ipfs/{cid}", address.port());
    lazy.nerdctl(&["pull", "--quiet", &image]);
    assert_eq!(lazy.stargz.mounted(), 4, "every layer is mounted");
    assert_eq!(lazy.run(&image, &["echo", "hello"]), "hello\n");
    assert!(lists_layers(&lazy.run(&image, &["ls", "/.stargz-snapshotter"])));
    assert_eq!(lazy.run(&image, &["cat", "/data/kept", "/data/hidden/new"]), "kept\nnew\n");
    let (fetched, size) = lazy.fetched(&image);
    assert!(size > UNREAD_BYTES as u64 && fetched < size / 4, "{fetched} of {size} bytes were fetched");
    let all = lazy.run(&image, &["sh", "-c", "wc -c </unread && ls /data"]);
    assert_eq!(all, format!("{UNREAD_BYTES}\nhidden\nkept\n"));
}

/// Upstream's own test, with our push in the place of its own: the image travels through Kubo.
#[test]
fn privileged_interop_stargz_runs_and_commits_what_it_mounts_from_ipfs() {
    let test = "privileged_interop_stargz_runs_and_commits_what_it_mounts_from_ipfs";
    let Some(kubo) = Kubo::start(test, KuboOptions::default()) else { return };
    let Some(lazy) = Lazy::start(test, &kubo.repository()) else { return };
    let room = TempDir::new().expect("a temporary directory");
    let repository = Repository::new(room.path().join("repository"));
    let cid = repository.run(&["push", "--estargz", &layout(&room.path().join("source"))]);
    let (_daemon, address) = repository.serve();
    kubo.ipfs(&["swarm", "connect", &address]);
    lazy.nerdctl(&["pull", "--quiet", &format!("ipfs://{cid}")]);
    assert_eq!(lazy.stargz.mounted(), 4, "every layer is mounted");
    assert_eq!(lazy.run(&cid, &["echo", "hello"]), "hello\n");
    assert!(lists_layers(&lazy.run(&cid, &["ls", "/.stargz-snapshotter"])));
    let (fetched, size) = lazy.fetched(&cid);
    assert!(fetched < size / 4, "{fetched} of {size} bytes were fetched");
    // A container on it becomes an image. containerd has none of the layers below it, which were only mounted: they are
    // where their URLs say. What was committed is converted, what it lies on is kept.
    let write = ["sh", "-c", "echo hello >/hello"];
    let begin = ["run", "--name", "one", "--net", "none", "--ulimit", "nofile=1024:1024", &cid];
    lazy.nerdctl(&[&begin, &write[..]].concat());
    lazy.nerdctl(&["commit", "one", "committed"]);
    lazy.nerdctl(&["rm", "one"]);
    let mut push = shipfs(repository.path());
    push.args(["push", "--estargz", "containerd:committed", "--namespace", "default", "--address"]);
    let pushed = push.arg(&lazy.containerd.socket).output().expect("it starts");
    let told = said(&pushed);
    assert!(pushed.status.success() && told.matches("reusing eStargz layer").count() == 4, "{told}");
    assert_eq!(
        told.matches("converted \"application/vnd.docker.image.rootfs.diff.tar.gzip\" to sha256:").count(),
        1,
        "{told}"
    );
    let again = String::from_utf8_lossy(&pushed.stdout).trim().to_owned();
    lazy.nerdctl(&["rmi", "committed"]);
    lazy.nerdctl(&["pull", "--quiet", &format!("ipfs://{again}")]);
    let said = lazy.run(&again, &["sh", "-c", "cat /hello && ls /.stargz-snapshotter"]);
    let (hello, layers) = said.split_once('\n').expect("two lines");
    assert_eq!(hello, "hello");
    assert!(lists_layers(layers), "{said}");
}

/// Entries in every format that tar has, with everything that headers can say.
fn everything() -> Vec<Item> {
    let long = |name: &str, length: usize| name.repeat(length.div_ceil(name.len()))[..length].to_owned();
    let noise = Noise::new(3).bytes(10_000);
    vec![
        directory("./").mode(0o755),
        directory("./ustar/").owner(1000, 1000).patch(265, "me\0").patch(297, "us\0"),
        file("ustar/one", "1").owner(1000, 1000).patch(265, "me\0").patch(297, "us\0").mode(0o100_644),
        file("ustar/two", "2").owner(1000, 1001).patch(265, "other\0").patch(297, "us\0").mode(0o104_755),
        file("ustar/three", &noise[..8192]),
        file("ustar/four", &noise),
        file("ustar/empty", "").time(0),
        file("name", "in front").patch(345, long("prefix/", 60)),
        file("spaces", "x").patch(124, "00000000001 "),
        file("vold", "7").patch(257, [0; 8]),
        directory("vold-directory/").patch(257, [0; 8]),
        symlink("link", "../ustar/one"),
        hard_link("hard", "ustar/one"),
        item(b'6', "pipe"),
        item(b'3', "null").device(1, 3).mode(0o666),
        item(b'4', "disk").device(259, 7),
        directory("Ünï/"),
        file("Ünï/cödé", "not ASCII"),
        file("Ünï/big-owner", "x").owner(3_000_000, 70_000),
        file("quoted \"\\ <&> \u{1} \u{7f} \u{2028}", "x"),
        file("pax", "x").pax("mtime", "1600000000.123456789").pax("atime", "1500000000.5").pax("ctime", "-1.25"),
        file("pax-rounds", "x").pax("mtime", "1600000000.500000000"),
        file("pax-whole", "x").pax("mtime", "1600000000").pax("comment", "kept\n= so it is"),
        file("pax-ids", "x").pax("uid", "4000000").pax("gid", "5").pax("uname", "jörg").pax("gname", ""),
        file("xattrs", "x")
            .xattr("user.a", "1")
            .xattr("security.capability", b"\x01\0\0\x02\n=\0")
            .xattr("user.none", ""),
        file("short", "x").pax("path", long("päx/", 300) + "file"),
        file("short", "x").pax("path", long("pax/", 290) + "file"),
        directory("short/").pax("path", long("deep/", 120)),
        symlink("pax-link", "short").pax("linkpath", long("../target/", 200)),
        file("Ünï/pax", "x").pax("mtime", "1600000001.75").pax("SCHILY.dev", "5"),
        file("gnu", "x").gnu().patch(345, "13132435455\0").patch(357, "13132435456\0"),
        file("gnu-owner", "x").gnu().owner(3_000_000, 4_000_000_000).time(-5),
        file("gnu-ünï", "x").gnu().patch(265, "jörg"),
        file("gnu-long", "x").gnu().long(b'L', long("gnu/long/", 250) + "name"),
        symlink("gnu-link", "x").gnu().long(b'K', long("gnu/target/", 150)),
        file("far-future", "x").time(1 << 34),
        file("x/../odd/./name", "x"),
        file("ustar/twice", "first"),
        file(".no.prefetch.landmark", "theirs"),
        file("stargz.index.json", "{}"),
        file("./ustar/twice", "last"),
        file("deleted/.wh.gone", ""),
        file("opaque/.wh..wh..opq", ""),
    ]
}

/// The layers of the only image in a layout, decompressed: the archive without the table of contents, and the table without
/// what depends on compressed bytes.
fn layers(layout: &Path) -> Vec<(Vec<u8>, String)> {
    let json = |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON") };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().expect("a digest");
        layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    };
    let mut manifest = json(layout.join("index.json"));
    while manifest["manifests"].is_array() {
        manifest = json(blob(&manifest["manifests"][0]));
    }
    let config = json(blob(&manifest["config"]));
    let layers = manifest["layers"].as_array().expect("layers").iter().enumerate();
    layers
        .map(|(at, layer)| {
            let mut tar = Vec::new();
            MultiGzDecoder::new(&*fs::read(blob(layer)).expect("a layer")).read_to_end(&mut tar).expect("gzip");
            let digest = shipfs_tests::image::hex(&<sha2::Sha256 as sha2::Digest>::digest(&tar));
            assert_eq!(config["rootfs"]["diff_ids"][at], format!("sha256:{digest}"));
            assert_eq!(layer["annotations"]["io.containers.estargz.uncompressed-size"], tar.len().to_string());
            let table = (0..tar.len()).step_by(512).rfind(|at| tar[*at..].starts_with(b"stargz.index.json\0"));
            let text = String::from_utf8(tar.split_off(table.expect("a table") + 512)).expect("text");
            let text = text.trim_end_matches('\0');
            let digest = shipfs_tests::image::hex(&<sha2::Sha256 as sha2::Digest>::digest(text));
            assert_eq!(layer["annotations"]["containerd.io/snapshot/stargz/toc.digest"], format!("sha256:{digest}"));
            tar.truncate(tar.len() - 512);
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("\"offset\":"));
            (tar, lines.collect::<Vec<_>>().join("\n"))
        })
        .collect()
}

#[test]
fn privileged_interop_converted_layers_are_those_of_nerdctl() {
    let test = "privileged_interop_converted_layers_are_those_of_nerdctl";
    let programs = ["containerd", "ctr", "nerdctl"].map(|name| program(test, name));
    let [Some(_), Some(_), Some(nerdctl)] = programs else { return };
    if !privileged(test) {
        return;
    }
    let room = TempDir::new().expect("a temporary directory");
    let at = |name: &str| room.path().join(name);
    let layout = Layout::new(&at("source"));
    let (layer, inside) = layout.packed_layer(&archive(&everything()));
    let rootfs = serde_json::json!({ "type": "layers", "diff_ids": [inside] });
    let described =
        serde_json::json!({ "os": "linux", "architecture": "amd64", "config": { "Image": "x" }, "rootfs": rootfs });
    let config = layout.document(CONFIG, &described);
    let source = layout.finish(&[layout.document(MANIFEST, &manifest(&config, &[layer]))]);
    let archive = at("source.tar");
    let tar = |command: &[&str], folder: &Path| drop(run(Command::new("tar").arg("-C").arg(folder).args(command)));
    tar(&["-cf", &archive.display().to_string(), "oci-layout", "index.json", "blobs"], &at("source"));
    let containerd = Containerd::of(&folder().join("bin"), &at("containerd"));
    let imports = ["-n", "default", "images", "import", "--no-unpack", "--index-name", "docker.io/library/source:1"];
    run(containerd.ctr_command().args(imports).arg(&archive));
    for (name, size) in [("4k", "4096"), ("default", "4194304")] {
        let target = format!("converted:{name}");
        let converts = ["image", "convert", "--estargz", "--oci", "--estargz-chunk-size", size, "source:1", &target];
        run(containerd.nerdctl(&nerdctl).args(converts));
        let exported = at(&format!("{name}.tar"));
        run(containerd.nerdctl(&nerdctl).args(["save", "--output"]).arg(&exported).arg(&target));
        let (theirs, ours) = (at(&format!("theirs-{name}")), at(&format!("ours-{name}")));
        fs::create_dir_all(&theirs).expect("a folder");
        tar(&["-xf", &exported.display().to_string()], &theirs);
        let repository = Repository::new(at(&format!("repository-{name}")));
        let cid = repository.run(&["push", "--estargz", "--estargz-chunk-size", size, &source]);
        repository.run(&["pull", &cid, "--to", &format!("oci:{}", ours.display())]);
        let (theirs, ours) = (layers(&theirs), layers(&ours));
        assert_eq!(ours.len(), theirs.len());
        for ((our_tar, our_table), (their_tar, their_table)) in ours.iter().zip(&theirs) {
            assert_eq!(our_table, their_table);
            assert_eq!(our_table.matches("\"type\": \"reg\"").count(), 29);
            let differs = our_tar.chunks(512).zip(their_tar.chunks(512)).position(|(ours, theirs)| ours != theirs);
            assert_eq!((our_tar.len(), differs), (their_tar.len(), None));
        }
    }
}
