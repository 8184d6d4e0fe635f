//! What a daemon is shown so that it lets somebody in.
//!
//! Imports its parent's error. It is sent to the endpoint it was given for and to nobody else, and shown to nobody.

use std::{fmt, str::FromStr};

use super::AddressError;

/// A user's name and password, or a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(pub(in crate::rpc) Kind);

#[derive(Clone, PartialEq, Eq)]
pub(in crate::rpc) enum Kind {
    Basic { user: String, password: String },
    Bearer(String),
}

impl Credentials {
    /// A name and a password.
    ///
    /// # Errors
    /// [`AddressError::Credentials`] when they cannot stand in a header.
    pub fn basic(user: &str, password: &str) -> Result<Self, AddressError> {
        if user.contains(':') || !is_plain(user) || !is_plain(password) {
            return Err(AddressError::Credentials);
        }
        Ok(Self(Kind::Basic { user: user.to_owned(), password: password.to_owned() }))
    }

    /// A token.
    ///
    /// # Errors
    /// [`AddressError::Credentials`] when it cannot stand in a header.
    pub fn bearer(token: &str) -> Result<Self, AddressError> {
        let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        if is_token { Ok(Self(Kind::Bearer(token.to_owned()))) } else { Err(AddressError::Credentials) }
    }
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

impl FromStr for Credentials {
    type Err = AddressError;

    /// Reads `basic:USER:PASSWORD` or `bearer:TOKEN`, as Kubo writes them.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.trim().split_once(':') {
            Some(("bearer", token)) => Self::bearer(token),
            Some(("basic", rest)) => {
                let (user, password) = rest.split_once(':').ok_or(AddressError::Credentials)?;
                Self::basic(user, password)
            }
            _ => Err(AddressError::Credentials),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credentials(..)")
    }
}

/// Undoes `%XX`.
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |digit: Option<u8>| char::from(digit?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}
