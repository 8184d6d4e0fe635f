//! Images crafted by hand: layouts document by document, right or wrong, and roots whose blobs lie in a store as told.
//!
//! Uses the node's store as a program that embeds it would. It never checks what it is handed: that is for those under
//! test.

use crate::image::hex;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use shipfs_node::Cid;
use shipfs_node::block::Block;
use shipfs_node::dag::{CHUNK_BYTES, Hashed, Kind, Leaf, Link, UnixFs, balanced, encode_node, encode_unixfs};
use shipfs_node::pin::Lease;
use shipfs_node::store::{Blockstore as _, Store, StoreOptions};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a layer.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of a layer that is compressed.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A descriptor of these bytes.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{}", hex(&Sha256::digest(bytes))), "size": bytes.len() })
}

/// A manifest of these parts.
pub fn manifest(config: &Value, layers: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers })
}

/// The configuration of an image with these layers.
pub fn config(layers: &[Value]) -> Value {
    let digests: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": digests } })
}

/// An OCI layout in a directory.
pub struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// Begins a layout.
    ///
    /// # Panics
    /// When the disk fails; so do all the others here.
    pub fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder.join("blobs/sha256")).expect("a directory");
        fs::write(folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
        Self { folder: folder.to_owned() }
    }

    /// Adds a blob; gives its descriptor.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        fs::write(self.folder.join("blobs/sha256").join(hex(&Sha256::digest(bytes))), bytes).expect("written");
        descriptor(media_type, bytes)
    }

    /// Adds a blob under this name, whatever it should be called; gives the descriptor of that name.
    pub fn blob_named(&self, media_type: &str, bytes: &[u8], name: &str) -> Value {
        fs::write(self.folder.join("blobs/sha256").join(name), bytes).expect("written");
        json!({ "mediaType": media_type, "digest": format!("sha256:{name}"), "size": bytes.len() })
    }

    /// Adds a document; gives its descriptor.
    pub fn document(&self, media_type: &str, document: &Value) -> Value {
        self.blob(media_type, document.to_string().as_bytes())
    }

    /// Adds a layer, compressed; gives its descriptor, and its digest as it was.
    pub fn packed_layer(&self, tar: &[u8]) -> (Value, String) {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(tar).expect("in memory");
        let layer = self.blob(LAYER_GZIP, &packed.finish().expect("in memory"));
        (layer, format!("sha256:{}", hex(&Sha256::digest(tar))))
    }

    /// Adds a right image with these layers; gives the descriptor of its manifest.
    pub fn image(&self, layers: &[&[u8]]) -> Value {
        let layers: Vec<_> = layers.iter().map(|layer| self.blob(LAYER, layer)).collect();
        let config = self.document(CONFIG, &config(&layers));
        self.document(MANIFEST, &manifest(&config, &layers))
    }

    /// Writes the list; gives what to push.
    pub fn finish(&self, manifests: &[Value]) -> String {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        fs::write(self.folder.join("index.json"), index.to_string()).expect("written");
        format!("oci:{}", self.folder.display())
    }
}

/// A store that roots are put into.
pub struct Crafted {
    store: Store,
    /// Nothing is collected while a test builds.
    _lease: Lease,
}

impl Crafted {
    /// Opens a repository that nobody holds.
    ///
    /// # Panics
    /// When the store fails; so do all the others here.
    pub fn open(repository: &Path) -> Self {
        let store = Store::open(repository, StoreOptions::default()).expect("opens");
        let lease = store.lease();
        Self { store, _lease: lease }
    }

    /// Adds a blob as a push does; gives its descriptor with its CID.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        self.blob_cut_into(CHUNK_BYTES, media_type, bytes)
    }

    /// Adds a document; gives its descriptor with its CID.
    pub fn document(&self, media_type: &str, document: &Value) -> Value {
        self.blob(media_type, document.to_string().as_bytes())
    }

    /// Adds a blob that is cut in another way than a push would, and so is known under another CID.
    pub fn blob_cut_into(&self, chunk_bytes: usize, media_type: &str, bytes: &[u8]) -> Value {
        let cid = self.file(chunk_bytes, bytes);
        with_cid(descriptor(media_type, bytes), &cid)
    }

    /// Adds a right image of blobs that were added; gives the descriptor of its manifest.
    pub fn image(&self, layers: &[Value]) -> Value {
        let config = self.document(CONFIG, &config(layers));
        self.document(MANIFEST, &manifest(&config, layers))
    }

    /// Adds the root of an image; gives its CID.
    pub fn root(&self, top: &Value) -> String {
        self.file(CHUNK_BYTES, top.to_string().as_bytes()).to_string()
    }

    /// Adds a block as it is.
    pub fn block(&self, block: &Block) {
        self.store.put(block).expect("kept");
    }

    /// Makes it all durable, and lets go of the repository.
    pub fn close(self) {
        self.store.commit().expect("durable");
    }

    /// Adds a file; gives its CID.
    pub fn file(&self, chunk_bytes: usize, bytes: &[u8]) -> Cid {
        let leaf =
            |chunk: &[u8]| Leaf { cid: *Block::raw(Bytes::copy_from_slice(chunk)).cid(), size: chunk.len() as u64 };
        let leaves: Vec<_> =
            if bytes.is_empty() { vec![leaf(b"")] } else { bytes.chunks(chunk_bytes).map(leaf).collect() };
        let tree = balanced(&leaves);
        let hashed = Hashed { leaves, digest: Sha256::digest(bytes).into(), size: bytes.len() as u64 };
        let staged = self.store.stage().expect("staged");
        staged.write_at(0, bytes).expect("written");
        staged.finish(&hashed, &tree).expect("stored").cid
    }
}

/// The descriptor, which says that its blob is at this CID.
pub fn with_cid(mut descriptor: Value, cid: &Cid) -> Value {
    descriptor["urls"] = json!([format!("ipfs://{cid}")]);
    descriptor
}

/// A node of a file over children, each of which is said to stand for so many bytes.
pub fn file_node(children: &[(Cid, u64)]) -> Block {
    let unixfs = UnixFs {
        kind: Kind::File,
        data: Bytes::new(),
        file_size: Some(children.iter().fold(0, |sum: u64, (_, size)| sum.wrapping_add(*size))),
        block_sizes: children.iter().map(|(_, size)| *size).collect(),
        hash_type: None,
        fanout: None,
    };
    let links: Vec<_> =
        children.iter().map(|(cid, size)| Link { cid: *cid, name: Bytes::new(), size: *size }).collect();
    Block::dag_pb(encode_node(&links, &encode_unixfs(&unixfs)))
}
