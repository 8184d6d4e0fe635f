//! The streams of a container of containerd's: pipes with names, that the shim opens and this process copies.
//!
//! Imports its siblings. The names are gone as soon as both ends are open: nothing of them is left, whatever is killed.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use tokio::sync::mpsc;

use crate::run::{attach::Streams, settings::Settings, terminal::Saved};

/// Bytes that are copied at a time.
const PIECE: usize = 64 << 10;

/// What happened to the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// There is no more input.
    InputEnded,
    /// Nobody takes the output any more.
    OutputLost,
}

/// Named pipes, before anybody has opened their other ends.
pub(super) struct Pipes {
    input: Option<PathBuf>,
    output: Option<(PathBuf, OwnedFd)>,
    error: Option<(PathBuf, OwnedFd)>,
}

/// Pipes that are being copied.
#[derive(Debug)]
pub(super) struct Copying {
    output: Vec<JoinHandle<()>>,
    saved: Option<Saved>,
}

impl Pipes {
    /// Makes those that a container needs in `folder`: none for one that goes on by itself.
    pub(super) fn make(folder: &Path, settings: &Settings) -> io::Result<Self> {
        let none = Self { input: None, output: None, error: None };
        if settings.detached {
            return Ok(none);
        }
        let make = |name: &str| {
            let path = folder.join(name);
            rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            Ok::<_, io::Error>(path)
        };
        let reading = |name| {
            let path = make(name)?;
            // Without waiting for somebody who writes: the shim wants to find a reader.
            let end = rustix::fs::open(&path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
            Ok::<_, io::Error>((path, end))
        };
        Ok(Self {
            input: settings.interactive.then(|| make("input")).transpose()?,
            output: Some(reading("output")?),
            // A terminal has one output.
            error: (!settings.terminal).then(|| reading("error")).transpose()?,
        })
    }

    /// Their paths, as a task is told: empty where there is none.
    pub(super) fn paths(&self) -> [String; 3] {
        let text = |path: Option<&PathBuf>| path.map(|path| path.display().to_string()).unwrap_or_default();
        let of = |end: &Option<(PathBuf, OwnedFd)>| text(end.as_ref().map(|(path, _)| path));
        [text(self.input.as_ref()), of(&self.output), of(&self.error)]
    }

    /// Copies to and from the user's own streams, once the shim has opened its ends, and takes the names away.
    pub(super) fn copy(
        self,
        own: Streams,
        is_terminal: bool,
        happened: &mpsc::Sender<Happened>,
    ) -> io::Result<Copying> {
        let mut copying = Copying { output: Vec::new(), saved: None };
        let own = Arc::new(own);
        if let Some(path) = &self.input {
            let to = rustix::fs::open(path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
            let from = File::from(own.input.try_clone()?);
            if is_terminal {
                copying.saved = Saved::of(&own.input);
            }
            let to = waiting(to)?;
            let happened = happened.clone();
            // It ends with the process: nobody can wait for a key that is never pressed.
            std::thread::spawn(move || {
                copy(from, to);
                // Nobody listens any more when the container has ended.
                let _ = happened.blocking_send(Happened::InputEnded);
            });
        }
        let ends = [(&self.output, &own.output), (&self.error, &own.error)];
        for (end, to) in ends.into_iter().filter_map(|(end, to)| Some((end.as_ref()?, to))) {
            let (from, to) = (waiting(end.1.try_clone()?)?, File::from(to.try_clone()?));
            let happened = happened.clone();
            copying.output.push(std::thread::spawn(move || {
                if !copy(from, to) {
                    let _ = happened.blocking_send(Happened::OutputLost);
                }
            }));
        }
        let paths = self.output.iter().chain(&self.error).map(|(path, _)| path).chain(&self.input);
        paths.for_each(|path| drop(std::fs::remove_file(path)));
        if let Some(saved) = &copying.saved {
            saved.make_raw()?;
        }
        Ok(copying)
    }
}

impl Copying {
    /// Waits until everything that was printed has been handed on. Blocks.
    pub(super) fn finish(mut self) {
        for thread in std::mem::take(&mut self.output) {
            let _ = thread.join();
        }
    }
}

impl Drop for Copying {
    /// The user's terminal is as it was.
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            saved.restore();
        }
    }
}

/// The same end of a pipe, whose reader or writer waits from now on.
fn waiting(end: OwnedFd) -> io::Result<File> {
    let flags = rustix::fs::fcntl_getfl(end.as_fd())?;
    rustix::fs::fcntl_setfl(end.as_fd(), flags - OFlags::NONBLOCK)?;
    Ok(File::from(end))
}

/// Copies until there is no more, as it comes; false when what was read could not be written.
fn copy(mut from: File, mut to: File) -> bool {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return true,
            Ok(length) => {
                if to.write_all(&piece[..length]).is_err() {
                    return false;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(output: &File) -> Streams {
        let other = || OwnedFd::from(tempfile::tempfile().expect("a file"));
        Streams { input: other(), output: output.try_clone().expect("cloned").into(), error: other() }
    }

    #[test]
    fn bytes_go_through_pipes_whose_names_are_gone() {
        use std::io::Seek as _;
        let folder = tempfile::tempdir().expect("a directory");
        let pipes = Pipes::make(folder.path(), &Settings::default()).expect("made");
        let [input, output, error] = pipes.paths();
        assert_eq!(input, "", "no input was asked for");
        // The ends of a shim.
        let open = |path: &str| File::options().write(true).open(path).expect("opened");
        let (mut output, error) = (open(&output), open(&error));
        let mut printed = tempfile::tempfile().expect("a file");
        let (sender, mut happened) = mpsc::channel(4);
        let copying = pipes.copy(own(&printed), false, &sender).expect("copied");
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0);
        output.write_all(b"hello").expect("written");
        drop((output, error));
        copying.finish();
        let mut text = String::new();
        printed.rewind().expect("rewound");
        printed.read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
        assert!(happened.try_recv().is_err(), "nothing was lost");
    }

    #[test]
    fn whoever_takes_no_output_is_told_of() {
        let folder = tempfile::tempdir().expect("a directory");
        let pipes = Pipes::make(folder.path(), &Settings { terminal: true, ..Settings::default() }).expect("made");
        let [_, output, error] = pipes.paths();
        assert_eq!(error, "", "a terminal has one output");
        let mut output = File::options().write(true).open(output).expect("opened");
        let (sender, mut happened) = mpsc::channel(4);
        let full = File::options().write(true).open("/dev/full").expect("opened");
        let copying = pipes.copy(own(&full), true, &sender).expect("copied");
        output.write_all(b"hello").expect("written");
        assert_eq!(happened.blocking_recv(), Some(Happened::OutputLost));
        drop(output);
        copying.finish();
        let detached = Settings { detached: true, ..Settings::default() };
        assert_eq!(Pipes::make(folder.path(), &detached).expect("made").paths(), ["", "", ""]);
    }
}
