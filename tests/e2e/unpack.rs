//! Threats A1-A4, A6, A8, A9 and A14: layers that want out, or in where they should not be.

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof};
use shipfs_image::layer::{ApplyError, Devices, HeaderProblem, Limit, NameProblem, Options, Ownership, unpack_layer};
use shipfs_tests::archives::{Item, archive, directory, file, hard_link, item, symlink};
use shipfs_tests::program::privileged;
use shipfs_tests::tree::{Look, look};
use shipfs_tests::unpacking::{Ground, LAYER, diff_id, is_root_of_the_host, options, told};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

/// Whether an error is the right one.
type Check = Box<dyn Fn(&ApplyError) -> bool>;

/// Names below the root after unpacking one layer.
fn names(ground: &Ground, items: &[Item]) -> Result<Vec<String>, String> {
    let tree = ground.tree(&archive(items))?;
    Ok(tree.into_keys().filter(|name| name != ".").collect())
}

fn refused(ground: &Ground, items: &[Item]) -> ApplyError {
    ground.unpack(&archive(items), &options()).expect_err("refused")
}

#[test]
fn a1_names_stay_below_the_root() {
    let ground = Ground::new();
    let absolute = ground.outside().join("new").display().to_string();
    for (name, expected) in [
        ("x", vec!["x"]),
        ("../x", vec!["x"]),
        ("/x", vec!["x"]),
        ("//x", vec!["x"]),
        ("a/../../x", vec!["x"]),
        ("../../../../../../../../../../x", vec!["x"]),
        ("./../outside/new", vec!["outside", "outside/new"]),
        ("/../outside/secret", vec!["outside", "outside/secret"]),
        ("a//./b", vec!["a", "a/b"]),
        ("a\\..\\b", vec!["a\\\\..\\\\b"]),
        ("...", vec!["..."]),
        ("..x/y..", vec!["..x", "..x/y.."]),
        ("%2e%2e/x", vec!["%2e%2e", "%2e%2e/x"]),
    ] {
        assert_eq!(
            names(&ground, &[file(name, "data")]).as_deref(),
            Ok(&expected.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()[..]),
            "{name}"
        );
        assert_eq!(
            names(&ground, &[item(b'0', "short").pax("path", name).data("data")]).expect("unpacks").len(),
            expected.len()
        );
    }
    let found = names(&ground, &[item(b'0', "short").pax("path", &absolute)]).expect("unpacks");
    assert!(found.iter().any(|name| format!("/{name}") == absolute), "{found:?}");
}

#[test]
fn a1_names_that_are_none_are_refused() {
    let ground = Ground::new();
    let name =
        |problem| move |error: &ApplyError| matches!(error, ApplyError::Name { problem: got, .. } if *got == problem);
    let limit = |limit| move |error: &ApplyError| matches!(error, ApplyError::Limit { what, .. } if *what == limit);
    let long = "n".repeat(256);
    let far = "d/".repeat(2100);
    let deep = "d/".repeat(1025);
    let checks: Vec<(Item, Check)> = vec![
        (file("", ""), Box::new(name(NameProblem::Empty))),
        (file("x/", "data"), Box::new(name(NameProblem::Slash))),
        (file("x/.", ""), Box::new(name(NameProblem::Slash))),
        (file("x/..", ""), Box::new(name(NameProblem::Root))),
        (file("a/b/..", ""), Box::new(name(NameProblem::Slash))),
        (symlink(".", "/"), Box::new(name(NameProblem::Root))),
        (symlink("/", ".."), Box::new(name(NameProblem::Root))),
        (file("x", "").pax("path", b"a\0b"), Box::new(name(NameProblem::Zero))),
        (symlink("x", ""), Box::new(name(NameProblem::Target))),
        (hard_link("x", ""), Box::new(name(NameProblem::Target))),
        (symlink("x", "y").pax("linkpath", b"a\0b"), Box::new(name(NameProblem::Zero))),
        (file("x", "").pax("path", &long), Box::new(limit(Limit::NameBytes))),
        (file("x", "").long(b'L', format!("a/{long}/b")), Box::new(limit(Limit::NameBytes))),
        (directory("x").pax("path", &far), Box::new(limit(Limit::PathBytes))),
        (directory("x").pax("path", &deep), Box::new(limit(Limit::PathDepth))),
        (symlink("x", "y").pax("linkpath", &far), Box::new(limit(Limit::PathBytes))),
    ];
    for (bad, check) in checks {
        let error = refused(&ground, &[file("before", ""), bad.clone()]);
        assert!(check(&error), "{bad:?}: {error:?}");
    }
}

/// Every way to a directory or a file outside, in all orders of making the link and going through it.
#[test]
fn a2_nothing_goes_through_a_link() {
    let ground = Ground::new();
    let outside = ground.outside().display().to_string();
    let targets =
        ["../../outside", "../../../../../..", "/", &outside, ".", "..", "loop", "missing/deep", "other", "/../.."];
    for target in targets {
        let link = symlink("loop", target);
        let attacks = [
            file("loop/secret", "overwritten"),
            file("loop/outside/secret", "overwritten"),
            directory("loop").mode(0o777),
            directory("loop/directory").mode(0o777),
            file("loop", "overwritten"),
            symlink("loop/link", "elsewhere"),
            hard_link("stolen", "loop/secret"),
            hard_link("loop/directory/file", "victim"),
            item(b'6', "loop/pipe"),
            file("loop/.wh.secret", ""),
            file("loop/directory/.wh..wh..opq", ""),
        ];
        for attack in &attacks {
            for items in [
                vec![file("victim", "v"), link.clone(), attack.clone()],
                vec![file("victim", "v"), attack.clone(), link.clone()],
                vec![file("victim", "v"), link.clone(), attack.clone(), link.clone(), attack.clone()],
                vec![directory("loop"), file("victim", "v"), attack.clone(), link.clone(), attack.clone()],
            ] {
                // Some cannot be made; none may reach the outside, which unpacking checks.
                let _ = ground.unpack(&archive(&items), &options());
                let _ = ground.apply(&[archive(&items[..items.len() - 1]), archive(&items)]);
            }
        }
    }
}

#[test]
fn a2_links_inside_are_followed_inside() {
    let ground = Ground::new();
    let found = names(
        &ground,
        &[
            directory("usr/bin"),
            symlink("bin", "usr/bin"),
            symlink("absolute", "/usr"),
            symlink("up", "../../../usr/bin"),
            symlink("dangling", "made/by/need"),
            file("bin/one", "1"),
            file("absolute/bin/two", "2"),
            file("up/three", "3"),
            file("dangling/four", "4"),
        ],
    );
    let expected = [
        "absolute",
        "bin",
        "dangling",
        "made",
        "made/by",
        "made/by/need",
        "made/by/need/four",
        "up",
        "usr",
        "usr/bin",
        "usr/bin/one",
        "usr/bin/three",
        "usr/bin/two",
    ];
    assert_eq!(found.expect("unpacks"), expected);
    // The kernel's limit, and no endless walk.
    let chain: Vec<_> = (0..50).map(|n| symlink(format!("l{n}"), format!("l{}", n + 1))).collect();
    let error = refused(&ground, &[&chain[..], &[file("l0/x", "")]].concat());
    assert!(matches!(error, ApplyError::Write { .. }), "{error:?}");
}

#[test]
fn a3_hard_links_stay_below_the_root() {
    let ground = Ground::new();
    let secret = ground.outside().join("secret");
    for target in [
        "../../outside/secret",
        "../outside/secret",
        &secret.display().to_string(),
        "nothing",
        "later",
        "..",
        "/",
        "self",
    ] {
        let error = refused(&ground, &[hard_link("self", target), file("later", "")]);
        assert!(matches!(error, ApplyError::HardLink { .. }), "{target}: {error:?}");
    }
    // To a link that leads outside: it is the link that gets a second name, and nothing is written through it.
    let out = "../../outside/secret";
    let tree =
        ground.tree(&archive(&[symlink("link", out), hard_link("name", "link"), file("name", "mine").mode(0o777)]));
    let tree = tree.expect("unpacks");
    assert_eq!(tree["link"], format!("link to {out}"));
    assert!(tree["name"].starts_with("file 4 "), "{tree:?}");
    // Through a directory that is a link.
    let through = [symlink("d", "../../outside"), hard_link("name", "d/secret")];
    assert!(matches!(refused(&ground, &through), ApplyError::HardLink { .. }));
    // A file that has two names is replaced under one of them only.
    let tree = ground
        .tree(&archive(&[file("a", "one"), hard_link("b", "a"), file("b", "other"), hard_link("a", "a")]))
        .expect("unpacks");
    assert!(tree["a"].starts_with("file 3 ") && tree["b"].starts_with("file 5 "), "{tree:?}");
    // Directories have one name.
    assert!(matches!(refused(&ground, &[directory("d"), hard_link("e", "d")]), ApplyError::HardLink { .. }));
    assert_eq!(fs::metadata(secret).expect("there").nlink(), 1);
}

/// As in CVE-2021-32760 and RUSTSEC-2026-0067: a directory where a link is changes the link's target.
#[test]
fn a4_modes_and_owners_are_not_set_through_links() {
    let ground = Ground::new();
    for target in ["../../outside/directory", "/", "../.."] {
        for second in [
            directory("link").mode(0o777).owner(1234, 1234),
            directory("link/.").mode(0o777).owner(1234, 1234),
            file("link", "x").mode(0o4777).owner(1234, 1234),
            item(b'6', "link").mode(0o777),
            symlink("link", "../../outside/secret").mode(0o777).owner(1234, 1234).time(1),
            hard_link("link", "other").mode(0o777),
        ] {
            let items = [file("other", ""), symlink("link", target).owner(4321, 4321).time(0), second.clone()];
            let tree = ground.tree(&archive(&items)).expect("unpacks");
            assert_ne!(tree["link"], format!("link to {target}"), "{tree:?}");
            // And when a directory that times are still due for becomes a link.
            let swapped =
                [directory("link").mode(0o500).time(5), symlink("link", target), directory("link/sub").mode(0o700)];
            let _ = ground.unpack(&archive(&swapped), &options());
        }
    }
}

#[test]
fn a6_later_entries_replace_earlier_ones() {
    let ground = Ground::new();
    let tree = |items: &[Item]| ground.tree(&archive(items)).expect("unpacks");
    assert!(tree(&[file("x", "one"), file("x", "other")])["x"].starts_with("file 5 "));
    assert!(tree(&[file("x", "one"), directory("x"), file("x/y", "")]).contains_key("x/y"));
    let gone = tree(&[directory("x"), file("x/y", ""), file("x", "file"), file("z", "")]);
    assert!(gone["x"].starts_with("file 4 ") && !gone.contains_key("x/y"), "{gone:?}");
    let merged = tree(&[directory("x").mode(0o700), file("x/y", ""), directory("x").mode(0o711)]);
    assert!(merged["x"].starts_with("directory 711") && merged.contains_key("x/y"), "{merged:?}");
    assert_eq!(tree(&[file("x", ""), symlink("x", "y")])["x"], "link to y");
    assert!(tree(&[symlink("x", "y"), file("x", "f")])["x"].starts_with("file 1 "));
    assert!(tree(&[item(b'6', "x"), file("x", "f")])["x"].starts_with("file 1 "));
    // Something in the way is the archive's fault.
    let error = refused(&ground, &[file("x", ""), file("x/y", "")]);
    assert!(matches!(error, ApplyError::NotADirectory { .. }), "{error:?}");
    // The root's own entry.
    let (path, _) =
        ground.unpack(&archive(&[directory("./").mode(0o711).time(5), file("./x", "")]), &options()).expect("unpacks");
    let root = fs::metadata(path).expect("a directory");
    assert_eq!((root.mode() & 0o7777, root.mtime()), (0o711, 5));
}

#[test]
fn a8_devices_are_replaced_or_left_out() {
    let ground = Ground::new();
    let items = [
        item(b'3', "dev/null").device(1, 3).mode(0o666),
        item(b'4', "dev/sda").device(8, 0),
        item(b'6', "dev/pipe").mode(0o622),
    ];
    let (path, applied) = ground.unpack(&archive(&items), &options()).expect("unpacks");
    let look_at = |path: &std::path::Path| {
        look(path, Look { owners: false, times: false, xattrs: false, root: false }).expect("a tree")
    };
    let tree = look_at(&path);
    assert!(tree["dev/null"].starts_with("file 0 ") && tree["dev/null"].ends_with(" 666"), "{tree:?}");
    assert_eq!(tree["dev/pipe"], "pipe 622");
    assert_eq!(applied.warnings.count, 2);
    assert_eq!(applied.warnings.first[0].to_string(), "device `dev/null` became an empty file");
    let mut skip = options();
    skip.devices = Devices::Skip;
    let (path, applied) = ground.unpack(&archive(&items), &skip).expect("unpacks");
    assert_eq!(look_at(&path).into_keys().collect::<Vec<_>>(), [".", "dev", "dev/pipe"]);
    assert_eq!(applied.warnings.count, 2);
    // A number that is none.
    let error = refused(&ground, &[item(b'3', "dev/x").patch(329, "12345678")]);
    assert!(matches!(error, ApplyError::Header { .. }), "{error:?}");
}

#[test]
fn privileged_a8_devices_are_made_when_asked_for_but_never_whiteouts() {
    if !privileged("privileged_a8_devices_are_made_when_asked_for_but_never_whiteouts") {
        return;
    }
    let ground = Ground::new();
    let mut create = Options::root();
    create.devices = Devices::Create;
    let items = [
        item(b'3', "null").device(1, 3).mode(0o666).owner(5, 6),
        item(b'4', "sda").device(8, 0),
        item(b'3', "etc").device(0, 0),
    ];
    let (path, applied) = ground.unpack(&archive(&items), &create).expect("unpacks");
    let tree = look(&path, Look { times: false, root: false, ..Look::ALL }).expect("a tree");
    assert_eq!(tree["null"], "character 1:3 666 5:6");
    assert_eq!(tree["sda"], "block 8:0 644 0:0");
    assert!(!tree.contains_key("etc") && applied.warnings.count == 1, "{tree:?}");
}

#[test]
fn privileged_a9_setuid_and_attributes_are_kept_where_others_cannot_go() {
    if !privileged("privileged_a9_setuid_and_attributes_are_kept_where_others_cannot_go") {
        return;
    }
    let ground = Ground::new();
    let capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let items = [
        directory("bin")
            .mode(0o1777)
            .xattr("trusted.overlay.opaque", "y")
            .xattr("user.overlay.redirect", "/etc")
            .xattr("user.kept", "1"),
        file("bin/su", "#!")
            .mode(0o6755)
            .owner(0, 42)
            .xattr("security.capability", capability)
            .xattr("trusted.kept", "2")
            .xattr("trusted.overlay.metacopy", ""),
        symlink("bin/link", "su").xattr("trusted.kept", "3").owner(7, 8).time(9),
        file("selinux", "").xattr("security.selinux", "system_u:object_r:etc_t:s0"),
        directory("mail").mode(0o2775).owner(0, 8),
    ];
    let (path, applied) = ground.unpack(&archive(&items), &Options::root()).expect("unpacks");
    let tree = look(&path, Look { root: false, ..Look::ALL }).expect("a tree");
    let time = "1600000000.000000000";
    assert_eq!(tree["bin"], format!("directory 1777 0:0 {time} user.kept=1"));
    let kept = capability.escape_ascii();
    assert!(
        tree["bin/su"].ends_with(&format!(" 6755 0:42 {time} security.capability={kept} trusted.kept=2")),
        "{}",
        tree["bin/su"]
    );
    assert_eq!(tree["bin/link"], "link to su 7:8 9.000000000 trusted.kept=3");
    assert!(tree["selinux"].ends_with(time), "{}", tree["selinux"]);
    assert_eq!(tree["mail"], format!("directory 2775 0:8 {time}"));
    assert_eq!(applied.warnings.count, 0);
    // CVE-2021-41091: another user of the host must not reach it.
    fs::set_permissions(ground.outside().parent().expect("a folder"), fs::Permissions::from_mode(0o755))
        .expect("a mode");
    let su = path.join("bin/su");
    let other = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"])
        .arg(&su)
        .output()
        .expect("setpriv");
    assert!(
        !other.status.success() && String::from_utf8_lossy(&other.stderr).contains("Permission denied"),
        "{other:?}"
    );
    fs::set_permissions(ground.layers(), fs::Permissions::from_mode(0o711)).expect("a mode");
    let error = ground.unpack(&archive(&items), &Options::root()).expect_err("refused");
    assert!(matches!(error, ApplyError::Exposed { mode: 0o711, .. }), "{error:?}");
    // Without root, everything is the caller's, and what only root may set is told.
    fs::set_permissions(ground.layers(), fs::Permissions::from_mode(0o700)).expect("a mode");
    let mut squash = Options::root();
    squash.ownership = Ownership::Squash;
    let (path, _) = ground.unpack(&archive(&items), &squash).expect("unpacks");
    assert_eq!(fs::symlink_metadata(path.join("bin/link")).expect("a link").uid(), 0);
}

#[test]
fn a14_owners_are_32_bits() {
    let ground = Ground::new();
    let number = |error: &ApplyError| {
        matches!(error, ApplyError::Header { problem: HeaderProblem::Number("user" | "group"), .. })
    };
    for bad in [
        file("x", "").owner(1 << 32, 0),
        file("x", "").owner(0, u64::from(u32::MAX)),
        file("x", "").patch(108, [0xff; 8]),
        file("x", "").pax("uid", "4294967296"),
        file("x", "").pax("uid", "4294967295"),
        file("x", "").pax("gid", "-1"),
        file("x", "").pax("gid", "0x10"),
        file("x", "").pax("uid", "root"),
        file("x", "").pax("uid", "18446744073709551616"),
    ] {
        let error = refused(&ground, std::slice::from_ref(&bad));
        assert!(number(&error), "{bad:?}: {error:?}");
    }
    let fine =
        [file("x", "").pax("uid", "4294967294").pax("gid", "2097152"), file("y", "").owner(3_000_000, 4_000_000)];
    let (path, _) = ground.unpack(&archive(&fine), &options()).expect("unpacks");
    if is_root_of_the_host() {
        let owner = |name: &str| fs::metadata(path.join(name)).map(|meta| (meta.uid(), meta.gid())).expect("a file");
        assert_eq!((owner("x"), owner("y")), ((4_294_967_294, 2_097_152), (3_000_000, 4_000_000)));
    }
    // What is no layer, and what is one that only its keys open.
    for media_type in
        ["application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", ""]
    {
        let blob = archive(&fine);
        let error = unpack_layer(&blob[..], media_type, Some(&diff_id(&blob)), &ground.layers(), "x", &options())
            .expect_err("refused");
        assert!(matches!(error, ApplyError::MediaType { .. }), "{}", told(&error));
    }
    assert!(LAYER.ends_with("tar"));
}

/// Paths of few names, so that entries meet; some want out.
fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![5 => "[abc]", 1 => Just("..".to_owned()), 1 => Just(String::new())];
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

fn entry() -> impl Strategy<Value = Item> {
    let target = prop_oneof![
        path(),
        Just("..".to_owned()),
        Just("/".to_owned()),
        Just("../..".to_owned()),
        Just("../../outside".to_owned()),
        Just("../../outside/directory".to_owned()),
        Just("/a/../../outside/secret".to_owned()),
    ];
    (path(), target, 0..10, any::<bool>()).prop_map(|(path, target, kind, wide)| {
        // Without root, this could not look into a directory that is closed.
        let narrow = if rustix::process::geteuid().is_root() { 0o100 } else { 0o700 };
        let mode = if wide { 0o777 } else { narrow };
        match kind {
            0..=1 => directory(path).mode(mode),
            2..=3 => file(path, "data").mode(mode),
            4..=6 => symlink(path, target),
            7 => hard_link(path, target),
            8 => file(path.clone() + "/.wh.a", ""),
            _ => file(path + "/.wh..wh..opq", ""),
        }
    })
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a2_no_order_of_entries_reaches_the_outside(items in prop::collection::vec(entry(), 1..14)) {
        let ground = Ground::new();
        let _ = ground.unpack(&archive(&items), &options());
        let _ = ground.apply(&[archive(&items[..items.len() / 2]), archive(&items[items.len() / 2..])]);
    }
}
