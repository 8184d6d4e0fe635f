//! What a user types, and what is not there; and what must not reach the terminal as it is.

use super::{Desk, Giver};
use serde_json::json;
use shipfs_tests::crafted::{Layout, MANIFEST};
use shipfs_tests::program::said;
use std::time::{Duration, Instant};

/// A CID that nobody has.
const ABSENT: &str = "bafkreiekkmfsskuz3xicyc4hfhvh7i7dg6tmyvphss37p2pjtwbn2gjv5u";
/// What a terminal would clear its screen for, take for its title, or turn around.
const EVIL: &str = "\u{1b}[2J\u{9b}31m\u{1b}]0;title\u{7}\u{202e}\r";

#[test]
fn what_is_no_reference_is_refused() {
    let mut desk = Desk::new();
    for (what, reference) in [
        ("words", "not a CID"),
        ("nothing", ""),
        ("a CID with a letter too many", &format!("{ABSENT}a")),
        ("a CID with a wrong letter", &format!("{}1", &ABSENT[..ABSENT.len() - 1])),
        ("a CID in capitals", &ABSENT.to_uppercase()[1..]),
        ("a path that is no CID", "/ipfs/latest"),
        ("a path below a CID", &format!("/ipfs/{ABSENT}/blobs")),
        ("a name of IPNS", "ipns://example.org"),
        // The hash is the data itself, of more bytes than any tool takes.
        ("c4: an identity of 129 bytes", &identity(129)),
        ("c4: a hash of 8 bytes", "f015512080102030405060708"),
        ("a name of control characters", EVIL),
    ] {
        let mut pull = desk.repository.offline(&["pull", reference]);
        desk.refuses(what, &mut pull);
    }
    desk.expect(
        r#"
- words: 2
error: invalid value 'not a CID' for '<CID>': `not a CID` is not a reference to an image: a repository name must be lower-case

For more information, try '--help'.
- nothing: 2
error: invalid value '' for '<CID>': `` is not a reference to an image: expected a CID, or NAME[:TAG]

For more information, try '--help'.
- a CID with a letter too many: 2
error: invalid value 'CID' for '<CID>': `CID` is not a reference to an image: it looks like a CID, but has 60 letters instead of 59

For more information, try '--help'.
- a CID with a wrong letter: 2
error: invalid value 'CID' for '<CID>': `CID` is not a reference to an image: it looks like a CID, but `1` is no letter of base32

For more information, try '--help'.
- a CID in capitals: 2
error: invalid value 'AFKREIEKKMFSSKUZ3XICYC4HFHVH7I7DG6TMYVPHSS37P2PJTWBN2GJV5U' for '<CID>': `AFKREIEKKMFSSKUZ3XICYC4HFHVH7I7DG6TMYVPHSS37P2PJTWBN2GJV5U` is not a reference to an image: a repository name must be lower-case

For more information, try '--help'.
- a path that is no CID: 2
error: invalid value '/ipfs/latest' for '<CID>': `/ipfs/latest` is not a reference to an image: expected a CID

For more information, try '--help'.
- a path below a CID: 2
error: invalid value '/ipfs/CID/blobs' for '<CID>': `/ipfs/CID/blobs` is not a reference to an image: a CID takes no path

For more information, try '--help'.
- a name of IPNS: 2
error: invalid value 'ipns://example.org' for '<CID>': `ipns://example.org` is not a reference to an image: only ipfs is supported, not ipns

For more information, try '--help'.
- c4: an identity of 129 bytes: 2
error: invalid value 'f0155008101616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161' for '<CID>': `f015500810161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616` is not a reference to an image: it is too long

For more information, try '--help'.
- c4: a hash of 8 bytes: 2
error: invalid value 'f015512080102030405060708' for '<CID>': `f015512080102030405060708` is not a reference to an image: a digest of 8 bytes is refused, 20 to 128 are accepted

For more information, try '--help'.
- a name of control characters: 2
error: invalid value '\u{1b}[2J\u{9b}31m\u{1b}]0;title\u{7}\u{202e}\r' for '<CID>': `\u{1b}[2J\u{9b}31m\u{1b}]0;title\u{7}\u{202e}\r` is not a reference to an image: a repository name must be lower-case

For more information, try '--help'.
"#,
    );
}

/// `f01` `55` `00` and the length: a raw block that is its own name, in base16.
fn identity(length: u8) -> String {
    format!("f015500{:02x}01{}", length & 0x7f | 0x80, "61".repeat(length.into()))
}

/// Offline at once, online when the deadline has passed; who was asked is told.
#[test]
fn an_image_that_nobody_has_is_not_waited_for_without_end() {
    let mut desk = Desk::new();
    let giver = Giver::new(&mut desk, |_| ());
    let start = Instant::now();
    for verb in ["pull", "inspect", "save", "rmi", "push"] {
        let mut command = desk.repository.offline(&[verb, ABSENT]);
        desk.refuses(&format!("{verb}, offline"), &mut command);
    }
    let mut pull = giver.pull(&desk, ABSENT);
    desk.refuses("pull with a deadline", pull.args(["--timeout", "300ms"]));
    let mut pull = giver.pull(&desk, "nobody:1");
    desk.refuses("pull of a name", pull.args(["--timeout", "300ms"]));
    // Without either, a pull waits for half a minute.
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    desk.expect(
        r#"
- pull, offline: 1
error: `CID` is not here, and no peer gave it (nobody was asked)
hint: `shipfs pull`, without --offline, asks others for it
- inspect, offline: 1
error: image `CID` is not here
hint: `shipfs images` lists what is here
- save, offline: 1
error: image `CID` is not here
hint: `shipfs images` lists what is here
- rmi, offline: 1
error: image `CID` is not here
hint: `shipfs images` lists what is here
- push, offline: 1
error: image `CID` is not here
hint: `shipfs images` lists what is here
- pull with a deadline: 1
error: `CID` is not here, and no peer gave it (1 peers asked, 0 have it, nothing came for 0.3 s)
hint: somebody must serve it (`shipfs daemon`, `shipfs push --serve`) on the same network, or be named with --peer; what came so far is kept; `shipfs why CID` tells who was asked
- pull of a name: 1
error: image `docker.io/library/nobody:1` is not here
hint: only a CID can be pulled from others; ask whoever pushed it
"#,
    );
}

/// Whatever others write into tags and annotations is shown as text, and nothing obeys it.
#[test]
fn d12_what_others_wrote_cannot_speak_to_the_terminal() {
    let mut desk = Desk::new();
    let layout = Layout::new(&desk.path());
    let config = layout.document(
        "application/vnd.oci.image.config.v1+json",
        &json!({
            "architecture": EVIL, "os": EVIL, "variant": EVIL, "author": EVIL,
            "config": { "Labels": { (EVIL): EVIL }, "Cmd": [EVIL] },
            "rootfs": { "type": "layers", "diff_ids": [] },
        }),
    );
    let mut top = layout.document(
        MANIFEST,
        &json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [],
            "annotations": { (EVIL): EVIL },
        }),
    );
    top["annotations"] = json!({ "org.opencontainers.image.ref.name": EVIL, (EVIL): EVIL });
    top["platform"] = json!({ "architecture": EVIL, "os": EVIL });
    let source = layout.finish(&[top, layout.image(&[])]);
    let mut push = desk.repository.offline(&["push", &source]);
    desk.refuses("push without a tag", &mut push);
    let mut push = desk.repository.offline(&["push", &format!("{source}:nosuchtag")]);
    desk.refuses("push of another tag", &mut push);
    let pushed = desk.repository.run(&["push", "--name", "evil:1", &format!("{source}:{EVIL}")]);
    let verbs = [&["inspect", &pushed][..], &["images"], &["save", "--platform", "linux/arm64", &pushed]];
    for arguments in verbs.iter().flat_map(|verb| [verb.to_vec(), [&["--json"], *verb].concat()]) {
        let mut command = shipfs_tests::program::shipfs(desk.repository.path());
        let output = command.arg("--offline").args(&arguments).output().expect("it starts");
        let heard = said(&output);
        let obeyed = |letter: &char| (letter.is_control() && *letter != '\n') || *letter == '\u{202e}';
        let obeyed: Vec<_> = heard.chars().filter(obeyed).collect();
        // An archive on stdout is no text.
        assert!(obeyed.is_empty() || arguments.contains(&"save"), "{arguments:?} says {obeyed:?}: {heard}");
    }
    desk.expect(
        r#"
- push without a tag: 1
error: the source holds several images, name one of: \u{1b}[2J\u{9b}31m\u{1b}]0;title\u{7}\u{202e}\r, sha256:HASH
hint: append `:TAG` or `:NAME` to say which image is meant
- push of another tag: 1
error: image `nosuchtag` is not in the source, which has: \u{1b}[2J\u{9b}31m\u{1b}]0;title\u{7}\u{202e}\r, sha256:HASH
hint: append `:TAG` or `:NAME` to say which image is meant
"#,
    );
}
