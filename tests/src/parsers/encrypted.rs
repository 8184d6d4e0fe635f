//! What is written down about encrypted layers.

use std::sync::OnceLock;

use shipfs_image::crypt::{KeyFile, decrypted_layer};
use shipfs_image::oci::Descriptor;

/// The keys of the test data, of each kind one.
fn keys() -> &'static [KeyFile] {
    static KEYS: OnceLock<Vec<KeyFile>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let read = |name| KeyFile::read(&format!("{}/data/ocicrypt/{name}", env!("CARGO_MANIFEST_DIR")));
        ["rsa2048.priv.pem", "ec256.priv.pem"].map(|name| read(name).expect("a key")).into()
    })
}

/// The annotations of a layer: options in the open, and envelopes. What is opened is as long as it was.
pub(super) fn layer(input: &[u8]) -> bool {
    let Ok(layer) = Descriptor::parse(input) else { return false };
    let Ok(opened) = decrypted_layer(&layer, keys()) else { return false };
    assert_eq!(opened.size, layer.size);
    assert!(opened.annotations.keys().all(|name| !name.starts_with("org.opencontainers.image.enc.")));
    true
}
