//! `shipfs run --containerd`.

use shipfs_image::{
    control::{Failure, FailureKind, PlatformChoice, Pull, PullPolicy, Request},
    location::{Format, Location},
    reference::Reference,
    run::{
        containerd::{self, Order},
        runtime::Runtime,
        settings::Settings,
    },
};

use super::{container, folder::Folder, parse};
use crate::{context::Context, report::Outcome};

/// What is to be run.
pub(super) struct Wanted {
    pub(super) image: Reference,
    pub(super) pull: PullPolicy,
    pub(super) platforms: PlatformChoice,
    pub(super) settings: Settings,
    /// The beginning of the container's name.
    pub(super) suggested: String,
    pub(super) runtime: Option<Runtime>,
}

pub(super) async fn run(wanted: Wanted, context: &mut Context) -> Outcome {
    let settings = &wanted.settings;
    if settings.detached && (settings.remove || settings.terminal) {
        let option = if settings.remove { "--rm" } else { "--tty" };
        let message = format!("with --containerd, --detach has no {option}: nobody stays who would see to it");
        return Err(Failure::new(FailureKind::Usage, message));
    }
    let image = hand_over(&wanted, context).await?;
    let letting_go = tokio::spawn(context.let_go());
    let folder = Folder::new(context.repository(), "run")?;
    let signals = context.stop().pass_on();
    let mut signals = signals.map_err(|error| Failure::from_error(FailureKind::Other, &error))?;
    let services = context.services().clone();
    let order = Order {
        services: &services,
        image: &image,
        platforms: &wanted.platforms,
        settings,
        suggested: &wanted.suggested,
        runtime: wanted.runtime.as_ref().map(|runtime| runtime.program().to_owned()),
        folder: folder.path(),
    };
    let started = containerd::start(order, container::streams()?, &mut signals).await;
    let ended = match started {
        Ok(started) if settings.detached => {
            context.exit_with(0);
            context.show_bytes(format!("{}\n", started.id()).as_bytes())
        }
        Ok(started) => {
            drop(folder);
            started.wait(signals).await.map(|code| context.exit_with(code)).map_err(|error| error.failure())
        }
        Err(error) => {
            context.exit_with(error.exit_code());
            Err(error.failure())
        }
    };
    // Others may work through this process still; they lose nothing when it fails.
    let _ = letting_go.await;
    ended
}

/// Sees to it that containerd has the image; what containerd calls it.
async fn hand_over(wanted: &Wanted, context: &mut Context) -> Result<String, Failure> {
    let Wanted { image, pull, platforms, .. } = wanted;
    let is_cid = matches!(image, Reference::Cid(_));
    // What a CID means never changes. A name may mean something newer here.
    if is_cid && *pull != PullPolicy::Always && is_there(image, platforms, context).await? {
        return Ok(image.to_string());
    }
    let here = parse::cid(image, context).await;
    let (image, name) = match here {
        Ok(cid) => {
            // A digest is no name.
            let name = containerd::image_name(image).unwrap_or(cid);
            (image.clone(), name)
        }
        Err(failure) => {
            return match containerd::image_name(image) {
                Some(name) if is_there(image, platforms, context).await? => Ok(name),
                _ => Err(failure),
            };
        }
    };
    let (to, platforms) = (Location::of_service(Format::Containerd, &name), platforms.clone());
    let request = match pull {
        PullPolicy::Never => Request::Save { image, to, platforms },
        _ => Request::Pull(Pull { image, name: None, to: Some(to), platforms, keys: Vec::new() }),
    };
    let handed = context.call(request).await;
    if *pull == PullPolicy::Never {
        handed.map_err(|failure| failure.hint("--pull missing, the default, fetches what is not here"))?;
    } else {
        handed?;
    }
    Ok(name)
}

async fn is_there(image: &Reference, platforms: &PlatformChoice, context: &Context) -> Result<bool, Failure> {
    let Some(name) = containerd::image_name(image) else { return Ok(false) };
    containerd::is_there(context.services(), &name, platforms).await.map_err(|error| error.failure())
}
