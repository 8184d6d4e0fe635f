//! Layers that only some can read: OCIcrypt, as containerd, nerdctl, skopeo and buildah have it.
//!
//! A sealed layer is as long as it was, its media type ends in `+encrypted`, and its annotations hold what opens it, in an
//! envelope for each recipient. Manifests, configurations and the digests of what is inside of layers stay in the open.
//! Reading order: `key` (whose it is), `cipher` (a layer's bytes), `options` (what is written down about it), `jwe`
//! (envelopes), `layer` (a descriptor and back), `image` (all layers of an image). Imports [`oci`](crate::oci),
//! [`plan`](crate::plan) and what [`blobs`](crate::blobs) are read from.
//!
//! Secrets are in no message and no `Debug`, and are wiped when they are no longer needed. No byte of a layer that is opened
//! goes anywhere before all of the layer was authenticated; and what comes out is checked against the digest it must have.

mod cipher;
mod image;
mod jwe;
mod key;
mod layer;
mod options;
#[cfg(test)]
mod tests;

use aws_lc_rs::error::Unspecified;

pub use self::{
    image::{Change, Selection, decrypted_layer},
    key::{KeyError, KeyFile, Recipient},
};
pub(crate) use self::{
    image::{Changed, Sealer, Sealing, Step, any_encrypted, sealed, warn_of_open},
    layer::is_encrypted,
};
use crate::oci::Digest;

/// Why layers could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CryptError {
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Sealed for nobody, it could be opened by nobody.
    #[error("at least one recipient must be specified, `jwe:mypubkey.pem` for instance")]
    NoRecipients,
    /// A layer is sealed, and no key was given.
    #[error("layer `{digest}` is encrypted: missing private key needed for decryption")]
    NoKey {
        /// The layer.
        digest: Digest,
    },
    /// A layer is sealed for others.
    #[error(
        "layer `{digest}` is encrypted: no suitable key unwrapper found or none of the private keys could be used for \
         decryption"
    )]
    WrongKey {
        /// The layer.
        digest: Digest,
        /// What is the matter when its envelopes are of a kind that is not known here.
        #[source]
        source: Option<KeyError>,
    },
    /// What is written down about a layer makes no sense.
    #[error("encrypted layer `{digest}` is not valid: {what}")]
    Options {
        /// The layer.
        digest: Digest,
        /// What is wrong.
        what: &'static str,
    },
    /// A layer is sealed in a way that is not known.
    #[error("layer `{digest}` is encrypted by `{}`, which is not known", cipher.escape_debug())]
    Cipher {
        /// The layer.
        digest: Digest,
        /// How.
        cipher: String,
    },
    /// The bytes of a layer are not those that were sealed, or were sealed with another key.
    #[error("encrypted layer `{digest}` was tampered with: its HMAC is another one")]
    Tampered {
        /// The layer.
        digest: Digest,
    },
    /// A blob that stands where layers do is of a type that cannot be sealed.
    #[error("bad/unhandled MediaType `{}` of `{digest}`: only filesystem layers can be encrypted", media_type.escape_debug())]
    MediaType {
        /// The blob.
        digest: Digest,
        /// Its type.
        media_type: String,
    },
    /// A number of a layer that no manifest has.
    #[error("there is no layer {number}: the image has {count}")]
    NoSuchLayer {
        /// The number.
        number: i64,
        /// How many there are, of the manifest that has most.
        count: usize,
    },
    /// The library of ciphers failed: no random bytes for instance.
    #[error("the library of ciphers failed")]
    Library(#[source] Unspecified),
    /// A layer that is here could not be read.
    #[error("cannot read layer `{digest}`")]
    Read {
        /// The layer.
        digest: Digest,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}
