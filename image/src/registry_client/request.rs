//! One request: let in, led on, tried again.
//!
//! Imports its siblings. Redirects, retries and 401 are dealt with here and nowhere else, so that the rule about secrets is
//! in one place: an `Authorization` header is set only on requests to the registry's own origin.

use std::{io, sync::Arc, time::Duration};

use reqwest::{
    Method, Response, StatusCode, Url,
    header::{
        AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
    },
};

use super::{RegistryClient, RegistryError, challenge::Challenge, endpoint::is_loopback};

/// Hops that a request is led on: a registry, its storage, and the storage's nearest copy.
const MAX_REDIRECTS: usize = 5;
/// Longest error text that is read, in bytes.
const MAX_ERROR_BYTES: u64 = 64 << 10;
/// Longest error text that is told, in letters.
const MAX_TOLD: usize = 300;

/// How often something is tried again, and after how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    /// Tries after the first, when the registry is overloaded or a connection breaks.
    pub(super) retries: u32,
    /// The first pause; each one after it is twice as long.
    pub(super) first: Duration,
    /// The longest pause, also when a registry asks for more.
    pub(super) longest: Duration,
}

impl Default for Pauses {
    /// Six seconds in all, or as long as a registry that counts requests says, up to two minutes.
    fn default() -> Self {
        Self { retries: 5, first: Duration::from_millis(200), longest: Duration::from_secs(30) }
    }
}

impl Pauses {
    /// Waits before try number `tried`, at least for what the registry asked.
    pub(super) async fn wait(&self, tried: u32, asked: Option<Duration>) {
        let pause = self.first.saturating_mul(1 << tried.min(16)).max(asked.unwrap_or_default());
        tokio::time::sleep(pause.min(self.longest)).await;
    }
}

/// A body that can be made again, with its length.
#[derive(Clone)]
pub(super) struct Payload {
    pub(super) length: u64,
    pub(super) make: Arc<dyn Fn() -> io::Result<reqwest::Body> + Send + Sync>,
}

/// What is asked.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) payload: Option<Payload>,
    /// Whether the registry's own authorization may be used, for its own origin.
    pub(super) is_let_in: bool,
    /// Whether the same may be sent again when a connection breaks, or the registry says that it is overloaded.
    pub(super) is_repeatable: bool,
}

impl Ask {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), payload: None, is_let_in: true, is_repeatable: true }
    }

    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        // What is put in here was made here; a value that cannot stand in a header is a bug that a test would show.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }

    pub(super) fn payload(mut self, payload: Payload) -> Self {
        self.payload = Some(payload);
        self
    }

    /// What to call it in a message: without its query, which may hold a signature.
    pub(super) fn what(&self) -> String {
        shown(&self.method, &self.url)
    }
}

fn shown(method: &Method, url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // It fails only for addresses that have no place for a name; those hold none.
    let is_named = url.set_username("").is_ok() && url.set_password(None).is_ok();
    debug_assert!(is_named || url.username().is_empty());
    format!("{method} {url}")
}

impl RegistryClient {
    /// Finds out whether the registry is there, over which scheme, and what it wants.
    pub(super) async fn reach(&mut self) -> Result<(), RegistryError> {
        let ping = |client: &Self| {
            client.endpoint.url("v2/").map(|url| Ask { is_let_in: false, ..Ask::new(Method::GET, url) })
        };
        let answer = self.once(&ping(self)?).await;
        let is_other_scheme = self.endpoint.is_plain
            && match &answer {
                // What servers say to plain HTTP where they expect TLS.
                Ok(response) => response.status() == StatusCode::BAD_REQUEST,
                Err(RegistryError::Connection { source, .. }) => !source.is_connect() && !source.is_timeout(),
                Err(_) => false,
            };
        if is_other_scheme {
            let encrypted = Self { endpoint: self.endpoint.encrypted()?, ..self.clone_settings() };
            match encrypted.once(&ping(&encrypted)?).await {
                Ok(response) if response.status() != StatusCode::BAD_REQUEST => {
                    self.endpoint = encrypted.endpoint;
                    return self.greet(response).await;
                }
                // It does speak TLS, and must not be spoken to otherwise.
                Err(error @ RegistryError::Certificate { .. }) => return Err(error),
                _ => {}
            }
        }
        match answer {
            Ok(response) => self.greet(response).await,
            // Broken or overloaded: the same again, with patience.
            Err(RegistryError::Connection { .. } | RegistryError::Proxied { .. }) => {
                self.exchange(ping(self)?).await.map(drop)
            }
            Err(error) => Err(error),
        }
    }

    async fn greet(&self, response: Response) -> Result<(), RegistryError> {
        if response.status() == StatusCode::UNAUTHORIZED {
            self.authorize(&response).await?;
        }
        Ok(())
    }

    fn clone_settings(&self) -> Self {
        Self {
            http: self.http.clone(),
            endpoint: self.endpoint.clone(),
            repository: self.repository.clone(),
            siblings: self.siblings.clone(),
            access: self.access,
            credentials: self.credentials.clone(),
            lookup: self.lookup.clone(),
            authorization: tokio::sync::Mutex::default(),
            foreign_hosts: self.foreign_hosts.clone(),
            pauses: self.pauses,
        }
    }

    /// Asks once, of the address as it stands.
    async fn once(&self, ask: &Ask) -> Result<Response, RegistryError> {
        let client = self.http.client(self.endpoint.is_own(&ask.url));
        let mut request = client.request(ask.method.clone(), ask.url.clone()).headers(ask.headers.clone());
        if let Some(payload) = &ask.payload {
            let body = (payload.make)().map_err(|source| RegistryError::Body { what: ask.what(), source })?;
            request = request.header(CONTENT_LENGTH, payload.length).body(body);
        }
        if ask.is_let_in
            && self.endpoint.is_own(&ask.url)
            && let Some(authorization) = &*self.authorization.lock().await
        {
            request = request.header(AUTHORIZATION, authorization.header());
        }
        request.send().await.map_err(|source| self.http.failed(ask.what(), &ask.url, source))
    }

    /// Asks until there is an answer that is neither "come in first", "look there" nor "later".
    pub(super) async fn exchange(&self, mut ask: Ask) -> Result<Response, RegistryError> {
        let (mut tried, mut hops, mut let_in) = (0, 0, false);
        loop {
            let response = match self.once(&ask).await {
                Ok(response) => response,
                Err(RegistryError::Connection { source, .. } | RegistryError::Proxied { source, .. })
                    if ask.is_repeatable && tried < self.tries(&source) =>
                {
                    self.pauses.wait(tried, None).await;
                    tried += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && ask.is_let_in && self.endpoint.is_own(&ask.url) {
                if let_in {
                    return Err(self.denied(response).await);
                }
                self.authorize(&response).await?;
                let_in = true;
            } else if ask.is_repeatable && is_for_later(status, &ask.method) && tried < self.pauses.retries {
                self.pauses.wait(tried, asked_pause(&response)).await;
                tried += 1;
            } else if is_elsewhere(status) && response.headers().contains_key(LOCATION) {
                hops += 1;
                ask = self.led_on(ask, &response, hops)?;
            } else {
                return Ok(response);
            }
        }
    }

    /// A host that does not answer at all is probably a wrong one.
    fn tries(&self, error: &reqwest::Error) -> u32 {
        match error {
            error if error.is_builder() => 0,
            error if error.is_connect() => self.pauses.retries.min(2),
            _ => self.pauses.retries,
        }
    }

    fn led_on(&self, ask: Ask, response: &Response, hops: usize) -> Result<Ask, RegistryError> {
        let location =
            response.headers().get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let to = location.unwrap_or_default();
        let refused = |problem| {
            let to = to.split('?').next().unwrap_or_default().chars().take(200).collect();
            RegistryError::Redirect { what: ask.what(), to, problem }
        };
        if !matches!(ask.method, Method::GET | Method::HEAD) {
            return Err(refused("only what is read may be elsewhere"));
        }
        if hops > MAX_REDIRECTS {
            return Err(refused("there are too many steps"));
        }
        let url = ask.url.join(&to).map_err(|_| refused("it is no address"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("it holds a password"));
        }
        // Once encrypted, always encrypted; and from elsewhere never to this host's own services.
        let is_downgrade = ask.url.scheme() == "https" && url.scheme() != "https";
        if is_downgrade || !self.endpoint.may_lead_to(&url) {
            return Err(refused("it is not encrypted"));
        }
        if is_loopback(&url) && !is_loopback(&ask.url) {
            return Err(refused("it is this host"));
        }
        Ok(Ask { url, ..ask })
    }

    async fn authorize(&self, response: &Response) -> Result<(), RegistryError> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenge = Challenge::best(headers)
            .ok_or_else(|| RegistryError::Challenge { domain: self.endpoint.domain.clone() })?;
        let authorization = self.authorization_for(challenge).await?;
        *self.authorization.lock().await = authorization;
        Ok(())
    }

    async fn denied(&self, response: Response) -> RegistryError {
        let said = said(response).await;
        RegistryError::Denied { domain: self.endpoint.domain.clone(), anonymous: self.credentials.is_none(), said }
    }

    /// The answer if it is a success, else why it is none.
    pub(super) async fn expect(&self, what: &str, response: Response) -> Result<Response, RegistryError> {
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::NOT_FOUND => Err(RegistryError::NotFound { what: what.to_owned() }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.denied(response).await),
            status => {
                let said = said(response).await;
                Err(RegistryError::Status { what: what.to_owned(), status: status.as_u16(), said })
            }
        }
    }
}

/// Whether the same may be answered better later. Some registries say 500 to what they do not like to be sent.
pub(super) fn is_for_later(status: StatusCode, method: &Method) -> bool {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    matches!(status.as_u16(), 429 | 502 | 503 | 504) || (is_read && status == StatusCode::INTERNAL_SERVER_ERROR)
}

fn is_elsewhere(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

pub(super) fn asked_pause(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Reads an answer of at most `limit` bytes.
pub(super) async fn read(what: &str, mut response: Response, limit: u64) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    let failed =
        |source: reqwest::Error| RegistryError::Connection { what: what.to_owned(), source: source.without_url() };
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if bytes.len() as u64 + chunk.len() as u64 > limit {
            return Err(RegistryError::TooLong { what: what.to_owned(), limit });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// What an answer says is wrong, in short; nothing when it does not say.
pub(super) async fn said(response: Response) -> String {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Errors {
        errors: Vec<Problem>,
    }
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Problem {
        code: String,
        message: String,
    }
    let Ok(bytes) = read("", response, MAX_ERROR_BYTES).await else { return String::new() };
    let Ok(Errors { errors }) = serde_json::from_slice::<Errors>(&bytes) else { return String::new() };
    let told: Vec<String> = errors.iter().map(|error| format!("{} {}", error.code, error.message)).collect();
    told.join(", ").trim().chars().take(MAX_TOLD).collect()
}
