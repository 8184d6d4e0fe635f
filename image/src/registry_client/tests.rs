//! Against a registry that does what hostile ones and overloaded ones do, and remembers what it was asked.

use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Body as Answer, extract::Request, response::Response};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::{
    blobs::Body,
    oci::{Descriptor, Digest, DocumentError, MAX_DOCUMENT_BYTES, Manifest, media},
};

/// What a trap was asked.
#[derive(Clone, Debug)]
struct Asked {
    line: String,
    authorization: Option<String>,
    range: Option<String>,
    body: Bytes,
}

/// A server that answers as it is told.
struct Trap {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Trap {
    /// `answer` is told what is asked, and how often that was asked before.
    async fn start(answer: impl Fn(&Asked, usize) -> Response + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let log = Arc::clone(&asked);
        let handle = move |request: Request| {
            let (log, answer) = (Arc::clone(&log), answer.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                let header = |name: &str| head.headers.get(name).map(|value| value.to_str().expect("text").to_owned());
                let line = format!("{} {}", head.method, head.uri);
                let (authorization, range) = (header("authorization"), header("range"));
                let asked = Asked { line, authorization, range, body };
                let before = {
                    let mut log = log.lock().expect("the log");
                    let before = log.iter().filter(|earlier| earlier.line == asked.line).count();
                    log.push(asked.clone());
                    before
                };
                answer(&asked, before)
            }
        };
        let task = tokio::spawn(async move {
            axum::serve(listener, Router::new().fallback(handle)).await.expect("serves");
        });
        Self { address, asked, task }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("the log").clone()
    }

    fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }

    fn name(&self, rest: &str) -> Name {
        format!("{}/{rest}", self.address).parse().expect("a name")
    }

    async fn client(&self, settings: &Registries, access: Access) -> Result<RegistryClient, RegistryError> {
        let pauses = Pauses { retries: 4, first: Duration::from_millis(1), longest: Duration::from_millis(5) };
        RegistryClient::connect_with(&self.name("a/b:tag"), settings, &Programs::default(), access, pauses).await
    }

    async fn reader(&self) -> Arc<RegistryClient> {
        Arc::new(self.client(&Registries::default(), Access::Pull).await.expect("connects"))
    }
}

fn status(code: u16) -> Response {
    with(code, &[], "")
}

fn with(code: u16, headers: &[(&str, &str)], body: impl Into<Answer>) -> Response {
    let builder = Response::builder().status(code);
    let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    builder.body(body.into()).expect("an answer")
}

/// Some bytes, and, once they were sent, the connection breaks.
fn broken(code: u16, headers: &[(&str, &str)], bytes: &'static [u8]) -> Response {
    let parts = futures::stream::unfold(0, move |step| async move {
        if step == 0 {
            return Some((Ok(Bytes::from_static(bytes)), 1));
        }
        // The server sends what it has whenever there is nothing else to do.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        Some((Err(std::io::Error::other("cut")), 1))
    });
    with(code, headers, Answer::from_stream(parts))
}

fn is_ping(asked: &Asked) -> bool {
    asked.line == "GET /v2/"
}

/// A file with a name and a password for a registry.
fn logged_in(domain: &str, entry: &str) -> (TempDir, Registries) {
    let home = tempfile::tempdir().expect("a folder");
    let file = home.path().join("config.json");
    fs::write(&file, format!(r#"{{"auths":{{"{domain}":{entry}}}}}"#)).expect("writes");
    (home, Registries { credential_files: vec![file], ..Registries::default() })
}

const ENTRY: &str = r#"{"username":"me","password":"secret"}"#;
/// `me:secret`.
const BASIC: &str = "Basic bWU6c2VjcmV0";
const CONTENT: &[u8] = b"the bytes of a layer";

fn layer() -> Descriptor {
    Descriptor::new(media::LAYER, Digest::of(CONTENT), CONTENT.len() as u64)
}

async fn read(client: &Arc<RegistryClient>, blob: &Descriptor) -> Result<Vec<u8>, RegistryError> {
    let mut download = Download::begin(Arc::clone(client), blob).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = download.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[tokio::test]
async fn b3_a_redirect_takes_no_password_along() {
    let storage = Trap::start(|_, _| with(200, &[], CONTENT)).await;
    let to = format!("http://{}/signed?key=1", storage.address);
    let registry = Trap::start(move |asked, _| match &asked.authorization {
        None => with(401, &[("www-authenticate", "Basic realm=\"x\"")], ""),
        Some(_) if is_ping(asked) => status(200),
        Some(_) => with(307, &[("location", &to)], ""),
    })
    .await;
    let (_home, settings) = logged_in(&registry.address.to_string(), ENTRY);
    let client = Arc::new(registry.client(&settings, Access::Pull).await.expect("connects"));
    assert_eq!(read(&client, &layer()).await.expect("fetches"), CONTENT);
    let (there, here) = (storage.asked(), registry.asked());
    assert_eq!((there.len(), there[0].line.as_str(), &there[0].authorization), (1, "GET /signed?key=1", &None));
    assert_eq!(here.last().expect("asked").authorization.as_deref(), Some(BASIC));
    assert!(!format!("{client:?}").contains("secret") && !format!("{client:?}").contains("bWU6"), "{client:?}");
}

#[tokio::test]
async fn b3_a_storage_that_answers_401_gets_no_password_either() {
    let storage = Trap::start(|_, _| with(401, &[("www-authenticate", "Basic realm=\"x\"")], "")).await;
    let to = format!("http://{}/", storage.address);
    let registry = Trap::start(move |asked, _| match is_ping(asked) {
        true => status(200),
        false => with(302, &[("location", &to)], ""),
    })
    .await;
    let (_home, settings) = logged_in(&registry.address.to_string(), ENTRY);
    let client = Arc::new(registry.client(&settings, Access::Pull).await.expect("connects"));
    assert!(matches!(read(&client, &layer()).await, Err(RegistryError::Denied { .. })));
    assert!(storage.asked().iter().all(|asked| asked.authorization.is_none()));
    assert_eq!(storage.asked().len(), 1);
}

#[tokio::test]
async fn b3_layers_elsewhere_are_fetched_only_from_hosts_that_are_allowed() {
    let elsewhere = Trap::start(|_, _| with(200, &[], CONTENT)).await;
    let registry = Trap::start(|asked, _| status(if is_ping(asked) { 200 } else { 404 })).await;
    let mut blob = layer();
    blob.urls = vec![format!("http://{}/layer", elsewhere.address)];
    let error = read(&registry.reader().await, &blob).await.expect_err("refuses");
    assert!(matches!(error, RegistryError::Foreign { .. }), "{error}");
    assert_eq!(elsewhere.asked().len(), 0);
    let (_home, mut settings) = logged_in(&registry.address.to_string(), ENTRY);
    settings.foreign_hosts = vec!["127.0.0.1".to_owned()];
    let client = Arc::new(registry.client(&settings, Access::Pull).await.expect("connects"));
    assert_eq!(read(&client, &blob).await.expect("fetches"), CONTENT);
    assert_eq!(elsewhere.asked()[0].authorization, None);
    // Addresses that name no host that serves the web are nobody's.
    for url in ["ipfs://bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", "file:///etc/passwd"] {
        blob.urls = vec![url.to_owned()];
        assert!(matches!(read(&client, &blob).await, Err(RegistryError::NotFound { .. })), "{url}");
    }
}

/// A registry whose tokens are given out at `realm`.
async fn with_realm(realm: String) -> Trap {
    let challenge = format!(r#"Bearer realm="{realm}",service="here""#);
    Trap::start(move |asked, _| match asked.authorization.as_deref() {
        Some("Bearer good") if is_ping(asked) => status(200),
        Some("Bearer good") => with(200, &[], CONTENT),
        _ => with(401, &[("www-authenticate", &challenge)], ""),
    })
    .await
}

#[tokio::test]
async fn b4_whoever_gives_out_tokens_elsewhere_gets_no_password() {
    let realm = Trap::start(|_, _| with(200, &[], r#"{"token":"good"}"#)).await;
    let registry = with_realm(format!("http://{}/token", realm.address)).await;
    let (_home, settings) = logged_in(&registry.address.to_string(), ENTRY);
    let client = Arc::new(registry.client(&settings, Access::Pull).await.expect("connects"));
    assert_eq!(read(&client, &layer()).await.expect("fetches"), CONTENT);
    let asked = realm.asked();
    assert_eq!(asked[0].line, "GET /token?service=here&scope=repository%3Aa%2Fb%3Apull");
    assert!(asked.iter().all(|asked| asked.authorization.is_none()), "{asked:?}");
    // What its user keeps for that host is another matter.
    let (_home, settings) = logged_in(&realm.address.to_string(), ENTRY);
    registry.client(&settings, Access::Pull).await.expect("connects");
    assert_eq!(realm.asked().last().expect("asked").authorization.as_deref(), Some(BASIC));
}

#[tokio::test]
async fn b4_tokens_are_not_asked_for_in_the_open() {
    for realm in ["http://auth.example/token", "ftp://auth.example/", "http://169.254.169.254/latest", "/token", ""] {
        let registry = with_realm(realm.to_owned()).await;
        let error = registry.client(&Registries::default(), Access::Pull).await.expect_err("refuses");
        assert!(matches!(error, RegistryError::Realm { .. }), "{realm}: {error}");
    }
}

#[tokio::test]
async fn b4_a_registry_leads_nowhere_else() {
    for (to, problem) in [
        ("http://169.254.169.254/latest/meta-data", "it is not encrypted"),
        ("http://storage.example/", "it is not encrypted"),
        ("file:///etc/passwd", "it is not encrypted"),
        ("http://me:password@127.0.0.1/", "it holds a password"),
        ("/again", "there are too many steps"),
    ] {
        let registry = Trap::start(move |asked, _| match is_ping(asked) {
            true => status(200),
            false => with(302, &[("location", to)], ""),
        })
        .await;
        let error = read(&registry.reader().await, &layer()).await.expect_err("refuses");
        assert!(matches!(&error, RegistryError::Redirect { problem: found, .. } if *found == problem), "{to}: {error}");
        assert!(registry.asked().len() < 10);
    }
}

#[tokio::test]
async fn b4_an_upload_elsewhere_takes_no_password_along() {
    let storage = Trap::start(|_, _| status(201)).await;
    let to = format!("http://{}/upload?state=1", storage.address);
    let registry = Trap::start(move |asked, _| match &asked.authorization {
        None => with(401, &[("www-authenticate", "Basic realm=\"x\"")], ""),
        Some(_) if asked.line.starts_with("POST") => with(202, &[("location", &to)], ""),
        Some(_) => status(200),
    })
    .await;
    let (_home, settings) = logged_in(&registry.address.to_string(), ENTRY);
    let client = registry.client(&settings, Access::Push).await.expect("connects");
    client.send_blob(&layer(), &Body::Bytes(Bytes::from_static(CONTENT))).await.expect("sends");
    let asked = storage.asked();
    assert_eq!((asked.len(), &asked[0].authorization, &asked[0].body[..]), (1, &None, CONTENT));
    assert!(asked[0].line.starts_with("PUT /upload?state=1&digest=sha256%3A"), "{}", asked[0].line);
}

#[tokio::test]
async fn refresh_tokens_and_stale_tokens_are_renewed() {
    let realm = Trap::start(|asked, before| {
        assert!(asked.line.starts_with("POST "), "a refresh token is not sent in an address");
        with(200, &[], format!(r#"{{"access_token":"t{before}","expires_in":60}}"#))
    })
    .await;
    let challenge = format!(r#"Bearer realm="http://{}/token",service="here""#, realm.address);
    let registry = Trap::start(move |asked, _| match asked.authorization.as_deref() {
        // The first token is good for one question only.
        Some("Bearer t0") if is_ping(asked) => status(200),
        Some("Bearer t1") => with(200, &[], CONTENT),
        _ => with(401, &[("www-authenticate", &challenge)], ""),
    })
    .await;
    // Kept for the host that gives tokens out, since that is another than the registry.
    let (_home, settings) = logged_in(&realm.address.to_string(), r#"{"identitytoken":"refresh"}"#);
    let client = Arc::new(registry.client(&settings, Access::Push).await.expect("connects"));
    assert_eq!(read(&client, &layer()).await.expect("fetches"), CONTENT);
    let asked = realm.asked();
    let form = "grant_type=refresh_token&service=here&client_id=shipfs&scope=repository%3Aa%2Fb%3Apull%2Cpush&refresh_token=refresh";
    assert_eq!(asked.iter().map(|asked| &asked.body[..]).collect::<Vec<_>>(), [form.as_bytes(), form.as_bytes()]);
    // A token that is never taken is not renewed for ever.
    let registry = with_realm(format!("http://{}/token", realm.address)).await;
    let client = Arc::new(registry.client(&settings, Access::Pull).await.expect("connects"));
    assert!(matches!(read(&client, &layer()).await, Err(RegistryError::Denied { .. })));
    assert!(registry.asked().len() <= 4);
}

#[tokio::test]
async fn b2_a_blob_is_not_read_past_its_end() {
    let registry = Trap::start(|asked, _| {
        let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[0; 4096])));
        if is_ping(asked) { status(200) } else { with(200, &[], Answer::from_stream(endless)) }
    })
    .await;
    let reading = read(&registry.reader().await, &layer()).await.expect("reads");
    assert_eq!(reading.len(), CONTENT.len() + 1, "one byte more, by which it is told from a right one");
}

#[tokio::test]
async fn a_blob_goes_on_where_it_broke_off() {
    let registry = Trap::start(|asked, before| match (is_ping(asked), before) {
        (true, _) => status(200),
        (_, 0) => broken(200, &[], &CONTENT[..5]),
        // A server that knows no ranges.
        (_, 1) => broken(200, &[], &CONTENT[..7]),
        (_, 2) => status(503),
        _ => with(206, &[("content-range", "bytes 7-19/20")], &CONTENT[7..]),
    })
    .await;
    assert_eq!(read(&registry.reader().await, &layer()).await.expect("fetches"), CONTENT);
    let ranges: Vec<_> = registry.asked().into_iter().skip(1).map(|asked| asked.range).collect();
    let range = |text: &str| Some(text.to_owned());
    assert_eq!(ranges, [None, range("bytes=5-"), range("bytes=7-"), range("bytes=7-")]);
}

#[tokio::test]
async fn a_blob_that_always_breaks_off_or_is_another_part_is_given_up() {
    let registry =
        Trap::start(|asked, _| if is_ping(asked) { status(200) } else { broken(200, &[], &CONTENT[..5]) }).await;
    let error = read(&registry.reader().await, &layer()).await.expect_err("gives up");
    assert!(matches!(error, RegistryError::Connection { .. } | RegistryError::Cut { .. }), "{error}");
    assert!(registry.asked().len() < 10, "{}", registry.asked().len());
    let liar = Trap::start(|asked, before| match (is_ping(asked), before) {
        (true, _) => status(200),
        (_, 0) => broken(200, &[], &CONTENT[..5]),
        _ => with(206, &[("content-range", "bytes 0-19/20")], CONTENT),
    })
    .await;
    let error = read(&liar.reader().await, &layer()).await.expect_err("refuses");
    assert!(matches!(error, RegistryError::Status { status: 206, .. }), "{error}");
}

#[tokio::test]
async fn an_overloaded_registry_is_asked_again_and_a_broken_one_not_for_ever() {
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::MANIFEST.to_owned(),
        artifact_type: String::new(),
        config: Descriptor::new(media::CONFIG, Digest::of(b"{}"), 2),
        layers: Some(vec![layer()]),
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    }
    .to_json();
    let bytes = manifest.clone();
    let registry = Trap::start(move |asked, before| match (is_ping(asked), before) {
        (true, _) => status(200),
        (_, 0) => with(429, &[("retry-after", "86400")], ""),
        (_, 1) => status(502),
        _ => with(200, &[("content-type", media::MANIFEST)], bytes.clone()),
    })
    .await;
    let top = registry.reader().await.top(&registry.name("a/b:tag")).await.expect("reads");
    assert_eq!(top.descriptor, Descriptor::new(media::MANIFEST, Digest::of(&manifest), manifest.len() as u64));
    let dead = Trap::start(|asked, _| status(if is_ping(asked) { 200 } else { 503 })).await;
    let error = dead.reader().await.top(&dead.name("a/b")).await.expect_err("gives up");
    assert!(matches!(error, RegistryError::Status { status: 503, .. }), "{error}");
    assert_eq!(dead.asked().len(), 6, "the ping, one try and four more");
}

#[tokio::test]
async fn b5_documents_end_at_their_limit() {
    let registry = Trap::start(|asked, _| {
        let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 65536])));
        if is_ping(asked) { status(200) } else { with(200, &[], Answer::from_stream(endless)) }
    })
    .await;
    let error = registry.reader().await.top(&registry.name("a/b")).await.expect_err("refuses");
    assert!(matches!(error, RegistryError::TooLong { limit: MAX_DOCUMENT_BYTES, .. }), "{error}");
}

#[tokio::test]
async fn b1_a_document_is_one_thing() {
    let config = format!(r#"{{"mediaType":"{}","digest":"{}","size":2}}"#, media::CONFIG, Digest::of(b"{}"));
    let both = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#);
    let manifest = format!(r#"{{"schemaVersion":2,"mediaType":"{}","config":{config},"layers":[]}}"#, media::MANIFEST);
    type IsRight = fn(&DocumentError) -> bool;
    let cases: [(&str, &str, IsRight); 5] = [
        (media::MANIFEST, &both, |error| matches!(error, DocumentError::Confused { .. })),
        (media::INDEX, &both, |error| matches!(error, DocumentError::Confused { .. })),
        (media::INDEX, &manifest, |error| matches!(error, DocumentError::MediaType { .. })),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", "{\"schemaVersion\":1}", |error| {
            matches!(error, DocumentError::Schema1)
        }),
        ("text/html", "<html>", |error| matches!(error, DocumentError::Json(_))),
    ];
    for (media_type, text, is_right) in cases {
        let body = text.to_owned();
        let registry = Trap::start(move |asked, _| match is_ping(asked) {
            true => status(200),
            false => with(200, &[("content-type", media_type)], body.clone()),
        })
        .await;
        let error = registry.reader().await.top(&registry.name("a/b")).await.expect_err("refuses");
        assert!(matches!(&error, RegistryError::Document { source, .. } if is_right(source)), "{text}: {error:?}");
    }
}

#[tokio::test]
async fn b6_a_digest_wins_over_a_tag_and_over_what_the_registry_says() {
    let other = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media::INDEX);
    let wanted = Digest::of(b"what was asked for");
    let claimed = wanted.to_string();
    let registry = Trap::start(move |asked, _| match is_ping(asked) {
        true => status(200),
        false => with(200, &[("docker-content-digest", &claimed)], other.clone()),
    })
    .await;
    let client = registry.reader().await;
    let error = client.top(&registry.name(&format!("a/b:tag@{wanted}"))).await.expect_err("refuses");
    assert!(matches!(error, RegistryError::Mismatch { .. }), "{error}");
    assert_eq!(registry.lines().last().expect("asked"), &format!("GET /v2/a/b/manifests/{wanted}"));
    assert!(matches!(client.top(&registry.name("a/b:tag")).await, Err(RegistryError::Mismatch { .. })));
}

#[tokio::test]
async fn what_is_there_is_not_sent_and_what_a_sibling_has_is_taken_over() {
    let registry = Trap::start(|asked, before| match asked.line.as_str() {
        line if line.starts_with("HEAD") => with(200, &[("content-length", "20")], ""),
        line if line.contains("from=a%2Fc") => status(201),
        line if line.contains("from=") => status(404),
        line if line.starts_with("POST") => with(202, &[("location", "/up/1?x=y")], ""),
        line if line.starts_with("PUT") && before == 0 => status(503),
        line if line.starts_with("PUT") => status(201),
        _ => status(200),
    })
    .await;
    let client = registry.client(&Registries::default(), Access::Push).await.expect("connects");
    assert!(client.has(&layer()).await.expect("looks"));
    let body = Body::Bytes(Bytes::from_static(CONTENT));
    let client = client.with_siblings(vec!["a/d".to_owned(), "a/b".to_owned(), "a/c".to_owned()]);
    client.send_blob(&layer(), &body).await.expect("takes over");
    assert!(registry.lines().iter().all(|line| !line.starts_with("PUT")));
    let client = client.with_siblings(Vec::new());
    client.send_blob(&layer(), &body).await.expect("sends");
    let sent: Vec<_> = registry.asked().into_iter().filter(|asked| asked.line.starts_with("PUT /up/1?x=y&")).collect();
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|asked| asked.body == CONTENT));
}

#[tokio::test]
async fn logging_in_is_checked_and_kept_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let registry = Trap::start(|asked, _| match asked.authorization.as_deref() {
        Some(BASIC) => status(200),
        _ => with(401, &[("www-authenticate", "Basic realm=\"x\"")], r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#),
    })
    .await;
    let domain = registry.address.to_string();
    let home = tempfile::tempdir().expect("a folder");
    let file = home.path().join("docker/config.json");
    let settings = Registries { credential_files: vec![file.clone()], ..Registries::default() };
    let login =
        |password: &str| Login { domain: domain.clone(), name: "me".to_owned(), password: Secret::new(password) };
    let programs = Programs::default();
    let error = log_in(&login("wrong"), &settings, &programs).await.expect_err("refuses");
    assert!(matches!(&error, RegistryError::Denied { .. }) && !file.exists(), "{error}");
    fs::create_dir(home.path().join("docker")).expect("makes it");
    fs::write(&file, r#"{"psFormat":"x","auths":{"other.example":{"auth":"eDp5"}}}"#).expect("writes");
    log_in(&login("secret"), &settings, &programs).await.expect("logs in");
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(&file).expect("reads")).expect("JSON");
    assert_eq!((&kept["psFormat"], &kept["auths"]["other.example"]["auth"]), (&"x".into(), &"eDp5".into()));
    assert_eq!(kept["auths"][&domain]["auth"], "bWU6c2VjcmV0");
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(log_out(&domain, &settings, &programs).expect("logs out"));
    assert!(!log_out(&domain, &settings, &programs).expect("logs out"));
    assert!(!fs::read_to_string(&file).expect("reads").contains("bWU6"));
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_told_soon() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let name: Name = format!("{address}/a").parse().expect("a name");
    let (settings, programs) = (Registries::default(), Programs::default());
    let connecting = RegistryClient::connect(&name, &settings, &programs, Access::Pull);
    let error = tokio::time::timeout(Duration::from_secs(5), connecting).await.expect("in time").expect_err("fails");
    assert!(matches!(error, RegistryError::Connection { .. }), "{error}");
}

/// A registry with one image whose layer is described in another way than it is.
async fn pushed_with(described: Descriptor, answer: &'static [u8]) -> Result<(), String> {
    let config = b"{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}";
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::MANIFEST.to_owned(),
        artifact_type: String::new(),
        config: Descriptor::new(media::CONFIG, Digest::of(config), config.len() as u64),
        layers: Some(vec![described.clone()]),
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    }
    .to_json();
    let layer = described.digest.to_string();
    let registry = Trap::start(move |asked, _| match asked.line.as_str() {
        line if line.contains("/manifests/") => with(200, &[("content-type", media::MANIFEST)], manifest.clone()),
        line if line.ends_with(&layer) => with(200, &[], answer),
        line if line.contains("/blobs/") => with(200, &[], &config[..]),
        _ => status(200),
    })
    .await;
    let location: crate::location::Location =
        format!("docker://{}/a/b:tag", registry.address).parse().expect("a place");
    let opening = tokio::task::spawn_blocking(move || {
        let services = crate::services::Services::default();
        crate::source::open_with(&location, None, &crate::source::Aside::Folder("/nonexistent".into()), &services)
    });
    let source = opening.await.expect("runs").expect("opens");
    let folder = tempfile::tempdir().expect("a folder");
    let config = shipfs_node::config::Config {
        repository: folder.path().to_owned(),
        network: shipfs_node::config::NetworkConfig::offline(),
        patience: Duration::from_secs(1),
    };
    let node = shipfs_node::node::Node::start(config).await.expect("starts");
    let blobs = crate::blobs::embedded::EmbeddedBlobs::new(node.clone());
    let from = crate::push::PushFrom::Source(source.into(), None);
    let pushed = crate::push::push(&blobs, &from, &crate::push::PushOptions::default(), &()).await;
    let records = crate::blobs::Records::kept(crate::blobs::Blobs::records(&blobs)).await.expect("lists");
    assert_eq!(records.len(), usize::from(pushed.is_ok()), "nothing half-published");
    drop(blobs);
    node.shutdown().await.expect("ends");
    pushed.map(drop).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b2_an_image_whose_layer_is_another_is_not_taken_in() {
    pushed_with(layer(), CONTENT).await.expect("a right one is");
    for (size, answer) in [
        (CONTENT.len(), &b"the bytes of a laye!"[..]),
        (CONTENT.len(), b"the bytes of a layer, and then some more of them"),
        (CONTENT.len() - 1, CONTENT),
    ] {
        let described = Descriptor::new(media::LAYER, Digest::of(CONTENT), size as u64);
        let error = pushed_with(described, answer).await.expect_err("refuses");
        assert!(error.contains(&Digest::of(CONTENT).to_string()), "{error}");
    }
}

/// A registry of uploads only, which lets go of the first connection that sends it a blob once so many bytes of it came.
struct Uploads {
    address: SocketAddr,
    /// What was asked, with how many bytes of a body came.
    asked: Arc<Mutex<Vec<(String, usize)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Uploads {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Uploads {
    /// `state` says what is answered to who asks how far an upload came, given how far it did.
    async fn start(cut: usize, state: fn(usize) -> Option<String>, blob: Bytes) -> Self {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let asked: Arc<Mutex<Vec<(String, usize)>>> = Arc::default();
        let log = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let (mut kept, mut sessions, mut was_cut) = (Vec::new(), 0, false);
            loop {
                let (mut stream, _) = listener.accept().await.expect("accepts");
                let (mut input, mut head) = (Vec::new(), String::new());
                while !head.ends_with("\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { break };
                    head.push(char::from(byte));
                }
                let value = |name: &str| {
                    head.lines()
                        .find_map(|line| line.to_lowercase().strip_prefix(&format!("{name}: ")).map(str::to_owned))
                };
                let length: usize = value("content-length").map_or(0, |text| text.parse().expect("a length"));
                let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
                let is_cut = !was_cut && length > cut;
                let wanted = if is_cut { cut } else { length };
                input.resize(wanted, 0);
                stream.read_exact(&mut input).await.expect("a body");
                let range = value("content-range").map(|range| format!(" {range}")).unwrap_or_default();
                log.lock().expect("the log").push((line.clone() + &range, wanted));
                if line.starts_with("P") && !line.starts_with("POST") {
                    kept.extend_from_slice(&input);
                }
                if is_cut {
                    was_cut = true;
                    continue;
                }
                let at = format!("/v2/a/b/blobs/uploads/{sessions}");
                let answer = match line.split(' ').next().unwrap_or_default() {
                    "POST" => {
                        (sessions, kept) = (sessions + 1, Vec::new());
                        format!("202 Accepted\r\nLocation: /v2/a/b/blobs/uploads/{sessions}?state=x")
                    }
                    "GET" if line.contains("uploads") => match state(kept.len()) {
                        Some(range) => format!("204 No Content\r\nRange: {range}\r\nLocation: {at}?state=y"),
                        None => "404 Not Found".to_owned(),
                    },
                    "PATCH" => format!("202 Accepted\r\nLocation: {at}?state=z"),
                    "PUT" if kept[..] == blob[..] => "201 Created".to_owned(),
                    "PUT" => "400 Bad Request".to_owned(),
                    _ => "200 OK".to_owned(),
                };
                let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.expect("answers");
            }
        });
        Self { address, asked, task }
    }

    /// Sends a blob; gives what was asked for that.
    async fn send(&self, blob: &Bytes) -> (Result<(), RegistryError>, Vec<(String, usize)>) {
        let pauses = Pauses { retries: 3, first: Duration::from_millis(1), longest: Duration::from_millis(5) };
        let name = format!("{}/a/b:tag", self.address).parse().expect("a name");
        let (registries, programs) = (Registries::default(), Programs::default());
        let client = RegistryClient::connect_with(&name, &registries, &programs, Access::Push, pauses).await;
        let descriptor = Descriptor::new(media::LAYER, Digest::of(blob), blob.len() as u64);
        let folder = TempDir::new().expect("a temporary directory");
        let path = folder.path().join("blob");
        fs::write(&path, blob).expect("writes");
        let sent = client.expect("connects").send_blob(&descriptor, &Body::File(path)).await;
        let asked = self.asked.lock().expect("the log").clone();
        (sent, asked.into_iter().filter(|(line, _)| line != "GET /v2/").collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_goes_on_where_it_was() {
    const CUT: usize = 900_000;
    let blob = Bytes::from((0..1_000_000_u32).map(|at| (at % 251) as u8).collect::<Vec<_>>());
    let digest = Digest::of(&blob);
    let uploads = Uploads::start(CUT, |kept| Some(format!("0-{}", kept - 1)), blob.clone()).await;
    let (sent, asked) = uploads.send(&blob).await;
    sent.expect("is sent");
    let expected = [
        ("POST /v2/a/b/blobs/uploads/".to_owned(), 0),
        (format!("PUT /v2/a/b/blobs/uploads/1?state=x&digest={}", digest.to_string().replace(':', "%3A")), CUT),
        ("GET /v2/a/b/blobs/uploads/1?state=x".to_owned(), 0),
        ("PATCH /v2/a/b/blobs/uploads/1?state=y 900000-999999".to_owned(), 100_000),
        (format!("PUT /v2/a/b/blobs/uploads/1?state=z&digest={}", digest.to_string().replace(':', "%3A")), 0),
    ];
    assert_eq!(asked, expected);
    // A registry that forgets, one that cannot say what it has, ones that say what cannot be, and one that says what is not.
    let answers: [fn(usize) -> Option<String>; 5] = [
        |_| None,
        |_| Some("0-0".to_owned()),
        |_| Some("0-99999999999999999999".to_owned()),
        |_| Some("0-5000000".to_owned()),
        |kept| Some(format!("0-{}", kept - 7)),
    ];
    for answer in answers {
        let uploads = Uploads::start(CUT, answer, blob.clone()).await;
        let (sent, asked) = uploads.send(&blob).await;
        sent.expect("is sent");
        let (last, bytes) = asked.last().expect("a request");
        assert!(last.starts_with("PUT /v2/a/b/blobs/uploads/2?state=x"), "{asked:?}");
        assert_eq!(*bytes, blob.len(), "another upload, from the beginning: {asked:?}");
    }
    // One that does not want it is asked once.
    let uploads = Uploads::start(usize::MAX, |_| None, Bytes::from_static(b"another")).await;
    let (sent, asked) = uploads.send(&blob).await;
    assert!(matches!(sent, Err(RegistryError::Status { status: 400, .. })), "{sent:?}");
    assert_eq!(asked.len(), 2, "{asked:?}");
}
