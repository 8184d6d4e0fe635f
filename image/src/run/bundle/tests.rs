//! Tests of the bundle: what an image can and cannot decide.

use super::*;

fn bundle(settings: &Settings) -> Value {
    of_user(settings, true, None)
}

fn of_user(settings: &Settings, has_cgroups: bool, rootless: Option<Rootless>) -> Value {
    let bundle = Bundle {
        settings,
        words: vec!["a".into()],
        environment: vec!["A=1".into()],
        working_directory: "/w".into(),
        user: User { uid: 5, gid: 6, groups: vec![7], home: "/".into() },
        hostname: "h".into(),
        capabilities: vec!["CAP_KILL".into()],
        surroundings: Surroundings {
            files: vec![("/repo/hosts".into(), "/etc/hosts")],
            cgroup: "/shipfs/abc".into(),
            size: Some((24, 80)),
            ..Surroundings::default()
        },
        has_cgroups,
        rootless,
    };
    serde_json::from_slice(&bundle.to_json()).expect("JSON")
}

#[test]
fn a_container_is_shut_in_by_default() {
    let value = bundle(&Settings::default());
    let kinds: Vec<_> =
        value["linux"]["namespaces"].as_array().expect("a list").iter().map(|one| one["type"].clone()).collect();
    assert_eq!(kinds, ["pid", "ipc", "uts", "mount", "network", "cgroup"]);
    assert_eq!(value["process"]["user"], json!({"uid": 5, "gid": 6, "additionalGids": [7]}));
    assert_eq!(value["process"]["capabilities"], json!({"bounding": ["CAP_KILL"], "effective": [], "permitted": []}));
    assert_eq!(value["linux"]["resources"], json!({"devices": [{"allow": false, "access": "rwm"}]}));
    assert_eq!(value["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ALLOW");
    assert!(value.get("hooks").is_none() && value.get("annotations").is_none());
    assert!(value["process"].get("rlimits").is_none() && value["process"].get("consoleSize").is_none());
    let sources: Vec<_> =
        value["mounts"].as_array().expect("a list").iter().filter(|one| one["type"] == "bind").collect();
    assert_eq!(sources.len(), 1, "nothing of the host but the file made for it: {sources:?}");
}

#[test]
fn a_user_decides_about_the_host() {
    let settings = Settings {
        network: ContainerNetwork::Host,
        limits: Limits { memory: Some(1 << 20), cpu_quota: Some(50_000), pids: Some(9) },
        mounts: vec![
            Mount::Bind { source: "/s".into(), target: "/a/b".into(), read_only: true },
            Mount::Tmpfs { target: "/a".into(), options: vec!["size=1m".into()] },
        ],
        read_only: true,
        terminal: true,
        ..Settings::default()
    };
    let value = bundle(&settings);
    assert!(!value["linux"]["namespaces"].as_array().expect("a list").contains(&json!({"type": "network"})));
    assert_eq!(value["linux"]["resources"]["memory"]["limit"], 1 << 20);
    assert_eq!(value["root"]["readonly"], true);
    assert_eq!(value["process"]["consoleSize"], json!({"height": 24, "width": 80}));
    let mounts = value["mounts"].as_array().expect("a list");
    let at = |target: &str| mounts.iter().position(|one| one["destination"] == target).expect(target);
    assert!(at("/a") < at("/a/b"), "the outer one first");
}

#[test]
fn a_users_bundle_asks_for_nothing_that_a_user_cannot_have() {
    let bind = |source: &str, read_only| Mount::Bind { source: source.into(), target: source.into(), read_only };
    let mut settings = Settings { mounts: vec![bind("/plain", true), bind("/locked", false)], ..Settings::default() };
    let of = |settings: &Settings| {
        let locked = vec![("/locked".into(), vec!["nosuid", "ro"])];
        of_user(settings, false, Some(Rootless { has_tty_group: false, locked }))
    };
    let options = |value: &Value, target: &str| -> Vec<String> {
        let mount = value["mounts"].as_array().expect("a list").iter().find(|one| one["destination"] == target);
        serde_json::from_value(mount.expect(target)["options"].clone()).expect("texts")
    };
    let value = of(&settings);
    assert!(!value.to_string().contains("cgroup") && !value.to_string().contains("uidMappings"));
    assert!(!options(&value, "/dev/pts").contains(&"gid=5".to_owned()));
    assert_eq!(options(&value, "/plain"), ["ro", "rbind", "rprivate"]);
    assert_eq!(options(&value, "/locked"), ["nosuid", "ro", "rbind", "rprivate"], "what is locked stays locked");
    settings.network = ContainerNetwork::Host;
    let value = of(&settings);
    assert!(options(&value, "/sys").contains(&"rbind".to_owned()));
    assert!(options(&value, "/sys/fs/cgroup").contains(&"ro".to_owned()), "the host's cgroups are hidden");
}

#[test]
fn capabilities_are_added_and_dropped() {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let all = (1_u64 << 41) - 1;
    let given = |add: &[&str], drop: &[&str]| capabilities(&words(add), &words(drop), all).expect("known");
    assert_eq!(given(&[], &[]).len(), 14);
    assert_eq!(given(&["net_admin"], &["ALL"]), ["CAP_NET_ADMIN"]);
    assert!(!given(&["ALL"], &["CAP_SYS_ADMIN"]).contains(&"CAP_SYS_ADMIN".to_owned()));
    assert_eq!(given(&["ALL"], &[]).len(), 41);
    let without = all & !(1 << 24);
    assert_eq!(capabilities(&words(&["ALL"]), &[], without).expect("known").len(), 40);
    let lacking = capabilities(&words(&["SYS_RESOURCE"]), &[], without);
    assert_eq!(lacking, Err(CapabilityError::Lacking("CAP_SYS_RESOURCE".into())));
    assert!(matches!(capabilities(&words(&["FLY"]), &[], all), Err(CapabilityError::Unknown(_))));
}
