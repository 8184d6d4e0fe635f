//! The programs that build images, and what each is told.
//!
//! Imports the words for places. Pure but for looking whether a program is there and answers: it gives command lines, and
//! whoever has them runs them.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::location::Format;

/// A kind of builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `docker buildx`.
    Buildx,
    /// `buildctl`, with a BuildKit daemon.
    Buildctl,
    /// `nerdctl build`, with a BuildKit daemon.
    Nerdctl,
    /// `buildah build`.
    Buildah,
    /// `podman build`.
    Podman,
}

/// A builder that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Builder {
    /// What it is.
    pub kind: Kind,
    program: PathBuf,
    /// Whether it keeps what it builds in a store of its own, and has to be asked for it afterwards.
    stores: bool,
}

/// What is to be built, in words that every builder has some of its own for.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The Dockerfile.
    pub dockerfile: PathBuf,
    /// The directory that it takes files from.
    pub context: PathBuf,
    /// What the image is called, in the builder's own store.
    pub tags: Vec<String>,
    /// `NAME=VALUE` pairs, or names.
    pub arguments: Vec<String>,
    /// The platform to build for.
    pub platform: Option<String>,
    /// The stage to build.
    pub target: Option<String>,
    /// Whether everything is built anew.
    pub no_cache: bool,
    /// Where the image is written to, as an OCI archive; it stays in the builder's store otherwise.
    pub archive: Option<PathBuf>,
    /// An empty file that a builder may write the image's identifier to.
    pub identifier: PathBuf,
    /// Words that are passed on as they are.
    pub rest: Vec<String>,
}

/// Each builder's name and program, the first that is here is taken.
const KNOWN: [(&str, Kind, &str); 5] = [
    ("docker", Kind::Buildx, "docker"),
    ("buildctl", Kind::Buildctl, "buildctl"),
    ("nerdctl", Kind::Nerdctl, "nerdctl"),
    ("buildah", Kind::Buildah, "buildah"),
    ("podman", Kind::Podman, "podman"),
];

/// What is looked for, for an error.
pub const LOOKED_FOR: &str = "docker (with buildx), buildctl, nerdctl, buildah, podman";

impl Builder {
    /// Finds a builder on a search path: the one that is named, or the first that is there and answers.
    pub fn find(named: Option<&str>, path: &OsStr) -> Option<Self> {
        let on_path =
            |name: &str| std::env::split_paths(path).map(|folder| folder.join(name)).find(|file| file.is_file());
        let known = |name: &str| KNOWN.iter().find(|(known, ..)| *known == name);
        if let Some(named) = named {
            let file = Path::new(named).file_name()?.to_str()?;
            let (_, kind, _) = known(file)?;
            let program = if named.contains('/') { Some(PathBuf::from(named)) } else { on_path(named) };
            return program.map(|program| Self::new(*kind, program));
        }
        let all = KNOWN.iter().filter_map(|(_, kind, program)| Some(Self::new(*kind, on_path(program)?)));
        let mut all = all.filter(Self::answers);
        all.next()
    }

    fn new(kind: Kind, program: PathBuf) -> Self {
        Self { kind, program, stores: matches!(kind, Kind::Buildah | Kind::Podman) }
    }

    /// Asks how it builds, where that is not always the same: Docker's own builder, unlike others that buildx has, writes
    /// no archives. `rest` are the words that it is told besides.
    pub fn settled(mut self, rest: &[String]) -> Self {
        if self.kind == Kind::Buildx {
            let mut command = Command::new(&self.program);
            command.args(["buildx", "inspect"]).args(named_builder(rest)).stdin(Stdio::null()).stderr(Stdio::null());
            let text = command.output().map(|output| output.stdout).unwrap_or_default();
            self.stores = is_dockers_own(&String::from_utf8_lossy(&text));
        }
        self
    }

    /// Whether it can build now: some need a daemon.
    fn answers(&self) -> bool {
        let words: &[&[&str]] = match self.kind {
            Kind::Buildx => &[&["buildx", "version"], &["info"]],
            Kind::Buildctl => &[&["debug", "workers"]],
            Kind::Nerdctl => &[&["info"]],
            Kind::Buildah | Kind::Podman => &[],
        };
        words.iter().all(|words| {
            let mut command = Command::new(&self.program);
            command.args(*words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        })
    }

    /// Its program's name.
    pub fn name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether what it builds is lost unless it is written somewhere.
    pub fn keeps_nothing(&self) -> bool {
        self.kind == Kind::Buildctl
    }

    /// The command that builds.
    pub fn build(&self, plan: &Plan) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.words(plan));
        command
    }

    fn words(&self, plan: &Plan) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let output = plan.archive.as_ref().map(|archive| joined("type=oci,dest=", archive));
        if self.kind == Kind::Buildctl {
            words.extend(["build", "--frontend", "dockerfile.v0", "--local"].map(OsString::from));
            words.push(joined("context=", &plan.context));
            let folder = plan.dockerfile.parent().unwrap_or(Path::new("."));
            words.extend(["--local".into(), joined("dockerfile=", folder), "--opt".into()]);
            words.push(joined("filename=", Path::new(plan.dockerfile.file_name().unwrap_or_default())));
            let mut option = |text: String| words.extend(["--opt".into(), OsString::from(text)]);
            plan.arguments.iter().for_each(|pair| option(format!("build-arg:{pair}")));
            plan.platform.iter().for_each(|platform| option(format!("platform={platform}")));
            plan.target.iter().for_each(|target| option(format!("target={target}")));
            if plan.no_cache {
                words.push("--no-cache".into());
            }
            words.extend(output.into_iter().flat_map(|output| ["--output".into(), output]));
            words.extend(plan.rest.iter().map(OsString::from));
            return words;
        }
        match self.kind {
            Kind::Buildx => words.extend(["buildx", "build"].map(OsString::from)),
            _ => words.push("build".into()),
        }
        words.extend(["--file".into(), plan.dockerfile.clone().into_os_string()]);
        for (flag, values) in [("--tag", &plan.tags), ("--build-arg", &plan.arguments)] {
            words.extend(values.iter().flat_map(|value| [OsString::from(flag), value.into()]));
        }
        for (flag, value) in [("--platform", &plan.platform), ("--target", &plan.target)] {
            words.extend(value.iter().flat_map(|value| [OsString::from(flag), value.into()]));
        }
        if plan.no_cache {
            words.push("--no-cache".into());
        }
        match (self.kind, output) {
            (_, Some(_)) if self.stores => words.extend(["--iidfile".into(), plan.identifier.clone().into_os_string()]),
            (_, Some(output)) => words.extend(["--output".into(), output]),
            (_, None) => {}
        }
        if self.kind == Kind::Buildx && (self.stores || plan.archive.is_none()) {
            words.push("--load".into());
        }
        words.extend(plan.rest.iter().map(OsString::from));
        words.push(plan.context.clone().into_os_string());
        words
    }

    /// The command that writes what was built to the archive, where building does not; `identifier` is what was built.
    pub fn write(&self, plan: &Plan, identifier: &str) -> Option<Command> {
        let archive = plan.archive.as_ref()?;
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Buildah => command.args(["push", "--quiet", identifier]).arg(joined("oci-archive:", archive)),
            Kind::Buildx if self.stores => command.args(["save", "--output"]).arg(archive).arg(identifier),
            Kind::Podman => {
                command.args(["save", "--quiet", "--format", "oci-archive", "--output"]).arg(archive).arg(identifier)
            }
            _ => return None,
        };
        Some(command)
    }

    /// How the archive is written.
    pub fn archive_format(&self) -> Format {
        if self.kind == Kind::Buildx && self.stores { Format::DockerArchive } else { Format::OciArchive }
    }

    /// Whether it must be told that a registry speaks without TLS: the others know that of this host's own.
    pub fn wants_registries_file(&self) -> bool {
        matches!(self.kind, Kind::Buildah | Kind::Podman)
    }
}

/// The name of the builder that buildx is told to use, if it is told.
fn named_builder(rest: &[String]) -> Option<&str> {
    let at = rest.iter().position(|word| word == "--builder" || word.starts_with("--builder="))?;
    rest[at].strip_prefix("--builder=").or_else(|| rest.get(at + 1).map(String::as_str))
}

/// Whether buildx says that a builder is the one that lies in the Docker daemon.
fn is_dockers_own(inspected: &str) -> bool {
    let driver = inspected.lines().find_map(|line| line.strip_prefix("Driver:"));
    driver.is_none_or(|driver| driver.trim() == "docker")
}

/// What a file of registries has to say besides about one that speaks without TLS.
pub fn insecure_registry(address: &str) -> String {
    format!("\n[[registry]]\nlocation = \"{address}\"\ninsecure = true\n")
}

fn joined(prefix: &str, path: &Path) -> OsString {
    let mut word = OsString::from(prefix);
    word.push(path);
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(kind: Kind, archive: Option<&str>) -> String {
        let plan = Plan {
            dockerfile: "/t/Dockerfile".into(),
            context: "/c".into(),
            tags: vec!["a:1".into()],
            arguments: vec!["A=1".into()],
            platform: Some("linux/arm64".into()),
            target: Some("stage".into()),
            no_cache: true,
            archive: archive.map(PathBuf::from),
            identifier: "/t/id".into(),
            rest: vec!["--ssh=default".into()],
        };
        told(&Builder::new(kind, "x".into()), &plan)
    }

    fn told(builder: &Builder, plan: &Plan) -> String {
        let words = builder.words(plan);
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_builder_is_told_in_its_own_words() {
        let same = "--file /t/Dockerfile --tag a:1 --build-arg A=1 --platform linux/arm64 --target stage --no-cache";
        assert_eq!(words(Kind::Buildx, None), format!("buildx build {same} --load --ssh=default /c"));
        assert_eq!(
            words(Kind::Nerdctl, Some("/o")),
            format!("build {same} --output type=oci,dest=/o --ssh=default /c")
        );
        assert_eq!(words(Kind::Buildah, Some("/o")), format!("build {same} --iidfile /t/id --ssh=default /c"));
        assert_eq!(words(Kind::Podman, None), format!("build {same} --ssh=default /c"));
        assert_eq!(
            words(Kind::Buildctl, Some("/o")),
            "build --frontend dockerfile.v0 --local context=/c --local dockerfile=/t --opt filename=Dockerfile \
             --opt build-arg:A=1 --opt platform=linux/arm64 --opt target=stage --no-cache \
             --output type=oci,dest=/o --ssh=default"
        );
    }

    #[test]
    fn dockers_own_builder_is_asked_for_what_it_built() {
        let plan = Plan { archive: Some("/o".into()), identifier: "/t/id".into(), ..Plan::default() };
        let own = Builder { stores: true, ..Builder::new(Kind::Buildx, "docker".into()) };
        assert!(told(&own, &plan).contains("--iidfile /t/id --load"), "{}", told(&own, &plan));
        let save = own.write(&plan, "sha256:abc").expect("a command");
        assert_eq!(save.get_args().collect::<Vec<_>>(), ["save", "--output", "/o", "sha256:abc"]);
        assert_eq!(own.archive_format(), Format::DockerArchive);
        let other = Builder::new(Kind::Buildx, "docker".into());
        assert!(told(&other, &plan).contains("--output type=oci,dest=/o"), "{}", told(&other, &plan));
        assert!(other.write(&plan, "").is_none() && other.archive_format() == Format::OciArchive);
        assert!(is_dockers_own("Name:   default\nDriver: docker\n") && is_dockers_own(""));
        assert!(!is_dockers_own("Name: r\nDriver:        docker-container\n"));
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(named_builder(&words(&["--ssh=x", "--builder", "r"])), Some("r"));
        assert_eq!((named_builder(&words(&["--builder=r"])), named_builder(&words(&["-q"]))), (Some("r"), None));
    }

    #[test]
    fn a_builder_is_found_by_name_and_path() {
        let folder = tempfile::tempdir().expect("a directory");
        std::fs::write(folder.path().join("buildah"), "").expect("written");
        let find = |named| Builder::find(named, folder.path().as_os_str());
        assert_eq!(find(None).expect("found").kind, Kind::Buildah);
        assert_eq!(find(Some("buildah")).expect("found").name(), "buildah");
        assert_eq!(find(Some("/opt/bin/podman")).expect("a path").kind, Kind::Podman);
        assert_eq!((find(Some("podman")), find(Some("make"))), (None, None));
    }
}
