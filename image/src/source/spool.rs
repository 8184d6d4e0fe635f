//! Archives as they come: decompressed while they are read. And files without names, for what has to lie somewhere.
//!
//! Imports its parent's errors, its sibling `passing` and [`media::Compression`](crate::oci::media::Compression). A file
//! without a name vanishes with the process however that ends. A plain tar on disk is used as it lies.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{SourceError, passing::Stream};
use crate::oci::media::Compression;

/// Largest zstd window that is decoded, as a power of two: 128 MiB, what the zstd command takes without being asked.
const MAX_WINDOW_LOG: u32 = 27;
/// Bytes copied at a time.
const COPY_BYTES: usize = 256 << 10;
/// Bytes of the disk that an archive leaves free, however long it is: as many as the store needs to clean up.
const RESERVED_BYTES: u64 = 4 << 20;
/// Bytes copied between two looks at the free space.
const CHECK_BYTES: u64 = 1 << 20;

/// What is to be read of an archive that lies in `file`: the file itself when it is plain, else the tar that comes out.
pub(super) fn decoded_file(mut file: File) -> Result<Result<File, Stream>, SourceError> {
    let mut start = [0; Compression::SNIFF_BYTES];
    let failed = |source| SourceError::Read { what: "archive".to_owned(), source };
    let length = read_start(&mut file, &mut start).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    if Compression::sniff(&start[..length]) == Compression::None {
        return Ok(Ok(file));
    }
    decoded(Box::new(file)).map(Err)
}

/// The tar that comes out of `stream`.
pub(super) fn decoded(mut stream: Box<dyn Read + Send>) -> Result<Stream, SourceError> {
    let failed = |source| SourceError::Read { what: "archive".to_owned(), source };
    let mut start = [0; Compression::SNIFF_BYTES];
    let length = read_start(&mut stream, &mut start).map_err(failed)?;
    let whole = BufReader::with_capacity(COPY_BYTES, io::Cursor::new(start[..length].to_vec()).chain(stream));
    Ok(Stream::new(match Compression::sniff(&start[..length]) {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole).map_err(failed)?;
            decoder.window_log_max(MAX_WINDOW_LOG).map_err(failed)?;
            Box::new(decoder)
        }
    }))
}

/// Copies to the end of `file`, as long as the disk has room.
pub(super) fn copy(
    reader: &mut dyn Read,
    mut file: &File,
    reading: impl Fn(io::Error) -> SourceError,
    spooling: impl Fn(io::Error) -> SourceError,
) -> Result<(), SourceError> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut unchecked = CHECK_BYTES;
    loop {
        let length = reader.read(&mut buffer).map_err(&reading)?;
        if length == 0 {
            return Ok(());
        }
        unchecked += length as u64;
        if unchecked >= CHECK_BYTES {
            unchecked = 0;
            leave_room(file).map_err(&spooling)?;
        }
        file.write_all(&buffer[..length]).map_err(&spooling)?;
    }
}

fn read_start(stream: &mut dyn Read, start: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < start.len() {
        match stream.read(&mut start[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Fails when little of the disk is left, which others may need.
fn leave_room(file: &File) -> io::Result<()> {
    // Where the free space cannot be told, the disk itself says when it is full.
    let Ok(space) = rustix::fs::fstatvfs(file) else { return Ok(()) };
    let left = space.f_bavail.saturating_mul(space.f_frsize);
    if left < RESERVED_BYTES + CHECK_BYTES { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

/// A file in `folder` that has no name any more.
pub(crate) fn nameless(folder: &Path) -> io::Result<File> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    fs::create_dir_all(folder)?;
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".spool-{}-{count}", std::process::id()));
        match File::options().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => {
                fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}
