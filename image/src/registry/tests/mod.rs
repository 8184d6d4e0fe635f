//! The registry over HTTP, with real nodes behind it, all on loopback.
//!
//! `pulling` and `pushing` need nobody else; in `peers`, what is asked for lies with another node.

mod peers;
mod pulling;
mod pushing;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use reqwest::{Client, Method, Response, StatusCode};
use shipfs_node::{
    config::{Config, NetworkConfig},
    node::Node,
};

use super::{Options, Parts, Registry, Token};
use crate::{
    blobs::{Blobs as _, Content, embedded::EmbeddedBlobs},
    names::{self, Image, Shape},
    oci::{Descriptor, Digest, Manifest, Platforms, media},
    push::{self, PushFrom, PushOptions},
    source,
};

/// A registry that is being served.
struct Served {
    address: SocketAddr,
    node: Node,
    published: Arc<Mutex<Vec<Image>>>,
    client: Client,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    async fn start(node: Node, wait: Duration, token: Option<&str>) -> Self {
        let (published, storage) = (Arc::new(Mutex::new(Vec::new())), node.clone());
        let told = published.clone();
        let parts = Parts {
            asks: node.config().network.network != shipfs_node::config::Network::Offline,
            storage: Arc::new(move || Box::new(EmbeddedBlobs::new(storage.clone()))),
            published: Arc::new(move |images| told.lock().expect("not poisoned").extend(images)),
            uploads: node.config().repository.join("uploads"),
            node: node.clone(),
        };
        let token = token.map(|token| Token::new(token).expect("long enough"));
        let options = Options { listen: "127.0.0.1:0".into(), wait: Some(wait), retries: 0, token };
        let registry = Registry::start(options, parts).await.expect("starts");
        let address = registry.addresses()[0];
        let task = tokio::task::spawn(async move { registry.run(&()).await });
        let client = Client::builder().no_proxy().build().expect("a client");
        Self { address, node, published, client, task }
    }

    async fn offline(folder: &Path) -> Self {
        let node = Node::start(Config::offline(folder.join("repository"))).await.expect("starts");
        Self::start(node, Duration::from_secs(5), None).await
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = self.client.request(method, format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("an answer")
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path, &[]).await
    }

    /// Status and code of a refusal.
    async fn refused(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        refusal(self.ask(method, path, headers).await).await
    }

    async fn upload(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let url = format!("http://{}/v2/{repository}/blobs/uploads/?digest={digest}", self.address);
        let answer = self.client.post(url).body(bytes.to_vec()).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED);
        digest
    }

    async fn put(&self, path: &str, media_type: &str, bytes: Vec<u8>) -> Response {
        let url = format!("http://{}{path}", self.address);
        self.client.put(url).header("content-type", media_type).body(bytes).send().await.expect("an answer")
    }

    async fn names(&self) -> Vec<String> {
        let blobs = EmbeddedBlobs::new(self.node.clone());
        names::list(blobs.records()).await.expect("lists").into_iter().map(|image| image.name).collect()
    }
}

async fn refusal(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    assert_eq!(header(&answer, "content-type"), "application/json");
    let body: serde_json::Value = answer.json().await.expect("JSON");
    assert!(body["errors"][0]["message"].is_string(), "{body}");
    (status, body["errors"][0]["code"].as_str().expect("a code").to_owned())
}

fn header<'r>(answer: &'r Response, name: &str) -> &'r str {
    answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

async fn push(node: &Node, shape: Shape) -> Image {
    let data = format!("{}/../tests/data/parity/docker-list", env!("CARGO_MANIFEST_DIR"));
    let source = source::open(&format!("oci:{data}").parse().expect("location"), None, Path::new("/nonexistent"));
    let options = PushOptions { shape, platforms: Platforms::All, ..PushOptions::default() };
    let from = PushFrom::Source(source.expect("opens").into(), None);
    push::push(&EmbeddedBlobs::new(node.clone()), &from, &options, &()).await.expect("pushes")
}

fn manifest(config: &[u8], layers: &[&[u8]], subject: Option<Descriptor>) -> Vec<u8> {
    let descriptor = |media_type, bytes: &[u8]| Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::MANIFEST.into(),
        artifact_type: if subject.is_some() { "application/x-signature".into() } else { String::new() },
        config: descriptor(media::CONFIG, config),
        layers: Some(layers.iter().map(|layer| descriptor(media::LAYER, layer)).collect()),
        subject,
        annotations: std::collections::BTreeMap::new(),
    };
    // A blank at the end is part of the digest, too.
    [manifest.to_json(), b"\n".to_vec()].concat()
}
