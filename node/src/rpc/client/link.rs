//! One connection pool to one endpoint.
//!
//! Imports the address. Nothing of the environment decides where a request goes: no proxy, no redirect; a Unix socket
//! where one is named.

use std::{
    error::Error as _,
    io::{self, Read as _},
    net::{SocketAddr, SocketAddrV6},
    path::Path,
    time::Duration,
};

use reqwest::{Body, Client, Url, header, redirect};

use super::{
    super::address::{Credentials, Endpoint, Kind, Place, Route},
    RpcError, error,
    reply::{MAX_SAID_BYTES, Reply, collect},
};

/// Longest wait for a connection; a host that is there answers within a round trip.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest file with an address that is read, in bytes.
const MAX_API_FILE_BYTES: u64 = 4 << 10;
/// What this program calls itself. Kubo refuses clients that call themselves Kubo of another version.
const AGENT: &str = concat!("shipfs/", env!("CARGO_PKG_VERSION"));
/// The host that stands in URLs for an address that URLs cannot say.
const ZONED_HOST: &str = "zoned.invalid";

/// A body with its type.
pub(super) struct Form {
    pub(super) content_type: String,
    pub(super) body: Body,
}

/// A connection pool.
pub(super) struct Link {
    pub(super) endpoint: Endpoint,
    pub(super) shown: String,
    client: Client,
    base: Url,
    credentials: Option<Credentials>,
}

/// Where the daemon is now.
pub(super) async fn locate(place: &Place) -> Result<Endpoint, RpcError> {
    let files = match place {
        Place::At(endpoint) => return Ok(endpoint.clone()),
        Place::Files(files) => files.clone(),
    };
    let reading = tokio::task::spawn_blocking(move || {
        for path in &files {
            match read(path) {
                Ok(text) => {
                    let parsed = text.parse();
                    return parsed.map_err(|source| RpcError::ApiFileAddress { path: path.clone(), source });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(RpcError::ApiFile { path: path.clone(), source }),
            }
        }
        Err(RpcError::NoDaemon { files })
    });
    match reading.await {
        Ok(located) => located,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_API_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

impl Link {
    pub(super) async fn new(
        endpoint: Endpoint,
        credentials: Option<Credentials>,
        patience: Duration,
    ) -> Result<Self, RpcError> {
        let shown = endpoint.to_string();
        let mut base = endpoint.url.clone();
        let mut builder = Client::builder()
            .user_agent(AGENT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT.min(patience))
            .http1_only();
        let unreachable = |source: io::Error| RpcError::Connect { endpoint: shown.clone(), source: source.into() };
        match &endpoint.route {
            Route::Url => {}
            Route::Unix(path) => builder = builder.unix_socket(path.as_path()),
            Route::Zone { address, zone } => {
                let index = zone_index(zone).map_err(unreachable)?;
                let port = base.port_or_known_default().unwrap_or_default();
                builder = builder.resolve(ZONED_HOST, SocketAddrV6::new(*address, port, 0, index).into());
                base.set_host(Some(ZONED_HOST))
                    .map_err(|source| RpcError::Setup { endpoint: shown.clone(), source: source.into() })?;
            }
            Route::Family(version) => {
                let host = base.host_str().unwrap_or_default().to_owned();
                let port = base.port_or_known_default().unwrap_or_default();
                let looking_up = tokio::net::lookup_host((host.clone(), port));
                let timeout = CONNECT_TIMEOUT.min(patience);
                let found = tokio::time::timeout(timeout, looking_up).await.map_err(io::Error::from);
                let found = found.and_then(|found| found).map_err(unreachable)?;
                let found: Vec<SocketAddr> = found.filter(|address| address.is_ipv4() == (*version == 4)).collect();
                if found.is_empty() {
                    return Err(unreachable(io::Error::other(format!("the name has no address of IPv{version}"))));
                }
                builder = builder.resolve_to_addrs(&host, &found);
            }
        }
        let client = builder.build();
        let client = client.map_err(|source| RpcError::Setup { endpoint: shown.clone(), source: source.into() })?;
        let credentials = credentials.or_else(|| endpoint.credentials.clone());
        Ok(Self { endpoint, shown, client, base, credentials })
    }

    /// Sends a command, and gives its answer once it turns out to be one.
    pub(super) async fn send<'a>(
        &self,
        command: &'static str,
        arguments: impl Iterator<Item = (&'a str, &'a str)>,
        form: Option<Form>,
        wait: Duration,
    ) -> Result<Reply, RpcError> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}api/v0/{command}", self.base.path()));
        url.query_pairs_mut().extend_pairs(arguments);
        let mut request = self.client.post(url);
        if let Some(credentials) = &self.credentials {
            request = credentials.put(request);
        }
        request = match form {
            Some(form) => request.header(header::CONTENT_TYPE, form.content_type).body(form.body),
            None => request.header(header::CONTENT_LENGTH, 0),
        };
        let endpoint = self.shown.clone();
        let response = match tokio::time::timeout(wait, request.send()).await {
            Err(_) => return Err(RpcError::Silent { endpoint, command, waited: wait }),
            Ok(Err(error)) if error.is_connect() => {
                return Err(RpcError::Connect { endpoint, source: root(error) });
            }
            Ok(Err(error)) => return Err(RpcError::Broken { endpoint, command, received: 0, source: root(error) }),
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        let mut reply = Reply::new(endpoint.clone(), command, response);
        if status.is_success() {
            return Ok(reply);
        }
        if status.is_redirection() {
            return Err(RpcError::Redirected { endpoint, command, status: status.as_u16() });
        }
        let mut body = Vec::new();
        while let Ok(Some(bytes)) = reply.next(wait).await {
            if collect(&mut body, &bytes, MAX_SAID_BYTES, command).is_err() {
                break;
            }
        }
        let (message, status) = (error::said(&body), status.as_u16());
        Err(match status {
            401 | 403 => RpcError::Denied { endpoint, command, status, message },
            404 | 405 => {
                let said = format!("status {status}, {message}");
                RpcError::Garbage { endpoint, command, said }
            }
            _ => RpcError::Refused { command, status, message },
        })
    }
}

impl Credentials {
    fn put(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.0 {
            Kind::Basic { user, password } => request.basic_auth(user, Some(password)),
            Kind::Bearer(token) => request.bearer_auth(token),
        }
    }
}

/// The number of a network interface, which stands behind `%` in an address.
fn zone_index(zone: &str) -> io::Result<u32> {
    if let Ok(index) = zone.parse() {
        return Ok(index);
    }
    let path = Path::new("/sys/class/net").join(zone).join("ifindex");
    let is_name = !zone.is_empty() && !zone.contains('/') && zone != "." && zone != "..";
    let text = if is_name { std::fs::read_to_string(path).ok() } else { None };
    let index = text.and_then(|text| text.trim().parse().ok());
    index.ok_or_else(|| io::Error::other("there is no such network interface"))
}

/// What went wrong, without the URL that the client's errors begin with.
pub(super) fn root(error: reqwest::Error) -> Box<dyn std::error::Error + Send + Sync> {
    let error = error.without_url();
    let mut texts = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        next = cause.source();
    }
    if texts.is_empty() { error.into() } else { texts.join(": ").into() }
}
