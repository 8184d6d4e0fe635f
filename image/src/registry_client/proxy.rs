//! The proxies that lead out of some companies' networks.
//!
//! Imports nothing of this crate. An address may hold a password, which is never shown.

use std::fmt;

use reqwest::Url;
use serde::{Deserialize, Serialize};

/// Hosts that no proxy is asked for, whatever its user says.
const THIS_HOST: &str = "localhost,127.0.0.0/8,::1";

/// Proxies, by the scheme of what is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proxies {
    /// For plain HTTP.
    pub http: Option<ProxyAddress>,
    /// For HTTPS.
    pub https: Option<ProxyAddress>,
    /// Hosts that are reached without: names with all below them, addresses, networks, or `*`; with commas between.
    pub except: String,
}

impl Proxies {
    /// The hosts that are reached without.
    pub(super) fn exceptions(&self) -> String {
        if self.except.trim().is_empty() { THIS_HOST.to_owned() } else { format!("{THIS_HOST},{}", self.except) }
    }
}

/// Where a proxy is, and perhaps a name and a password for it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyAddress(String);

impl ProxyAddress {
    /// Takes an address as it stands in `HTTPS_PROXY`; one without a scheme is a plain one.
    pub fn new(text: &str) -> Self {
        Self(if text.contains("://") { text.to_owned() } else { format!("http://{text}") })
    }

    /// The whole of it.
    pub(super) fn url(&self) -> Option<Url> {
        Url::parse(&self.0).ok().filter(Url::has_host)
    }

    /// Scheme, host and port.
    pub(super) fn shown(&self) -> String {
        let Some(url) = self.url() else { return "an address that cannot be read".to_owned() };
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
    }
}

impl fmt::Debug for ProxyAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_for_a_proxy_is_not_shown() {
        for text in ["http://me:secret@proxy.example:3128", "me:secret@proxy.example:3128"] {
            let proxies = Proxies { https: Some(ProxyAddress::new(text)), ..Proxies::default() };
            let shown = format!("{proxies:?}");
            assert!(shown.contains("http://proxy.example:3128") && !shown.contains("secret"), "{shown}");
        }
        for text in ["", "http://", "secret://:"] {
            assert_eq!(ProxyAddress::new(text).shown(), "an address that cannot be read", "{text}");
        }
    }
}
