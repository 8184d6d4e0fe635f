//! A root by fuse-overlayfs: a program that stays for as long as the root does.
//!
//! Imports the way to start a program that ends with this process. The mount is in this process's mount namespace. Ends the
//! program, the root is gone, and the container has to be ended.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal},
};

use super::{
    overlay,
    rootless::process::{BOUND, SELF, VERB},
    runtime::on_path,
};

/// The program.
const PROGRAM: &str = "fuse-overlayfs";
/// What it says goes there, in the container's directory.
const LOG: &str = "fuse.log";
/// What the kernel calls such a filesystem (`FUSE_SUPER_MAGIC`).
const MAGIC: i64 = 0x6573_5546;
/// Time for it to mount.
const MOUNT_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is looked whether it has.
const PACE: Duration = Duration::from_millis(2);
/// Time for it to end once its root is taken away.
const END_TIMEOUT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// The program that keeps a root there.
#[derive(Debug)]
pub(crate) struct Fuse {
    pid: Pid,
    process: OwnedFd,
}

impl Fuse {
    /// Has it mount at [`overlay::ROOT`] what was laid out in the working directory.
    pub(crate) fn mount(layers: &overlay::Layout) -> io::Result<Self> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "it is not installed");
        let program: PathBuf = on_path(PROGRAM, "".as_ref()).ok_or_else(missing)?;
        let log = fs::File::create(LOG)?;
        let mut command = Command::new(SELF);
        command.args([VERB, BOUND]).arg(program).args(["-f", "-o"]).arg(layers.options()).arg(overlay::ROOT);
        command.env_clear().stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        let fuse = Self { pid, process };
        let end = Instant::now() + MOUNT_TIMEOUT;
        loop {
            if rustix::fs::statfs(overlay::ROOT)?.f_type == MAGIC {
                return Ok(fuse);
            }
            if let Some(status) = child.try_wait()? {
                let said = fs::read_to_string(LOG).unwrap_or_default();
                let said = said.lines().next_back().map_or_else(|| status.to_string(), str::to_owned);
                return Err(io::Error::other(said.trim_start_matches(&format!("{PROGRAM}: ")).to_owned()));
            }
            if Instant::now() > end {
                fuse.end();
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(PACE);
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Sees to it that it has ended. It does by itself once its root is taken away.
    pub(crate) fn end(&self) {
        let mut waiting = [PollFd::new(&self.process, PollFlags::IN)];
        if !matches!(poll(&mut waiting, Some(&END_TIMEOUT)), Ok(1..)) {
            // It may have ended this moment.
            let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
        }
        let _ = fs::remove_file(Path::new(LOG));
    }
}
