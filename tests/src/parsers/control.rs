//! What the processes of one user say to each other.

use serde::Serialize;
use serde::de::DeserializeOwned;
use shipfs_image::control::{Failure, Options, Reply, Request};
use shipfs_image::event::Event;

/// The body of a frame on the control socket, taken for each message that there is.
pub(super) fn message(input: &[u8]) -> bool {
    let accepted = [
        survives::<Request>(input),
        survives::<Options>(input),
        survives::<Reply>(input),
        survives::<Failure>(input),
        survives::<Event>(input),
    ];
    accepted.contains(&true)
}

/// Whether it is one; if so, it is written again and means the same.
fn survives<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(input: &[u8]) -> bool {
    let Ok(message) = serde_json::from_slice::<T>(input) else { return false };
    let again = serde_json::to_vec(&message).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&again).expect("what we write, we read"), message);
    true
}
