//! Hosts on one machine: network namespaces on a bridge of their own.
//!
//! Needs root and iproute2. Names carry this process's number, so that runs do not meet; everything goes away with
//! [`Lan`].

use crate::program::shipfs_path;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Namespaces joined by a bridge that lies in a namespace of its own: nothing reaches this machine's own network.
pub struct Lan {
    prefix: String,
    hosts: Vec<String>,
}

/// Bytes that went through a host's link, headers included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// What the host received.
    pub received: u64,
    /// What it sent.
    pub sent: u64,
}

fn ip(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is here");
    assert!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    output.stdout
}

impl Lan {
    /// Makes `count` hosts, 10.77.0.1 and up, all on one link.
    ///
    /// # Panics
    /// When `ip` fails: no root, no iproute2.
    pub fn new(count: usize) -> Self {
        let prefix = format!("sf{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let bridge = format!("{prefix}b");
        let mut lan = Self { prefix: prefix.clone(), hosts: Vec::new() };
        lan.hosts.push(bridge.clone());
        ip(&["netns", "add", &bridge]);
        ip(&["-n", &bridge, "link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0"]);
        ip(&["-n", &bridge, "link", "set", "br0", "up"]);
        for number in 1..=count {
            let host = format!("{prefix}h{number}");
            lan.hosts.push(host.clone());
            let (port, address) = (format!("p{number}"), format!("10.77.0.{number}/24"));
            ip(&["netns", "add", &host]);
            ip(&["-n", &host, "link", "set", "lo", "up"]);
            ip(&["-n", &bridge, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &host]);
            ip(&["-n", &bridge, "link", "set", &port, "master", "br0", "up"]);
            ip(&["-n", &host, "address", "add", &address, "dev", "eth0"]);
            ip(&["-n", &host, "link", "set", "eth0", "up"]);
            // Multicast needs a route; a LAN has a default one.
            ip(&["-n", &host, "route", "add", "default", "via", "10.77.0.254", "dev", "eth0"]);
        }
        lan
    }

    /// The name of a host's namespace; hosts count from one.
    pub fn host(&self, number: usize) -> &str {
        &self.hosts[number]
    }

    /// A command that runs on a host.
    pub fn on(&self, number: usize, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.host(number)]).arg(program);
        command
    }

    /// A command of `shipfs` on a host, with an environment of its own.
    pub fn shipfs(&self, number: usize, repository: &Path) -> Command {
        let mut command = self.on(number, &shipfs_path());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
        command.arg("--repo").arg(repository);
        command
    }

    /// Gives a host one more address, `203.0.113.7/32` for instance.
    pub fn add_address(&self, number: usize, address: &str) {
        ip(&["-n", self.host(number), "address", "add", address, "dev", "eth0"]);
    }

    /// What went through a host's link so far.
    ///
    /// # Panics
    /// When `ip` does not say.
    pub fn traffic(&self, number: usize) -> Traffic {
        let shown = ip(&["-n", self.host(number), "-s", "-j", "link", "show", "dev", "eth0"]);
        let shown: serde_json::Value = serde_json::from_slice(&shown).expect("JSON");
        let bytes = |way: &str| shown[0]["stats64"][way]["bytes"].as_u64().expect("a number of bytes");
        Traffic { received: bytes("rx"), sent: bytes("tx") }
    }

    /// Limits what a host can send, in Mbit/s.
    ///
    /// # Panics
    /// When `tc` fails.
    pub fn limit(&self, number: usize, megabits: u32) {
        let rate = format!("{megabits}mbit");
        let output = Command::new("tc")
            .args(["-n", self.host(number), "qdisc", "replace", "dev", "eth0", "root", "tbf"])
            .args(["rate", &rate, "burst", "256kb", "latency", "50ms"])
            .output()
            .expect("tc is here");
        assert!(output.status.success(), "tc: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Cuts a host off, or joins it again.
    pub fn cut(&self, number: usize, cut: bool) {
        let port = format!("p{number}");
        ip(&["-n", &self.hosts[0], "link", "set", &port, if cut { "down" } else { "up" }]);
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in &self.hosts {
            debug_assert!(host.starts_with(&self.prefix));
            let _ = Command::new("ip").args(["netns", "delete", host]).output();
        }
    }
}
