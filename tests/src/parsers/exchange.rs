//! What peers send.

use bytes::Bytes;
use shipfs_node::block::check_cid;
use shipfs_node::exchange::bitswap::wire::{MAX_BLOCKS, MAX_MESSAGE_BYTES, MAX_PRESENCES, MAX_WANTS, decode};

/// A Bitswap message, without the length in front, and the blocks in it.
pub(super) fn bitswap_message(input: &[u8]) -> bool {
    if input.len() > MAX_MESSAGE_BYTES {
        return false;
    }
    let Ok(message) = decode(&Bytes::copy_from_slice(input)) else { return false };
    assert!(message.wants.len() <= MAX_WANTS && message.presences.len() <= MAX_PRESENCES);
    assert!(message.blocks.len() <= MAX_BLOCKS);
    assert!(message.wants.iter().all(|want| check_cid(&want.cid).is_ok()));
    assert!(message.presences.iter().all(|(cid, _)| check_cid(cid).is_ok()));
    let held: usize = message.blocks.iter().map(|block| block.size()).sum();
    assert!(held <= input.len(), "no byte is there twice");
    for payload in message.blocks {
        if let Ok(block) = payload.into_block() {
            assert!(check_cid(block.cid()).is_ok(), "a block has a CID that can be checked");
        }
    }
    true
}
