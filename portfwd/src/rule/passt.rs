//! The grammar of pasta's and passt's port options, `-t`, `-u`, `-T` and `-U`, and of the same options of pesto.
//!
//! ```text
//! SPEC    = none | [LISTEN/]CHUNK[,CHUNK...]
//! LISTEN  = [*][%IFACE] | ADDR[%IFACE]
//! CHUNK   = all[:ADDR] | auto | ~RANGE | RANGE[:TARGET]
//! TARGET  = ADDR/RANGE | ADDR | RANGE
//! RANGE   = N | N-M
//! ```
//!
//! `ADDR` is of either family, an IPv6 address in brackets or not: what stands before the first slash is `LISTEN` if it
//! reads as one. `~` takes listening ports out of every chunk of its SPEC. A SPEC that names no port to open (`all`,
//! `auto`, `~25`) means every port but the ephemeral ones and those taken out, *weakly*: what cannot be had is done
//! without. `auto` says of the whole SPEC that its ports are open while somebody listens across.
//!
//! A SPEC becomes [`Draft`]s, one for each run of ports, each of which becomes a [`Rule`] or is refused in the words of
//! the original, which callers read. [`RuleSet`] is what a table of such rules may hold. Our own narrowing: an
//! interface is called what [`Zone`] takes for a name, and a link-local address to listen on comes with its
//! interface, without which no socket could be bound.

mod draft;
mod set;

pub use draft::{Capabilities, Draft, MAX_RULES, MAX_SOCKETS, Reason, Refusal, Verb};
pub use set::{Forwards, RuleSet};

use super::{Proto, Rule};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use slipway_host::inside::Side;
use slipway_host::scope::Zone;

/// What a SPEC is read with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// What rules may ask for.
    pub can: Capabilities,
    /// The first and the last ephemeral port, see [`slipway_host::ports::ephemeral_range`].
    pub ephemeral: (u16, u16),
}

/// What a SPEC says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spec {
    /// `none`; there are no rules then.
    pub none: bool,
    /// The rules, in the order of the chunks; none if everything was taken out.
    pub rules: Vec<Rule>,
    /// What is not quite as asked, for the log.
    pub warning: Option<String>,
}

/// Why a SPEC cannot be had. The texts are those of the original; some have several lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It is not of the grammar. What stands before the slash is left out if that was understood.
    #[error("Invalid port specifier '{0}'")]
    Specifier(String),
    /// `-T` and `-U` listen on the namespace's loopback.
    #[error("Listening address not allowed for -{0} {1}")]
    ListenNotAllowed(char, String),
    /// Nothing can be looked at across.
    #[error("'auto' port forwarding is only allowed for pasta")]
    Auto,
    /// The kernel keeps SO_BINDTODEVICE to CAP_NET_RAW.
    #[error("Device binding for '-{0} {1}' unsupported (requires kernel 5.7+)")]
    Device(char, String),
    /// `none` after rules of its kind.
    #[error("-{0} none conflicts with previous options")]
    NoneConflict(char),
    /// Of the grammar, but no rule.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// The protocol of one of the options `t`, `u`, `T`, `U`.
#[must_use]
pub const fn proto_of(option: char) -> Proto {
    if option.eq_ignore_ascii_case(&'u') { Proto::Udp } else { Proto::Tcp }
}

/// The side that one of the options `t`, `u`, `T`, `U` is about.
#[must_use]
pub const fn side_of(option: char) -> Side {
    if option.is_ascii_uppercase() { Side::Namespace } else { Side::Host }
}

/// Reads the SPEC of an option `t`, `u`, `T` or `U`.
///
/// # Errors
/// What is wrong with it, in the original's words.
pub fn parse(option: char, spec: &str, context: &Context) -> Result<Spec, ParseError> {
    if spec == "none" {
        return Ok(Spec { none: true, ..Spec::default() });
    }
    let before = spec.split_once('/').and_then(|(listen, rest)| Some((Listen::parse(listen)?, rest)));
    let (listen, list) = match before {
        None => (Listen::default(), spec),
        Some(_) if side_of(option) == Side::Namespace => {
            return Err(ParseError::ListenNotAllowed(option, spec.to_owned()));
        }
        Some((listen, list)) => (listen, list),
    };
    let chunks: Option<Vec<Chunk>> = list.split(',').map(Chunk::parse).collect();
    let chunks = chunks.ok_or_else(|| ParseError::Specifier(list.to_owned()))?;
    if chunks.contains(&Chunk::Auto) && !context.can.scan {
        return Err(ParseError::Auto);
    }
    if listen.interface.is_some() && !context.can.interface {
        return Err(ParseError::Device(option, spec.to_owned()));
    }
    let (places, warning) = match side_of(option) {
        Side::Host => (vec![listen], None),
        Side::Namespace => loopback(option, spec, context.can),
    };
    let runs = runs(&chunks, context.ephemeral);
    let mut rules = Vec::new();
    for place in places {
        for &Run { first, last, to, target, weak } in &runs {
            let scan = chunks.contains(&Chunk::Auto);
            let Listen { address, interface } = place;
            let proto = proto_of(option);
            let draft = Draft { proto, listen: address, interface, first, last, to, target, weak, scan };
            let rule = draft.check(side_of(option), context.can);
            rules.push(rule.map_err(|reason| draft.refused(Verb::Add, reason))?);
            // Beyond the most that a table holds there is nothing to wait for.
            if rules.len() > MAX_RULES {
                return Err(draft.refused(Verb::Add, Reason::TooManyRules).into());
            }
        }
    }
    Ok(Spec { none: false, rules, warning })
}

/// Where `-T` and `-U` listen: on the interface, or else on its addresses.
fn loopback(option: char, spec: &str, can: Capabilities) -> (Vec<Listen>, Option<String>) {
    if can.interface {
        return (vec![Listen { address: None, interface: Zone::new("lo") }], None);
    }
    let v4 = can.ipv4.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let v6 = can.ipv6.then_some(IpAddr::V6(Ipv6Addr::LOCALHOST));
    let places = [v4, v6].into_iter().flatten();
    let warning =
        format!("SO_BINDTODEVICE unavailable, forwarding only 127.0.0.1 and ::1 for '-{option} {spec}'");
    (places.map(|address| Listen { address: Some(address), interface: None }).collect(), Some(warning))
}

/// What stands before the slash.
#[derive(Debug, Clone, Copy, Default)]
struct Listen {
    /// `None`: any, of both families.
    address: Option<IpAddr>,
    interface: Option<Zone>,
}

impl Listen {
    fn parse(text: &str) -> Option<Self> {
        let (place, interface) = match text.split_once('%') {
            None => (text, None),
            Some((place, name)) => (place, Some(Zone::new(name)?)),
        };
        let address = if matches!(place, "" | "*") { None } else { Some(address(place)?) };
        Some(Self { address, interface })
    }
}

/// What stands between commas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    All(Option<IpAddr>),
    Auto,
    Except(u16, u16),
    Ports { first: u16, last: u16, target: Option<IpAddr>, to: u16 },
}

impl Chunk {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => return Some(Self::Auto),
            "all" => return Some(Self::All(None)),
            _ => {}
        }
        if let Some(target) = text.strip_prefix("all:") {
            return Some(Self::All(known(address(target)?)));
        }
        if let Some(except) = text.strip_prefix('~') {
            return range(except).map(|(first, last)| Self::Except(first, last));
        }
        let Some((listen, target)) = text.split_once(':') else {
            let (first, last) = range(text)?;
            return Some(Self::Ports { first, last, target: None, to: first });
        };
        let (first, last) = range(listen)?;
        let (target, ports) = match target.split_once('/') {
            Some((place, ports)) => (Some(address(place)?), Some(ports)),
            None => match address(target) {
                Some(place) => (Some(place), None),
                None => (None, Some(target)),
            },
        };
        let (to, end) = ports.map_or(Some((first, last)), range)?;
        let target = target.and_then(known);
        (end - to == last - first).then_some(Self::Ports { first, last, target, to })
    }
}

/// The unspecified address is no target: the guest's own is meant.
fn known(address: IpAddr) -> Option<IpAddr> {
    Some(address).filter(|address| !address.is_unspecified())
}

fn address(text: &str) -> Option<IpAddr> {
    let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inside.unwrap_or(text).parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// As strtoul(3) reads it: white space and a plus sign may stand before the digits (`-t '80, 81'`).
fn number(text: &str) -> Option<u16> {
    let text = text.trim_ascii_start();
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Listening ports in a row, and where they lead.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: u16,
    last: u16,
    to: u16,
    target: Option<IpAddr>,
    weak: bool,
}

/// The ports that the chunks open, less those that they take out.
fn runs(chunks: &[Chunk], ephemeral: (u16, u16)) -> Vec<Run> {
    let mut taken: Vec<(u16, u16)> = chunks
        .iter()
        .filter_map(|chunk| if let Chunk::Except(first, last) = *chunk { Some((first, last)) } else { None })
        .collect();
    let wanted: Vec<Run> = chunks
        .iter()
        .filter_map(|chunk| {
            let Chunk::Ports { first, last, target, to } = *chunk else { return None };
            Some(Run { first, last, to, target, weak: false })
        })
        .collect();
    if wanted.is_empty() {
        let all =
            chunks.iter().rev().find_map(|chunk| if let Chunk::All(to) = chunk { Some(*to) } else { None });
        taken.push(ephemeral);
        taken.sort_unstable();
        return left(Run { first: 1, last: u16::MAX, to: 1, target: all.flatten(), weak: true }, &taken)
            .collect();
    }
    taken.sort_unstable();
    wanted.into_iter().flat_map(|run| left(run, &taken)).take(MAX_RULES + 1).collect()
}

/// What is left of a run without the ports in `taken`, which is sorted.
fn left(run: Run, taken: &[(u16, u16)]) -> impl Iterator<Item = Run> {
    let mut next = u32::from(run.first);
    let last = u32::from(run.last);
    // Behind the last port something is taken, too: it ends the last run.
    let end = core::iter::once((last + 1, last + 1));
    let taken = taken.iter().map(|&(first, end)| (u32::from(first), u32::from(end)));
    taken.chain(end).filter_map(move |(first, end)| {
        let (begin, stop) = (next, first.min(last + 1));
        next = next.max(end + 1);
        let more = stop.checked_sub(begin)?.checked_sub(1)?;
        let offset = u16::try_from(begin).ok()?.checked_sub(run.first)?;
        let more = u16::try_from(more).ok()?;
        let first = run.first.checked_add(offset)?;
        Some(Run { first, last: first.checked_add(more)?, to: run.to.checked_add(offset)?, ..run })
    })
}

#[cfg(test)]
mod tests;
