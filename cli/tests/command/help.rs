//! Help, version, completion: what a user reads before anything works.

use crate::support::Shipfs;

const VERBS: [&str; 32] = [
    "push",
    "pull",
    "images",
    "inspect",
    "tag",
    "rmi",
    "save",
    "load",
    "cp",
    "image",
    "login",
    "logout",
    "run",
    "ps",
    "logs",
    "exec",
    "stop",
    "kill",
    "rm",
    "build",
    "gc",
    "verify",
    "daemon",
    "registry",
    "id",
    "peers",
    "why",
    "doctor",
    "config",
    "key",
    "version",
    "completion",
];

#[test]
fn the_short_help_fits_on_a_screen() {
    let shipfs = Shipfs::new();
    let help = shipfs.run(&["-h"]);
    let expected = "\
Ships container images over IPFS: no registry, no other daemon

Usage: shipfs [OPTIONS] <COMMAND>

Commands:
  push        Take an image in and print its CID
  pull        Make an image local, by its CID
  images      List the images that are in the repository [alias: ls]
  inspect     Show everything known about an image, as JSON
  tag         Give an image one more name
  rmi         Remove images from the list
  save        Write an image of the repository to an archive or a directory
  load        Take in every image of an archive, under the names they have there
  cp          Copy an image from one place to another, as it is
  image       Encrypt and decrypt the layers of images
  login       Log in to a registry
  logout      Forget the password for a registry
  run         Run a command in a container of an image
  ps          List the containers
  logs        Print what a container printed that was started with `run --detach`
  exec        Run one more command in a container that runs
  stop        Ask containers to end, and end those that do not
  kill        Send a signal to containers
  rm          Remove containers that have ended
  commit      Make an image of a container, and print its CID
  build       Build an image from a Dockerfile, with `ipfs://CID` in it, by whatever builder is here
  gc          Free the space of everything that no image, pin or running command needs
  verify      Hash everything in the repository and say what is damaged
  daemon      Serve what is in the repository until told to stop
  registry    Let the clients of registries pull by CID, and push
  id          Say who this node is: peer ID, network, addresses
  peers       List the peers that the running node is connected to
  why         Say where something is, or why it did not come
  doctor      Check whether this node can do its work, and say what to do where it cannot
  config      Show which settings count, and where each comes from
  key         Manage the key of a private network
  version     Show the version of this program
  completion  Print a script that completes this command's words in a shell
  help        Print this message or the help of the given subcommand(s)
";
    assert!(help.ok().starts_with(expected), "{}", help.text());
    assert!(help.text().lines().count() < 64, "{}", help.text());
    assert!(help.text().lines().all(|line| line.chars().count() <= 110), "{}", help.text());
}

#[test]
fn every_verb_explains_itself_without_a_repository() {
    let shipfs = Shipfs::new();
    for verb in VERBS {
        let help = shipfs.run(&[verb, "--help"]);
        assert!(help.ok().contains(&format!("Usage: shipfs {verb}")), "{verb}: {}", help.text());
        assert!(help.text().contains("--repo"), "{verb}: {}", help.text());
    }
    for verb in ["push", "pull", "save", "load", "daemon", "completion"] {
        assert!(shipfs.run(&[verb, "--help"]).ok().contains("Examples:"), "{verb}");
    }
    assert!(!shipfs.repo().exists(), "help makes no repository");
}

#[test]
fn a_slip_of_the_finger_is_answered_with_what_was_meant() {
    let shipfs = Shipfs::new();
    for (args, meant) in
        [(&["puhs"][..], "push"), (&["imags"], "images"), (&["push", "--platfrom", "x", "y"], "--platform")]
    {
        let ran = shipfs.run(args);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains(meant) && ran.stderr.contains("similar"), "{ran:?}");
        assert!(ran.stdout.is_empty());
    }
    let nothing = shipfs.run(&[]);
    assert_eq!(nothing.code, Some(2));
    assert!(nothing.stderr.contains("Usage: shipfs"), "{nothing:?}");
}

#[test]
fn versions_and_completions_are_printed() {
    let shipfs = Shipfs::new();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(shipfs.run(&["version"]).ok(), format!("shipfs {version}\n"));
    assert_eq!(shipfs.run(&["--version"]).ok(), format!("shipfs {version}\n"));
    assert_eq!(shipfs.run(&["version", "--quiet"]).ok(), format!("{version}\n"));
    assert_eq!(shipfs.run(&["version", "--json"]).json()["version"], version);
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = shipfs.run(&["completion", shell]);
        assert!(VERBS.iter().all(|verb| script.ok().contains(verb)), "{shell}");
    }
    assert_eq!(shipfs.run(&["completion", "csh"]).code, Some(2));
}
