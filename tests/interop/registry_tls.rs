//! A registry that others wrote, spoken to over TLS, by way of a proxy, and over connections that break.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, KeyPair, date_time_ymd};
use shipfs_tests::engines::Registry;
use shipfs_tests::forward::Forward;
use shipfs_tests::image::{check_blobs, layout};
use shipfs_tests::program::{Running, run, said, shipfs, tool};
use tempfile::TempDir;

/// An authority of a test's own.
struct Authority {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self { certificate: params.self_signed(&key).expect("a certificate"), key }
    }

    fn write(&self, path: &Path) -> PathBuf {
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, self.certificate.pem()).expect("writes");
        path.to_owned()
    }

    /// Writes a certificate for these names and its key, good for ever or until the year 2000.
    fn issue(&self, folder: &Path, name: &str, names: &[&str], is_expired: bool) -> (PathBuf, PathBuf) {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).expect("parameters");
        if is_expired {
            params.not_after = date_time_ymd(2000, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.certificate, &self.key).expect("a certificate");
        fs::create_dir_all(folder).expect("a folder");
        let (certificate_path, key_path) = (folder.join(format!("{name}.cert")), folder.join(format!("{name}.key")));
        fs::write(&certificate_path, certificate.pem()).expect("writes");
        fs::write(&key_path, key.serialize_pem()).expect("writes");
        (certificate_path, key_path)
    }
}

/// One user, with a home, a repository and an image.
struct Lab {
    folder: TempDir,
}

impl Lab {
    fn new(test: &str) -> Option<Self> {
        if !tool(test, "docker-registry") {
            return None;
        }
        let lab = Self { folder: TempDir::new().expect("a temporary directory") };
        layout(&lab.at("source"), &[1000, 300_000], 7).expect("a layout");
        Some(lab)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn shipfs(&self) -> Command {
        let mut command = shipfs(&self.at("repository"));
        command.env("HOME", self.at("home"));
        command
    }

    /// Sends the image to a registry, with these variables set.
    fn send(&self, place: &str, variables: &[(&str, &Path)]) -> Output {
        let source = format!("oci:{}", self.at("source").display());
        let mut command = self.shipfs();
        command.envs(variables.iter().copied()).args(["cp", &source, &format!("docker://{place}")]);
        command.output().expect("runs")
    }

    fn sent(&self, place: &str, variables: &[(&str, &Path)]) {
        let output = self.send(place, variables);
        assert!(output.status.success(), "{}", said(&output));
    }

    fn refused(&self, place: &str, variables: &[(&str, &Path)]) -> String {
        let output = self.send(place, variables);
        assert!(!output.status.success(), "{}", said(&output));
        said(&output)
    }
}

fn local(registry: &Registry) -> String {
    registry.address.replace("127.0.0.1", "localhost")
}

#[test]
fn interop_registry_is_believed_by_its_certificate() {
    let Some(lab) = Lab::new("interop_registry_is_believed_by_its_certificate") else { return };
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (certificate, key) = authority.issue(&lab.at("tls"), "good", &["localhost", "127.0.0.1"], false);
    let registry = Registry::with_tls(&lab.at("registry"), &certificate, &key, None);
    let place = format!("{}/a/one:1", local(&registry));
    let (ours, theirs) = (authority.write(&lab.at("ours.pem")), stranger.write(&lab.at("theirs.pem")));
    for variables in [&[][..], &[("SSL_CERT_FILE", &*theirs)]] {
        let told = lab.refused(&place, variables);
        assert!(told.contains("nobody who is trusted here has signed its certificate"), "{told}");
        assert!(told.contains("certs.d") && told.contains(&local(&registry)), "{told}");
    }
    lab.sent(&place, &[("SSL_CERT_FILE", &ours)]);
    let folder = lab.at("authorities");
    authority.write(&folder.join("any-name"));
    lab.sent(&format!("{}/a/two:1", registry.address), &[("SSL_CERT_DIR", &folder)]);
    // As Docker and podman are told whom to trust for one registry.
    let home = lab.at("home/.config/containers/certs.d");
    authority.write(&home.join(local(&registry)).join("ca.crt"));
    let out = lab.at("out");
    run(lab.shipfs().args(["-q", "cp", &format!("docker://{place}"), &format!("oci:{}", out.display())]));
    assert_eq!(check_blobs(&out).expect("whole"), check_blobs(&lab.at("source")).expect("whole"));
    let other = Registry::with_tls(&lab.at("other"), &certificate, &key, None);
    let told = lab.refused(&format!("{}/a:1", local(&other)), &[]);
    assert!(told.contains("nobody who is trusted"), "that is for one registry alone: {told}");
    // Logging in tells the same.
    fs::write(lab.at("password"), "secret").expect("writes");
    let mut login = lab.shipfs();
    login.args(["login", "-u", "me", "--password-stdin", &local(&other)]);
    let login = login.stdin(fs::File::open(lab.at("password")).expect("opens")).output().expect("runs");
    assert!(!login.status.success() && said(&login).contains("certs.d"), "{}", said(&login));
}

#[test]
fn interop_registry_with_a_wrong_certificate_is_told_from_one_that_is_not_there() {
    let Some(lab) = Lab::new("interop_registry_with_a_wrong_certificate_is_told_from_one_that_is_not_there") else {
        return;
    };
    let authority = Authority::new();
    let ours = authority.write(&lab.at("ours.pem"));
    let here = &["localhost", "127.0.0.1"][..];
    for (name, names, is_expired, problem, hint) in [
        ("expired", here, true, "its certificate has expired", "clock"),
        ("other", &["registry.example"][..], false, "its certificate is for another host", "as its certificate does"),
    ] {
        let (certificate, key) = authority.issue(&lab.at("tls"), name, names, is_expired);
        let registry = Registry::with_tls(&lab.at(name), &certificate, &key, None);
        let told = lab.refused(&format!("{}/a:1", local(&registry)), &[("SSL_CERT_FILE", &ours)]);
        assert!(told.contains(problem) && told.contains(hint), "{told}");
    }
    // One that wants to see a certificate, too.
    let (certificate, key) = authority.issue(&lab.at("tls"), "good", here, false);
    let registry = Registry::with_tls(&lab.at("registry"), &certificate, &key, Some(&ours));
    let place = format!("{}/a:1", local(&registry));
    let told = lab.refused(&place, &[("SSL_CERT_FILE", &ours)]);
    assert!(told.contains("wants to be shown a certificate"), "{told}");
    let folder = lab.at("home/.config/containers/certs.d").join(local(&registry));
    authority.issue(&folder, "client", &["me"], false);
    lab.sent(&place, &[("SSL_CERT_FILE", &ours)]);
    fs::remove_file(folder.join("client.key")).expect("removes");
    let told = lab.refused(&place, &[("SSL_CERT_FILE", &ours)]);
    assert!(told.contains("client.key"), "{told}");
}

#[test]
fn interop_registry_is_reached_by_way_of_a_proxy() {
    let Some(lab) = Lab::new("interop_registry_is_reached_by_way_of_a_proxy") else { return };
    let authority = Authority::new();
    let ours = authority.write(&lab.at("ours.pem"));
    let (certificate, key) = authority.issue(&lab.at("tls"), "good", &["registry.example", "localhost"], false);
    let registry = Registry::with_tls(&lab.at("registry"), &certificate, &key, None);
    let proxy = Forward::proxy(registry.address.parse().expect("an address"));
    let address = format!("http://me:hidden-secret@{}", proxy.address);
    let source = format!("oci:{}", lab.at("source").display());
    let mut sending = lab.shipfs();
    sending.env("SSL_CERT_FILE", &ours).env("HTTPS_PROXY", &address);
    sending.args(["-vvv", "cp", &source, "docker://registry.example/a:1"]);
    let sent = sending.output().expect("runs");
    assert!(sent.status.success(), "{}", said(&sent));
    let heads = proxy.heads();
    // `me:hidden-secret`
    let password = "bWU6aGlkZGVuLXNlY3JldA==";
    assert!(
        !heads.is_empty() && heads.iter().all(|head| head.starts_with("CONNECT registry.example:443 ")),
        "{heads:?}"
    );
    assert!(heads.iter().all(|head| head.contains(password)), "{heads:?}");
    assert!(!said(&sent).contains("hidden-secret") && !said(&sent).contains(password), "{}", said(&sent));
    // This host is never reached that way; a proxy that is not there is told, without its password.
    let before = proxy.connections();
    let proxied =
        [("SSL_CERT_FILE", &*ours), ("https_proxy", Path::new(&address)), ("HTTP_PROXY", Path::new(&address))];
    lab.sent(&format!("{}/b:1", local(&registry)), &proxied);
    assert_eq!(proxy.connections(), before);
    let absent = Path::new("http://me:hidden-secret@127.0.0.1:1");
    let told = lab.refused("registry.example/a:1", &[("ALL_PROXY", absent)]);
    assert!(told.contains("by way of the proxy `http://127.0.0.1:1`") && told.contains("$NO_PROXY"), "{told}");
    let told =
        told + &lab.refused("registry.example/a:1", &[("HTTPS_PROXY", Path::new("socks5://me:hidden-secret@x"))]);
    assert!(told.contains("`socks5://x` cannot be used") && !told.contains("hidden-secret"), "{told}");
}

#[test]
fn interop_registry_gets_the_rest_of_an_upload_that_broke_off() {
    const SIZE: u64 = 20 << 20;
    let Some(lab) = Lab::new("interop_registry_gets_the_rest_of_an_upload_that_broke_off") else { return };
    layout(&lab.at("big"), &[SIZE], 7).expect("a layout");
    let source = format!("oci:{}", lab.at("big").display());
    let send_to = |address: &str| {
        let address = address.parse().expect("an address");
        let forward = Forward::to(address, Some(SIZE * 9 / 10));
        run(lab.shipfs().args(["-q", "cp", &source, &format!("docker://{}/a/big:1", forward.address)]));
        let (out, place) = (lab.at(&format!("out-{}", address.port())), format!("docker://{address}/a/big:1"));
        let mut other = shipfs(&lab.at(&format!("repository-{}", address.port())));
        run(other.args(["-q", "cp", &place, &format!("oci:{}", out.display())]));
        assert_eq!(check_blobs(&out).expect("whole"), check_blobs(&lab.at("big")).expect("whole"));
        forward.sent()
    };
    // Docker's own forgets what broke off, and gets all of it again.
    let registry = Registry::start(&lab.at("registry"), None);
    assert!(send_to(&registry.address) > SIZE * 18 / 10);
    // Ours keeps it, and gets the rest.
    let mut serving = shipfs(&lab.at("ours"));
    serving.args(["registry", "serve", "--offline", "--listen-registry", "127.0.0.1:0"]);
    let (_serving, line) = Running::start(&mut serving, "serving on").expect("a registry");
    let sent = send_to(line.rsplit(' ').next().expect("an address").trim());
    assert!(sent < SIZE * 12 / 10, "{sent}");
}

#[test]
fn interop_registry_is_asked_over_few_connections() {
    const LAYERS: usize = 24;
    let Some(lab) = Lab::new("interop_registry_is_asked_over_few_connections") else { return };
    layout(&lab.at("many"), &[20_000; LAYERS], 7).expect("a layout");
    let registry = Registry::start(&lab.at("registry"), None);
    let forward = Forward::to(registry.address.parse().expect("an address"), None);
    let place = format!("docker://{}/a/many:1", forward.address);
    run(lab.shipfs().args(["-q", "cp", &format!("oci:{}", lab.at("many").display()), &place]));
    let for_sending = forward.connections();
    run(shipfs(&lab.at("other")).args(["-q", "push", &place]));
    let for_getting = forward.connections() - for_sending;
    // Four requests a layer to send it, one to get it. An answer that is not over yet may keep its connection from the next.
    assert!(for_sending <= 8 && for_getting <= 8, "{for_sending} to send, {for_getting} to get {LAYERS} layers");
}
