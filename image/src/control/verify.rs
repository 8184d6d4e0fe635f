//! Checks every byte of a repository.
//!
//! Imports the node's store. It says what is wrong in words; what may be done about it is the store's matter.

use std::{fmt::Write as _, sync::mpsc, time::Duration};

use shipfs_node::store::{Store, VerifyReport};

use super::{Failure, Reply, Verified, explain::explain};
use crate::{
    bring::blocking,
    event::{BlobKind, Event, EventSink, Outcome},
};

/// What the check is called in events.
const NAME: &str = "repository";
/// Time between two looks at how far it got.
const PACE: Duration = Duration::from_millis(100);

/// Hashes everything.
pub(super) async fn verify(store: Store, repair: bool, events: &dyn EventSink) -> Result<Reply, Failure> {
    let (usage, checked) = (store.clone(), store);
    let usage = blocking(move || usage.usage()).await.map_err(|error| explain(&error))?;
    let size = usage.file_bytes + usage.pack_bytes;
    events.emit(Event::Started { digest: NAME.to_owned(), kind: BlobKind::Other, size });
    let (sender, receiver) = mpsc::sync_channel(1);
    let checking = blocking(move || {
        checked.verify(repair, &|bytes| {
            // One that nobody took yet is as good.
            let _ = sender.try_send(bytes);
        })
    });
    tokio::pin!(checking);
    let report = loop {
        tokio::select! {
            report = &mut checking => break report.map_err(|error| explain(&error))?,
            () = tokio::time::sleep(PACE) => {
                if let Some(bytes) = receiver.try_iter().last() {
                    events.emit(Event::Progress { digest: NAME.to_owned(), bytes });
                }
            }
        }
    };
    events.emit(Event::Finished { digest: NAME.to_owned(), outcome: Outcome::Present });
    Ok(Reply::Verified(told(&report, repair)))
}

fn told(report: &VerifyReport, repaired: bool) -> Verified {
    let mut damaged = Vec::new();
    for file in &report.bad_files {
        let hex = file.digest.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let state = if file.missing { "is missing" } else { "has other bytes" };
        damaged.push(format!("file sha256:{hex} {state}"));
    }
    damaged.extend(report.bad_blocks.iter().map(|cid| format!("block {cid} has other bytes")));
    damaged.extend(report.damaged_packs.iter().map(|number| format!("pack {number} cannot be read in places")));
    if report.wrong_rows > 0 {
        damaged.push(format!("{} rows of the index are wrong", report.wrong_rows));
    }
    let broken = report.broken.iter().map(|broken| format!("{} lacks block {}", broken.name, broken.block)).collect();
    Verified { files: report.files, blocks: report.blocks, bytes: report.bytes, damaged, broken, repaired }
}
