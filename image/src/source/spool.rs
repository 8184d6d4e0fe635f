//! Makes an archive readable at random: decompressed, and in a file.
//!
//! Imports its parent's errors and [`media::Compression`](crate::oci::media::Compression). The file it makes has no name,
//! so it vanishes with the process however that ends. A plain tar on disk is used as it lies.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use super::SourceError;
use crate::oci::media::Compression;

/// Largest zstd window that is decoded, as a power of two: 128 MiB, what the zstd command takes without being asked.
const MAX_WINDOW_LOG: u32 = 27;
/// Bytes copied at a time.
const COPY_BYTES: usize = 256 << 10;
/// Bytes of the disk that an archive leaves free, however long it is: as many as the store needs to clean up.
const RESERVED_BYTES: u64 = 4 << 20;
/// Bytes copied between two looks at the free space.
const CHECK_BYTES: u64 = 1 << 20;

/// The tar in `file`, decompressed into `spool` unless it is plain.
pub(super) fn unpacked(mut file: File, spool: &Path) -> Result<File, SourceError> {
    let mut start = [0; Compression::SNIFF_BYTES];
    let failed = |source| SourceError::Read { what: "archive".to_owned(), source };
    let length = read_start(&mut file, &mut start).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    if Compression::sniff(&start[..length]) == Compression::None {
        return Ok(file);
    }
    self::spool(Box::new(file), spool)
}

/// The tar that comes out of `stream`, decompressed into `spool`.
pub(super) fn spool(mut stream: Box<dyn Read + Send>, spool: &Path) -> Result<File, SourceError> {
    let failed = |source| SourceError::Read { what: "archive".to_owned(), source };
    let mut start = [0; Compression::SNIFF_BYTES];
    let length = read_start(&mut stream, &mut start).map_err(failed)?;
    let whole = BufReader::with_capacity(COPY_BYTES, io::Cursor::new(start[..length].to_vec()).chain(stream));
    let mut reader: Box<dyn Read> = match Compression::sniff(&start[..length]) {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole).map_err(failed)?;
            decoder.window_log_max(MAX_WINDOW_LOG).map_err(failed)?;
            Box::new(decoder)
        }
    };
    let spooling = |source| SourceError::Spool { path: spool.to_owned(), source };
    let mut file = nameless(spool).map_err(spooling)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut unchecked = CHECK_BYTES;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                unchecked += length as u64;
                if unchecked >= CHECK_BYTES {
                    unchecked = 0;
                    leave_room(&file).map_err(spooling)?;
                }
                file.write_all(&buffer[..length]).map_err(spooling)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(SourceError::Archive(error)),
            Err(error) => return Err(failed(error)),
        }
    }
    file.seek(SeekFrom::Start(0)).map_err(spooling)?;
    Ok(file)
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
