//! Files and helpers as users have them, and as they should not be.

use std::{fs, os::unix::fs::PermissionsExt as _};

use tempfile::TempDir;

use super::*;

fn password(name: &str, password: &str) -> Option<Credentials> {
    Some(Credentials::Password { name: name.to_owned(), password: Secret::new(password) })
}

struct Home(TempDir);

impl Home {
    fn new(config: &str) -> Self {
        let home = Self(tempfile::tempdir().expect("a folder"));
        fs::write(home.file(), config).expect("writes");
        home
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("config.json")
    }

    fn helper(&self, name: &str, script: &str) {
        let path = self.0.path().join(format!("docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("makes it a program");
    }

    fn programs(&self) -> Programs {
        Programs { path: vec![self.0.path().to_owned(), "/usr/bin".into(), "/bin".into()], ..Programs::default() }
    }

    fn find(&self, domain: &str, repository: &str) -> Result<Option<Credentials>, CredentialError> {
        find(&[self.0.path().join("absent.json"), self.file()], &self.programs(), domain, repository)
    }
}

#[test]
fn entries_are_found_by_every_name_a_registry_has() {
    let basic = STANDARD.encode("me:pa:ss");
    let home = Home::new(&format!(
        r#"{{"auths":{{"registry.example":{{"auth":"{basic}"}},"https://other.example/v2/":{{"username":"u","password":"p"}},
        "https://index.docker.io/v1/":{{"auth":"{basic}"}},"token.example":{{"identitytoken":"t","auth":"{basic}"}},
        "registry.example/team/app":{{"username":"team","password":"x"}},"empty.example":{{}}}},"HttpHeaders":{{"a":"b"}}}}"#
    ));
    let found = |domain: &str, repository: &str| home.find(domain, repository).expect("reads");
    assert_eq!(found("registry.example", "a"), password("me", "pa:ss"));
    assert_eq!(found("registry.example", "team/app/web"), password("team", "x"));
    assert_eq!(found("registry.example", "team/application"), password("me", "pa:ss"));
    assert_eq!(found("other.example", "a"), password("u", "p"));
    assert_eq!(found("docker.io", "library/a"), password("me", "pa:ss"));
    assert_eq!(found("token.example", "a"), Some(Credentials::Identity(Secret::new("t"))));
    for domain in ["empty.example", "registry.example:5000", "example", "evil-registry.example"] {
        assert_eq!(found(domain, "a"), None, "{domain}");
    }
}

#[test]
fn helpers_are_asked_before_entries() {
    let home = Home::new(
        r#"{"auths":{"none.example":{"username":"file","password":"p"}},"credHelpers":{"registry.example":"one"},"credsStore":"all"}"#,
    );
    home.helper(
        "one",
        r#"read server; echo "{\"ServerURL\":\"$server\",\"Username\":\"$1-$server\",\"Secret\":\"s\"}""#,
    );
    home.helper("all", "read server\n[ \"$server\" = token.example ] && echo '{\"Username\":\"<token>\",\"Secret\":\"t\"}' && exit 0\necho 'credentials not found in native keychain'; exit 1");
    assert_eq!(home.find("registry.example", "a").expect("asks"), password("get-registry.example", "s"));
    assert_eq!(home.find("token.example", "a").expect("asks"), Some(Credentials::Identity(Secret::new("t"))));
    assert_eq!(home.find("none.example", "a").expect("asks"), password("file", "p"));
    assert_eq!(home.find("absent.example", "a").expect("asks"), None);
}

#[test]
fn helpers_that_misbehave_are_refused() {
    let config = |name: &str| Home::new(&format!(r#"{{"credsStore":"{name}"}}"#));
    let fails = |home: &Home| home.find("registry.example", "a").expect_err("refuses");
    assert!(matches!(fails(&config("gone")), CredentialError::NoHelper { .. }));
    assert!(matches!(fails(&config("../../bin/sh")), CredentialError::NoHelper { .. }));
    let loud = config("loud");
    loud.helper("loud", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done");
    assert!(matches!(fails(&loud), CredentialError::Helper { .. }));
    let odd = config("odd");
    odd.helper("odd", "echo nonsense");
    assert!(matches!(fails(&odd), CredentialError::Refused { .. }));
}

#[test]
fn a_malformed_file_is_told_without_what_is_in_it() {
    let home = Home::new("{\"auths\":{\"registry.example\":{\"auth\":\"c2VjcmV0\"},\n\"secret");
    let told = home.find("registry.example", "a").expect_err("refuses").to_string();
    assert!(told.contains("line 2") && !told.contains("secret"), "{told}");
    let entry = Home::new(r#"{"auths":{"registry.example":{"auth":"!!"}}}"#);
    assert!(matches!(entry.find("registry.example", "a"), Err(CredentialError::Entry { .. })));
    let shown = format!("{:?}", Home::new(r#"{"auths":{"a":{"username":"u","password":"hidden"}}}"#).find("a", "b"));
    assert!(shown.contains("***") && !shown.contains("hidden"), "{shown}");
}
