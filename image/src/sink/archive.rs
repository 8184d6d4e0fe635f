//! A tar that is an OCI layout, and for Docker carries Docker's list too.
//!
//! Imports its parent and [`oci`](crate::oci). Both lists may lie side by side, as Docker itself writes them since 25: old
//! Docker and podman read `manifest.json`, containerd reads `index.json`. The same image gives the same bytes.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{Image, Sink, SinkError, blob_path, pending::Pending, tag};
use crate::{
    blobs::Body,
    link::{LAYOUT_MARKER, index_json},
    location::Format,
    oci::{
        Descriptor, Digest,
        descriptor::{IMAGE_NAME, REF_NAME},
    },
    reference::Name,
};

/// Bytes gathered before a write.
const BUFFER_BYTES: usize = 256 << 10;

/// A tar that is being written.
pub(super) struct ArchiveSink {
    format: Format,
    image: Option<String>,
    builder: tar::Builder<Output>,
    place: Option<(Pending, PathBuf)>,
    written: BTreeSet<Digest>,
    folders: BTreeSet<&'static str>,
}

enum Output {
    File(BufWriter<File>),
    Stream(BufWriter<Box<dyn Write + Send>>),
    /// Takes nothing any more.
    Nowhere,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stream(stream) => stream.write(bytes),
            Self::Nowhere => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stream(stream) => stream.flush(),
            Self::Nowhere => Ok(()),
        }
    }
}

impl ArchiveSink {
    /// Begins a file, which appears when it is whole; one that is there is replaced then. A pipe or a device is written to.
    pub(super) fn create(path: &Path, format: Format, image: Option<String>) -> Result<Self, SinkError> {
        let failed = |source| SinkError::Open { path: path.to_owned(), source };
        match fs::metadata(path) {
            Ok(there) if there.is_dir() => return Err(failed(io::ErrorKind::IsADirectory.into())),
            Ok(there) if !there.is_file() => {
                let stream = File::options().write(true).open(path).map_err(failed)?;
                return Ok(Self::stream(Box::new(stream), format, image));
            }
            _ => {}
        }
        let pending = Pending::beside(path);
        let file = pending.create().map_err(failed)?;
        let output = Output::File(BufWriter::with_capacity(BUFFER_BYTES, file));
        Ok(Self::new(output, Some((pending, path.to_owned())), format, image))
    }

    /// Begins a stream.
    pub(super) fn stream(stream: Box<dyn Write + Send>, format: Format, image: Option<String>) -> Self {
        Self::new(Output::Stream(BufWriter::with_capacity(BUFFER_BYTES, stream)), None, format, image)
    }

    fn new(output: Output, place: Option<(Pending, PathBuf)>, format: Format, image: Option<String>) -> Self {
        let builder = tar::Builder::new(output);
        Self { format, image, builder, place, written: BTreeSet::new(), folders: BTreeSet::new() }
    }

    fn append(&mut self, name: &str, size: u64, bytes: impl Read) -> io::Result<()> {
        let mut header = header(tar::EntryType::Regular, 0o644, size);
        self.builder.append_data(&mut header, name, bytes)
    }

    fn append_folder(&mut self, name: &'static str) -> io::Result<()> {
        if !self.folders.insert(name) {
            return Ok(());
        }
        let mut header = header(tar::EntryType::Directory, 0o755, 0);
        self.builder.append_data(&mut header, name, io::empty())
    }

    /// The entry of `index.json`, and the name for Docker's list.
    fn entry(&self, image: &Image<'_>) -> Result<(Descriptor, Option<Name>), SinkError> {
        let mut entry = image.top();
        if self.format == Format::OciArchive {
            if let Some(wanted) = &self.image {
                tag(&mut entry, wanted);
            }
            return Ok((entry, None));
        }
        let name = match &self.image {
            Some(text) => Some(text.parse::<Name>().map_err(|_| SinkError::Name { name: text.clone() })?),
            None => image.name.cloned().or_else(|| entry.annotations.get(IMAGE_NAME)?.parse().ok()),
        };
        if let Some(Name { tag: Some(tagged), .. }) = &name {
            entry.annotations.insert(REF_NAME.to_owned(), tagged.clone());
            entry.annotations.insert(
                IMAGE_NAME.to_owned(),
                name.as_ref().map(|name| name.without_digest().to_string()).unwrap_or_default(),
            );
        }
        Ok((entry, name))
    }
}

impl Sink for ArchiveSink {
    fn accepts(&self, image: &Image<'_>) -> Result<(), SinkError> {
        self.entry(image)?;
        if self.format == Format::DockerArchive { image.only_manifest().map(|_| ()) } else { Ok(()) }
    }

    fn has(&self, blob: &Descriptor) -> bool {
        self.written.contains(&blob.digest)
    }

    fn write(&mut self, blob: &Descriptor, body: &Body) -> Result<(), SinkError> {
        let failed = |source| SinkError::Write { what: blob.digest.to_string(), source };
        self.append_folder("blobs/").map_err(failed)?;
        let folder = if blob.digest.algorithm() == "sha512" { "blobs/sha512/" } else { "blobs/sha256/" };
        self.append_folder(folder).map_err(failed)?;
        let mut counted = Counted { inner: body.open().map_err(failed)?.take(blob.size.saturating_add(1)), count: 0 };
        self.append(&blob_path(&blob.digest), blob.size, &mut counted).map_err(failed)?;
        if counted.count != blob.size {
            return Err(SinkError::Length { digest: blob.digest.clone(), expected: blob.size, got: counted.count });
        }
        self.written.insert(blob.digest.clone());
        Ok(())
    }

    fn finish(mut self: Box<Self>, image: &Image<'_>) -> Result<Descriptor, SinkError> {
        let failed = |source| SinkError::Write { what: "the archive".to_owned(), source };
        let (entry, name) = self.entry(image)?;
        let index = index_json(&entry);
        self.append("index.json", index.len() as u64, &index[..]).map_err(failed)?;
        if self.format == Format::DockerArchive {
            let list = docker_list(image, name.as_ref())?;
            self.append("manifest.json", list.len() as u64, &list[..]).map_err(failed)?;
        }
        self.append("oci-layout", LAYOUT_MARKER.len() as u64, LAYOUT_MARKER).map_err(failed)?;
        self.builder.finish().map_err(failed)?;
        match std::mem::replace(self.builder.get_mut(), Output::Nowhere) {
            Output::Nowhere => {}
            Output::Stream(mut stream) => stream.flush().map_err(failed)?,
            Output::File(file) => {
                let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
                file.sync_all().map_err(failed)?;
                self.place.take().map_or(Ok(()), |(pending, path)| pending.show(&path)).map_err(failed)?;
            }
        }
        Ok(entry)
    }
}

impl Drop for ArchiveSink {
    /// Keeps half an archive from ending like a whole one, which is what its builder would make of it.
    fn drop(&mut self) {
        if let Output::Stream(stream) = std::mem::replace(self.builder.get_mut(), Output::Nowhere) {
            // What was not written yet must not be, either.
            drop(stream.into_parts());
        }
    }
}

/// The bytes of `manifest.json`.
fn docker_list(image: &Image<'_>, name: Option<&Name>) -> Result<Vec<u8>, SinkError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Element {
        config: String,
        repo_tags: Option<Vec<String>>,
        layers: Vec<String>,
    }
    let (config, layers) = image.only_manifest()?;
    let tagged = name.filter(|name| name.tag.is_some());
    let list = [Element {
        config: blob_path(&config.digest),
        repo_tags: tagged.map(|name| vec![name.without_digest().familiar()]),
        layers: layers.into_iter().map(|layer| blob_path(&layer.digest)).collect(),
    }];
    serde_json::to_vec(&list)
        .map_err(|error| SinkError::Write { what: "manifest.json".to_owned(), source: error.into() })
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// Counts what is read, which a tar would otherwise pad or run over.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count += length as u64;
        Ok(length)
    }
}
