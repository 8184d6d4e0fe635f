//! Events on their way from a verb to whoever shows them, however slow that is.
//!
//! Imports [`event`](crate::event). A sink that never blocks: progress of one blob is merged into its latest value, and
//! what cannot be merged is bounded.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::event::{Event, EventSink};

/// Most events that wait; later ones are lost. Two for each blob of four of the largest images there can be.
const MAX_WAITING: usize = 1 << 13;

/// A bounded queue of events, for one reader.
#[derive(Debug, Default)]
pub struct EventQueue {
    state: Mutex<State>,
    wake: Notify,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Event>,
    progress: HashMap<String, u64>,
}

impl EventQueue {
    /// Waits for events and takes all there are, in order; `None` once the queue is closed and empty.
    pub async fn next(&self) -> Option<Vec<Event>> {
        loop {
            let woken = self.wake.notified();
            {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let mut events = std::mem::take(&mut state.waiting);
                events.extend(state.progress.drain().map(|(digest, bytes)| Event::Progress { digest, bytes }));
                if !events.is_empty() {
                    return Some(events);
                }
                if self.closed.is_cancelled() {
                    return None;
                }
            }
            woken.await;
        }
    }

    /// Says that no more events come.
    pub fn close(&self) {
        self.closed.cancel();
        self.wake.notify_one();
    }

    /// Waits until no more events come.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

impl EventSink for EventQueue {
    fn emit(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Progress { digest, bytes } => {
                if state.progress.len() < MAX_WAITING || state.progress.contains_key(&digest) {
                    state.progress.insert(digest, bytes);
                }
            }
            event => {
                if let Event::Finished { digest, .. } = &event {
                    state.progress.remove(digest);
                }
                if state.waiting.len() < MAX_WAITING {
                    state.waiting.push(event);
                }
            }
        }
        drop(state);
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{BlobKind, Outcome};

    fn progress(bytes: u64) -> Event {
        Event::Progress { digest: "a".into(), bytes }
    }

    #[tokio::test]
    async fn progress_is_merged_and_never_follows_the_end() {
        let queue = EventQueue::default();
        let started = Event::Started { digest: "a".into(), kind: BlobKind::Layer, size: 9 };
        let finished = Event::Finished { digest: "a".into(), outcome: Outcome::Stored };
        queue.emit(started.clone());
        queue.emit(progress(1));
        queue.emit(progress(5));
        assert_eq!(queue.next().await, Some(vec![started, progress(5)]));
        queue.emit(progress(7));
        queue.emit(finished.clone());
        assert_eq!(queue.next().await, Some(vec![finished]));
        queue.close();
        assert_eq!(queue.next().await, None);
    }

    #[tokio::test]
    async fn a_queue_that_nobody_reads_stays_small() {
        let queue = EventQueue::default();
        for number in 0..3 * MAX_WAITING {
            queue.emit(Event::Note(number.to_string()));
            queue.emit(Event::Progress { digest: number.to_string(), bytes: 1 });
        }
        assert_eq!(queue.next().await.expect("open").len(), 2 * MAX_WAITING);
    }
}
