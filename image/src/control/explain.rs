//! From the errors of the libraries to what a user is told.
//!
//! Imports the errors of every verb. The message and its causes are the libraries' own; what is added here is whose matter
//! it is and what may help.

use std::error::Error;

use shipfs_node::{
    add::AddError,
    fetch::FetchError,
    net::NetError,
    node::StartError,
    pin::GcError,
    rpc::RpcError,
    store::{OpenError, StoreError},
};

use super::{Failure, FailureKind, local::NOBODY};
use crate::{
    blobs::BlobsError,
    bring::BringError,
    commit::CommitError,
    containerd::ContainerdError,
    copy::CopyError,
    crypt::{CryptError, KeyError},
    engine::EngineError,
    inspect::InspectError,
    layer::estargz::ConvertError,
    names::NamesError,
    oci::DocumentError,
    plan::PlanError,
    pull::PullError,
    push::PushError,
    registry_client::{CertificateProblem, CredentialError, RegistryError},
    root::RootError,
    save::SaveError,
    sink::SinkError,
    source::SourceError,
};

/// Longest chain of errors that is followed.
const MAX_DEPTH: usize = 16;

/// What may help with content that is not what it should be, wherever it comes from.
const MADE_WRONG: &str = "the image was made or copied wrongly: get another copy, or ask whoever made it; trying again \
                          does not help";

type Cause<'e> = &'e (dyn Error + 'static);

impl Failure {
    /// What a user is told of an error of this crate: what it says, whose matter it is, and what may help.
    pub fn explained(error: &(dyn Error + 'static)) -> Self {
        explain(error)
    }
}

/// What a user is told of an error.
pub(super) fn explain(error: Cause<'_>) -> Failure {
    let mut failure = Failure::from_error(FailureKind::Other, error);
    let mut next = Some(error);
    for _ in 0..MAX_DEPTH {
        let Some(cause) = next else { break };
        let cause = peeled(cause);
        if let Some((kind, hint)) = classified(cause) {
            failure.kind = kind;
            failure.hint = hint.map(str::to_owned);
            if let (Some(BlobsError::NotFound { cid, asked }), Some(hint)) = (cause.downcast_ref(), &mut failure.hint)
                && asked != NOBODY
            {
                hint.push_str(&format!("; `shipfs why {cid}` tells who was asked"));
            }
            break;
        }
        next = cause.source();
    }
    if failure.kind == FailureKind::Content && failure.hint.is_none() {
        failure.hint = Some(MADE_WRONG.to_owned());
    }
    failure
}

/// What an error that only wraps another one wraps. Such errors hide it: what they give as their source is its source.
fn peeled(error: Cause<'_>) -> Cause<'_> {
    let mut error = error;
    for _ in 0..MAX_DEPTH {
        let Some(inner) = wrapped(error) else { break };
        error = inner;
    }
    error
}

fn wrapped(error: Cause<'_>) -> Option<Cause<'_>> {
    // A box of an error is an error of another type, though nobody sees that.
    if let Some(inner) = error.downcast_ref::<Box<BlobsError>>() {
        return Some(&**inner);
    }
    if let Some(inner) = error.downcast_ref::<Box<StoreError>>() {
        return Some(&**inner);
    }
    if let Some(inner) = error.downcast_ref::<Box<ConvertError>>() {
        return Some(&**inner);
    }
    if let Some(inner) = error.downcast_ref::<Box<DocumentError>>() {
        return Some(&**inner);
    }
    if let Some(error) = error.downcast_ref::<PushError>() {
        return match error {
            PushError::Source(inner) => Some(inner),
            PushError::Root(inner) => Some(inner),
            PushError::Bring(inner) => Some(inner),
            PushError::Plan(inner) => Some(&**inner),
            PushError::Store(inner) => Some(inner),
            PushError::Names(inner) => Some(inner),
            PushError::Crypt(inner) => Some(inner),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<CommitError>() {
        return match error {
            CommitError::Root(inner) => Some(inner),
            CommitError::Plan(inner) => Some(inner),
            CommitError::Document(inner) => Some(inner),
            CommitError::Push(inner) => Some(inner),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<PullError>() {
        return match error {
            PullError::Root(inner) => Some(inner),
            PullError::Plan(inner) => Some(inner),
            PullError::Bring(inner) => Some(inner),
            PullError::Blobs(inner) => Some(inner),
            PullError::Names(inner) => Some(inner),
            PullError::Save(inner) => Some(inner),
            PullError::Crypt(inner) => Some(inner),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<SaveError>() {
        return match error {
            SaveError::Root(inner) => Some(inner),
            SaveError::Plan(inner) => Some(inner),
            SaveError::Bring(inner) => Some(inner),
            SaveError::Sink(inner) => Some(inner),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<CopyError>() {
        return Some(match error {
            CopyError::Push(inner) => inner,
            CopyError::Sink(inner) => inner,
            CopyError::Store(inner) => inner,
        });
    }
    match error.downcast_ref::<SourceError>() {
        Some(SourceError::Registry(inner)) => return Some(&**inner),
        Some(SourceError::Containerd(inner)) => return Some(&**inner),
        Some(SourceError::Engine(inner)) => return Some(&**inner),
        _ => {}
    }
    match error.downcast_ref::<SinkError>() {
        Some(SinkError::Registry(inner)) => return Some(&**inner),
        Some(SinkError::Containerd(inner)) => return Some(&**inner),
        Some(SinkError::Engine(inner)) => return Some(&**inner),
        _ => {}
    }
    if let Some(RegistryError::Credentials(inner)) = error.downcast_ref::<RegistryError>() {
        return Some(inner);
    }
    if let Some(error) = error.downcast_ref::<InspectError>() {
        return match error {
            InspectError::Root(inner) => Some(inner),
            InspectError::Plan(inner) => Some(inner),
            InspectError::Bring(inner) => Some(inner),
        };
    }
    if let Some(PlanError::Read(inner)) = error.downcast_ref::<PlanError<PushError>>() {
        return Some(inner);
    }
    if let Some(PlanError::Read(inner)) = error.downcast_ref::<PlanError<BringError>>() {
        return Some(inner);
    }
    match error.downcast_ref::<BringError>() {
        Some(BringError::Root(inner)) => return Some(inner),
        Some(BringError::Blob { source, .. }) => return Some(&**source),
        Some(BringError::Crypt(inner)) => return Some(inner),
        _ => {}
    }
    if let Some(CryptError::Key(inner)) = error.downcast_ref::<CryptError>() {
        return Some(inner);
    }
    if let Some(RootError::Blobs(inner)) = error.downcast_ref::<RootError>() {
        return Some(inner);
    }
    if let Some(NamesError::Blobs(inner)) = error.downcast_ref::<NamesError>() {
        return Some(inner);
    }
    if let Some(BlobsError::Other(inner)) = error.downcast_ref::<BlobsError>() {
        return Some(&**inner);
    }
    if let Some(AddError::Store(inner)) = error.downcast_ref::<AddError>() {
        return Some(inner);
    }
    match error.downcast_ref::<FetchError>() {
        Some(FetchError::Store(inner)) => return Some(inner),
        Some(FetchError::Net(inner)) => return Some(inner),
        _ => {}
    }
    if let Some(StartError::Open(inner)) = error.downcast_ref::<StartError>() {
        return Some(inner);
    }
    None
}

type Classified = Option<(FailureKind, Option<&'static str>)>;

fn classified(error: Cause<'_>) -> Classified {
    if let Some(error) = error.downcast_ref::<StoreError>() {
        return Some(match error {
            StoreError::Full { .. } => full(),
            StoreError::ReadOnly { .. } => read_only(),
            StoreError::Poisoned => (FailureKind::Repository, Some("the disk failed to write; run the command again")),
            StoreError::Incomplete { .. } | StoreError::Undecodable { .. } => {
                (FailureKind::Repository, Some("`shipfs verify` tells what is damaged; `shipfs pull` fetches it anew"))
            }
            _ => (FailureKind::Repository, None),
        });
    }
    if let Some(error) = error.downcast_ref::<OpenError>() {
        return Some(match error {
            OpenError::Full { .. } => (
                FailureKind::Full,
                Some("make a few megabytes of room there, then `shipfs gc` frees what no image needs"),
            ),
            OpenError::ReadOnly { .. } => read_only(),
            OpenError::UnknownVersion { .. } => (
                FailureKind::Repository,
                Some("a newer shipfs made it: use that one, or another repository with --repo"),
            ),
            OpenError::Journal { .. } => {
                (FailureKind::Repository, Some("the repository needs repair; nothing was changed"))
            }
            OpenError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                (FailureKind::Repository, Some("use another repository with --repo DIRECTORY or $SHIPFS_PATH"))
            }
            _ => (FailureKind::Repository, None),
        });
    }
    blobs(error)
        .or_else(|| crypt(error))
        .or_else(|| daemon(error))
        .or_else(|| network(error))
        .or_else(|| image(error))
        .or_else(|| place(error))
        .or_else(|| service(error))
}

fn full() -> (FailureKind, Option<&'static str>) {
    (FailureKind::Full, Some("`shipfs gc` frees what no image needs; nothing that was here before is lost"))
}

fn read_only() -> (FailureKind, Option<&'static str>) {
    (FailureKind::Repository, Some("use a repository that can be written to, with --repo DIRECTORY or $SHIPFS_PATH"))
}

fn blobs(error: Cause<'_>) -> Classified {
    match error.downcast_ref::<BlobsError>()? {
        BlobsError::NotFound { asked, .. } if asked == NOBODY => {
            Some((FailureKind::NotFound, Some("`shipfs pull`, without --offline, asks others for it")))
        }
        BlobsError::NotFound { .. } => Some((
            FailureKind::Unavailable,
            Some(
                "somebody must serve it (`shipfs daemon`, `shipfs push --serve`) on the same network, or be named with \
                 --peer; what came so far is kept",
            ),
        )),
        BlobsError::Mismatch { .. } | BlobsError::TooLarge { .. } => Some((FailureKind::Content, None)),
        BlobsError::NotAFile { .. } | BlobsError::NotADirectory { .. } => Some((FailureKind::Content, None)),
        BlobsError::Content(_) => Some((FailureKind::Place, None)),
        _ => None,
    }
}

fn crypt(error: Cause<'_>) -> Classified {
    if let Some(error) = error.downcast_ref::<KeyError>() {
        return Some((FailureKind::Other, error.hint()));
    }
    Some(match error.downcast_ref::<CryptError>()? {
        CryptError::NoRecipients | CryptError::NoSuchLayer { .. } => (FailureKind::Usage, None),
        CryptError::NoKey { .. } => (FailureKind::Other, Some("name one that it was encrypted for: --key FILE")),
        CryptError::WrongKey { .. } => (FailureKind::Other, Some("--key names another one, and may be repeated")),
        CryptError::Options { .. } | CryptError::Cipher { .. } | CryptError::Tampered { .. } => {
            (FailureKind::Content, None)
        }
        CryptError::MediaType { .. } => (FailureKind::Content, Some("--layer says which layers to encrypt")),
        _ => (FailureKind::Other, None),
    })
}

fn daemon(error: Cause<'_>) -> Classified {
    let error = error.downcast_ref::<RpcError>()?;
    if error.is_full() {
        return Some((
            FailureKind::Full,
            Some("the IPFS daemon's disk is full: `ipfs repo gc` frees what it does not keep"),
        ));
    }
    Some(match error {
        RpcError::NoDaemon { .. } | RpcError::ApiFile { .. } | RpcError::ApiFileAddress { .. } => (
            FailureKind::Network,
            Some("start it with `ipfs daemon`, or say where it is: --ipfs-address /ip4/127.0.0.1/tcp/5001"),
        ),
        RpcError::Offline { .. } => {
            (FailureKind::Usage, Some("a daemon that listens on a Unix socket can be used: --ipfs-address /unix/PATH"))
        }
        RpcError::Connect { .. } => (
            FailureKind::Network,
            Some("does it run, and is this the address of its RPC (`ipfs config Addresses.API`)?"),
        ),
        RpcError::Denied { .. } => (
            FailureKind::Network,
            Some("--ipfs-auth basic:USER:PASSWORD or bearer:TOKEN, or @FILE with one of these in it"),
        ),
        RpcError::Garbage { .. } | RpcError::Redirected { .. } => (
            FailureKind::Network,
            Some("is this the address of a daemon's RPC, rather than of a gateway or a web page?"),
        ),
        RpcError::Silent { .. } => {
            (FailureKind::Unavailable, Some("--timeout gives it more time; what came so far is kept"))
        }
        RpcError::Broken { .. } => (FailureKind::Unavailable, Some("run the command again: it goes on where it was")),
        RpcError::OtherCid { .. } => (FailureKind::Content, None),
        RpcError::Refused { .. } if error.is_absence() => (
            FailureKind::Unavailable,
            Some("run the command again: what the IPFS daemon freed meanwhile is sent again"),
        ),
        _ => (FailureKind::Unavailable, None),
    })
}

fn network(error: Cause<'_>) -> Classified {
    match error.downcast_ref::<NetError>()? {
        NetError::Listen { .. } => Some((
            FailureKind::Network,
            Some("--listen names another address; /ip4/0.0.0.0/tcp/0 takes any port that is free"),
        )),
        NetError::OtherNetwork { .. } => {
            Some((FailureKind::Network, Some("leave --network out to use the one that is joined already")))
        }
        NetError::NotPrivate { .. } => {
            Some((FailureKind::Network, Some("name TCP addresses, /ip4/192.0.2.7/tcp/4001 for instance")))
        }
        NetError::Dial { .. } => Some((
            FailureKind::Network,
            Some("is the other side running, and on this network? `lan` reaches only what is on the same link"),
        )),
        _ => Some((FailureKind::Network, None)),
    }
}

fn image(error: Cause<'_>) -> Classified {
    if let Some(error) = error.downcast_ref::<NamesError>() {
        return Some(match error {
            NamesError::Unknown { .. } => (FailureKind::NotFound, Some("`shipfs images` lists what is here")),
            _ => (FailureKind::Other, None),
        });
    }
    if let Some(PushError::NoPlatform { .. }) = error.downcast_ref() {
        return platform();
    }
    if let Some(PullError::NoPlatform { .. }) = error.downcast_ref() {
        return platform();
    }
    if let Some(SaveError::NoPlatform { .. }) = error.downcast_ref() {
        return platform();
    }
    if let Some(PushError::ConvertChanged) = error.downcast_ref() {
        return Some((FailureKind::Usage, Some("convert it first, and encrypt what came of it")));
    }
    if let Some(error) = error.downcast_ref::<ConvertError>() {
        return Some(match error {
            ConvertError::Toc(source) if source.kind() == std::io::ErrorKind::StorageFull => full(),
            ConvertError::Toc(_) | ConvertError::Thread(_) => (FailureKind::Other, None),
            _ => (FailureKind::Content, Some("without --estargz, it is pushed as it is")),
        });
    }
    if error.is::<RootError>() || error.is::<BringError>() || error.is::<DocumentError>() {
        return Some((FailureKind::Content, None));
    }
    if error.is::<PlanError<PushError>>() || error.is::<PlanError<BringError>>() {
        return Some((FailureKind::Content, None));
    }
    if let Some(GcError::Unresolved { .. }) = error.downcast_ref() {
        return Some((FailureKind::Repository, Some("`shipfs verify` tells what is damaged")));
    }
    None
}

fn platform() -> Classified {
    Some((FailureKind::NotFound, Some("--platform names another one, --all-platforms takes what there is")))
}

fn place(error: Cause<'_>) -> Classified {
    if let Some(error) = error.downcast_ref::<SourceError>() {
        return Some(match error {
            // What the store says stands below it.
            SourceError::Store { .. } => return None,
            SourceError::Spool { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => full(),
            SourceError::NotThere { .. } => (FailureKind::NotFound, None),
            SourceError::NoSuchImage { .. } | SourceError::Ambiguous { .. } => {
                (FailureKind::NotFound, Some("append `:TAG` or `:NAME` to say which image is meant"))
            }
            SourceError::Open { .. } => (FailureKind::Place, Some("is the path right, and may it be read?")),
            SourceError::NotAnImage { .. } => (
                FailureKind::Place,
                Some("a layout is named as `oci:DIRECTORY`, an archive as `oci-archive:FILE` or `docker-archive:FILE`"),
            ),
            SourceError::NoStream | SourceError::Read { .. } | SourceError::Spool { .. } => (FailureKind::Place, None),
            _ => (FailureKind::Place, Some(MADE_WRONG)),
        });
    }
    match error.downcast_ref::<SinkError>()? {
        SinkError::Write { source, .. } | SinkError::Open { source, .. }
            if source.kind() == std::io::ErrorKind::StorageFull =>
        {
            Some((FailureKind::Full, Some("the image is in the repository; write it elsewhere with `shipfs save`")))
        }
        SinkError::NotALayout { .. } => Some((FailureKind::Place, Some("name a new or empty directory, or a layout"))),
        SinkError::Encrypted { .. } => {
            Some((FailureKind::Place, Some("--key FILE opens it, oci-archive takes it as it is")))
        }
        SinkError::ManyPlatforms => Some((FailureKind::Place, Some("name one --platform, or use oci-archive"))),
        _ => Some((FailureKind::Place, None)),
    }
}

fn certificate_hint(problem: CertificateProblem) -> &'static str {
    match problem {
        CertificateProblem::Expired | CertificateProblem::NotYet => {
            "is this host's clock right? if so, whoever runs the registry has to renew it"
        }
        CertificateProblem::Name => "name the registry as its certificate does",
        CertificateProblem::Wanted => {
            "put it into /etc/docker/certs.d/REGISTRY/client.cert, and its key beside it in client.key"
        }
        _ => {
            "put its authority's certificate into /etc/docker/certs.d/REGISTRY/ca.crt, or into a file that $SSL_CERT_FILE names"
        }
    }
}

fn service(error: Cause<'_>) -> Classified {
    if let Some(error) = error.downcast_ref::<RegistryError>() {
        return Some(match error {
            RegistryError::NotFound { .. } => (FailureKind::NotFound, None),
            RegistryError::Denied { .. } => {
                (FailureKind::Place, Some("`shipfs login REGISTRY` keeps a name and a password for it"))
            }
            RegistryError::Token { .. } => (
                FailureKind::Place,
                Some("`shipfs login` to the host named there, if it is to get a password of yours"),
            ),
            RegistryError::Foreign { .. } => {
                (FailureKind::Place, Some("--allow-layers-from HOST lets its layers be fetched"))
            }
            RegistryError::Connection { .. } => {
                (FailureKind::Unavailable, Some("--plain-http speaks with a registry that has no TLS"))
            }
            RegistryError::Certificate { problem, .. } => (FailureKind::Place, Some(certificate_hint(*problem))),
            RegistryError::Proxied { .. } => (
                FailureKind::Unavailable,
                Some("$HTTPS_PROXY and $HTTP_PROXY name the proxy, $NO_PROXY the hosts that are reached without"),
            ),
            RegistryError::Document { .. } | RegistryError::Mismatch { .. } | RegistryError::TooLong { .. } => {
                (FailureKind::Content, None)
            }
            _ => (FailureKind::Place, None),
        });
    }
    if error.is::<CredentialError>() || error.is::<ContainerdError>() || error.is::<EngineError>() {
        return Some((FailureKind::Place, None));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use shipfs_node::Cid;

    fn cid() -> Cid {
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku".parse().expect("a CID")
    }

    #[test]
    fn what_is_wrapped_is_found_and_told_once() {
        let full = StoreError::Full { action: "write `packs/1`".into() };
        let deep = PullError::Bring(BringError::Blob {
            digest: crate::oci::Digest::of(b""),
            source: Box::new(BlobsError::Other(Box::new(FetchError::Store(full)))),
        });
        let failure = explain(&deep);
        assert_eq!(failure.kind, FailureKind::Full);
        assert!(failure.hint.as_deref().is_some_and(|hint| hint.contains("shipfs gc")), "{failure:?}");
        assert!(failure.message.starts_with("blob `sha256:e3b0"), "{failure:?}");
        assert_eq!(failure.causes, ["could not write `packs/1`: no space is left on the disk"]);
    }

    #[test]
    fn a_full_disk_is_found_behind_every_verb() {
        let full = || StoreError::Full { action: "write".into() };
        let blobs = || BlobsError::Other(Box::new(AddError::Store(full())));
        let digest = || crate::oci::Digest::of(b"");
        let errors: [Box<dyn Error>; 5] = [
            Box::new(PushError::Blob { digest: digest(), source: Box::new(blobs()) }),
            Box::new(PushError::Directory(blobs())),
            Box::new(PushError::Names(NamesError::Blobs(blobs()))),
            Box::new(SaveError::Bring(BringError::Blob { digest: digest(), source: Box::new(blobs()) })),
            Box::new(GcError::Store(full())),
        ];
        for error in &errors {
            let failure = explain(&**error);
            assert_eq!(failure.kind, FailureKind::Full, "{failure:?}");
            assert!(failure.hint.is_some());
        }
    }

    #[test]
    fn an_absent_image_says_who_was_asked() {
        let absent = BlobsError::NotFound { cid: cid(), asked: "3 peers asked".into() };
        let failure = explain(&PullError::Root(RootError::Blobs(absent)));
        assert_eq!(failure.kind, FailureKind::Unavailable);
        assert!(failure.message.contains("3 peers asked") && failure.causes.is_empty(), "{failure:?}");
        assert!(failure.hint.is_some());
    }

    #[test]
    fn errors_nobody_knows_are_told_as_they_are() {
        let failure = explain(&std::io::Error::other("odd"));
        assert_eq!((failure.kind, failure.message.as_str(), failure.hint), (FailureKind::Other, "odd", None));
    }
}
