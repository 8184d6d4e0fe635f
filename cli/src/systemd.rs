//! Tells systemd that a daemon is ready, or about to stop, in the words of sd_notify.
//!
//! Imports nothing of this crate. Nothing is ever read from systemd.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// Sends one state, `READY=1` for instance, to the socket that systemd named.
pub(crate) fn notify(socket: &OsStr, state: &str) -> io::Result<()> {
    // A leading at-sign stands for the zero of an abstract name.
    let address = match socket.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_told_by_path_and_by_abstract_name() {
        let name = format!("shipfs-test-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let abstract_name = SocketAddr::from_abstract_name(&name).expect("a name");
        for (socket, receiver) in [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).expect("binds")),
            (format!("@{name}").into(), UnixDatagram::bind_addr(&abstract_name).expect("binds")),
        ] {
            notify(&socket, "READY=1").expect("sends");
            let mut bytes = [0; 64];
            let length = receiver.recv(&mut bytes).expect("receives");
            assert_eq!(&bytes[..length], b"READY=1");
        }
        std::fs::remove_file(path).expect("removes");
    }
}
