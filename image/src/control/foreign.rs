//! Verbs that a daemon of somebody else's does the work of, by `--ipfs-address`.
//!
//! Imports the node's client of Kubo's RPC and the storage over it. The holder carries these verbs out like all others, but
//! enters no network: the daemon is in one already. Images that lie with the daemon are listed in our journal, so their
//! names need a repository; their bytes do not. An address and credentials are in no message but as the endpoint itself
//! says them.

use std::{fmt, path::PathBuf};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use shipfs_node::{
    config::DEFAULT_PATIENCE,
    node::Node,
    rpc::{Credentials, Endpoint, Kubo, Place, client},
};

use super::{
    Failure, FailureKind, Identity, NetworkChoice, Options, Order, PeerRow, Reply, Request, explain::explain,
    images::Images,
};
use crate::{
    blobs::{Blobs, embedded::EmbeddedBlobs, foreign::ForeignBlobs, import::ImportingBlobs},
    event::{Event, EventSink},
    names,
    reference::Reference,
    source::Aside,
};

/// A daemon of somebody else's that does the work in place of the embedded node.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpfsDaemon {
    /// Where it is.
    pub address: IpfsAddress,
    /// What it wants to be shown: `basic:USER:PASSWORD` or `bearer:TOKEN`.
    pub credentials: Option<String>,
}

/// Where a daemon is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpfsAddress {
    /// There: a multiaddress or a URL, which may hold a password.
    At(String),
    /// Where the first of these files that exists says; read again when the daemon is not there any more.
    Files(Vec<PathBuf>),
}

impl fmt::Debug for IpfsDaemon {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("IpfsDaemon(..)")
    }
}

impl fmt::Debug for IpfsAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("IpfsAddress(..)")
    }
}

impl IpfsDaemon {
    /// Whether its address and credentials can be understood.
    ///
    /// # Errors
    /// [`FailureKind::Usage`], without a word of what was given.
    pub fn check(&self) -> Result<(), Failure> {
        self.parsed().map(drop)
    }

    fn parsed(&self) -> Result<(Place, Option<Credentials>), Failure> {
        let usage = |error: &dyn fmt::Display, what: &str| Failure {
            causes: vec![error.to_string()],
            ..Failure::new(FailureKind::Usage, format!("{what} cannot be understood"))
        };
        let place = match &self.address {
            IpfsAddress::Files(files) => Place::Files(files.clone()),
            IpfsAddress::At(text) => {
                let endpoint = text.parse::<Endpoint>();
                Place::At(endpoint.map_err(|error| usage(&error, "the address of the IPFS daemon"))?)
            }
        };
        let credentials = self.credentials.as_deref().map(str::parse::<Credentials>).transpose();
        Ok((place, credentials.map_err(|error| usage(&error, "the credentials for the IPFS daemon"))?))
    }
}

/// Refuses what only the embedded node can do, when a daemon was named.
///
/// # Errors
/// [`FailureKind::Usage`], when a daemon was named.
pub fn needs_own_node(options: &Options, what: &str, instead: &str) -> Result<(), Failure> {
    if options.daemon.is_none() {
        return Ok(());
    }
    Err(Failure::new(FailureKind::Usage, format!("{what}, so it has no use for --ipfs-address")).hint(format!(
        "{instead}; leave --ipfs-address out, or say `--ipfs-address none` where $SHIPFS_IPFS_ADDRESS is set"
    )))
}

/// The verbs that concern this repository alone.
fn check_verb(request: &Request, options: &Options) -> Result<(), Failure> {
    match request {
        Request::Gc => needs_own_node(
            options,
            "`gc` frees the space of this repository",
            "the IPFS daemon frees its own by `ipfs repo gc`",
        ),
        Request::Verify { .. } => needs_own_node(
            options,
            "`verify` checks the bytes of this repository",
            "the IPFS daemon checks its own by `ipfs repo verify`",
        ),
        Request::Commit(_) => needs_own_node(
            options,
            "containers and their images are in this repository",
            "commit without --ipfs-address, then `shipfs push --ipfs-address ADDRESS NAME`",
        ),
        Request::Serve { .. } => {
            needs_own_node(options, "serving is what this node does", "the IPFS daemon serves what it holds by itself")
        }
        _ => Ok(()),
    }
}

/// The client for what the options say.
fn client(daemon: &IpfsDaemon, options: &Options, events: &dyn EventSink) -> Result<Kubo, Failure> {
    let (place, credentials) = daemon.parsed()?;
    let own = "the IPFS daemon is in a network of its own";
    if !options.listen.is_empty() || options.mdns.is_some() {
        let message = format!("{own}: --listen, --mdns and --no-mdns have no meaning with --ipfs-address");
        return Err(Failure::new(FailureKind::Usage, message));
    }
    if matches!(options.network, Some(NetworkChoice::Lan | NetworkChoice::Private)) {
        return Err(Failure::new(FailureKind::Usage, format!("{own}: --network cannot choose it")));
    }
    if let Place::At(endpoint) = &place
        && endpoint.is_open()
        && credentials.is_some()
    {
        let text = format!("the credentials for `{endpoint}` are sent without encryption: use https");
        events.emit(Event::Warning(text));
    }
    let kubo = Kubo::new(place, credentials, options.patience.unwrap_or(DEFAULT_PATIENCE));
    Ok(if options.network == Some(NetworkChoice::Offline) { kubo.offline() } else { kubo })
}

/// Carries a verb out with the daemon.
pub(super) async fn execute(
    node: &Node,
    daemon: &IpfsDaemon,
    order: Order,
    events: &dyn EventSink,
) -> Result<Reply, Failure> {
    check_verb(&order.request, &order.options)?;
    let kubo = client(daemon, &order.options, events)?;
    let identity = kubo.identity().await.map_err(|error| explain(&error))?;
    let shown = kubo.shown().await;
    events.emit(Event::Note(format!("network: that of the IPFS daemon at {shown} ({})", identity.agent)));
    for peer in &order.options.peers {
        if let Err(error) = kubo.connect(peer).await {
            events.emit(Event::Warning(format!("the IPFS daemon is not connected to `{peer}`: {error}")));
        }
    }
    match order.request {
        Request::Id => Ok(Reply::Identity(described(identity, &shown))),
        Request::Peers => {
            let peers = kubo.peers().await.map_err(|error| explain(&error))?;
            let named = |id: &str| order.options.peers.iter().any(|peer| peer.ends_with(&format!("/p2p/{id}")));
            let rows = peers.into_iter().map(|peer| PeerRow {
                named: named(&peer.id),
                peer: peer.id,
                transport: if peer.address.contains("/quic") { "quic" } else { "tcp" }.to_owned(),
                address: peer.address,
                outbound: None,
                connected_ms: None,
                protocols: Vec::new(),
                wasted: None,
                wire_received: None,
                wire_sent: None,
                agent: peer.agent,
                received: peer.received,
                sent: peer.sent,
            });
            Ok(Reply::Peers(rows.collect()))
        }
        _ => {
            let working: BoxFuture<'_, _> = Box::pin(about_images(node, kubo, &identity.id, order, events));
            working.await
        }
    }
}

async fn about_images(
    node: &Node,
    kubo: Kubo,
    peer: &str,
    order: Order,
    events: &dyn EventSink,
) -> Result<Reply, Failure> {
    let Order { request, options, stream } = order;
    let spool = &node.config().repository;
    let own = EmbeddedBlobs::new(node.clone());
    let foreign = ForeignBlobs::new(kubo.clone(), peer, node.clone(), spool.clone());
    let services = &options.services;
    let is_offline = options.network == Some(NetworkChoice::Offline);
    let is_private = options.private_only;
    // The daemon keeps what it is given, so it is given nothing that an image might not want.
    let aside = Aside::Folder(spool.clone());
    let images = Images {
        blobs: &foreign,
        also: Some(own.records()),
        aside,
        spool,
        stream,
        services,
        is_offline,
        is_private,
        events,
    };
    match request {
        Request::Push(push) => Ok(images.push(push).await?.0),
        Request::Load { from } => Ok(images.load(from).await?.0),
        Request::Pull(mut pull) => {
            // By the name that it has with the daemon.
            if !matches!(pull.image, Reference::Cid(_))
                && let Ok(found) = names::resolve(foreign.records(), &pull.image).await
            {
                pull.image = Reference::Cid(found.root);
            }
            if pull.to.is_some() {
                return images.pull_through(pull).await;
            }
            let importing = ImportingBlobs::new(EmbeddedBlobs::new(node.clone()), kubo);
            let images = Images { blobs: &importing, also: None, ..images };
            Ok(images.pull(pull).await?.0)
        }
        other => images.answer(other).await,
    }
}

fn described(identity: client::Identity, shown: &str) -> Identity {
    Identity {
        peer: identity.id,
        agent: identity.agent,
        network: Some(format!("that of the IPFS daemon at {shown}")),
        addresses: identity.addresses.unwrap_or_default(),
        serving: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> IpfsDaemon {
        IpfsDaemon { address: IpfsAddress::At(text.to_owned()), credentials: None }
    }

    #[test]
    fn what_cannot_be_understood_is_told_without_a_secret() {
        for text in ["", "http://user:secret@", "/dns/secret:x@y/tcp/1", "ftp://user:secret@host"] {
            let failure = at(text).check().expect_err(text);
            assert_eq!(failure.exit_code(), 2);
            assert!(!format!("{failure} {failure:?}").contains("secret"), "{failure:?}");
        }
        let daemon = IpfsDaemon { credentials: Some("secret".to_owned()), ..at("/ip4/127.0.0.1/tcp/5001") };
        let failure = daemon.check().expect_err("no credentials");
        assert!(!format!("{failure} {failure:?} {daemon:?}").contains("secret"), "{failure:?}");
        assert!(at("/ip4/127.0.0.1/tcp/5001").check().is_ok());
    }

    #[test]
    fn options_that_a_daemon_has_no_use_for_are_refused() {
        let tcp = at("/ip4/127.0.0.1/tcp/5001");
        let refused = |daemon: &IpfsDaemon, options: Options| match client(daemon, &options, &()) {
            Ok(_) => false,
            Err(failure) => {
                assert_eq!(failure.exit_code(), 2, "{failure}");
                true
            }
        };
        let network = |network| Options { network: Some(network), ..Options::default() };
        assert!(!refused(&tcp, Options::default()) && !refused(&tcp, network(NetworkChoice::Offline)));
        assert!(refused(&tcp, network(NetworkChoice::Lan)));
        assert!(refused(&tcp, network(NetworkChoice::Private)));
        assert!(refused(&tcp, Options { mdns: Some(true), ..Options::default() }));
        let listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
        assert!(refused(&tcp, Options { listen, ..Options::default() }));
        let options = Options { daemon: Some(tcp), ..Options::default() };
        for request in [Request::Gc, Request::Verify { repair: false }] {
            let failure = check_verb(&request, &options).expect_err("is about this repository");
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.message.contains("this repository") && failure.hint.is_some(), "{failure}");
        }
        assert!(check_verb(&Request::Images, &options).is_ok());
    }
}
