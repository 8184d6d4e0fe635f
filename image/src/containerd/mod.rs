//! A client of containerd: its images, its content, its leases, its snapshots, its containers.
//!
//! Reading order: `messages`, then the calls here, then `write` (content on its way there), `snapshots` (layers unpacked),
//! `tasks` (containers and what runs in them). Imports [`oci`](crate::oci), [`reference`](mod@crate::reference) and
//! [`blobs::Body`](crate::blobs::Body). Everything is asked in one namespace, over containerd's Unix socket. Nothing is
//! removed but what was made here.

mod messages;
mod snapshots;
mod tasks;
mod write;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use self::messages::{
    AddResource, ByName, CreateLease, FieldMask, Filters, Image, Info, Nothing, OneImage, OneInfo, Plugins, Read,
    ReadPart, Resource, UpdateImage, UpdateInfo,
};
use crate::{
    oci::{Descriptor, Digest},
    reference::Reference,
    rfc3339,
};

pub(crate) use self::{
    messages::Mount,
    tasks::{NewContainer, NewTask},
};

/// Longest wait for the socket to be answered.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Letters of what containerd says that are told: it quotes whole chains of causes.
const MAX_SAID: usize = 600;
/// How long a lease lasts when nobody ends it: as long as those of containerd's own client.
const LEASE_LIFE: Duration = Duration::from_secs(24 * 3600);

/// What containerd calls the image that a user names: a CID is a name as nerdctl writes it, any other name is written in
/// full. Nothing for a digest, which is no name there.
pub(crate) fn image_name(reference: &Reference) -> Option<String> {
    match reference {
        Reference::Cid(cid) => Some(cid.to_string()),
        Reference::Name(name) => Some(name.without_digest().to_string()),
        Reference::Digest(_) => None,
    }
}

/// containerd, in one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Containerd {
    channel: Channel,
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
    /// Where its content lies on this host, when it says so.
    root: Option<PathBuf>,
}

impl Containerd {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`ContainerdError::Connect`] when nobody answers there.
    pub(crate) async fn connect(path: &Path, namespace: &str) -> Result<Self, ContainerdError> {
        let socket = path.to_owned();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let failed = |source| ContainerdError::Connect { path: path.to_owned(), source };
        // The address is only for the form: the connector knows the way.
        let endpoint = Endpoint::from_static("http://localhost").connect_timeout(CONNECT_TIMEOUT);
        let channel = endpoint.connect_with_connector(connector).await.map_err(failed)?;
        let namespace =
            namespace.parse().map_err(|_| ContainerdError::Namespace { namespace: namespace.to_owned() })?;
        let mut client = Self { channel, namespace, lease: None, root: None };
        client.root = client.content_root().await;
        Ok(client)
    }

    /// Where content lies as files, if this process can see them: reading those saves two copies of every byte.
    async fn content_root(&self) -> Option<PathBuf> {
        let filters = vec!["type==io.containerd.content.v1".to_owned()];
        let path = "/containerd.services.introspection.v1.Introspection/Plugins";
        let answer: Plugins = self.ask(path, Filters { filters }).await.ok()?;
        let root = answer.plugins.into_iter().find_map(|plugin| plugin.exports.get("root").map(PathBuf::from));
        root.filter(|root| root.is_absolute() && root.join("blobs").is_dir())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert("containerd-lease", lease.clone());
        }
        request
    }

    async fn ready(&self, path: &'static str) -> Result<(Grpc<Channel>, PathAndQuery), Status> {
        let mut client = Grpc::new(self.channel.clone());
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok((client, PathAndQuery::from_static(path)))
    }

    async fn ask<Q, A>(&self, path: &'static str, question: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let (mut client, path) = self.ready(path).await?;
        let codec = ProstCodec::<Q, A>::default();
        Ok(client.unary(self.request(question), path, codec).await?.into_inner())
    }

    /// The top of the image called `name`; nothing when there is none.
    ///
    /// # Errors
    /// [`ContainerdError`] when containerd does not say, or says nonsense.
    pub(crate) async fn image(&self, name: &str) -> Result<Option<Descriptor>, ContainerdError> {
        let asking = self.ask("/containerd.services.images.v1.Images/Get", ByName { name: name.to_owned() });
        let image: Option<OneImage> = unless_gone("find an image", asking.await)?;
        let Some(target) = image.and_then(|image| image.image?.target) else { return Ok(None) };
        let nonsense = || ContainerdError::Answer { what: target.digest.chars().take(200).collect() };
        let digest = target.digest.parse().map_err(|_| nonsense())?;
        let size = u64::try_from(target.size).map_err(|_| nonsense())?;
        let mut descriptor = Descriptor::new(&target.media_type, digest, size);
        descriptor.annotations = target.annotations;
        Ok(Some(descriptor))
    }

    /// The file that holds a blob, when this process can read it.
    pub(crate) fn file(&self, blob: &Descriptor) -> Option<PathBuf> {
        let path = self.root.as_ref()?.join("blobs").join(blob.digest.algorithm()).join(blob.digest.hex());
        let is_whole = std::fs::metadata(&path).is_ok_and(|there| there.is_file() && there.len() == blob.size);
        (is_whole && std::fs::File::open(&path).is_ok()).then_some(path)
    }

    /// Bytes of a blob that is there; nothing when it is not.
    ///
    /// # Errors
    /// [`ContainerdError`] when containerd does not say.
    pub(crate) async fn size(&self, digest: &Digest) -> Result<Option<u64>, ContainerdError> {
        let asking = self.ask("/containerd.services.content.v1.Content/Info", ByName { name: digest.to_string() });
        let found: Option<OneInfo> = unless_gone("find content", asking.await)?;
        Ok(found.and_then(|found| u64::try_from(found.info?.size).ok()))
    }

    /// Begins to read a blob.
    ///
    /// # Errors
    /// [`ContainerdError`] when it is not there.
    pub(crate) async fn read(&self, digest: &Digest) -> Result<Reading, ContainerdError> {
        let reading = async {
            let (mut client, path) = self.ready("/containerd.services.content.v1.Content/Read").await?;
            let codec = ProstCodec::<Read, ReadPart>::default();
            client.server_streaming(self.request(Read { digest: digest.to_string() }), path, codec).await
        };
        Ok(Reading(reading.await.map_err(|status| failed("read content", &status))?.into_inner()))
    }

    /// The same client, with a lease on everything it writes.
    ///
    /// # Errors
    /// [`ContainerdError`] when there can be none.
    pub(crate) async fn leased(&self) -> Result<Self, ContainerdError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("shipfs-{}-{}-{count}", now.as_nanos(), std::process::id());
        let expiry = ("containerd.io/gc.expire".to_owned(), rfc3339::seconds(now + LEASE_LIFE));
        let create = CreateLease { id: id.clone(), labels: [expiry].into() };
        let _: Nothing = self
            .ask("/containerd.services.leases.v1.Leases/Create", create)
            .await
            .map_err(|status| failed("make a lease", &status))?;
        let lease = id.parse().map_err(|_| ContainerdError::Answer { what: id })?;
        Ok(Self { lease: Some(lease), ..self.clone() })
    }

    fn lease_id(&self) -> Option<String> {
        self.lease.as_ref().and_then(|lease| lease.to_str().ok()).map(str::to_owned)
    }

    /// Keeps a blob that is there for as long as the lease lasts.
    ///
    /// # Errors
    /// [`ContainerdError`] when that is not possible.
    pub(crate) async fn hold(&self, digest: &Digest) -> Result<(), ContainerdError> {
        let Some(id) = self.lease_id() else { return Ok(()) };
        let resource = Some(Resource { id: digest.to_string(), kind: "content".to_owned() });
        let adding = self.ask("/containerd.services.leases.v1.Leases/AddResource", AddResource { id, resource });
        adding.await.map(|Nothing {}| ()).map_err(|status| failed("hold content", &status))
    }

    /// Ends the lease.
    ///
    /// # Errors
    /// [`ContainerdError`] when it does not end; it does by itself then, in a day.
    pub(crate) async fn release(&self) -> Result<(), ContainerdError> {
        let Some(name) = self.lease_id() else { return Ok(()) };
        let ending = self.ask("/containerd.services.leases.v1.Leases/Delete", ByName { name });
        ending.await.map(|Nothing {}| ()).map_err(|status| failed("end a lease", &status))
    }

    /// Gives an image a name, which another one may have had.
    ///
    /// # Errors
    /// [`ContainerdError`]; the name means what it meant before then.
    pub(crate) async fn show(&self, name: &str, top: &Descriptor) -> Result<(), ContainerdError> {
        let image = Some(Image { name: name.to_owned(), labels: Default::default(), target: Some(message(top)) });
        let creating = self.ask("/containerd.services.images.v1.Images/Create", OneImage { image: image.clone() });
        match creating.await.map(|OneImage { .. }| ()) {
            Err(status) if status.code() == Code::AlreadyExists => {}
            created => return created.map_err(|status| failed("name an image", &status)),
        }
        let update_mask = Some(FieldMask { paths: vec!["target".to_owned()] });
        let update = UpdateImage { image, update_mask };
        let updating = self.ask("/containerd.services.images.v1.Images/Update", update);
        updating.await.map(|OneImage { .. }| ()).map_err(|status| failed("name an image", &status))
    }

    /// Sets labels of a blob that is there.
    async fn label(&self, digest: &Digest, labels: write::Labels) -> Result<(), ContainerdError> {
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let info = Some(Info { digest: digest.to_string(), size: 0, labels });
        let update = UpdateInfo { info, update_mask: Some(FieldMask { paths }) };
        let updating = self.ask("/containerd.services.content.v1.Content/Update", update);
        updating.await.map(|OneInfo { .. }| ()).map_err(|status| failed("label content", &status))
    }
}

/// A blob that is being read.
pub(crate) struct Reading(Streaming<ReadPart>);

impl Reading {
    /// The next bytes; nothing at the end.
    ///
    /// # Errors
    /// [`ContainerdError`] when it breaks off.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ContainerdError> {
        let part = self.0.message().await.map_err(|status| failed("read content", &status))?;
        Ok(part.map(|part| part.data))
    }
}

/// A descriptor as containerd takes it.
fn message(descriptor: &Descriptor) -> messages::Descriptor {
    messages::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        annotations: descriptor.annotations.clone(),
    }
}

/// Whether containerd itself says so: that has no cause on this side.
fn is_said(status: &Status) -> bool {
    std::error::Error::source(status).is_none()
}

fn failed(what: &'static str, status: &Status) -> ContainerdError {
    if !is_said(status) {
        return ContainerdError::Gone { what };
    }
    ContainerdError::Status { what, said: status.message().chars().take(MAX_SAID).collect() }
}

/// The answer, or nothing when what was asked about is gone.
fn unless_gone<T>(what: &'static str, answer: Result<T, Status>) -> Result<Option<T>, ContainerdError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(failed(what, &status)),
    }
}

/// Why containerd did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerdError {
    /// Nobody answers at its socket.
    #[error("cannot reach containerd at `{}`", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: tonic::transport::Error,
    },
    /// The namespace cannot be sent.
    #[error("`{}` is not a namespace of containerd", namespace.escape_debug())]
    Namespace {
        /// The namespace.
        namespace: String,
    },
    /// It refused.
    #[error("containerd could not {what}: {}", said.escape_debug())]
    Status {
        /// What it was asked.
        what: &'static str,
        /// What it said, shortened.
        said: String,
    },
    /// The conversation broke off.
    #[error("containerd went away while it was to {what}")]
    Gone {
        /// What it was asked.
        what: &'static str,
    },
    /// There is a container of that name.
    #[error("containerd has a container `{}` already", id.escape_debug())]
    ContainerThere {
        /// The name.
        id: String,
    },
    /// A layer unpacks to something else than its image says.
    #[error("layer `{digest}` unpacks to `{}`, its image says `{expected}`", got.escape_debug())]
    Layer {
        /// The layer, packed.
        digest: Digest,
        /// What it should unpack to.
        expected: Digest,
        /// What containerd says it did.
        got: String,
    },
    /// It said nonsense.
    #[error("containerd answered nonsense: `{}`", what.escape_debug())]
    Answer {
        /// What it said.
        what: String,
    },
    /// A body to be sent cannot be read, or has another length than its descriptor.
    #[error("cannot read `{digest}`")]
    Body {
        /// The blob.
        digest: Digest,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}
