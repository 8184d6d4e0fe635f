//! How a registry is spoken to: whom it must be signed by, what it is shown, and by way of which proxy.
//!
//! Imports its siblings. A certificate of its user's is shown to the registry's own origin and to nobody else, as with its
//! password; the authorities that are trusted for a registry are trusted for the hosts it leads to, too, which are often of
//! the same house. This host is never reached by way of a proxy.

use std::{
    error::Error,
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use reqwest::{Certificate, ClientBuilder, Identity, Url};
use rustls::{AlertDescription, CertificateError};

use super::{CONNECT_TIMEOUT, READ_TIMEOUT, Registries, RegistryError, USER_AGENT, endpoint::is_loopback};
use crate::bring::blocking;

/// Longest file with certificates that is read, in bytes: twenty times what systems have.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Most files that are read of one folder.
const MAX_FILES: usize = 4096;

/// The clients of one registry.
#[derive(Clone, Debug)]
pub(super) struct Http {
    own: reqwest::Client,
    others: reqwest::Client,
    /// The proxies, as they may be shown.
    proxies: Vec<(&'static str, String)>,
}

/// What is known of a registry's certificate and of ours.
#[derive(Default)]
struct Trust {
    /// Whether the system's authorities do not count.
    is_alone: bool,
    authorities: Vec<Certificate>,
    identity: Option<Identity>,
}

impl Http {
    /// The clients of the registry called `domain`.
    pub(super) async fn new(registries: &Registries, domain: &str) -> Result<Self, RegistryError> {
        let (settings, host) = (registries.clone(), domain.to_owned());
        let trust = blocking(move || Trust::read(&settings, &host)).await?;
        let mut proxies = Vec::new();
        let mut shown = Vec::new();
        for (scheme, address) in [("http", &registries.proxies.http), ("https", &registries.proxies.https)] {
            let Some(address) = address else { continue };
            let refused = || RegistryError::Proxy { proxy: address.shown() };
            let url = address.url().filter(|url| matches!(url.scheme(), "http" | "https")).ok_or_else(refused)?;
            let proxy = if scheme == "http" { reqwest::Proxy::http(url) } else { reqwest::Proxy::https(url) };
            let except = reqwest::NoProxy::from_string(&registries.proxies.exceptions());
            proxies.push(proxy.map_err(|_| refused())?.no_proxy(except));
            shown.push((scheme, address.shown()));
        }
        let builder = || {
            // Redirects are followed by the client of registries, where it is known what may go where. What the environment
            // says is read by whoever hands the settings in.
            let builder = reqwest::Client::builder()
                .user_agent(USER_AGENT)
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(READ_TIMEOUT);
            let builder = proxies.iter().cloned().fold(builder, ClientBuilder::proxy);
            if trust.is_alone {
                builder.tls_certs_only(trust.authorities.iter().cloned())
            } else {
                builder.tls_certs_merge(trust.authorities.iter().cloned())
            }
        };
        let others = builder().build().map_err(RegistryError::Setup)?;
        let own = match &trust.identity {
            Some(identity) => builder().identity(identity.clone()).build().map_err(RegistryError::Setup)?,
            None => others.clone(),
        };
        Ok(Self { own, others, proxies: shown })
    }

    /// The client for the registry's own origin, or for any other.
    pub(super) fn client(&self, is_own: bool) -> &reqwest::Client {
        if is_own { &self.own } else { &self.others }
    }

    /// What became of a request to `url`.
    pub(super) fn failed(&self, what: String, url: &Url, source: reqwest::Error) -> RegistryError {
        let source = source.without_url();
        let host = || {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            url.host_str().unwrap_or_default().to_owned() + &port
        };
        if let Some(problem) = problem(&source) {
            return RegistryError::Certificate { host: host(), problem, source };
        }
        let proxy = self.proxies.iter().find(|(scheme, _)| *scheme == url.scheme());
        match proxy {
            Some((_, proxy)) if source.is_connect() && !is_loopback(url) => {
                RegistryError::Proxied { what, proxy: proxy.clone(), source }
            }
            _ => RegistryError::Connection { what, source },
        }
    }
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// An authority that is not known, or none.
    #[error("nobody who is trusted here has signed its certificate")]
    Issuer,
    /// Its time is over.
    #[error("its certificate has expired")]
    Expired,
    /// Its time has not come.
    #[error("its certificate is not valid yet")]
    NotYet,
    /// It is another host's.
    #[error("its certificate is for another host")]
    Name,
    /// The other side wants one of ours, or another one of ours.
    #[error("it wants to be shown a certificate that it trusts")]
    Wanted,
    /// Anything else.
    #[error("its certificate is not acceptable")]
    Other,
}

/// What is wrong with a certificate, if that is why something failed.
fn problem(error: &(dyn Error + 'static)) -> Option<CertificateProblem> {
    let mut next = Some(error);
    while let Some(error) = next {
        match error.downcast_ref::<rustls::Error>() {
            Some(rustls::Error::InvalidCertificate(error)) => {
                return Some(match error {
                    // Another authority of the same name: the trusted one has not signed it either.
                    CertificateError::UnknownIssuer | CertificateError::BadSignature => CertificateProblem::Issuer,
                    CertificateError::Expired | CertificateError::ExpiredContext { .. } => CertificateProblem::Expired,
                    CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                        CertificateProblem::NotYet
                    }
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                        CertificateProblem::Name
                    }
                    _ => CertificateProblem::Other,
                });
            }
            Some(rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateUnknown,
            )) => return Some(CertificateProblem::Wanted),
            _ => {}
        }
        // An error of the system's calls hides the one it was made of.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

impl Trust {
    fn read(registries: &Registries, domain: &str) -> Result<Self, RegistryError> {
        let mut trust = Self { is_alone: !registries.authorities.is_empty(), ..Self::default() };
        for path in &registries.authorities {
            if path.is_dir() {
                for file in files(path)? {
                    // Such folders hold other things, too.
                    trust.authorities.extend(Certificate::from_pem_bundle(&read(&file)?).unwrap_or_default());
                }
            } else {
                trust.authorities.extend(certificates(path)?);
            }
        }
        for folder in &registries.certificate_folders {
            // A name in a path: a registry's has no `/`, and none that is only dots is one.
            for file in files(&folder.join(domain))? {
                match file.extension().and_then(|extension| extension.to_str()) {
                    Some("crt") => trust.authorities.extend(certificates(&file)?),
                    Some("cert") if trust.identity.is_none() => {
                        let (certificate, key) = (read(&file)?, read(&file.with_extension("key"))?);
                        let both = [&certificate[..], b"\n", &key[..]].concat();
                        let identity = Identity::from_pem(&both).map_err(|_| malformed(&file))?;
                        trust.identity = Some(identity);
                    }
                    _ => {}
                }
            }
        }
        Ok(trust)
    }
}

fn malformed(path: &Path) -> RegistryError {
    RegistryError::Certificates { path: path.to_owned(), source: io::ErrorKind::InvalidData.into() }
}

/// The certificates of a file, of which there must be some.
fn certificates(path: &Path) -> Result<Vec<Certificate>, RegistryError> {
    let found = Certificate::from_pem_bundle(&read(path)?).map_err(|_| malformed(path))?;
    if found.is_empty() { Err(malformed(path)) } else { Ok(found) }
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    let failed = |source| RegistryError::Certificates { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}

/// The regular files of a folder, sorted by name; none when it is not there.
fn files(folder: &Path) -> Result<Vec<PathBuf>, RegistryError> {
    let failed = |source| RegistryError::Certificates { path: folder.to_owned(), source };
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        // What is for others to use is not for this user.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::debug!(path = %folder.display(), "certificates are passed over, which must not be read");
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in listing.take(MAX_FILES) {
        let path = entry.map_err(failed)?.path();
        if path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_told_with_its_path() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let host = folder.path().join("registry.example:5000");
        fs::create_dir(&host).expect("creates");
        let registries = Registries { certificate_folders: vec![folder.path().to_owned()], ..Registries::default() };
        let read = |domain: &str| Trust::read(&registries, domain).map(|trust| trust.authorities.len());
        assert!(matches!(read("registry.example:5000"), Ok(0)));
        assert!(matches!(read("registry.example"), Ok(0)));
        fs::write(host.join("ca.crt"), "nonsense").expect("writes");
        let error = read("registry.example:5000").expect_err("refuses");
        assert!(error.to_string().contains("ca.crt"), "{error}");
        fs::remove_file(host.join("ca.crt")).expect("removes");
        fs::write(host.join("me.cert"), "nonsense").expect("writes");
        let error = read("registry.example:5000").expect_err("refuses");
        assert!(error.to_string().contains("me.key"), "its key is missing: {error}");
        let registries = Registries { authorities: vec![folder.path().join("absent.pem")], ..Registries::default() };
        assert!(Trust::read(&registries, "registry.example").is_err());
    }
}
