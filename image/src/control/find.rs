//! Where an image is that was asked for by name and is not in the store: containerd, Docker, podman, in that order.
//!
//! Imports [`source`] and [`services`](crate::services). A service that is not there is passed over in silence, one that
//! does not work with a warning; where the image was found is said.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::{
    bring::blocking,
    event::{Event, EventSink},
    location::{Format, Location},
    reference::Name,
    services::Services,
    source::{self, Aside, Ensured, Source, SourceError},
};

/// Looks for the image called `name`; nothing when no service has it. What is missing of it comes from its registry, unless
/// nobody may be asked that was not named.
pub(super) async fn find(
    name: &Name,
    services: &Services,
    aside: &Aside,
    is_alone: bool,
    events: &dyn EventSink,
) -> Option<Arc<dyn Source>> {
    for format in [Format::Containerd, Format::DockerDaemon, Format::ContainersStorage] {
        let place = match format {
            Format::Containerd if services.containerd.exists() => "containerd",
            Format::DockerDaemon if services.docker.exists() => "Docker",
            Format::ContainersStorage => "podman",
            _ => continue,
        };
        let location = Location::of_service(format, name.to_string());
        let (settings, aside) = (services.clone(), aside.clone());
        match blocking(move || source::open_with(&location, None, &aside, &settings)).await {
            Ok(found) => {
                let shown = name.familiar();
                let namespace = services.containerd_namespace.escape_debug();
                let within =
                    if format == Format::Containerd { format!(", namespace `{namespace}`") } else { String::new() };
                events.emit(Event::Note(format!("found `{shown}` in {place}{within}")));
                if is_alone {
                    return Some(Arc::from(found));
                }
                return Some(Arc::new(Ensured::new(found, name.clone(), services.clone(), Handle::current())));
            }
            Err(SourceError::NotThere { .. }) => {}
            Err(SourceError::Engine(error)) if matches!(*error, crate::engine::EngineError::Absent { .. }) => {}
            Err(error) => {
                let told = super::explain::explain(&error);
                events.emit(Event::Warning(format!("cannot look for it in {place}: {told}")));
            }
        }
    }
    None
}
