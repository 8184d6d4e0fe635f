//! What a verb works with: the session with whoever holds the repository, the output, and the user's wish to stop.
//!
//! Imports the rest of the command. Verbs are short because of it; still nothing is decided here that another program
//! could want.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, IsTerminal as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use shipfs_image::{
    control::{
        Doctor, EventQueue, Failure, FailureKind, NetworkChoice, NodeRepository, Options, Order, Registry, Reply,
        Request, SWARM_KEY_FILE, Session, Stream, generate_swarm_key, needs_own_node, write_swarm_key,
    },
    reference::Reference,
    run::rootless::Helper,
    services::Services,
};

use crate::{
    args::{Args, ContainerdArgs, ServiceArgs},
    commands::{self, Command},
    config::Config,
    output::{Mode, Output},
    progress::{self, Screen},
    report::{self, Outcome},
    signals::Stop,
    systemd,
};

/// Threads that verbs run on. The node has its own for the network, and hashes on others.
const WORKERS: usize = 2;

/// What a verb works with.
pub(crate) struct Context {
    config: Config,
    options: Options,
    output: Output,
    session: Session<NodeRepository>,
    stop: Stop,
    /// Whether stdout carries an archive.
    stdout_is_taken: bool,
    /// What to exit with, whatever the verb's outcome.
    exit_code: Option<u8>,
}

/// Carries the command out and says what went wrong, if something did; what to exit with.
pub(crate) fn run(args: Args) -> ExitCode {
    match &args.command {
        Command::Watch(_) => return commands::watch(),
        Command::Inside(args) => return commands::inside(args),
        _ => {}
    }
    let (outcome, exit_code) = match prepared(args) {
        Ok(ended) => ended,
        Err(failure) => (Err(failure), None),
    };
    report::exit_code(&outcome, exit_code)
}

fn prepared(args: Args) -> Result<(Outcome, Option<u8>), Failure> {
    let mode = match &args.global {
        global if global.json => Mode::Json,
        global if global.quiet => Mode::Quiet,
        _ => Mode::Text,
    };
    let plain = Output { mode, colour: false, screen: Screen::new(false) };
    let config =
        Config::read(&args.global, args.command.needs_settings()).inspect_err(|failure| plain.failure(failure))?;
    let is_drawn = config.is_interactive && mode == Mode::Text;
    let output = Output { mode, colour: config.colour, screen: Screen::new(is_drawn) };
    trace(&config, &output);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(carry_out(args, config, output.clone()));
            // Not waited for: a thread may be reading from a pipe that nobody writes to any more.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(Failure::from_error(FailureKind::Other, &error).while_doing("cannot start any threads")),
    };
    match ended {
        Ok((outcome, code)) => Ok((outcome.inspect_err(|failure| output.failure(failure)), code)),
        Err(failure) => Err(failure).inspect_err(|failure| output.failure(failure)),
    }
}

async fn carry_out(args: Args, config: Config, output: Output) -> Result<(Outcome, Option<u8>), Failure> {
    let mut options =
        Options { daemon: config.daemon.clone(), private_only: config.private_only, ..args.global.options() };
    options.anchor(&config.directory);
    config.settings.complete(&mut options);
    options.services = config.services.clone();
    let stop = Stop::listen().map_err(|error| Failure::from_error(FailureKind::Other, &error))?;
    let helper = Some(Helper::this_program());
    let repository = NodeRepository { directory: config.repository.clone(), options: options.clone(), helper };
    let session = Session::new(repository);
    let mut context =
        Context { config, options, output, session, stop: stop.clone(), stdout_is_taken: false, exit_code: None };
    let outcome = tokio::select! {
        outcome = commands::run(args.command, &mut context) => outcome,
        () = stop.cut() => Err(Failure::interrupted()),
    };
    let exit_code = context.exit_code;
    context.end().await;
    Ok((outcome, exit_code))
}

fn trace(config: &Config, output: &Output) {
    let output = output.clone();
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(&config.log);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(config.colour)
        .with_writer(move || output.clone())
        .init();
}

/// Answers the clients of registries, if that was asked for, for ever.
async fn answering(registry: Option<shipfs_image::registry::Registry>, queue: &EventQueue) {
    match registry {
        Some(registry) => registry.run(queue).await,
        None => std::future::pending().await,
    }
}

/// Closes a queue however its verb ends.
struct Closing(Arc<EventQueue>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Context {
    /// Has a verb carried out and shows meanwhile what happens.
    pub(crate) async fn call(&mut self, mut request: Request) -> Result<Reply, Failure> {
        request.anchor(&self.config.directory);
        let stream = self.stream(request.stream())?;
        let queue = Arc::new(EventQueue::default());
        let showing = progress::follow(queue.clone(), self.output.clone());
        let closing = Closing(queue.clone());
        let order = Order { request, options: self.options.clone(), stream };
        let result = self.session.call(order, &*queue).await;
        drop(closing);
        // It shows the last events before anything else is printed.
        if let Err(error) = showing.await {
            tracing::error!(%error, "the progress display failed");
        }
        result
    }

    /// Takes what the user says about other programs' services.
    pub(crate) fn use_services(&mut self, services: ServiceArgs) {
        services.apply(&mut self.options.services, &self.config.directory);
    }

    /// Takes what the user says about containerd.
    pub(crate) fn use_containerd(&mut self, containerd: ContainerdArgs) {
        containerd.apply(&mut self.options.services, &self.config.directory);
    }

    /// Where other programs' services are.
    pub(crate) fn services(&self) -> &Services {
        &self.options.services
    }

    /// Says something to the user.
    pub(crate) fn say(&self, text: &str) {
        self.output.say(text);
    }

    /// Serves until the user stops it.
    pub(crate) async fn serve(&mut self, root: Reference) -> Outcome {
        let stop = self.stop.clone();
        stop.make_regular();
        tokio::select! {
            result = self.call(Request::Serve { root }) => result.map(drop),
            () = stop.told() => Ok(()),
        }
    }

    /// Refuses what only this node does, when another daemon was named.
    pub(crate) fn check_own_node(&self, what: &str, instead: &str) -> Outcome {
        needs_own_node(&self.options, what, instead)
    }

    /// Answers the clients of registries until the user stops it.
    pub(crate) async fn registry(&mut self, registry: Registry) -> Outcome {
        let stop = self.stop.clone();
        stop.make_regular();
        tokio::select! {
            result = self.call(Request::Registry(registry)) => result.map(drop),
            () = stop.told() => Ok(()),
        }
    }

    /// Holds the repository and serves until the user, or systemd, stops it; with a registry in front, if one is wanted.
    pub(crate) async fn daemon(&mut self, registry: Option<Registry>) -> Outcome {
        self.check_own_node("`daemon` runs this node", "the IPFS daemon runs by itself")?;
        let stop = self.stop.clone();
        let queue = Arc::new(EventQueue::default());
        let showing = progress::follow(queue.clone(), self.output.clone());
        let _closing = Closing(queue.clone());
        let becoming = async {
            let host = self.session.become_daemon(&*queue).await?;
            let identity = host.serve_everything(&self.options, &*queue).await?;
            Ok::<_, Failure>((host, identity))
        };
        let (host, identity) = tokio::select! {
            became = becoming => became?,
            () = stop.told() => return Err(Failure::interrupted()),
        };
        let listening = match registry {
            Some(mut registry) => {
                registry.anchor(&self.config.directory);
                Some(host.listen_registry(registry, &self.options, &*queue).await?)
            }
            None => None,
        };
        queue.close();
        if let Err(error) = showing.await {
            tracing::error!(%error, "the progress display failed");
        }
        stop.make_regular();
        self.output.ready(&identity)?;
        self.notify("READY=1");
        let queue = Arc::new(EventQueue::default());
        let showing = progress::follow(queue.clone(), self.output.clone());
        let closing = Closing(queue.clone());
        tokio::select! {
            () = stop.told() => {}
            () = answering(listening, &queue) => {}
        }
        self.notify("STOPPING=1");
        drop(closing);
        if let Err(error) = showing.await {
            tracing::error!(%error, "the progress display failed");
        }
        Ok(())
    }

    fn notify(&self, state: &str) {
        if let Some(socket) = &self.config.notify_socket
            && let Err(error) = systemd::notify(socket, state)
        {
            self.output.say(&format!("warning: cannot tell systemd `{state}`: {error}"));
        }
    }

    /// Where the repository lies.
    pub(crate) fn repository(&self) -> &Path {
        &self.config.repository
    }

    /// The directory that relative paths start from.
    pub(crate) fn directory(&self) -> &Path {
        &self.config.directory
    }

    /// Lets go of the repository, after the verbs of other processes that were taken in; a later call holds it again.
    pub(crate) fn let_go(&mut self) -> impl Future<Output = ()> + use<> {
        let (directory, options) = (self.config.repository.clone(), self.options.clone());
        let repository = NodeRepository { directory, options, helper: Some(Helper::this_program()) };
        let session = std::mem::replace(&mut self.session, Session::new(repository));
        async move {
            session.linger().await;
            session.close().await;
        }
    }

    /// The options by which another process of this program works on the same repository in the same way.
    pub(crate) fn words_for_another(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["--repo".into(), self.config.repository.clone().into()];
        if let Some(network) = self.options.network {
            let name = match network {
                NetworkChoice::Lan => "lan",
                NetworkChoice::Private => "private",
                NetworkChoice::Offline => "offline",
            };
            words.extend(["--network".into(), name.into()]);
        }
        for (flag, addresses) in [("--peer", &self.options.peers), ("--listen", &self.options.listen)] {
            words.extend(addresses.iter().flat_map(|address| [OsString::from(flag), address.into()]));
        }
        let mdns = self.options.mdns.map(|is_on| if is_on { "--mdns" } else { "--no-mdns" });
        words.extend(mdns.map(OsString::from));
        words.extend(self.options.swarm_key.iter().flat_map(|path| [OsString::from("--swarm-key"), path.into()]));
        let patience = self.options.patience.map(|patience| format!("{}ms", patience.as_millis().max(1)));
        words.extend(patience.into_iter().flat_map(|patience| ["--timeout".into(), OsString::from(patience)]));
        words
    }

    /// Decides what to exit with, whatever the verb's outcome.
    pub(crate) fn exit_with(&mut self, code: u8) {
        self.exit_code = Some(code);
    }

    /// How results are shown, and where.
    pub(crate) fn output(&self) -> &Output {
        &self.output
    }

    /// What ends verbs, or hands signals on.
    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Shows a result.
    pub(crate) fn show(&self, reply: &Reply) -> Outcome {
        self.output.reply(reply, self.stdout_is_taken)
    }

    /// Shows bytes as they are.
    pub(crate) fn show_bytes(&self, bytes: &[u8]) -> Outcome {
        self.output.data(bytes)
    }

    /// Says how others get what was pushed.
    pub(crate) async fn tell_how_to_get(&mut self, cid: &str) -> Outcome {
        if self.output.mode != Mode::Text {
            return Ok(());
        }
        if self.options.daemon.is_some() {
            self.output.say(&format!("the IPFS daemon holds it; others get it with: shipfs pull {cid}"));
            return Ok(());
        }
        let is_served = matches!(self.call(Request::Id).await, Ok(Reply::Identity(identity)) if identity.serving);
        let who = if is_served {
            "the shipfs that runs here serves it; others get it with:"
        } else {
            "nobody serves it yet: run `shipfs daemon`, or push with --serve; then others get it with:"
        };
        self.output.say(&format!("{who} shipfs pull {cid}"));
        Ok(())
    }

    /// Makes a swarm key.
    pub(crate) fn generate_key(&self, output: Option<PathBuf>) -> Outcome {
        let key = generate_swarm_key()?;
        let path = match output {
            Some(path) if path.as_os_str() == "-" => return self.output.data(key.as_bytes()),
            Some(path) => self.config.directory.join(path),
            None => self.config.repository.join(SWARM_KEY_FILE),
        };
        write_swarm_key(&path, &key)?;
        self.output.path(&path)
    }

    /// Shows which settings count, and where each comes from.
    pub(crate) fn settings(&self) -> Outcome {
        let repository = &self.config.repository;
        self.output.settings(repository, &self.config.settings.shown(repository))
    }

    /// Shows what is found when the repository cannot even be opened.
    pub(crate) fn show_without_repository(&self, failure: &Failure) -> Outcome {
        self.show(&Reply::Doctor(Doctor::without_repository(failure)))
    }

    /// Shows the version.
    pub(crate) fn version(&self) -> Outcome {
        let version = env!("CARGO_PKG_VERSION");
        match self.output.mode {
            Mode::Json => self.output.json(&serde_json::json!({ "name": "shipfs", "version": version }), false),
            Mode::Quiet => self.output.data(format!("{version}\n").as_bytes()),
            Mode::Text => self.output.data(format!("shipfs {version}\n").as_bytes()),
        }
    }

    /// The standard stream that a verb needs, for whoever carries it out.
    fn stream(&mut self, stream: Option<Stream>) -> Result<Option<File>, Failure> {
        let descriptor = match stream {
            None => return Ok(None),
            Some(Stream::Input) if io::stdin().is_terminal() => {
                return Err(Failure::new(FailureKind::Usage, "an archive is expected on stdin, which is a terminal")
                    .hint("`docker save IMAGE | shipfs push -`, or name a file"));
            }
            Some(Stream::Output) if self.config.stdout_is_terminal => {
                return Err(Failure::new(FailureKind::Usage, "an archive is not written to a terminal")
                    .hint("redirect stdout, or name a file"));
            }
            Some(Stream::Input) => io::stdin().as_fd().try_clone_to_owned(),
            Some(Stream::Output) => {
                self.stdout_is_taken = true;
                io::stdout().as_fd().try_clone_to_owned()
            }
        };
        let descriptor = descriptor.map_err(|error| Failure::from_error(FailureKind::Other, &error));
        descriptor.map(|descriptor| Some(File::from(descriptor)))
    }

    /// Waits for verbs of other processes that run here, unless told to stop, and lets go of the repository.
    async fn end(self) {
        let guests = self.session.guests();
        if guests > 0 && !self.stop.is_told() {
            self.output.say(&format!("done; {guests} other shipfs commands still work through this process"));
        }
        tokio::select! {
            () = self.session.linger() => {}
            () = self.stop.told() => {}
        }
        self.session.close().await;
    }
}
