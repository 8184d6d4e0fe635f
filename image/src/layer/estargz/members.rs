//! Members of gzip: compressed by several threads, put together in order.
//!
//! Imports `toc`. Whoever feeds cuts the stream where a member must begin and notes the entries that belong to it; no more
//! members exist at a time than there are threads to work on them and a few that wait.

use std::{
    io,
    panic::resume_unwind,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::{ConvertError, toc::TocEntry};
use crate::oci::Digest;

/// The header of every member: deflate, no name, no time, best compression, an unknown system, as Go writes it.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 0xff];
/// Members that wait for a thread, so that none of them ever waits for the one who feeds.
const WAITING: usize = 1;

/// What a member means to the table of contents.
pub(super) enum Note {
    /// An entry; one with bytes begins with the member.
    Entry(Box<TocEntry>),
    /// The digest of the file whose chunks were noted last.
    Digest(Digest),
}

/// A member that was made.
pub(super) struct Member {
    pub(super) bytes: Vec<u8>,
    pub(super) notes: Vec<Note>,
}

/// A member before it is compressed, and who waits for it.
struct Work {
    plain: Vec<u8>,
    notes: Vec<Note>,
    done: SyncSender<Result<Member, ConvertError>>,
}

/// Takes the stream that is to be compressed.
pub(super) struct Feeder {
    plain: Vec<u8>,
    notes: Vec<Note>,
    work: SyncSender<Work>,
    order: SyncSender<Receiver<Result<Member, ConvertError>>>,
}

/// Nobody takes what is fed any more: whoever did has failed, and says why.
pub(super) struct Gone;

impl Feeder {
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.plain.extend_from_slice(bytes);
    }

    /// Makes room for what comes, no more: a buffer that grows by itself takes twice as much.
    pub(super) fn expect(&mut self, bytes: u64) {
        self.plain.reserve_exact(usize::try_from(bytes).unwrap_or_default());
    }

    pub(super) fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// Ends the member, if it has begun.
    pub(super) fn cut(&mut self) -> Result<(), Gone> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let (done, member) = sync_channel(1);
        let work = Work { plain: std::mem::take(&mut self.plain), notes: std::mem::take(&mut self.notes), done };
        self.work.send(work).map_err(|_| Gone)?;
        self.order.send(member).map_err(|_| Gone)
    }
}

/// Compresses what `feed` feeds on `threads` threads and hands the members to `take`, in order, on a thread of its own.
pub(super) fn compress<T>(
    threads: usize,
    mut take: impl FnMut(Member) -> Result<(), ConvertError> + Send,
    feed: impl FnOnce(&mut Feeder) -> Result<T, ConvertError>,
) -> Result<T, ConvertError> {
    let (work, queue) = sync_channel::<Work>(WAITING);
    let (order, members) = sync_channel::<Receiver<Result<Member, ConvertError>>>(threads);
    let queue = &Mutex::new(queue);
    thread::scope(|scope| {
        for _ in 0..threads {
            let start = thread::Builder::new().name("layer-deflate".to_owned());
            start.spawn_scoped(scope, move || deflate(queue)).map_err(ConvertError::Thread)?;
        }
        let taking = thread::Builder::new().name("layer-members".to_owned()).spawn_scoped(scope, move || {
            while let Ok(member) = members.recv() {
                // A thread that compresses answers, unless it panics.
                let Ok(member) = member.recv() else { return Ok(()) };
                take(member?)?;
            }
            Ok(())
        });
        let taking = taking.map_err(ConvertError::Thread)?;
        let mut feeder = Feeder { plain: Vec::new(), notes: Vec::new(), work, order };
        let fed = feed(&mut feeder);
        drop(feeder);
        let taken = taking.join().unwrap_or_else(|panic| resume_unwind(panic));
        // Who takes has failed first, if both did: the other one only found nobody there.
        taken.and(fed)
    })
}

fn deflate(queue: &Mutex<Receiver<Work>>) {
    let mut deflater = Compress::new(Compression::best(), false);
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Work { plain, notes, done }) = next else { return };
        let member = member(&mut deflater, &plain).map(|bytes| Member { bytes, notes });
        let _ = done.send(member.map_err(|error| ConvertError::Deflate(io::Error::other(error))));
    }
}

/// One member that holds these bytes.
fn member(deflater: &mut Compress, plain: &[u8]) -> Result<Vec<u8>, flate2::CompressError> {
    let mut out = Vec::with_capacity(plain.len() / 2 + 64);
    out.extend_from_slice(&HEADER);
    deflater.reset();
    loop {
        let taken = usize::try_from(deflater.total_in()).unwrap_or(usize::MAX);
        let rest = plain.get(taken..).unwrap_or_default();
        if deflater.compress_vec(rest, &mut out, FlushCompress::Finish)? == Status::StreamEnd {
            break;
        }
        out.reserve(plain.len() / 8 + 64);
    }
    let mut crc = Crc::new();
    crc.update(plain);
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&crc.amount().to_le_bytes());
    Ok(out)
}
