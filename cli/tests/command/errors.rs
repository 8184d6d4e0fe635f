//! What goes wrong: exit codes, what is said, and that nothing changes.

use std::fs;

use crate::support::{ABSENT_CID, Shipfs, hello, layout};

#[test]
fn wrong_usage_exits_with_2_before_anything_is_touched() {
    let shipfs = Shipfs::new();
    for (args, says) in [
        (&["pull", "ipns://example.org"][..], "ipns"),
        (&["pull", "not a name"], "expected a CID"),
        (&["pull", "bafkreiekkmfsskuz3xicyc4hfhvh7i7dg6tmyvphss37p2pjtwbn2gjv5u/path"], "takes no path"),
        (&["pull", ABSENT_CID, "--to", "file.tar"], "oci-archive:FILE"),
        (&["pull", ABSENT_CID, "--peer", "127.0.0.1:4001"], "/ip4/"),
        (&["pull", ABSENT_CID, "--timeout", "5 parsecs"], "`ms`, `s`, `m` or `h`"),
        (&["pull", ABSENT_CID, "--offline", "--network", "lan"], "cannot be used with"),
        (&["pull", ABSENT_CID, "--platform", "linux/"], "linux/"),
        (&["push", "oci:"], "a path is missing"),
        (&["push", "--name", "UPPER", "oci:x"], "lower-case"),
        (&["tag", "a", "b@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"], "takes no digest"),
        (&["rmi"], "required"),
        (&["--quiet", "--json", "images"], "cannot be used with"),
        (&["--quiet", "images", "--json"], "cannot be used with"),
        (&["--json", "images", "--quiet"], "cannot be used with"),
        (&["-v", "images", "-q"], "cannot be used with"),
        (&["--offline", "images", "--network", "lan"], "cannot be used with"),
        (&["--mdns", "images", "--no-mdns"], "cannot be used with"),
        (&["pull", &ABSENT_CID[..50]], "it looks like a CID, but has 50 letters instead of 59"),
    ] {
        let ran = shipfs.run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(says), "{args:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty(), "{args:?}: {ran:?}");
    }
    assert!(!shipfs.repo().exists());
    let addresses = shipfs.run(&["--offline", "--peer", "/ip4/127.0.0.1/tcp/1", "images"]);
    assert_eq!(addresses.code, Some(2), "{addresses:?}");
}

#[test]
fn an_absent_image_says_who_was_asked_and_what_helps() {
    let shipfs = Shipfs::new();
    let offline = shipfs.run(&["--offline", "pull", ABSENT_CID]);
    assert_eq!(offline.code, Some(1));
    assert_eq!(
        offline.stderr,
        format!(
            "error: `{ABSENT_CID}` is not here, and no peer gave it (nobody was asked)\n\
             hint: `shipfs pull`, without --offline, asks others for it\n"
        )
    );
    shipfs.run(&["key", "gen"]).ok();
    let alone = shipfs.run(&["--network", "private", "pull", ABSENT_CID, "--timeout", "300ms"]);
    assert_eq!(alone.code, Some(1));
    assert!(alone.stderr.starts_with("network: private\n"), "{}", alone.stderr);
    assert!(alone.stderr.contains("0 peers asked") && alone.stderr.contains("hint: "), "{}", alone.stderr);
    for verb in ["inspect", "rmi", "save"] {
        let ran = shipfs.run(&[verb, "nothing"]);
        assert_eq!(ran.code, Some(1));
        assert_eq!(
            ran.stderr,
            "error: image `docker.io/library/nothing:latest` is not here\nhint: `shipfs images` lists what is here\n"
        );
        assert!(ran.stdout.is_empty());
    }
    assert_eq!(shipfs.run(&["images", "--json"]).json(), serde_json::json!([]));
}

#[test]
fn a_failure_is_json_for_programs() {
    let shipfs = Shipfs::new();
    let ran = shipfs.run(&["--json", "inspect", "nothing"]);
    assert_eq!((ran.code, ran.text()), (Some(1), ""));
    let failed: serde_json::Value = serde_json::from_str(ran.stderr.trim_end()).expect("one line of JSON");
    assert_eq!(failed["event"], "failed");
    assert_eq!(failed["failure"]["kind"], "not-found");
}

#[test]
fn bad_sources_are_refused_and_nothing_is_named() {
    let shipfs = Shipfs::new();
    let archive = shipfs.path().join("cut.tar");
    shipfs.run(&["push", "-q", &hello(), "--name", "hello"]).ok();
    let whole = shipfs.run(&["save", "hello"]);
    fs::write(&archive, &whole.stdout[..whole.stdout.len() / 2]).expect("writes");
    let wrong = layout(&shipfs.path().join("wrong"), 4096, &serde_json::json!({}));
    for blob in fs::read_dir(shipfs.path().join("wrong/blobs/sha256")).expect("lists") {
        let path = blob.expect("lists").path();
        if fs::metadata(&path).expect("is there").len() == 4096 {
            fs::write(path, vec![0; 4096]).expect("damages the layer");
        }
    }
    let before = shipfs.run(&["images"]).stdout;
    for (source, says) in [
        ("docker-archive:/nonexistent.tar".to_owned(), "cannot open `/nonexistent.tar`"),
        ("oci:/nonexistent".into(), "/nonexistent"),
        (format!("oci-archive:{}", archive.display()), ""),
        (wrong, "sha256:"),
        (format!("{}:nosuchtag", hello()), "nosuchtag"),
        ("nothing".into(), "is not here"),
    ] {
        let ran = shipfs.run(&["push", &source]);
        assert_eq!(ran.code, Some(1), "{source}: {ran:?}");
        let error = ran.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(error.contains(says), "{source}: {}", ran.stderr);
        assert!(ran.stdout.is_empty(), "{source}: {ran:?}");
    }
    let file = shipfs.run(&["push", "nothing"]);
    assert!(file.stderr.contains("docker-archive:FILE"), "{}", file.stderr);
    let nonsense = shipfs.run_with(&["load"], b"this is no archive");
    assert_eq!(nonsense.code, Some(1), "{nonsense:?}");
    assert_eq!(shipfs.run(&["images"]).stdout, before);
}

#[test]
fn a_repository_that_cannot_be_used_is_left_alone() {
    let shipfs = Shipfs::new();
    shipfs.run(&["images"]).ok();
    fs::write(shipfs.repo().join("version"), "99\n").expect("writes");
    let ran = shipfs.run(&["images"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("layout version `99`") && ran.stderr.contains("hint: a newer shipfs"),
        "{}",
        ran.stderr
    );
    assert_eq!(fs::read_to_string(shipfs.repo().join("version")).expect("reads"), "99\n");
    let nowhere = shipfs.run(&["--repo", "/proc/self/nowhere", "images"]);
    assert_eq!(nowhere.code, Some(1), "{nowhere:?}");
    assert!(nowhere.stderr.contains("`/proc/self/nowhere`"), "{}", nowhere.stderr);
}

#[test]
fn d12_foreign_text_does_not_reach_the_terminal_as_it_is() {
    let shipfs = Shipfs::new();
    let evil = serde_json::json!({ "evil": "\u{1b}[2J\u{9b}31m\u{202e}", "\u{1b}]0;title\u{7}": "x" });
    let source = layout(&shipfs.path().join("evil"), 64, &evil);
    shipfs.run(&["push", "-q", &source, "--name", "evil"]).ok();
    for args in [&["inspect", "evil"][..], &["inspect", "evil", "--json"], &["images"]] {
        let shown = shipfs.run(args);
        let dangerous = |letter: char| letter != '\n' && (letter.is_control() || letter == '\u{202e}');
        assert!(!shown.ok().contains(dangerous), "{args:?}: {:?}", shown.text());
    }
    let seen = shipfs.run(&["inspect", "evil"]).json();
    assert_eq!(seen["documents"][0]["body"]["annotations"], evil, "nothing is lost");
    // A terminal would obey what clap quotes; what is no terminal gets it without the colours alone.
    let ran = shipfs.run(&["pull", "\u{1b}[2J\u{202e}"]);
    assert!(!ran.stderr.contains(['\u{1b}', '\u{202e}']), "{:?}", ran.stderr);
    assert!(ran.stderr.contains(r"'\u{1b}[2J\u{202e}'"), "{:?}", ran.stderr);
    let ran = shipfs.run(&["push", "oci-archive:\u{1b}[2J"]);
    assert_eq!(ran.code, Some(1));
    assert!(!ran.stderr.contains('\u{1b}'), "{:?}", ran.stderr);
}
