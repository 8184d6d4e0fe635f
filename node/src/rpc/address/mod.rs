//! Where a daemon is: a multiaddress or a URL, and the credentials it asks for.
//!
//! ```text
//! /ip4/A/tcp/P  /ip6/A/tcp/P  /ip6zone/Z/ip6/A/tcp/P  /dns/H/tcp/P  /dns4/..  /dns6/..    http://A:P
//! the same without /tcp/P                                                                http://A, port 80 (https: 443)
//! the same with /http behind it, /https, /tls/http, /tls/sni/H/http                      http, https, https, https
//! /unix/PATH                                                                              http through a socket
//! http://[USER:PASSWORD@]HOST[:PORT][/PREFIX]  https://...                                as it says
//! ```
//! A trailing `/p2p/ID` says nothing that HTTP could use and is passed over. Imports nothing of this crate. Credentials are
//! in no message, no `Debug` and no `Display`.

mod credentials;

use std::{fmt, net::Ipv6Addr, path::PathBuf, str::FromStr};

use reqwest::Url;

pub use credentials::Credentials;
pub(super) use credentials::Kind;

/// Longest address, in bytes: the longest host name, a socket's path and a password fit.
pub const MAX_ADDRESS_BYTES: usize = 2048;

/// Where a daemon is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// There.
    At(Endpoint),
    /// Where the first of these files that exists says: the `api` file that a daemon writes when it starts. They are read
    /// again for every connection, since a daemon that starts anew may choose another port.
    Files(Vec<PathBuf>),
}

/// An address of a daemon's RPC.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) route: Route,
    /// Without user information.
    pub(super) url: Url,
    /// What stood in the address itself.
    pub(super) credentials: Option<Credentials>,
}

/// How its host is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// By what the URL says.
    Url,
    /// By a name, over one version of IP: 4 or 6.
    Family(u8),
    /// By an address that means something on one link only, which no URL can say.
    Zone { address: Ipv6Addr, zone: String },
    /// Through a Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// Whether no network socket is needed for it.
    pub fn is_unix(&self) -> bool {
        matches!(self.route, Route::Unix(_))
    }

    /// Whether what is sent may be read on its way: plain HTTP to another host.
    pub fn is_open(&self) -> bool {
        let host = self.url.host_str().unwrap_or_default();
        let is_local = host == "localhost" || host.starts_with("127.") || host == "[::1]";
        self.url.scheme() == "http" && !self.is_unix() && !is_local
    }

    fn new(route: Route, text: &str) -> Result<Self, AddressError> {
        let url = Url::parse(text).map_err(|source| AddressError::Url { problem: source.to_string() })?;
        Ok(Self { route, url, credentials: None })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.route {
            Route::Unix(path) => write!(formatter, "/unix{}", path.display()),
            Route::Zone { address, zone } => {
                let port = self.url.port_or_known_default().unwrap_or_default();
                write!(formatter, "{}://[{address}%{zone}]:{port}", self.url.scheme())
            }
            _ => formatter.write_str(self.url.as_str().trim_end_matches('/')),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Endpoint({self}, {:?})", self.credentials)
    }
}

impl FromStr for Endpoint {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if text.len() > MAX_ADDRESS_BYTES || text.chars().any(char::is_control) {
            return Err(AddressError::Form);
        }
        if let Some(path) = text.strip_prefix("/unix/") {
            return unix(path);
        }
        if text.starts_with('/') {
            return multiaddress(text);
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            return url(text);
        }
        Err(AddressError::Form)
    }
}

/// Kubo writes the path behind `/unix` as it is; newer multiaddresses write its slashes as `%2F`.
fn unix(path: &str) -> Result<Endpoint, AddressError> {
    let path = match path.contains('/') {
        true => path.to_owned(),
        false => credentials::decoded(path).ok_or(AddressError::Form)?,
    };
    let path = PathBuf::from(format!("/{}", path.trim_start_matches('/')));
    if path.as_os_str() == "/" {
        Err(AddressError::Form)
    } else {
        Endpoint::new(Route::Unix(path), "http://localhost/")
    }
}

fn value(part: Option<&str>) -> Result<&str, AddressError> {
    part.filter(|value| !value.is_empty()).ok_or(AddressError::Form)
}

fn multiaddress(text: &str) -> Result<Endpoint, AddressError> {
    let mut parts = text[1..].split('/').peekable();
    let (route, host) = match parts.next().unwrap_or_default() {
        "ip4" => {
            let address: std::net::Ipv4Addr = value(parts.next())?.parse().map_err(|_| AddressError::Form)?;
            (Route::Url, address.to_string())
        }
        "ip6" => {
            let address: Ipv6Addr = value(parts.next())?.parse().map_err(|_| AddressError::Form)?;
            (Route::Url, format!("[{address}]"))
        }
        "ip6zone" => {
            let zone = value(parts.next())?.to_owned();
            if parts.next() != Some("ip6") {
                return Err(AddressError::Form);
            }
            let address: Ipv6Addr = value(parts.next())?.parse().map_err(|_| AddressError::Form)?;
            (Route::Zone { address, zone }, format!("[{address}]"))
        }
        "dns" => (Route::Url, value(parts.next())?.to_owned()),
        "dns4" => (Route::Family(4), value(parts.next())?.to_owned()),
        "dns6" => (Route::Family(6), value(parts.next())?.to_owned()),
        other => return Err(AddressError::NoHost { protocol: other.chars().take(40).collect() }),
    };
    let mut port = None;
    match parts.peek() {
        Some(&"tcp") => {
            parts.next();
            port = Some(value(parts.next())?.parse::<u16>().map_err(|_| AddressError::Form)?);
        }
        Some(&protocol @ ("udp" | "quic" | "quic-v1" | "sctp" | "utp")) => {
            return Err(AddressError::NotTcp { protocol: protocol.to_owned() });
        }
        _ => {}
    }
    let (mut scheme, mut is_done) = ("http", false);
    while let Some(protocol) = parts.next() {
        match protocol {
            "http" if !is_done => is_done = true,
            "https" if !is_done && scheme == "http" => (scheme, is_done) = ("https", true),
            "tls" if !is_done && scheme == "http" => scheme = "https",
            // The name that the certificate is for; it has to be the host's, which is what is checked.
            "sni" if !is_done && scheme == "https" => drop(value(parts.next())?),
            "p2p" | "ipfs" => drop(value(parts.next())?),
            other => return Err(AddressError::Unknown { protocol: other.chars().take(40).collect() }),
        }
    }
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    let endpoint = Endpoint::new(route, &format!("{scheme}://{host}{port}/"))?;
    // What a name holds must not become another part of the URL.
    let is_same = endpoint.url.host_str().is_some_and(|parsed| parsed.eq_ignore_ascii_case(&host));
    let is_plain = endpoint.url.path() == "/" && endpoint.url.query().is_none() && endpoint.url.fragment().is_none();
    let is_plain = is_plain && endpoint.url.username().is_empty() && endpoint.url.password().is_none();
    if is_same && is_plain { Ok(endpoint) } else { Err(AddressError::Form) }
}

fn url(text: &str) -> Result<Endpoint, AddressError> {
    let mut endpoint = Endpoint::new(Route::Url, text)?;
    let url = &mut endpoint.url;
    if url.query().is_some() || url.fragment().is_some() || !url.has_host() {
        return Err(AddressError::Form);
    }
    if !url.username().is_empty() || url.password().is_some() {
        let user = credentials::decoded(url.username()).ok_or(AddressError::Form)?;
        let password = credentials::decoded(url.password().unwrap_or_default()).ok_or(AddressError::Form)?;
        endpoint.credentials = Some(Credentials::basic(&user, &password)?);
    }
    url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| AddressError::Form)?;
    // Some write the whole path, some only what stands before it.
    let prefix = url.path().trim_end_matches('/');
    let prefix = prefix.strip_suffix("/api/v0").unwrap_or(prefix).to_owned();
    url.set_path(&format!("{prefix}/"));
    Ok(endpoint)
}

/// Why text is no address of a daemon. No message repeats the text: there may be a password in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Neither a multiaddress nor a URL.
    #[error(
        "it is no address of an IPFS daemon, expected /ip4/127.0.0.1/tcp/5001, /unix/run/ipfs.sock or http://127.0.0.1:5001 for instance"
    )]
    Form,
    /// It does not begin with a host.
    #[error("it begins with `/{}`, which is no host: expected /ip4, /ip6, /dns, /dns4, /dns6 or /unix", protocol.escape_debug())]
    NoHost {
        /// What it begins with.
        protocol: String,
    },
    /// HTTP runs over TCP.
    #[error("it says `/{protocol}`, but a daemon's RPC is spoken over /tcp")]
    NotTcp {
        /// What it says.
        protocol: String,
    },
    /// Something that is not understood.
    #[error("it says `/{}`, which is not understood behind a host and a port", protocol.escape_debug())]
    Unknown {
        /// What it says.
        protocol: String,
    },
    /// A URL that cannot be read.
    #[error("it is no URL: {problem}")]
    Url {
        /// What is wrong with it.
        problem: String,
    },
    /// Credentials of neither kind.
    #[error("credentials are `basic:USER:PASSWORD` or `bearer:TOKEN`, without control characters")]
    Credentials,
}

#[cfg(test)]
mod tests;
