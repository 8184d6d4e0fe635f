//! Verbs that need nobody else.

use std::fs;

use crate::support::{HELLO_CID, Shipfs, hello, layout};

#[test]
fn push_prints_the_cid_and_nothing_else() {
    let shipfs = Shipfs::new();
    let pushed = shipfs.run(&["push", &hello(), "--name", "hello"]);
    assert_eq!(pushed.ok(), format!("{HELLO_CID}\n"));
    assert!(pushed.stderr.contains("nobody serves it yet"), "{}", pushed.stderr);
    assert!(pushed.stderr.contains(&format!("shipfs pull {HELLO_CID}")), "{}", pushed.stderr);
    assert!(pushed.stderr.contains("\nelapsed: "), "{}", pushed.stderr);
    let mut kinds: Vec<_> = pushed.stderr.lines().filter_map(|line| line.split(' ').next()).take(5).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["config", "layer", "layer", "manifest", "root"], "{}", pushed.stderr);

    let quiet = shipfs.run(&["push", "--quiet", &hello()]);
    assert_eq!((quiet.ok(), quiet.stderr.as_str()), (&*format!("{HELLO_CID}\n"), ""));

    let json = shipfs.run(&["push", "--json", &hello()]);
    assert_eq!(json.json()["cid"], HELLO_CID);
    let events: Vec<serde_json::Value> =
        json.stderr.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(events.iter().filter(|event| event["event"] == "started").count(), 5);
    assert!(events.iter().any(|event| event["event"] == "finished" && event["outcome"] == "present"));
}

#[test]
fn relative_paths_are_the_users() {
    let shipfs = Shipfs::new();
    layout(&shipfs.path().join("here"), 512, &serde_json::json!({}));
    let cid = shipfs.run(&["push", "-q", "oci:here"]);
    let saved = shipfs.run(&["pull", cid.ok().trim_end(), "--offline", "--to", "oci:there"]);
    assert_eq!(saved.ok(), cid.text());
    let blobs = |name: &str| {
        let list = fs::read_dir(shipfs.path().join(name).join("blobs/sha256")).expect("lists");
        list.count()
    };
    assert_eq!(blobs("here"), blobs("there"));
}

#[test]
fn images_have_names_until_they_are_removed() {
    let shipfs = Shipfs::new();
    shipfs.run(&["push", "-q", &hello(), "--name", "hello"]).ok();
    assert_eq!(shipfs.run(&["tag", "hello", "localhost:5000/copy:2"]).ok(), "localhost:5000/copy:2\n");
    assert_eq!(
        shipfs.run(&["images"]).ok(),
        format!(
            "NAME                    CID                                                           SIZE      PLATFORM      ROOT\n\
             hello:latest            {HELLO_CID}   1.6 KiB   linux/amd64   descriptor\n\
             localhost:5000/copy:2   {HELLO_CID}   1.6 KiB   linux/amd64   descriptor\n"
        )
    );
    assert_eq!(shipfs.run(&["images", "--quiet"]).ok(), format!("{HELLO_CID}\n"));
    assert_eq!(shipfs.run(&["ls", "--json"]).json()[1]["name"], "localhost:5000/copy:2");
    let seen = shipfs.run(&["inspect", "hello"]).json();
    assert_eq!((&seen["cid"], &seen["root"]), (&HELLO_CID.into(), &"descriptor".into()));
    assert_eq!(shipfs.run(&["gc"]).ok(), "freed 0 B: 0 files, 0 blocks\n");
    assert_eq!(shipfs.run(&["rmi", "hello", "nothing"]).code, Some(1));
    assert_eq!(shipfs.run(&["images", "--json"]).json().as_array().map(Vec::len), Some(2), "all or none");
    assert_eq!(shipfs.run(&["rmi", HELLO_CID]).ok(), "hello:latest\nlocalhost:5000/copy:2\n");
    let freed = shipfs.run(&["gc", "--json"]).json();
    assert_eq!(freed["files"], 5);
    assert!(fs::read_dir(shipfs.repo().join("blobs/sha256")).expect("lists").next().is_none());
}

#[test]
fn both_shapes_come_from_one_image() {
    let shipfs = Shipfs::new();
    let layout = shipfs.run(&["push", "-q", "--layout", &hello(), "--name", "whole"]);
    assert!(layout.ok().starts_with("bafybei"), "a directory: {}", layout.text());
    let again = shipfs.run(&["push", "-q", "whole"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(shipfs.run(&["inspect", "whole"]).json()["root"], "layout");
}

#[test]
fn images_travel_through_pipes() {
    let (from, to) = (Shipfs::new(), Shipfs::new());
    from.run(&["push", "-q", &hello(), "--name", "hello:1"]).ok();
    // A Docker archive gives the name along, an OCI archive all that the CID is made of.
    for (format, loads) in
        [("docker-archive", "   hello:1\n".to_owned()), ("oci-archive", format!("\n{HELLO_CID}   <none>\n"))]
    {
        let saved = from.run(&["save", "--format", format, "hello:1"]);
        assert_eq!(saved.code, Some(0), "{saved:?}");
        assert_eq!(&saved.stdout[257..262], b"ustar", "an archive and nothing else");
        let loaded = to.run_with(&["load"], &saved.stdout);
        assert!(loaded.ok().ends_with(&loads), "{}", loaded.text());
        let pushed = to.run_with(&["push", "--quiet", "-"], &saved.stdout);
        assert!(pushed.ok().starts_with("bafkrei"), "{pushed:?}");
    }
    let pulled = from.run(&["--json", "pull", HELLO_CID, "--to", "oci-archive:-"]);
    assert_eq!(&pulled.stdout[257..262], b"ustar");
    assert!(pulled.stderr.contains(&format!("\"cid\": \"{HELLO_CID}\"")), "the result goes where talk goes");
}

#[test]
fn damage_is_found_and_moved_away() {
    let shipfs = Shipfs::new();
    shipfs.run(&["push", "-q", &hello(), "--name", "hello"]).ok();
    assert!(shipfs.run(&["verify"]).ok().starts_with("checked 5 files"));
    let blob = fs::read_dir(shipfs.repo().join("blobs/sha256")).expect("lists").next().expect("a blob");
    let path = blob.expect("lists").path();
    fs::write(&path, "something else").expect("damages it");
    let found = shipfs.run(&["verify"]);
    assert_eq!(found.code, Some(1), "{found:?}");
    assert!(found.text().contains("damaged: file sha256:"), "{}", found.text());
    assert!(found.stderr.contains("hint: `shipfs verify --repair`"), "{}", found.stderr);
    let repaired = shipfs.run(&["verify", "--repair"]);
    assert!(repaired.text().contains("moved away: file sha256:"), "{repaired:?}");
    assert!(!path.exists());
    shipfs.run(&["push", "-q", &hello()]).ok();
    shipfs.run(&["verify"]).ok();
}

#[test]
fn a_key_is_made_once_and_kept_from_others() {
    use std::os::unix::fs::PermissionsExt as _;
    let shipfs = Shipfs::new();
    let path = shipfs.repo().join("swarm.key");
    assert_eq!(shipfs.run(&["key", "gen"]).ok(), format!("{}\n", path.display()));
    assert_eq!(fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o600);
    let again = shipfs.run(&["key", "gen"]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("hint: "), "{}", again.stderr);
    let printed = shipfs.run(&["key", "gen", "--output", "-"]);
    assert!(printed.ok().starts_with("/key/swarm/psk/1.0.0/\n/base16/\n"));
    let id = shipfs.run(&["id"]);
    assert!(id.ok().starts_with("peer:      12D3KooW"), "{}", id.text());
    let peer = shipfs.run(&["id", "--quiet"]);
    assert!(id.text().contains(peer.ok().trim_end()), "the same at every start");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let shipfs = Shipfs::new();
    let mut child = shipfs.spawn(&["completion", "bash"]);
    drop(child.0.stdout.take());
    let ran = child.wait();
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}
