//! A subject on stage: a fresh container with the subject's network, or the host itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use slipway_lab::{Cmd, Container, Lab, LabOptions, Link, Running, Weather};

use crate::tool::Done;

use super::account::Account;
use super::peers::Peer;
use super::prepared::Prepared;

const START: Duration = Duration::from_secs(10);

/// How the stage is set for a test.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variation {
    pub(crate) mtu: u32,
    /// The guest's congestion control is BBR; with weather, that of host and world is, too.
    pub(crate) bbr: bool,
    pub(crate) tuned: bool,
    /// The link between host and world, when it is not the veth.
    pub(crate) weather: Option<Weather>,
    /// What leads into the container, and how that can change. slirp4netns has the one port always.
    pub(crate) ports: Ports,
}

/// The ports of a subject with pasta's command line. None of them leads out of the container but with [`Ports::Auto`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// [`PUBLISHED`], over TCP and UDP.
    One,
    /// The same, and a control socket by which others come and go; ours alone has it.
    Ruled,
    /// None at all.
    None,
    /// Whatever somebody listens on, on either side.
    Auto,
}

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Subject {
    /// Ours, in the role of slirp4netns unless another is asked for.
    Slipway,
    /// Another build of ours, to compare with.
    Before,
    /// The original.
    Slirp4netns,
    /// passt's namespace mode.
    Pasta,
    /// No container: the kernel's own path between host and world.
    Host,
}

/// Under which name ours is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Role {
    /// As slirp4netns, with that one's command line.
    #[default]
    Slirp4netns,
    /// As pasta, with that one's.
    Pasta,
}

impl Role {
    /// The sub-command.
    fn name(self) -> &'static str {
        match self {
            Self::Slirp4netns => Subject::Slirp4netns.name(),
            Self::Pasta => Subject::Pasta.name(),
        }
    }

    /// What tables and charts of this role are marked with in front.
    pub(crate) fn mark(self) -> &'static str {
        match self {
            Self::Slirp4netns => "",
            Self::Pasta => "pasta-",
        }
    }
}

impl Subject {
    /// The column's head.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Slipway => "slipway",
            Self::Before => "before",
            Self::Slirp4netns => "slirp4netns",
            Self::Pasta => "pasta",
            Self::Host => "host itself",
        }
    }

    /// Whether it is a rival (and not ours or the host).
    pub(crate) fn is_peer(self) -> bool {
        matches!(self, Self::Slirp4netns | Self::Pasta)
    }
}

/// Where the subjects appear: the namespaces, and the words that start each of them there.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) lab: Lab,
    words: Vec<(Subject, Vec<String>)>,
    link: Option<PathBuf>,
    role: Role,
}

impl Ground {
    /// Makes the namespaces, with builds of ours, the peers, and the lab's own client and server in them.
    pub(crate) fn new(
        ours: &[(Subject, PathBuf)],
        peers: &[(Subject, Peer)],
        prepared: &Prepared,
        role: Role,
    ) -> Done<Self> {
        let mut programs = vec![("slipway-lab-peer".to_owned(), prepared.client.clone())];
        programs.extend(ours.iter().map(|(subject, path)| (subject.name().to_owned(), path.clone())));
        programs.extend(peers.iter().map(|(_, peer)| peer.shown()));
        let options = LabOptions { programs, congestion: Some("cubic".to_owned()), tree: None };
        let lab =
            Lab::new(&options).or_else(|_| Lab::new(&LabOptions { congestion: None, ..options.clone() }));
        let lab = lab.map_err(|error| format!("cannot make the bench's namespaces: {error}"))?;
        // One binary: the sub-command chooses the role.
        let ours = ours
            .iter()
            .map(|(subject, _)| (*subject, vec![lab.program(subject.name()), role.name().to_owned()]));
        let peers = peers
            .iter()
            .map(|(subject, peer)| (*subject, peer.words(Path::new(&lab.program(peer.shown().0.as_str())))));
        let words = ours.chain(peers).collect();
        Ok(Self { lab, words, link: prepared.link.clone(), role })
    }

    /// Whether a subject takes pasta's command line.
    fn is_pasta(&self, subject: Subject) -> bool {
        match subject {
            Subject::Pasta => true,
            Subject::Slirp4netns | Subject::Host => false,
            Subject::Slipway | Subject::Before => self.role == Role::Pasta,
        }
    }

    /// What starts a subject; nothing does the host itself.
    pub(crate) fn words(&self, subject: Subject) -> Option<&[String]> {
        self.words.iter().find(|(of, _)| *of == subject).map(|(_, words)| words.as_slice())
    }
}

/// A subject that is ready to work; everything goes when this does.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) lab: &'a Lab,
    pub(crate) subject: Subject,
    pub(crate) variation: Variation,
    // The subject ends before its container.
    pub(crate) process: Option<Running>,
    pub(crate) container: Option<Container>,
    link: Option<Link>,
}

impl<'a> Stage<'a> {
    /// Sets a subject up.
    pub(crate) fn new(ground: &'a Ground, subject: Subject, variation: Variation) -> Done<Self> {
        let lab = &ground.lab;
        let wmem = if variation.tuned { "4096 262144 33554432" } else { "4096 16384 4194304" };
        let tune = format!("echo {wmem} > /proc/sys/net/ipv4/tcp_wmem");
        lab.host_root(["sh", "-c", &tune]).ok(START).map_err(said)?;
        let mut stage = Self { ground, lab, subject, variation, process: None, container: None, link: None };
        let name = if variation.bbr { "bbr" } else { "cubic" };
        let congestion = format!("echo {name} > /proc/sys/net/ipv4/tcp_congestion_control");
        if let Some(weather) = variation.weather {
            let program = ground.link.as_deref().ok_or("the link's program was not built")?;
            stage.link = Some(lab.weather(program, weather).map_err(said)?);
            lab.host_root(["sh", "-c", &congestion]).ok(START).map_err(said)?;
            lab.world(["sh", "-c", &congestion]).ok(START).map_err(said)?;
        }
        let Some(words) = ground.words(subject) else { return Ok(stage) };
        let container = lab.container().map_err(said)?;
        let chosen = container.sh(&format!("{congestion} && {tune}")).map_err(said)?;
        if !chosen.success() {
            return Err(format!("the container's kernel: {chosen}"));
        }
        let start = if ground.is_pasta(subject) { pasta } else { slirp };
        let process = start(lab, &container, words, variation)?;
        stage.process = Some(process);
        stage.container = Some(container);
        Ok(stage)
    }

    /// A command where the work is done: in the container, or on the host for the host itself.
    pub(crate) fn guest(&self, argv: &[&str]) -> Cmd {
        match &self.container {
            Some(container) => container.cmd(argv),
            None => self.lab.host(argv),
        }
    }

    /// Resident memory of the subject, in KiB.
    pub(crate) fn resident(&self) -> Done<f64> {
        self.account()?.resident()
    }

    /// What the kernel keeps of the subject's process.
    pub(crate) fn account(&self) -> Done<Account> {
        let pid = self.process.as_ref().map(Running::pid).ok_or("the host itself has no process")?;
        Ok(Account(pid))
    }
}

/// The container port that every subject publishes, for TCP and UDP.
pub(crate) const PUBLISHED: u16 = 9001;
/// The control socket of [`Ports::Ruled`], in the lab's home.
pub(crate) const CONTROL: &str = "control.sock";

fn slirp(lab: &Lab, container: &Container, words: &[String], variation: Variation) -> Done<Running> {
    let script = r#"ulimit -n $(ulimit -Hn); cd "$HOME"; rm -f api.sock; exec "$@""#;
    let mut process = lab
        .host(["sh", "-c", script, "sh"])
        .args(words)
        .args(["-c", "-e", "0", "-r", "1", "--api-socket=api.sock"])
        .args([format!("--mtu={}", variation.mtu), container.pid().to_string(), "tap0".to_owned()])
        .start()
        .map_err(said)?;
    process.until(START, |running| running.stdout().ends_with('1')).map_err(said)?;
    for proto in ["tcp", "udp"] {
        let request = format!(
            r#"{{"execute":"add_hostfwd","arguments":{{"proto":"{proto}","host_addr":"0.0.0.0","host_port":{PUBLISHED},"guest_addr":"10.0.2.100","guest_port":{PUBLISHED}}}}}"#
        );
        let reply = slipway_lab::api(&lab.home().join("api.sock"), request.as_bytes()).map_err(said)?;
        if !reply.contains("\"id\"") {
            return Err(format!("add_hostfwd: {reply}"));
        }
    }
    Ok(process)
}

fn pasta(lab: &Lab, container: &Container, words: &[String], variation: Variation) -> Done<Running> {
    let script = r#"ulimit -n $(ulimit -Hn); cd "$HOME"; rm -f control.sock; exec "$@""#;
    let (mtu, published) = (variation.mtu.to_string(), PUBLISHED.to_string());
    let (inward, outward) = match variation.ports {
        Ports::One | Ports::Ruled => (published.as_str(), "none"),
        Ports::None => ("none", "none"),
        Ports::Auto => ("auto", "auto"),
    };
    let control = ["--control", CONTROL];
    let control = if variation.ports == Ports::Ruled { &control[..] } else { &[] };
    let mut process = lab
        .host(["sh", "-c", script, "sh"])
        .args(words)
        .args(["-f", "-q", "--config-net", "--no-map-gw", "-m", &mtu])
        .args(["-t", inward, "-u", inward, "-T", outward, "-U", outward])
        .args(control)
        .args([container.pid().to_string()])
        .start()
        .map_err(said)?;
    process
        .until(START, |_| {
            container.sh("ip -4 route show default").is_ok_and(|shown| shown.out().contains("default"))
        })
        .map_err(said)?;
    Ok(process)
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
