//! A registry of this host, for as long as a build takes: the one that runs, or a process of this program.
//!
//! Imports the context. It looks whether a registry knows an image before it is used: any program may listen there.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    process::{Child, Command, Stdio},
    time::Duration,
};

use shipfs_image::control::{Failure, FailureKind};

use crate::context::Context;

/// Time for a registry to say whether it has an image, which it may have to fetch.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time to connect to a port of this host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// What a registry says once it listens, before its address.
const READY: &str = "registry: serving on ";
/// Where one is started: a port that is free, which only this host reaches.
const ANY_PORT: &str = "127.0.0.1:0";

/// A registry of this host.
pub(super) struct RegistryProcess {
    address: String,
    child: Option<Child>,
}

impl RegistryProcess {
    /// The registry at `address`, if it has the image `cid`; otherwise one is started.
    pub(super) async fn find_or_start(address: &str, cid: Option<&String>, context: &Context) -> Result<Self, Failure> {
        let (wanted, cid) = (address.to_owned(), cid.cloned().unwrap_or_default());
        let words = context.words_for_another();
        let found = tokio::task::spawn_blocking(move || {
            if has(&wanted, &cid) { Ok(Self { address: wanted, child: None }) } else { Self::start(&words) }
        });
        found.await.map_err(io::Error::other).and_then(|found| found).map_err(|error| {
            Failure::from_error(FailureKind::Other, &error).while_doing("cannot start a registry for the build")
        })
    }

    fn start(words: &[std::ffi::OsString]) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(words).args(["registry", "serve", "--listen-registry", ANY_PORT]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let said = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut process = Self { address: String::new(), child: Some(child) };
        let mut lines = BufReader::new(said).lines();
        let mut heard = Vec::new();
        for line in lines.by_ref() {
            let line = line?;
            if let Some((_, address)) = line.split_once(READY) {
                process.address = address.trim().to_owned();
                break;
            }
            heard.push(line);
        }
        if process.address.is_empty() {
            return Err(io::Error::other(heard.join("; ")));
        }
        // It must not wait for somebody to read what it says.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(process)
    }

    /// Host and port.
    pub(super) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for RegistryProcess {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::TERM);
        let _ = child.wait();
    }
}

/// Whether a registry answers there that has an image.
fn has(address: &str, cid: &str) -> bool {
    let ask = || -> io::Result<bool> {
        let place = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
        let mut stream = TcpStream::connect_timeout(&place, CONNECT_TIMEOUT)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(CONNECT_TIMEOUT))?;
        write!(
            stream,
            "HEAD /v2/ipfs/{cid}/manifests/latest HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(start.starts_with(b"HTTP/1.") && start.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}
