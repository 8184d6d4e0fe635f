//! Lists for people: a heading and aligned columns, and the one-line results.
//!
//! Pure; every cell that may hold foreign text is escaped here.

use shipfs_image::{
    control::{Collected, Identity, ImageRow, Pushed, Verified},
    names::Shape,
    run::{
        lifecycle::Row,
        state::{SHORT_ID, Status},
    },
};

use crate::text::{escaped, size};

/// Letters of a command in a list.
const MAX_COMMAND: usize = 30;
/// Space between two columns.
const GAP: usize = 3;

/// Aligns rows under a heading; the last column is not padded.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(heading.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + GAP - cell.chars().count()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `NAME CID SIZE PLATFORM ROOT`.
pub(crate) fn images(images: &[ImageRow]) -> String {
    let rows = images.iter().map(|image| {
        let name = image.name.as_deref().map_or_else(|| "<none>".to_owned(), escaped);
        let platforms = image.platforms.iter().map(|platform| escaped(platform)).collect::<Vec<_>>().join(",");
        let platforms = if platforms.is_empty() { "-".to_owned() } else { platforms };
        let state = if image.incomplete { " (partial)" } else { "" };
        let shape = match image.shape {
            Some(Shape::Descriptor) => "descriptor",
            Some(Shape::Layout) => "layout",
            None => "-",
        };
        [name, image.cid.clone(), format!("{}{state}", size(image.size)), platforms, shape.to_owned()]
    });
    table(["NAME", "CID", "SIZE", "PLATFORM", "ROOT"], rows)
}

/// `ID NAME IMAGE COMMAND STATUS`.
pub(crate) fn containers(rows: &[Row]) -> String {
    let rows = rows.iter().map(|row| {
        let command: String = row.command.join(" ").chars().take(MAX_COMMAND).collect();
        let status = match (row.state.status, row.state.exit_code) {
            (Status::Created, _) => "created".to_owned(),
            (Status::Running, _) => "running".to_owned(),
            (Status::Exited, code) => format!("exited ({})", code.unwrap_or_default()),
        };
        [row.id[..SHORT_ID].to_owned(), escaped(&row.name), escaped(&row.image), escaped(&command), status]
    });
    table(["ID", "NAME", "IMAGE", "COMMAND", "STATUS"], rows)
}

/// `CID NAME` of what was loaded.
pub(crate) fn loaded(images: &[Pushed]) -> String {
    table(
        ["CID", "NAME"],
        images
            .iter()
            .map(|image| [image.cid.clone(), image.name.as_deref().map_or_else(|| "<none>".to_owned(), escaped)]),
    )
}

/// Who this node is.
pub(crate) fn identity(identity: &Identity) -> String {
    let network = identity.network.as_deref().unwrap_or("none joined");
    let mut text =
        format!("peer:      {}\nagent:     {}\nnetwork:   {network}\n", identity.peer, escaped(&identity.agent));
    for address in &identity.addresses {
        text.push_str(&format!("address:   {}\n", escaped(address)));
    }
    let serving = if identity.serving { "yes" } else { "no" };
    text + &format!("serving:   {serving}\n")
}

/// A daemon is ready.
pub(crate) fn ready(identity: &Identity) -> String {
    match &identity.network {
        Some(network) => {
            let addresses = identity.addresses.iter().map(|address| escaped(address)).collect::<Vec<_>>().join(", ");
            format!("ready: serving on the {network} network as {} at {addresses}", identity.peer)
        }
        None => "ready: offline, working for other commands on this host alone".to_owned(),
    }
}

/// What a collection freed.
pub(crate) fn collected(collected: &Collected) -> String {
    let layers = match collected.layers {
        0 => String::new(),
        layers => format!(", {layers} unpacked layers"),
    };
    format!("freed {}: {} files, {} blocks{layers}\n", size(collected.bytes), collected.files, collected.blocks)
}

/// What a check found.
pub(crate) fn verified(verified: &Verified) -> String {
    let mut text = format!("checked {} files and {} blocks\n", verified.files, verified.blocks);
    for damaged in &verified.damaged {
        let what = if verified.repaired { "moved away" } else { "damaged" };
        text.push_str(&format!("{what}: {}\n", escaped(damaged)));
    }
    for broken in &verified.broken {
        text.push_str(&format!("not whole: {}\n", escaped(broken)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_foreign_text_is_escaped() {
        let row = |name: Option<&str>, size, incomplete| ImageRow {
            name: name.map(str::to_owned),
            cid: "bafkrei".into(),
            digest: "sha256:00".into(),
            shape: Some(Shape::Layout),
            platforms: vec!["linux/amd64".into()],
            size,
            incomplete,
        };
        assert_eq!(
            images(&[row(Some("a:\x1b[2J"), 1 << 20, false), row(None, 5, true)]),
            "NAME          CID       SIZE            PLATFORM      ROOT\n\
             a:\\u{1b}[2J   bafkrei   1.0 MiB         linux/amd64   layout\n\
             <none>        bafkrei   5 B (partial)   linux/amd64   layout\n"
        );
    }
}
