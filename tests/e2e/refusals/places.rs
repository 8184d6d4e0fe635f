//! Where images come from and go to: archives that are cut, places that are not what they should be, platforms that are
//! not there.

use super::Desk;
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use shipfs_tests::crafted::{INDEX, Layout};
use shipfs_tests::program::run;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileTypeExt as _;
use std::process::Command;

/// Bytes of a block of a tar.
const BLOCK: usize = 512;

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

/// A tar that was cut ends inside of a layer, inside of a header, or without the list of what is in it.
#[test]
fn archives_that_are_cut_or_are_none_are_refused() {
    let mut desk = Desk::new();
    for format in ["docker-archive", "oci-archive"] {
        let saved = desk.repository.offline(&["save", "--format", format, "good:1"]).output().expect("it starts");
        let whole = saved.stdout;
        let tail = if format == "oci-archive" { "index.json" } else { "manifest.json" };
        let list = whole.windows(tail.len()).rposition(|name| name == tail.as_bytes()).expect("a list");
        let gz = zipped(&whole);
        let mut flipped = gz.clone();
        let middle = gz.len() / 2;
        flipped[middle] ^= 0xff;
        for (what, bytes) in [
            ("cut in a layer", &whole[..200_000]),
            ("cut in a header", &whole[..BLOCK + 100]),
            ("cut before its list", &whole[..list]),
            ("cut in its list", &whole[..list + BLOCK + 20]),
            ("a zip that is cut", &gz[..gz.len() / 2]),
            ("a zip that is cut in its last bytes", &gz[..gz.len() - 3]),
            ("a zip that is damaged", &flipped),
            ("a zip of nothing", &zipped(b"")),
            ("nothing", b""),
            ("zeroes", &[0; 4 * BLOCK]),
            ("text", b"this is no archive, and never was one"),
        ] {
            let path = desk.path();
            fs::write(&path, bytes).expect("written");
            let source = format!("{format}:{}", path.display());
            let pushed = desk.told(what, &mut desk.repository.offline(&["push", "--name", "bad:1", &source]));
            let loaded =
                desk.told(what, &mut desk.repository.offline(&["load", "--input", &path.display().to_string()]));
            let file = fs::File::open(&path).expect("opens");
            let piped = desk.told(what, desk.repository.offline(&["push", "--name", "bad:1", "-"]).stdin(file));
            desk.note(format, what, &[("push", pushed), ("load", loaded), ("pipe", piped)]);
        }
    }
    desk.expect(
        r#"
- docker-archive, cut in a layer: 1
error: the archive is cut off: `blobs/sha256/HASH` should have 300000 bytes at 3072, but it ends at 200000
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- docker-archive, cut in a header: 1
error: the archive is damaged
  because: failed to read entire block
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- docker-archive, cut before its list: 1
error: `manifest.json` is missing: this is not an image
hint: a layout is named as `oci:DIRECTORY`, an archive as `oci-archive:FILE` or `docker-archive:FILE`
- docker-archive, cut in its list: 1
error: the archive is cut off: `manifest.json` should have 205 bytes at 305664, but it ends at 305684
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- docker-archive, a zip that is cut: 1
error: the archive is damaged
  because: incomplete deflate stream
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- docker-archive, a zip that is cut in its last bytes: 1
error: the archive is damaged
  because: unexpected end of file
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- docker-archive, a zip that is damaged: 1
error: cannot read `archive`
  because: corrupt gzip stream does not have a matching checksum
- docker-archive, a zip of nothing: 1
error: `manifest.json` is missing: this is not an image
hint: a layout is named as `oci:DIRECTORY`, an archive as `oci-archive:FILE` or `docker-archive:FILE`
- docker-archive, nothing: 1
error: `manifest.json` is missing: this is not an image
hint: a layout is named as `oci:DIRECTORY`, an archive as `oci-archive:FILE` or `docker-archive:FILE`
- docker-archive, zeroes: 1
error: `manifest.json` is missing: this is not an image
hint: a layout is named as `oci:DIRECTORY`, an archive as `oci-archive:FILE` or `docker-archive:FILE`
- docker-archive, text: 1
error: the archive is damaged
  because: failed to read entire block
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- oci-archive, cut in a layer: 1
error: the archive is cut off: `blobs/sha256/HASH` should have 300000 bytes at 3072, but it ends at 200000
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- oci-archive, cut in a header: 1
error: the archive is damaged
  because: failed to read entire block
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- oci-archive, cut before its list: 1
error: `manifest.json` is missing: this is not an image
hint: a layout is named as `oci:DIRECTORY`, an archive as `oci-archive:FILE` or `docker-archive:FILE`
- oci-archive, cut in its list: 1
error: the archive is cut off: `index.json` should have 240 bytes at 304640, but it ends at 304660
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- oci-archive, a zip that is cut: 1
error: the archive is damaged
  because: incomplete deflate stream
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- oci-archive, a zip that is cut in its last bytes: 1
error: the archive is damaged
  because: unexpected end of file
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- oci-archive, a zip that is damaged: 1
error: the archive is damaged
  because: archive header checksum mismatch
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- oci-archive, a zip of nothing: 1
error: `manifest.json` is missing: this is not an image
hint: a layout is named as `oci:DIRECTORY`, an archive as `oci-archive:FILE` or `docker-archive:FILE`
- oci-archive, nothing: 1
error: `manifest.json` is missing: this is not an image
hint: a layout is named as `oci:DIRECTORY`, an archive as `oci-archive:FILE` or `docker-archive:FILE`
- oci-archive, zeroes: 1
error: `manifest.json` is missing: this is not an image
hint: a layout is named as `oci:DIRECTORY`, an archive as `oci-archive:FILE` or `docker-archive:FILE`
- oci-archive, text: 1
error: the archive is damaged
  because: failed to read entire block
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
"#,
    );
}

#[test]
fn sources_that_are_no_images_are_refused() {
    let mut desk = Desk::new();
    let (empty, list, gone) = (desk.path(), Layout::new(&desk.path()), desk.path());
    fs::create_dir(&empty).expect("a directory");
    let nothing = list.finish(&[]);
    let marker = Layout::new(&desk.path());
    let lost = marker.finish(&[json!({
        "mediaType": INDEX, "digest": format!("sha256:{}", "11".repeat(32)), "size": 100,
    })]);
    for (what, source) in [
        ("a directory that is gone", format!("oci:{}", gone.display())),
        ("a directory of nothing", format!("oci:{}", empty.display())),
        ("a layout of nothing", nothing),
        ("a layout without its documents", lost),
        ("an archive that is gone", format!("oci-archive:{}", gone.display())),
        ("an archive that is a directory", format!("docker-archive:{}", empty.display())),
        ("an image that is not here", "nobody:1".to_owned()),
    ] {
        let mut push = desk.repository.offline(&["push", "--name", "bad:1", &source]);
        desk.refuses(what, &mut push);
    }
    desk.expect(
        r#"
- a directory that is gone: 1
error: `DIR/3/oci-layout` is missing: this is not an image
hint: a layout is named as `oci:DIRECTORY`, an archive as `oci-archive:FILE` or `docker-archive:FILE`
- a directory of nothing: 1
error: `DIR/1/oci-layout` is missing: this is not an image
hint: a layout is named as `oci:DIRECTORY`, an archive as `oci-archive:FILE` or `docker-archive:FILE`
- a layout of nothing: 1
error: the source holds no image
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a layout without its documents: 1
error: content `sha256:HASH` is not in the source
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- an archive that is gone: 1
error: cannot open `DIR/3`
  because: No such file or directory (os error 2)
hint: is the path right, and may it be read?
- an archive that is a directory: 1
error: cannot open `DIR/1`
  because: is a directory
hint: is the path right, and may it be read?
- an image that is not here: 1
error: image `docker.io/library/nobody:1` is not here
hint: name a file as `docker-archive:FILE` or `oci-archive:FILE`, a directory as `oci:DIRECTORY`
"#,
    );
}

/// What lies at a sink stays as it is, whatever goes wrong.
#[test]
fn sinks_that_take_no_image_stay_as_they_are() {
    let mut desk = Desk::new();
    let (file, full, layout) = (desk.path(), desk.path(), desk.path());
    fs::write(&file, "a file").expect("written");
    fs::create_dir(&full).expect("a directory");
    fs::write(full.join("something"), "else").expect("written");
    fs::create_dir(&layout).expect("a directory");
    fs::write(layout.join("oci-layout"), "{}").expect("written");
    fs::write(layout.join("index.json"), "no JSON").expect("written");
    for (what, format, path) in [
        ("a layout where a file is", "oci", file.display().to_string()),
        ("a layout where something else is", "oci", full.display().to_string()),
        ("a layout whose index is none", "oci", layout.display().to_string()),
        ("an archive where a directory is", "oci-archive", full.display().to_string()),
        ("an archive in a folder that is not there", "docker-archive", file.join("image.tar").display().to_string()),
        ("a layout where nobody can write", "oci", "/proc/self/image".to_owned()),
        ("an archive where nobody can write", "docker-archive", "/proc/self/image.tar".to_owned()),
    ] {
        let saved =
            desk.told(what, &mut desk.repository.offline(&["save", "--format", format, "--output", &path, "good:1"]));
        let to = format!("{format}:{path}");
        let pulled = desk.told(what, &mut desk.repository.offline(&["pull", "good:1", "--to", &to]));
        desk.note(format, what, &[("save", saved), ("pull", pulled)]);
    }
    assert_eq!(fs::read_to_string(&file).expect("there"), "a file");
    assert_eq!(fs::read_to_string(full.join("something")).expect("there"), "else");
    assert_eq!(fs::read_to_string(layout.join("index.json")).expect("there"), "no JSON");
    assert_eq!(fs::read_dir(&layout).expect("there").count(), 2, "blobs are left at the sink");
    assert_eq!(fs::read_dir(&full).expect("there").count(), 1);
    desk.expect(
        r#"
- oci, a layout where a file is: 1
error: `DIR/1` is neither empty nor an image layout
hint: name a new or empty directory, or a layout
- oci, a layout where something else is: 1
error: `DIR/2` is neither empty nor an image layout
hint: name a new or empty directory, or a layout
- oci, a layout whose index is none: 1
error: the index of `DIR/3` is not valid
  because: a value that is not an object at byte 0
- oci-archive, an archive where a directory is: 1
error: cannot write to `DIR/2`
  because: is a directory
- docker-archive, an archive in a folder that is not there: 1
error: cannot write to `DIR/1/image.tar`
  because: Not a directory (os error 20)
- oci, a layout where nobody can write: 1
error: cannot write to `/proc/self/image`
  because: No such file or directory (os error 2)
- docker-archive, an archive where nobody can write: 1
error: cannot write to `/proc/self/image.tar`
  because: No such file or directory (os error 2)
"#,
    );
}

/// A pipe or a device is written to; a file never takes its place.
#[test]
fn a_pipe_at_a_sink_stays_a_pipe() {
    let mut desk = Desk::new();
    let path = desk.path();
    run(Command::new("mkfifo").arg(&path));
    for verb in [&["save", "--format", "oci-archive", "--output"][..], &["pull", "--to"]] {
        let place =
            if verb[0] == "pull" { format!("oci-archive:{}", path.display()) } else { path.display().to_string() };
        let reading = std::thread::spawn({
            let path = path.clone();
            move || fs::read(path).expect("the pipe is there")
        });
        run(desk.repository.offline(verb).args([place.as_str(), "good:1"]));
        assert!(fs::symlink_metadata(&path).expect("there").file_type().is_fifo(), "{verb:?} replaced it");
        assert!(reading.join().expect("reads") == desk.repository.saved("good:1"), "{verb:?}");
    }
}

#[test]
fn platforms_that_are_not_there_are_told() {
    let mut desk = Desk::new();
    let layout = Layout::new(&desk.path());
    let mut entries = ["amd64", "riscv64"].map(|architecture| {
        let mut entry = layout.image(&[architecture.as_bytes()]);
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        entry
    });
    let top = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    entries[0] = layout.document(INDEX, &top);
    let source = layout.finish(&entries[..1]);
    let whole = desk.repository.run(&["push", "--all-platforms", &source]);
    desk.before = desk.repository.contents();
    let to = format!("oci:{}", desk.folder.path().join("sinks/image").display());
    for (what, arguments) in [
        ("push", &["push", "--platform", "linux/s390x", &source][..]),
        ("pull", &["pull", "--platform", "linux/s390x", &whole, "--to", &to]),
        ("save", &["save", "--platform", "windows/amd64", &whole]),
        ("save of both to what holds one", &["save", &whole]),
        ("a platform that is none", &["pull", "--platform", "linux/", &whole]),
    ] {
        let mut command = desk.repository.offline(arguments);
        desk.refuses(what, &mut command);
    }
    desk.expect(
        r#"
- push: 1
error: the image is not there for linux/s390x, only for: linux/amd64, linux/riscv64
hint: --platform names another one, --all-platforms takes what there is
- pull: 1
error: the image is not there for linux/s390x, only for: linux/amd64, linux/riscv64
hint: --platform names another one, --all-platforms takes what there is
- save: 1
error: the image is not there for windows/amd64, only for: linux/amd64, linux/riscv64
hint: --platform names another one, --all-platforms takes what there is
- save of both to what holds one: 1
error: the image has several platforms, and a docker-archive holds one
hint: name one --platform, or use oci-archive
- a platform that is none: 2
error: invalid value 'linux/' for '--platform <PLATFORM>': `linux/` is not a platform, expected `OS/ARCHITECTURE[/VARIANT]` such as `linux/arm64`

For more information, try '--help'.
"#,
    );
}
