//! Shows what a running verb tells: bars on a terminal, lines elsewhere, JSON lines for programs.
//!
//! The only user of the bar library. What is drawn here never carries meaning alone: the result is on stdout, and every
//! blob that took time is also counted in the last line.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use shipfs_image::{
    control::EventQueue,
    event::{BlobKind, Event, Outcome},
};
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    output::{Mode, Output},
    text::{escaped, escaped_json, rate, short, size, time},
};

/// Redraws of the bars in a second.
const DRAWS_PER_SECOND: u8 = 12;
/// Time between two lines about progress where nothing can be redrawn.
const LINE_PACE: Duration = Duration::from_secs(10);

/// What is drawn on stderr.
#[derive(Clone)]
pub(crate) struct Screen(MultiProgress);

impl Screen {
    /// A screen that is drawn on stderr, if a person looks at that.
    pub(crate) fn new(is_interactive: bool) -> Self {
        let target = if is_interactive {
            ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND)
        } else {
            ProgressDrawTarget::hidden()
        };
        Self(MultiProgress::with_draw_target(target))
    }

    /// Does something that writes to the terminal, with the bars out of the way.
    pub(crate) fn suspended<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }
}

/// Shows the events of one verb until its queue is closed. On a thread of its own: a terminal may be stopped, the verb
/// must not be.
pub(crate) fn follow(queue: Arc<EventQueue>, output: Output) -> JoinHandle<()> {
    tokio::task::spawn_blocking(move || {
        let mut shown = Shown { output, rows: HashMap::new(), began: Instant::now(), told: Instant::now() };
        while let Some(events) = Handle::current().block_on(queue.next()) {
            events.into_iter().for_each(|event| shown.show(event));
        }
        shown.end();
    })
}

struct Shown {
    output: Output,
    rows: HashMap<String, Row>,
    began: Instant,
    told: Instant,
}

struct Row {
    label: String,
    size: u64,
    bytes: u64,
    bar: ProgressBar,
    outcome: Option<Outcome>,
}

impl Shown {
    fn show(&mut self, event: Event) {
        match self.output.mode {
            Mode::Quiet => return,
            Mode::Json => {
                if let Ok(line) = serde_json::to_string(&event) {
                    self.output.line(&escaped_json(&line));
                }
                return;
            }
            Mode::Text => {}
        }
        match event {
            Event::Started { digest, kind, size } => self.start(digest, kind, size),
            Event::Progress { digest, bytes } => self.advance(&digest, bytes),
            Event::Finished { digest, outcome } => self.finish(&digest, outcome),
            Event::Note(text) => self.output.say(&text),
            Event::Warning(text) => self.output.say(&format!("warning: {text}")),
        }
    }

    fn start(&mut self, digest: String, kind: BlobKind, size: u64) {
        let label = if is_blob(&digest) { format!("{} {}", word(kind), short(&digest)) } else { escaped(&digest) };
        let bar = ProgressBar::new(size).with_style(style(size)).with_prefix(label.clone());
        let bar = self.output.screen.0.add(bar);
        bar.tick();
        let row = Row { label, size, bytes: 0, bar, outcome: None };
        if let Some(earlier) = self.rows.insert(digest, row) {
            earlier.bar.finish_and_clear();
        }
    }

    fn advance(&mut self, digest: &str, bytes: u64) {
        let Some(row) = self.rows.get_mut(digest) else { return };
        row.bytes = bytes;
        row.bar.set_position(bytes);
        if self.output.screen.0.is_hidden() && self.told.elapsed() >= LINE_PACE {
            self.told = Instant::now();
            let line = format!("{}: {} of {}", row.label, size(row.bytes), size(row.size));
            self.output.say(&line);
        }
    }

    fn finish(&mut self, digest: &str, outcome: Outcome) {
        let Some(row) = self.rows.get_mut(digest) else { return };
        if !is_blob(digest) {
            return row.bar.finish_and_clear();
        }
        row.outcome = Some(outcome);
        row.bytes = row.bytes.max(row.size);
        let bytes = if row.size > 0 { size(row.size) } else { String::new() };
        let took = row.bar.elapsed();
        let speed = match outcome {
            Outcome::Present => String::new(),
            _ if row.size > 1 << 20 => format!("  {}", rate(row.size, took)),
            _ => String::new(),
        };
        // The row becomes a line that stays; those that are still drawn move down below it.
        row.bar.finish_and_clear();
        let line = format!("{:<28} {bytes:>10}  {}{speed}", row.label, said(outcome));
        self.output.say(&line);
    }

    /// The last line: how much, how long, how fast.
    fn end(self) {
        for (digest, row) in self.rows.iter().filter(|(_, row)| row.outcome.is_none()) {
            row.bar.finish_and_clear();
            if row.bytes > 0 && is_blob(digest) {
                let line = format!("{:<28} {:>10}  not finished", row.label, size(row.bytes));
                self.output.say(&line);
            }
        }
        let moved = self.rows.values().filter(|row| row.outcome.is_some_and(|outcome| outcome != Outcome::Present));
        let total: u64 = moved.map(|row| row.bytes).sum();
        if self.output.mode == Mode::Text && self.rows.values().any(|row| row.outcome.is_some()) {
            let took = self.began.elapsed();
            let speed = if total > 1 << 20 { format!(" ({})", rate(total, took)) } else { String::new() };
            self.output.say(&format!("elapsed: {}  total: {}{speed}", time(took), size(total)));
        }
    }
}

/// Whether an event is about a blob, rather than all of something.
fn is_blob(digest: &str) -> bool {
    digest.contains(':') || digest.len() > 40
}

fn style(size: u64) -> ProgressStyle {
    let template = if size > 0 {
        "{prefix:28} {binary_bytes:>10}  {bar:24} {binary_total_bytes:>10}  {binary_bytes_per_sec:>12}  {eta:>4}"
    } else {
        "{prefix:28} {binary_bytes:>10}"
    };
    ProgressStyle::with_template(template).expect("the template is well-formed").progress_chars("=> ")
}

fn word(kind: BlobKind) -> &'static str {
    match kind {
        BlobKind::Root => "root",
        BlobKind::Index => "index",
        BlobKind::Manifest => "manifest",
        BlobKind::Config => "config",
        BlobKind::Layer => "layer",
        BlobKind::Other => "other",
    }
}

fn said(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Stored => "stored",
        Outcome::Present => "here already",
        Outcome::Fetched => "fetched",
        Outcome::Written => "written",
    }
}
