//! Being let in: a password, or a token from whoever gives tokens out.
//!
//! Imports its siblings. A password goes to the registry itself, or to a host of the same site that gives out tokens for
//! it; to any other host goes only what was kept for that host. A token goes to the registry alone.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{
    Response, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use serde::Deserialize;

use super::{
    Access, RegistryClient, RegistryError, Secret,
    challenge::Challenge,
    credentials::Credentials,
    request::{self, said},
};

/// Longest answer with a token that is read, in bytes.
const MAX_TOKEN_BYTES: u64 = 256 << 10;

/// What the registry wants to see.
#[derive(Clone, Debug)]
pub(super) enum Authorization {
    Basic(Secret),
    Bearer(Secret),
}

impl Authorization {
    fn password(name: &str, password: &Secret) -> Self {
        Self::Basic(Secret::new(STANDARD.encode(format!("{name}:{}", password.reveal()))))
    }

    /// The value of the header.
    pub(super) fn header(&self) -> HeaderValue {
        let text = match self {
            Self::Basic(secret) => format!("Basic {}", secret.reveal()),
            Self::Bearer(secret) => format!("Bearer {}", secret.reveal()),
        };
        // A token with other bytes than a header takes lets nobody in, and the registry will say so.
        let mut value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

impl RegistryClient {
    /// Answers a challenge.
    pub(super) async fn authorization_for(&self, challenge: Challenge) -> Result<Option<Authorization>, RegistryError> {
        match challenge {
            Challenge::Basic => match &self.credentials {
                Some(Credentials::Password { name, password }) => Ok(Some(Authorization::password(name, password))),
                // Nothing that fits: the registry will say what it makes of that.
                _ => Ok(None),
            },
            Challenge::Bearer { realm, service } => {
                if let Some(Credentials::Token(token)) = &self.credentials {
                    return Ok(Some(Authorization::Bearer(token.clone())));
                }
                self.token(&realm, service.as_deref()).await.map(|token| Some(Authorization::Bearer(token)))
            }
        }
    }

    async fn token(&self, realm: &str, service: Option<&str>) -> Result<Secret, RegistryError> {
        let refused = || {
            let realm = realm.chars().take(200).collect();
            RegistryError::Realm { domain: self.endpoint.domain.clone(), realm }
        };
        let url: Url = realm.parse().map_err(|_| refused())?;
        if !self.endpoint.may_lead_to(&url) || !url.username().is_empty() || url.password().is_some() {
            return Err(refused());
        }
        let credentials = if self.endpoint.shares_password_with(&url) {
            self.credentials.clone()
        } else {
            // Another site: only what its user keeps for it.
            let host = url.host_str().unwrap_or_default();
            let domain = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
            self.lookup.find(&domain, "").await?
        };
        let response = self.ask_for_token(url.clone(), service, credentials).await?;
        let shown = format!("{}{}", url.origin().ascii_serialization(), url.path());
        if !response.status().is_success() {
            return Err(RegistryError::Token { realm: shown, said: said(response).await });
        }
        let bytes = request::read(&shown, response, MAX_TOKEN_BYTES).await?;
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let answer: Answer = serde_json::from_slice(&bytes).unwrap_or_default();
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        token.map(Secret::new).ok_or(RegistryError::Token { realm: shown, said: String::new() })
    }

    /// Asks whoever gives tokens out. Not led on: a password must not travel.
    async fn ask_for_token(
        &self,
        mut url: Url,
        service: Option<&str>,
        credentials: Option<Credentials>,
    ) -> Result<Response, RegistryError> {
        let verbs = if self.access == Access::Push { "pull,push" } else { "pull" };
        // No repository is meant when somebody only logs in.
        let own = (!self.repository.is_empty()).then(|| format!("repository:{}:{verbs}", self.repository));
        let others = self.siblings.iter().map(|sibling| format!("repository:{sibling}:pull"));
        let scopes: Vec<String> = own.into_iter().chain(others).collect();
        let mut tried = 0;
        let request = if let Some(Credentials::Identity(token)) = &credentials {
            let mut form = Url::parse("form:").map_err(|_| RegistryError::Address { text: url.to_string() })?;
            form.query_pairs_mut()
                .append_pair("grant_type", "refresh_token")
                .append_pair("service", service.unwrap_or_default())
                .append_pair("client_id", "shipfs")
                .append_pair("scope", &scopes.join(" "))
                .append_pair("refresh_token", token.reveal());
            let body = form.query().unwrap_or_default().to_owned();
            let client = self.http.client(self.endpoint.is_own(&url));
            client.post(url.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
        } else {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            for scope in &scopes {
                query.append_pair("scope", scope);
            }
            drop(query);
            let request = self.http.client(self.endpoint.is_own(&url)).get(url.clone());
            match &credentials {
                Some(Credentials::Password { name, password }) => {
                    request.header(AUTHORIZATION, Authorization::password(name, password).header())
                }
                _ => request,
            }
        };
        url.set_query(None);
        loop {
            let again = request.try_clone().ok_or_else(|| RegistryError::Address { text: url.to_string() })?;
            let answer = again.send().await;
            let is_for_later = match &answer {
                Ok(response) => response.status().is_server_error() || response.status().as_u16() == 429,
                Err(error) => !error.is_builder(),
            };
            if !is_for_later || tried == self.pauses.retries.min(2) {
                return answer.map_err(|source| self.http.failed(format!("GET {url}"), &url, source));
            }
            self.pauses.wait(tried, None).await;
            tried += 1;
        }
    }
}
