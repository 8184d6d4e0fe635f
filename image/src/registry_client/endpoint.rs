//! Where a registry is reached, and which other addresses it may send a client to.
//!
//! Imports [`reference::Name`](crate::reference::Name). Pure. The rules for secrets are here: an *origin* is scheme, host
//! and port, and what is meant for one origin never goes to another.

use std::net::IpAddr;

use reqwest::Url;

use super::RegistryError;

/// The registry of names without one has other hosts for its content and for its accounts.
const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_HOST: &str = "registry-1.docker.io";

/// The root of a registry's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The domain as it stands in names; credentials are looked up by it.
    pub(crate) domain: String,
    /// `https://host:port/`.
    pub(crate) base: Url,
    /// Whether plain HTTP was chosen for it.
    pub(crate) is_plain: bool,
}

impl Endpoint {
    /// The registry called `domain` in names; over plain HTTP when that is asked for, or it is on this host.
    pub(crate) fn new(domain: &str, plain_http: bool) -> Result<Self, RegistryError> {
        let host = if domain == DEFAULT_DOMAIN { DEFAULT_HOST } else { domain };
        let scheme = |is_plain| if is_plain { "http" } else { "https" };
        let parse = |is_plain| {
            Url::parse(&format!("{}://{host}/", scheme(is_plain)))
                .map_err(|_| RegistryError::Address { text: domain.to_owned() })
        };
        let is_plain = plain_http || is_loopback(&parse(true)?);
        Ok(Self { domain: domain.to_owned(), base: parse(is_plain)?, is_plain })
    }

    /// The same registry over the other scheme.
    pub(crate) fn encrypted(&self) -> Result<Self, RegistryError> {
        let text = self.base.as_str().replacen("http://", "https://", 1);
        let base = Url::parse(&text).map_err(|_| RegistryError::Address { text })?;
        Ok(Self { base, is_plain: false, ..self.clone() })
    }

    /// An address below the API's root.
    pub(crate) fn url(&self, path: &str) -> Result<Url, RegistryError> {
        self.base.join(path).map_err(|_| RegistryError::Address { text: path.to_owned() })
    }

    /// Whether what is meant for the registry may go to `url`.
    pub(crate) fn is_own(&self, url: &Url) -> bool {
        self.base.origin() == url.origin()
    }

    /// Whether a client may be sent to `url` at all: encrypted, or plainly to this host, or to the registry itself.
    pub(crate) fn may_lead_to(&self, url: &Url) -> bool {
        match url.scheme() {
            "https" => true,
            "http" => self.is_own(url) || (self.is_plain && is_loopback(&self.base) && is_loopback(url)),
            _ => false,
        }
    }

    /// Whether the registry's password may go to `realm`, which the registry says gives out tokens: to itself, and to
    /// hosts of the same site. A password for one site never goes to another, whatever a registry says.
    pub(crate) fn shares_password_with(&self, realm: &Url) -> bool {
        self.may_lead_to(realm) && (self.is_own(realm) || (realm.scheme() == "https" && same_site(&self.base, realm)))
    }
}

/// Whether two hosts have the same owner: one host, one below the other, or two below one domain of two labels or more.
fn same_site(one: &Url, other: &Url) -> bool {
    let (Some(one), Some(other)) = (one.domain(), other.domain()) else { return one.host() == other.host() };
    if one == other {
        return true;
    }
    let parent = |host: &str| {
        let (_, parent) = host.split_once('.')?;
        // Not what anybody can register a name below: `com`, `co.uk`.
        let labels: Vec<&str> = parent.split('.').collect();
        let is_public = labels.len() < 2 || (labels.len() == 2 && labels[0].len() <= 3 && labels[1].len() == 2);
        (!is_public).then(|| parent.to_owned())
    };
    let is_below = |below: &str, above: &str| {
        above.contains('.') && below.strip_suffix(above).is_some_and(|rest| rest.ends_with('.'))
    };
    is_below(one, other) || is_below(other, one) || (parent(one).is_some() && parent(one) == parent(other))
}

/// Whether `url` names this host.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.ends_with(".localhost") || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(domain: &str) -> Endpoint {
        Endpoint::new(domain, false).expect("an endpoint")
    }

    fn url(text: &str) -> Url {
        text.parse().expect("a URL")
    }

    #[test]
    fn plain_http_is_for_this_host_or_for_those_who_ask() {
        for (domain, base) in [
            ("registry.example", "https://registry.example/"),
            ("registry.example:5000", "https://registry.example:5000/"),
            ("localhost:5000", "http://localhost:5000/"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000/"),
            ("[::1]:5000", "http://[::1]:5000/"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/"),
        ] {
            assert_eq!(endpoint(domain).base.as_str(), base);
        }
        assert_eq!(Endpoint::new("registry.example", true).expect("parses").base.as_str(), "http://registry.example/");
    }

    #[test]
    fn b4_nobody_is_led_off_encryption() {
        let remote = endpoint("registry.example");
        assert!(remote.may_lead_to(&url("https://storage.example/x")));
        for text in ["http://storage.example/x", "http://127.0.0.1/x", "file:///etc/passwd", "ftp://registry.example/"]
        {
            assert!(!remote.may_lead_to(&url(text)), "{text}");
        }
        let local = endpoint("localhost:5000");
        assert!(local.may_lead_to(&url("http://127.0.0.1:1/x")));
        assert!(!local.may_lead_to(&url("http://169.254.169.254/latest")));
    }

    #[test]
    fn b4_a_password_stays_with_its_site() {
        let shares = |domain: &str, realm: &str| endpoint(domain).shares_password_with(&url(realm));
        for (domain, realm) in [
            ("registry.example", "https://registry.example/token"),
            ("registry.site.example", "https://auth.site.example/token"),
            ("registry.site.example", "https://site.example/jwt"),
            ("localhost:5000", "http://localhost:5000/token"),
        ] {
            assert!(shares(domain, realm), "{domain} {realm}");
        }
        for (domain, realm) in [
            ("registry.example", "https://evil.example/token"),
            ("registry.example", "http://registry.example/token"),
            ("registry.site.co.uk", "https://evil.co.uk/token"),
            ("site.co.uk", "https://evil.co.uk/token"),
            ("registry.site.example", "https://site.example.evil.example/token"),
            ("registry.site.example", "https://evilsite.example/token"),
            ("localhost:5000", "http://localhost:5001/token"),
            ("10.0.0.1", "https://10.0.0.2/token"),
        ] {
            assert!(!shares(domain, realm), "{domain} {realm}");
        }
    }
}
