//! Writes the real image that the tests use as an OCI layout, to try things by hand.
//!
//! ```text
//! cargo run -p shipfs-tests --bin real_image FOLDER
//! ```

use shipfs_tests::debian;
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("real-image"), PathBuf::from);
    debian::layout(&folder, &std::env::temp_dir().join("shipfs-debian-packages"))
}
