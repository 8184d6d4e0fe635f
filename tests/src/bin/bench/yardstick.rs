//! The work alone: reading, hashing, sending and writing with nothing around them.
//!
//! Imports nothing of shipfs.

use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::sync_channel;

/// Bytes handled at a time.
const PIECE: usize = 256 << 10;
/// Pieces in flight between two threads.
const AHEAD: usize = 8;

fn pieces(path: &Path, mut each: impl FnMut(u64, &[u8])) {
    let file = File::open(path).expect("the file is there");
    let (mut offset, mut piece) = (0, vec![0; PIECE]);
    loop {
        let read = file.read_at(&mut piece, offset).expect("the file can be read");
        if read == 0 {
            return;
        }
        each(offset, &piece[..read]);
        offset += read as u64;
    }
}

fn whole_digest(path: &Path) {
    let mut hasher = Sha256::new();
    pieces(path, |_, piece| hasher.update(piece));
    std::hint::black_box(hasher.finalize());
}

/// Reads a file, hashes it as a whole and piece by piece on two cores, writes it, and syncs.
pub(crate) fn two_passes_and_write(source: &Path, target: &Path) {
    std::thread::scope(|scope| {
        scope.spawn(|| whole_digest(source));
        let copy = File::create(target).expect("the copy can be made");
        pieces(source, |offset, piece| {
            std::hint::black_box(Sha256::digest(piece));
            copy.write_all_at(piece, offset).expect("the copy can be written");
        });
        copy.sync_data().expect("the copy can be synced");
    });
}

/// Hashes a file piece by piece on all cores.
pub(crate) fn one_pass(source: &Path) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let size = std::fs::metadata(source).expect("the file is there").len();
    let count = size.div_ceil(PIECE as u64);
    let file = File::open(source).expect("the file is there");
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let file = &file;
            scope.spawn(move || {
                let mut piece = vec![0; PIECE];
                for number in count * thread / threads..count * (thread + 1) / threads {
                    let read = file.read_at(&mut piece, number * PIECE as u64).expect("the file can be read");
                    std::hint::black_box(Sha256::digest(&piece[..read]));
                }
            });
        }
    });
}

/// Sends a file to everybody who connects, until stdin ends. The file lies in memory.
pub(crate) fn serve(source: &Path) {
    let bytes = std::fs::read(source).expect("the file can be read");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    super::say(&listener.local_addr().expect("it has an address").to_string());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = bytes.chunks(PIECE).try_for_each(|piece| stream.write_all(piece));
        }
    });
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

fn receive(address: &str, mut each: impl FnMut(Vec<u8>) -> Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("the server is there");
    let mut piece = vec![0; PIECE];
    loop {
        piece.resize(PIECE, 0);
        let mut filled = 0;
        while filled < PIECE {
            match stream.read(&mut piece[filled..]).expect("the stream can be read") {
                0 => break,
                read => filled += read,
            }
        }
        piece.truncate(filled);
        if filled == 0 {
            return;
        }
        piece = each(piece);
    }
}

/// Receives, hashes once, drops.
pub(crate) fn receive_and_drop(address: &str) {
    let mut hasher = Sha256::new();
    receive(address, |piece| {
        hasher.update(&piece);
        piece
    });
    std::hint::black_box(hasher.finalize());
}

/// Receives, hashes piece by piece and as a whole, writes, and syncs: two threads and recycled buffers.
pub(crate) fn receive_and_write(address: &str, target: &Path) {
    let (sender, receiver) = sync_channel::<Vec<u8>>(AHEAD);
    let (recycle, recycled) = sync_channel::<Vec<u8>>(AHEAD + 2);
    for _ in 0..AHEAD {
        let _ = recycle.send(vec![0; PIECE]);
    }
    let copy = File::create(target).expect("the copy can be made");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut hasher, mut offset) = (Sha256::new(), 0);
            for piece in receiver {
                hasher.update(&piece);
                copy.write_all_at(&piece, offset).expect("the copy can be written");
                offset += piece.len() as u64;
                let _ = recycle.try_send(piece);
            }
            std::hint::black_box(hasher.finalize());
            copy.sync_data().expect("the copy can be synced");
        });
        receive(address, |piece| {
            std::hint::black_box(Sha256::digest(&piece));
            let _ = sender.send(piece);
            recycled.recv().unwrap_or_default()
        });
        drop(sender);
    });
}
