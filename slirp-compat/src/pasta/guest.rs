//! Where the guest of `pasta` or `passt` is: a namespace, by command, process or path, or a virtual machine.

use super::args::{LowArgs, Pair, Stop};
use super::table::Key;
use super::values::refuse;
use slipway_netstack::addr::MacAddr;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Who the guest's namespace belongs to, or what there is to start in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A namespace of its own, for this command; without words the user's shell.
    Command(Vec<OsString>),
    /// That of this process.
    Pid(u32),
    /// The one that is bound to this path.
    Path(PathBuf),
}

impl Place {
    /// The file that stands for the network namespace; none if it has yet to be made.
    #[must_use]
    pub fn netns(&self) -> Option<PathBuf> {
        match self {
            Self::Command(_) => None,
            Self::Pid(pid) => Some(format!("/proc/{pid}/ns/net").into()),
            Self::Path(path) => Some(path.clone()),
        }
    }
}

/// The user namespace from which the network namespace is made or entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Userns {
    /// A new one.
    New,
    /// The one in which we are.
    Ours,
    /// This one.
    Join(PathBuf),
}

/// What `--config-net` does beyond what follows from the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configure {
    /// Whether all addresses of the template interface are copied of IPv4, and of IPv6.
    pub copy_addresses: [bool; 2],
    /// Whether all its routes are.
    pub copy_routes: [bool; 2],
}

/// A guest in a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Where.
    pub place: Place,
    /// From which user namespace.
    pub userns: Userns,
    /// Whether a command has a PID namespace of its own.
    pub pidns: bool,
    /// Whether we end when the path of the namespace is gone.
    pub quit: bool,
    /// The interface's name, if not that of the template interface.
    pub tap: Option<String>,
    /// Its MAC address, if not the kernel's choice.
    pub tap_mac: Option<MacAddr>,
    /// Whether and how it is configured.
    pub configure: Option<Configure>,
}

/// Where the helper for migrations would be spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// At the path of the socket, and `.repair`.
    Beside,
    /// Nowhere.
    Nowhere,
    /// Here.
    At(PathBuf),
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Whether its memory is shared with us.
    pub vhost_user: bool,
    /// Where it connects, if not at the first free default path (or by [`super::config::Config::fd`]).
    pub socket: Option<PathBuf>,
    /// `--repair-path`.
    pub repair: Repair,
    /// `--migrate-exit`: accepted, without effect.
    pub migrate_exit: bool,
    /// `--migrate-no-linger`: accepted, without effect.
    pub migrate_no_linger: bool,
}

/// Where the guest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guest {
    /// `pasta`.
    Namespace(Namespace),
    /// `passt`.
    Machine(Machine),
}

/// Whether there is a command to start, to which the terminal belongs.
pub(super) const fn is_command(guest: &Guest) -> bool {
    matches!(guest, Guest::Namespace(Namespace { place: Place::Command(_), .. }))
}

/// The namespace that the options name.
pub(super) fn namespace(low: &LowArgs) -> Result<Namespace, Stop> {
    let place = place(low)?;
    let pidns = !low.switches.has(Key::NoPidns);
    if !pidns && !matches!(place, Place::Command(_)) {
        return refuse("--no-pidns is incompatible with PID or --netns".to_owned());
    }
    // With a process goes its user namespace, whatever --netns-only says; with a path none; a command gets one of its
    // own.
    let userns = match (&low.userns, &place) {
        (Some(path), _) => Userns::Join(path.clone()),
        (None, Place::Pid(pid)) => Userns::Join(format!("/proc/{pid}/ns/user").into()),
        (None, Place::Command(_)) if !low.netns_only => Userns::New,
        _ => Userns::Ours,
    };
    let copy = |key, pair: Pair| {
        let all = !low.switches.has(key);
        [all && pair.v4.is_none(), all && pair.v6.is_none()]
    };
    let configure = Configure {
        copy_addresses: copy(Key::NoCopyAddrs, low.address),
        copy_routes: copy(Key::NoCopyRoutes, low.gateway),
    };
    Ok(Namespace {
        place,
        userns,
        pidns,
        quit: !low.switches.has(Key::NoNetnsQuit),
        tap: low.tap.clone(),
        tap_mac: low.tap_mac,
        configure: low.switches.has(Key::ConfigNet).then_some(configure),
    })
}

/// A lone number is a process, anything else a command.
fn place(low: &LowArgs) -> Result<Place, Stop> {
    if let Some(netns) = &low.netns {
        if !low.positionals.is_empty() {
            return refuse("Both --netns and PID or command given".to_owned());
        }
        let named = !netns.as_os_str().as_bytes().contains(&b'/');
        return Ok(Place::Path(if named { Path::new("/run/netns").join(netns) } else { netns.clone() }));
    }
    let [word] = low.positionals.as_slice() else { return Ok(Place::Command(low.positionals.clone())) };
    let digits = match word.as_bytes() {
        [b'-' | b'+', digits @ ..] | digits => digits,
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Ok(Place::Command(vec![word.clone()]));
    }
    let pid =
        word.to_str().and_then(|word| word.parse::<u32>().ok()).filter(|pid| i32::try_from(*pid).is_ok());
    pid.map_or_else(|| refuse(format!("Invalid PID {}", word.to_string_lossy())), |pid| Ok(Place::Pid(pid)))
}

/// The machine that the options describe.
pub(super) fn machine(low: &LowArgs, vhost_user: bool) -> Result<Machine, Stop> {
    if let Some(word) = low.positionals.first() {
        return refuse(format!("Extra non-option argument: {}", word.to_string_lossy()));
    }
    let repair = match &low.repair {
        None => Repair::Beside,
        Some(path) if path.as_os_str().is_empty() => Repair::Nowhere,
        Some(path) => Repair::At(path.clone()),
    };
    Ok(Machine {
        vhost_user,
        socket: low.socket.clone(),
        repair,
        migrate_exit: low.switches.has(Key::MigrateExit),
        migrate_no_linger: low.switches.has(Key::MigrateNoLinger),
    })
}
