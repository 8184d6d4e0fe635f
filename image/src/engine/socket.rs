//! Docker's API over a Unix socket, as Docker and podman serve it.
//!
//! Imports its parent. Paths are without a version: every daemon speaks the newest one that it knows, and the parts used
//! here never changed.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use futures::stream;
use reqwest::{Client, RequestBuilder, Response, Url, header::CONTENT_TYPE};
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};

use super::{DOCKER, EngineError, Held, Loading};
use crate::{oci::Digest, reference::Name};

/// Longest wait for the socket to be answered.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is read but for an archive, in bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// Longest error text that is told, in letters.
const MAX_TOLD: usize = 300;
/// Most images that are looked at for layers, each with a request of a millisecond.
const MAX_LOOKED_AT: usize = 200;
/// What Docker calls whatever keeps its layers when that is containerd.
const SNAPSHOTTER: &str = "io.containerd.snapshotter";
/// Parts of an archive that wait for the socket.
const PARTS_AHEAD: usize = 4;

/// An engine behind a socket.
#[derive(Debug)]
pub(crate) struct Socket {
    title: &'static str,
    path: PathBuf,
    http: Client,
    runtime: Handle,
}

impl Socket {
    pub(super) fn new(title: &'static str, path: PathBuf, runtime: &Handle) -> Result<Self, EngineError> {
        let builder = Client::builder().unix_socket(path.as_path()).no_proxy().connect_timeout(CONNECT_TIMEOUT);
        let http = builder.build().map_err(|source| EngineError::Setup { engine: title, source })?;
        Ok(Self { title, path, http, runtime: runtime.clone() })
    }

    pub(super) fn title(&self) -> &'static str {
        self.title
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Result<Url, EngineError> {
        let refused = || EngineError::Refused {
            engine: self.title,
            what: "be asked",
            said: path.chars().take(MAX_TOLD).collect(),
        };
        let mut url = Url::parse("http://localhost/").and_then(|base| base.join(path)).map_err(|_| refused())?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    fn broken(&self, source: reqwest::Error) -> EngineError {
        EngineError::Connection { engine: self.title, path: self.path.clone(), source: source.without_url() }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, EngineError> {
        request.send().await.map_err(|source| self.broken(source))
    }

    async fn refused(&self, what: &'static str, response: Response) -> EngineError {
        #[derive(Default, serde::Deserialize)]
        #[serde(default)]
        struct Answer {
            message: String,
        }
        let text = read(response).await.unwrap_or_default();
        let said = serde_json::from_slice::<Answer>(&text).unwrap_or_default().message;
        EngineError::Refused { engine: self.title, what, said: said.chars().take(MAX_TOLD).collect() }
    }

    pub(super) fn held(&self, image: &str) -> Result<Option<Held>, EngineError> {
        let url = self.url(&format!("images/{image}/json"), &[])?;
        self.runtime.block_on(async {
            let response = self.send(self.http.get(url)).await?;
            match response.status().as_u16() {
                200 => Ok(Some(Held::parse(&read(response).await.map_err(|source| self.broken(source))?))),
                404 => Ok(None),
                _ => Err(self.refused("find an image", response).await),
            }
        })
    }

    pub(super) fn is_docker(&self) -> bool {
        self.title == DOCKER
    }

    /// As [`Engine::count_held`](super::Engine::count_held). Docker looks a layer up by what lies below it before it opens the
    /// layer's file; with images in containerd it looks for the layer's blob, about which it tells nothing, and every layer counts as
    /// missing.
    pub(super) fn count_held(&self, diff_ids: &[Digest]) -> Result<usize, EngineError> {
        let info: Info = self.ask("info")?;
        if info.driver_status.iter().flatten().any(|text| text.contains(SNAPSHOTTER)) {
            return Ok(0);
        }
        let mut most = 0;
        let all: Vec<Row> = self.ask("images/json")?;
        for row in all.into_iter().take(MAX_LOOKED_AT) {
            let Ok(id) = row.id.parse::<Digest>() else { continue };
            let Some(held) = self.held(&id.to_string())? else { continue };
            let same = held.layers.iter().zip(diff_ids).take_while(|(held, wanted)| held == wanted).count();
            most = most.max(same);
            if most == diff_ids.len() {
                break;
            }
        }
        Ok(most)
    }

    /// Reads what the engine tells; what is too long or in another form counts as nothing.
    fn ask<T: Default + serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, EngineError> {
        let url = self.url(path, &[])?;
        self.runtime.block_on(async {
            let response = self.send(self.http.get(url)).await?;
            let bytes = read(response).await.map_err(|source| self.broken(source))?;
            Ok(serde_json::from_slice(&bytes).unwrap_or_default())
        })
    }

    pub(super) fn export(&self, image: &str) -> Result<Box<dyn Read + Send>, EngineError> {
        let url = self.url(&format!("images/{image}/get"), &[])?;
        let response = self.runtime.block_on(async {
            let response = self.send(self.http.get(url)).await?;
            if response.status().is_success() {
                Ok(response)
            } else {
                Err(self.refused("give an image", response).await)
            }
        })?;
        Ok(Box::new(Archive { response, runtime: self.runtime.clone(), left: Bytes::new() }))
    }

    pub(super) fn tag(&self, id: &Digest, name: &Name) -> Result<(), EngineError> {
        let repository = format!("{}/{}", name.domain, name.path);
        let tag = name.tag.as_deref().unwrap_or("latest");
        let url = self.url(&format!("images/{id}/tag"), &[("repo", &repository), ("tag", tag)])?;
        self.runtime.block_on(async {
            let response = self.send(self.http.post(url)).await?;
            if response.status().is_success() { Ok(()) } else { Err(self.refused("name an image", response).await) }
        })
    }

    pub(super) fn load(&self) -> Loading {
        let (sender, receiver) = mpsc::channel::<Bytes>(PARTS_AHEAD);
        let parts = stream::unfold(receiver, |mut receiver| async move {
            let part = receiver.recv().await?;
            Some((Ok::<_, io::Error>(part), receiver))
        });
        let url = self.url("images/load", &[("quiet", "1")]);
        let http = self.http.clone();
        let (engine, path) = (self.title, self.path.clone());
        // It runs beside whoever writes the archive, and ends with the one or with the other.
        let task = self.runtime.spawn(async move {
            let request = http.post(url?).header(CONTENT_TYPE, "application/x-tar");
            let broken = |source: reqwest::Error| EngineError::Connection {
                engine,
                path: path.clone(),
                source: source.without_url(),
            };
            let response = request.body(reqwest::Body::wrap_stream(parts)).send().await.map_err(broken)?;
            let is_taken = response.status().is_success();
            let answer = read(response).await.map_err(broken)?;
            match problem(&answer, is_taken) {
                None => Ok(()),
                Some(said) => Err(EngineError::Refused { engine, what: "take an image", said }),
            }
        });
        let (task, runtime) = (Aborting(task), self.runtime.clone());
        let verdict = move || {
            let mut task = task;
            match runtime.block_on(&mut task.0) {
                Ok(verdict) => verdict,
                Err(_) => {
                    Err(EngineError::Refused { engine, what: "take an image", said: "it was given up".to_owned() })
                }
            }
        };
        Loading { archive: Box::new(Parts(sender)), verdict: Box::new(verdict) }
    }
}

/// What Docker tells of itself.
#[derive(Default, serde::Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Info {
    driver_status: Vec<Vec<String>>,
}

/// One image of Docker's list.
#[derive(Default, serde::Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Row {
    id: String,
}

/// Reads an answer, or its beginning.
async fn read(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER_BYTES {
            break;
        }
    }
    Ok(bytes)
}

/// What an engine says is wrong, in a row of JSON values: even an answer that began well may end badly.
fn problem(answer: &[u8], is_taken: bool) -> Option<String> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Line {
        error: String,
        message: String,
    }
    let lines = serde_json::Deserializer::from_slice(answer).into_iter::<Line>();
    let told = lines
        .map_while(Result::ok)
        .find_map(|line| [line.error, line.message].into_iter().find(|text| !text.is_empty()));
    match told {
        Some(told) => Some(told.chars().take(MAX_TOLD).collect()),
        None if is_taken => None,
        None => Some(String::from_utf8_lossy(answer).chars().take(MAX_TOLD).collect()),
    }
}

/// A request that ends when nobody waits for it.
struct Aborting<T>(JoinHandle<T>);

impl<T> Drop for Aborting<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The writing end of a request's body.
struct Parts(mpsc::Sender<Bytes>);

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(part).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The body of an answer.
struct Archive {
    response: Response,
    runtime: Handle,
    left: Bytes,
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() {
            let next = self.runtime.block_on(self.response.chunk());
            match next.map_err(|error| io::Error::other(error.without_url()))? {
                Some(chunk) => self.left = chunk,
                None => return Ok(0),
            }
        }
        let length = self.left.len().min(buffer.len());
        self.left.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn an_answer_that_ends_badly_is_a_refusal() {
        let lines = b"{\"stream\":\"Loading\"}\n{\"errorDetail\":{\"message\":\"no space\"},\"error\":\"no space\"}\n";
        assert_eq!(problem(lines, true).as_deref(), Some("no space"));
        assert_eq!(problem(b"{\"stream\":\"Loaded image: a\"}\n", true), None);
        assert_eq!(problem(b"", true), None);
        assert_eq!(problem(b"{\"message\":\"bad\"}", false).as_deref(), Some("bad"));
        assert_eq!(problem(b"oops", false).as_deref(), Some("oops"));
    }
}
