//! Threat A7: what a layer says about layers below it, as an overlay's layer and in a plain directory.

use shipfs_image::layer::{ApplyError, NameProblem, Options, Whiteouts, apply, stage_layer, sweep, unpack_layer};
use shipfs_tests::archives::{Item, archive, directory, file, hard_link, item, symlink};
use shipfs_tests::program::{privileged, run};
use shipfs_tests::tree::{Look, look};
use shipfs_tests::unpacking::{Ground, LAYER, diff_id, is_root_of_the_host, options};
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

/// Names below a directory.
fn names(path: &Path) -> Vec<String> {
    let tree = look(path, Look { owners: false, times: false, xattrs: false, root: false }).expect("a tree");
    tree.into_keys().filter(|name| name != ".").collect()
}

fn applied(ground: &Ground, layers: &[&[Item]]) -> Vec<String> {
    let blobs: Vec<_> = layers.iter().map(|items| archive(items)).collect();
    names(&ground.apply(&blobs).expect("applies"))
}

/// The examples of image-spec's layer.md, and its rule that a whiteout is about lower layers only, in any order.
#[test]
fn a7_whiteouts_remove_what_lower_layers_have() {
    let ground = Ground::new();
    let lower = [
        directory("a"),
        directory("a/b"),
        directory("a/b/c"),
        file("a/b/c/bar", ""),
        file("a/b/c/foo", ""),
        file("f1", ""),
        file("f2", ""),
    ];
    // Explicit and opaque whiteouts that mean the same.
    let upper = [directory("a/b"), file("a/b/.wh.c", "")];
    assert_eq!(applied(&ground, &[&lower, &upper]), ["a", "a/b", "f1", "f2"]);
    let kept = ["a", "a/b", "a/b/c", "a/b/c/foo", "f1", "f2"];
    let opaque = file("a/.wh..wh..opq", "");
    let own = [directory("a/b"), directory("a/b/c"), file("a/b/c/foo", "new")];
    for at in 0..=own.len() {
        let mut upper = own.to_vec();
        upper.insert(at, opaque.clone());
        assert_eq!(applied(&ground, &[&lower, &upper]), kept, "the opaque whiteout comes {at} entries late");
    }
    // A file that is removed and brought again, in either order.
    assert_eq!(applied(&ground, &[&lower, &[file("f1", "new"), file(".wh.f1", "")]]).len(), 7);
    assert_eq!(applied(&ground, &[&lower, &[file(".wh.f1", ""), file("f1", "new")]]).len(), 7);
    // A directory that is replaced: what was in it is gone.
    for upper in
        [[directory("a"), file("a/new", ""), file(".wh.a", "")], [file(".wh.a", ""), directory("a"), file("a/new", "")]]
    {
        assert_eq!(applied(&ground, &[&lower, &upper]), ["a", "a/new", "f1", "f2"]);
    }
    // In directories that the layer has no entry for.
    assert_eq!(applied(&ground, &[&lower, &[file("a/b/c/.wh.foo", "")]]).len(), 6);
    assert_eq!(
        applied(&ground, &[&lower, &[file("a/b/c/new", ""), file(".wh..wh..opq", "")]]),
        ["a", "a/b", "a/b/c", "a/b/c/new"]
    );
    // Of nothing.
    assert_eq!(
        applied(&ground, &[&lower, &[file(".wh.nothing", ""), file("no/where/.wh.x", ""), file("f1/.wh.x", "")]]).len(),
        7
    );
    // What they are called like does not matter; what they are, neither.
    assert_eq!(
        applied(&ground, &[&lower, &[symlink(".wh.f1", "a"), directory(".wh.f2"), hard_link("a/.wh.b", "f1")]]),
        ["a"]
    );
}

#[test]
fn a7_whiteouts_with_adversarial_names_escape_nothing() {
    let ground = Ground::new();
    let lower = archive(&[directory("a"), file("a/f", ""), symlink("out", "../../outside"), symlink("a/up", "..")]);
    for (name, problem) in [
        (".wh.", NameProblem::Whiteout),
        (".wh..", NameProblem::Whiteout),
        (".wh...", NameProblem::Whiteout),
        ("a/.wh..", NameProblem::Whiteout),
        (".wh.a/f", NameProblem::Reserved),
        (".wh..wh..opq/f", NameProblem::Reserved),
        (".wh.a/.wh.f", NameProblem::Reserved),
        (".wh.../", NameProblem::Slash),
        (".wh.x/../..", NameProblem::Root),
    ] {
        let blob = archive(&[file(name, "")]);
        for result in
            [ground.unpack(&blob, &options()).map(|_| ()), ground.apply(&[lower.clone(), blob.clone()]).map(|_| ())]
        {
            let error = result.expect_err(name);
            assert!(matches!(error, ApplyError::Name { problem: got, .. } if got == problem), "{name}: {error:?}");
        }
    }
    let error = ground.unpack(&archive(&[hard_link("x", ".wh.a")]), &options()).expect_err("refused");
    assert!(matches!(error, ApplyError::Name { problem: NameProblem::Reserved, .. }), "{error:?}");
    // Through links, to the outside: there is nothing of that name inside.
    for name in [
        "out/.wh.secret",
        "out/.wh..wh..opq",
        "out/directory/.wh.file",
        "a/up/up/../.wh.outside",
        "../../.wh.outside",
        "/.wh.outside",
    ] {
        let blob = archive(&[file(name, "")]);
        let _ = ground.unpack(&blob, &options());
        ground.apply(&[lower.clone(), blob]).expect("applies");
    }
    // AUFS's own files.
    let (path, applied) = ground
        .unpack(&archive(&[directory(".wh..wh.plnk"), file(".wh..wh.aufs", ""), file("x", "")]), &options())
        .expect("unpacks");
    assert_eq!((names(&path), applied.warnings.count), (vec!["x".to_owned()], 2));
}

#[test]
fn a7_an_overlay_gets_its_own_marks() {
    let ground = Ground::new();
    let attribute = if is_root_of_the_host() { "trusted.overlay.opaque" } else { "user.overlay.opaque" };
    let opaque = |path: &Path| {
        let mut value = [0; 8];
        rustix::fs::lgetxattr(path, attribute, &mut value[..]).map(|length| value[..length].to_vec()).ok()
    };
    let whiteout = |path: &Path| {
        fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
    };
    let unpack = |items: &[Item]| ground.unpack(&archive(items), &options()).expect("unpacks").0;
    let path = unpack(&[
        file("d/.wh.gone", ""),
        directory("o"),
        file("o/.wh..wh..opq", ""),
        file("i/.wh..wh..opq", ""),
        directory("plain"),
    ]);
    assert!(whiteout(&path.join("d/gone")) && opaque(&path.join("d")).is_none());
    assert_eq!(
        (opaque(&path.join("o")), opaque(&path.join("i")), opaque(&path.join("plain"))),
        (Some(b"y".to_vec()), Some(b"y".to_vec()), None)
    );
    assert!(!path.join("o/.wh..wh..opq").exists());
    // What the same layer brings stays; a directory hides what was there before, in whatever order, entry or none.
    for items in [
        vec![file(".wh.x", ""), directory("x"), file("x/y", "")],
        vec![directory("x"), file("x/y", ""), file(".wh.x", "")],
        vec![file(".wh.x", ""), file("x/y", "")],
        vec![file("x/y", ""), file(".wh.x", "")],
    ] {
        let path = unpack(&items);
        assert!(path.join("x/y").is_file() && opaque(&path.join("x")).is_some(), "{items:?}");
    }
    for items in [[file(".wh.x", ""), file("x", "f")], [file("x", "f"), file(".wh.x", "")]] {
        assert!(unpack(&items).join("x").is_file(), "{items:?}");
    }
    // Twice is as good as once, and a whiteout is nothing to link to.
    assert!(whiteout(&unpack(&[file(".wh.x", ""), file(".wh.x", "")]).join("x")));
    let error = ground.unpack(&archive(&[file(".wh.x", ""), hard_link("y", "x")]), &options()).expect_err("refused");
    assert!(matches!(error, ApplyError::HardLink { .. }), "{error:?}");
    // The layer's root.
    let (path, _) = ground.unpack(&archive(&[file(".wh..wh..opq", "")]), &options()).expect("unpacks");
    assert!(opaque(&path).is_some());
}

/// The kernel's overlay of our layers is what applying them one above the other gives.
#[test]
fn privileged_a7_overlays_and_plain_directories_agree() {
    if !privileged("privileged_a7_overlays_and_plain_directories_agree") {
        return;
    }
    let ground = Ground::new();
    let layers = [
        vec![
            directory("a").mode(0o700),
            file("a/1", "1"),
            directory("b"),
            file("b/2", "2"),
            directory("b/c"),
            file("b/c/3", "3"),
            symlink("l", "a"),
            item(b'6', "p"),
        ],
        vec![
            file("a/.wh.1", ""),
            directory("b"),
            file("b/.wh..wh..opq", ""),
            file("b/new", "n"),
            directory("b/c"),
            file("b/c/4", "4"),
            file(".wh.l", ""),
        ],
        vec![
            file(".wh.p", ""),
            directory("p"),
            file("p/in", ""),
            directory("b"),
            file("b/5", "5"),
            file(".wh.b", ""),
            directory("a").mode(0o711),
            file("a/1", "again"),
        ],
    ];
    let blobs: Vec<_> = layers.iter().map(|items| archive(items)).collect();
    let plain = ground.apply(&blobs).expect("applies");
    let mut lowers: Vec<String> =
        blobs.iter().map(|blob| ground.unpack(blob, &options()).expect("unpacks").0.display().to_string()).collect();
    lowers.reverse();
    let mounted = tempfile::tempdir().expect("a directory");
    let mut mount = Command::new("mount");
    mount.args(["-t", "overlay", "overlay", "-o", &format!("ro,lowerdir={}", lowers.join(":"))]).arg(mounted.path());
    run(&mut mount);
    let all = Look { times: true, root: false, ..Look::ALL };
    let trees = [mounted.path(), &plain].map(|path| look(path, all));
    run(Command::new("umount").arg(mounted.path()));
    let [overlay, plain] = trees.map(|tree| tree.expect("a tree"));
    let without_implied =
        |tree: shipfs_tests::tree::Tree| -> Vec<_> { tree.into_iter().filter(|(name, _)| name != ".").collect() };
    assert_eq!(without_implied(overlay), without_implied(plain));
}

/// A directory without an entry would hide the owner and mode that lower layers gave it.
#[test]
fn layers_inherit_directories_they_have_no_entry_for() {
    let ground = Ground::new();
    let lower = archive(&[directory("home").mode(0o711).time(7), directory("home/user").mode(0o700).time(8)]);
    let upper = archive(&[file("home/user/file", ""), file("new/file", "")]);
    let (below, _) = ground.unpack(&lower, &options()).expect("unpacks");
    let mut staged =
        stage_layer(&upper[..], LAYER, Some(&diff_id(&upper)), &ground.layers(), &options()).expect("unpacks");
    assert_eq!(staged.applied().expect("applied").implied, ["home", "home/user", "new"].map(Path::new));
    staged.inherit(&[&below]).expect("inherits");
    staged.publish("upper").expect("published");
    let mode = |name: &str| {
        fs::metadata(ground.layers().join("upper").join(name))
            .map(|meta| (meta.mode() & 0o7777, meta.mtime()))
            .expect("a directory")
    };
    assert_eq!((mode("home"), mode("home/user"), mode("new").0), ((0o711, 7), (0o700, 8), 0o755));
    ground.check();
}

#[test]
fn layers_appear_whole_and_once() {
    let ground = Ground::new();
    let blob = archive(&[file("x", "data")]);
    let id = diff_id(&blob);
    let unpack = |name: &str| unpack_layer(&blob[..], LAYER, Some(&id), &ground.layers(), name, &options());
    assert_eq!(unpack("one").expect("unpacks").diff_id, id);
    // Somebody else was first.
    fs::write(ground.layers().join("one/theirs"), "").expect("written");
    unpack("one").expect("unpacks");
    assert_eq!(names(&ground.layers().join("one")), ["theirs", "x"]);
    for name in ["", ".", "..", ".hidden", "a/b", "../outside/x", "a\0b"] {
        let error = unpack(name).expect_err("refused");
        assert!(matches!(error, ApplyError::Place { .. }), "{name}: {error:?}");
    }
    ground.check();
    // Several at once.
    std::thread::scope(|scope| {
        let both: Vec<_> =
            (0..4).map(|number| scope.spawn(move || unpack(["two", "three"][number % 2]).map(|_| ()))).collect();
        both.into_iter().for_each(|one| one.join().expect("no panic").expect("unpacks"));
    });
    ground.check();
    // What a killed process leaves is swept away, and what is being unpacked is not.
    let left = ground.layers().join(".unpacking-1-1");
    fs::create_dir_all(left.join("a/b")).expect("a directory");
    fs::set_permissions(left.join("a"), fs::Permissions::from_mode(0o000)).expect("a mode");
    let staged = stage_layer(&blob[..], LAYER, None, &ground.layers(), &options()).expect("unpacks");
    assert_eq!(sweep(&ground.layers()).expect("swept"), 1);
    staged.publish("four").expect("published");
    ground.check();
    assert_eq!(names(&ground.layers().join("four")), ["x"]);
    assert_eq!(sweep(&ground.layers().join("nowhere")).expect("nothing"), 0);
}

/// Directories below an opaque one, as deep as they come.
#[test]
fn a7_deep_trees_are_pruned_and_removed() {
    let ground = Ground::new();
    let deep = "d/".repeat(900);
    let lower =
        archive(&[directory("x").pax("path", format!("o/{deep}")), file("y", "").pax("path", format!("o/{deep}file"))]);
    for upper in [
        [file("o/.wh..wh..opq", ""), directory("o")],
        [file(".wh.o", ""), directory("o")],
        [directory("o"), file("o/.wh..wh..opq", "")],
    ] {
        let path = ground.apply(&[lower.clone(), archive(&upper)]).expect("applies");
        assert_eq!(names(&path), ["o"]);
    }
    // What is not a directory takes the place of one.
    let path = ground.apply(&[lower.clone(), archive(&[file("o", "")])]).expect("applies");
    assert_eq!(names(&path), ["o"]);
    // With a target that has things in it already, an overlay's layer keeps them.
    let open = fs::File::open(&path).expect("a directory");
    let mut overlay: Options = options();
    overlay.whiteouts = if is_root_of_the_host() { Whiteouts::Overlay } else { Whiteouts::OverlayUser };
    apply(&archive(&[file(".wh.p", ""), file("n", "")])[..], LAYER, None, open.as_fd(), &overlay).expect("applies");
    assert_eq!(names(&path), ["n", "o", "p"]);
}
