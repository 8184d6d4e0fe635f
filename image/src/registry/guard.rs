//! Who may ask for what.
//!
//! Imports nothing but the answers beside it. On loopback, requests that a browser was tricked into are refused: those
//! under a name that is not this host's, and changes that come from a page. Off loopback nothing is changed without the
//! token.

use std::{fmt, net::IpAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{HeaderMap, StatusCode, header};
use sha2::{Digest as _, Sha256};

use super::error::{Code, Refusal};

/// Shortest token: 128 bits in hexadecimal, or 22 letters of base64.
const MIN_TOKEN_BYTES: usize = 16;

/// A secret that allows to push. Only its hash is held.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// Takes a token, without the white space around it; `None` when it is so short that it could be guessed.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (text.len() >= MIN_TOKEN_BYTES).then(|| Self(Sha256::digest(text).into()))
    }

    fn is(&self, text: &str) -> bool {
        // Hashes are compared, whose bytes tell nothing about how near a guess came.
        self.0 == <[u8; 32]>::from(Sha256::digest(text))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(..)")
    }
}

/// The rules of one registry.
#[derive(Debug)]
pub(super) struct Guard {
    /// Whether it can be reached from this host alone.
    pub(super) is_loopback: bool,
    /// The name that it was told to listen on.
    pub(super) host: String,
    pub(super) token: Option<Token>,
}

impl Guard {
    /// Refuses what a browser sends in somebody else's name.
    pub(super) fn check(&self, headers: &HeaderMap, is_change: bool) -> Result<(), Refusal> {
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_one = headers.get_all(header::HOST).iter().count() == 1;
        if self.is_loopback && !(is_one && self.is_own(host)) {
            let quoted: String = host.chars().take(100).collect();
            let message = format!("`{}` is not a name of this registry", quoted.escape_debug());
            return Err(Refusal::new(Code::Denied, message).status(StatusCode::MISDIRECTED_REQUEST));
        }
        if is_change && headers.contains_key(header::ORIGIN) {
            return Err(Refusal::new(Code::Denied, "nothing is changed by a web page"));
        }
        Ok(())
    }

    /// Whether a `Host` header names this registry: by an address, which no foreign name server can give to a page, or by
    /// a name that stands for this host everywhere.
    fn is_own(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.to_ascii_lowercase();
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name);
        literal.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || (!name.is_empty() && name == self.host.to_ascii_lowercase())
    }

    /// Whether changes are allowed.
    pub(super) fn authorize(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else {
            if self.is_loopback {
                return Ok(());
            }
            return Err(Refusal::new(Code::Denied, "pushing is only possible from this host, since no token was set"));
        };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(secret);
        if given.is_some_and(|given| token.is(&given)) {
            return Ok(());
        }
        Err(Refusal::new(Code::Unauthorized, "the registry's token is needed, as a password")
            .header(header::WWW_AUTHENTICATE, "Basic realm=\"shipfs\""))
    }
}

/// The secret in an `Authorization` header: a bearer token, or a password under any name.
fn secret(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(rest.trim().to_owned()),
        "basic" => {
            let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
            decoded.split_once(':').map(|(_, password)| password.to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("a value"))).collect()
    }

    fn guard(is_loopback: bool, token: Option<&str>) -> Guard {
        Guard { is_loopback, host: "build.internal".into(), token: token.and_then(Token::new) }
    }

    #[test]
    fn b8_a_page_of_another_name_is_not_answered() {
        let guard = guard(true, None);
        for host in ["localhost:5050", "LOCALHOST", "127.0.0.1:5050", "[::1]:5050", "a.localhost", "build.internal:1"] {
            assert!(guard.check(&headers(&[(header::HOST, host)]), true).is_ok(), "{host}");
        }
        for host in
            ["attacker.example", "localhost.attacker.example:5050", "127.0.0.1.attacker.example", "", "x:y", ":80"]
        {
            let refused = guard.check(&headers(&[(header::HOST, host)]), false).expect_err(host);
            assert_eq!(refused.status, StatusCode::MISDIRECTED_REQUEST, "{host}");
        }
        assert!(guard.check(&HeaderMap::new(), false).is_err(), "no host at all");
        let mut two = headers(&[(header::HOST, "localhost")]);
        two.append(header::HOST, "attacker.example".parse().expect("a value"));
        assert!(guard.check(&two, false).is_err(), "two hosts");
        let page = headers(&[(header::HOST, "localhost:5050"), (header::ORIGIN, "https://attacker.example")]);
        assert_eq!(guard.check(&page, true).expect_err("a push").status, StatusCode::FORBIDDEN);
        assert!(guard.check(&page, false).is_ok());
    }

    #[test]
    fn b8_off_loopback_nothing_is_pushed_without_the_token() {
        let given = |value: &str| headers(&[(header::AUTHORIZATION, value)]);
        assert!(guard(true, None).authorize(&HeaderMap::new()).is_ok());
        assert_eq!(
            guard(false, None).authorize(&given("Bearer x")).expect_err("no token").status,
            StatusCode::FORBIDDEN
        );
        let token = "0123456789abcdef";
        for is_loopback in [true, false] {
            let guard = guard(is_loopback, Some(token));
            let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
            for good in [format!("Bearer {token}"), basic(&format!("anybody:{token}")), format!("bearer  {token} ")] {
                assert!(guard.authorize(&given(&good)).is_ok(), "{good}");
            }
            for bad in ["Bearer", "Bearer x", "Basic !", &basic(token), &basic("a:b"), &format!("Digest {token}")] {
                let refused = guard.authorize(&given(bad)).expect_err(bad);
                assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
                assert!(refused.headers.iter().any(|(name, _)| *name == header::WWW_AUTHENTICATE));
            }
        }
        assert!(Token::new(" short \n").is_none());
        assert!(!format!("{:?}", guard(false, Some(token))).contains(token));
    }
}
