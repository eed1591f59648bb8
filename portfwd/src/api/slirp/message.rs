//! Requests and replies of the slirp4netns API, without any I/O.
//!
//! ```text
//! {"execute":"add_hostfwd","arguments":{"proto":"tcp","host_addr":"","host_port":8080,"guest_addr":"","guest_port":80}}
//!     {"return":{"id":1}}
//! {"execute":"list_hostfwd"}
//!     {"return":{"entries":[…]},"entries":[…]}
//! {"execute":"remove_hostfwd","arguments":{"id":1}}
//!     {"return":{}}
//! anything else
//!     {"error":{"desc":"bad request: …"}}
//! ```
//!
//! The list appears twice: the documentation of the original promises the first place, the program itself used the
//! second, and there are readers of both.
//!
//! Details that clients can observe, and that are kept: arguments are checked in the order proto, host_addr, host_port,
//! guest_addr, guest_port, so that of several mistakes the first is named; an absent or empty host_addr is `0.0.0.0`;
//! an absent or empty guest_addr is the guest's main address; what follows the first JSON value is ignored; a NUL byte
//! ends the text. Additions: IPv6 literals, link-local ones for host_addr with their interface (`fe80::1%eth0`), and
//! the protocols `tcp4`, `tcp6`, `udp4`, `udp6`. Numbers are refused unless they are whole and in range, a missing
//! `proto` is a bad one (both go wrong in the original).

use crate::rule::{Ports, Proto, Rule};
use crate::table::RuleId;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::num::{NonZeroU16, NonZeroU64};
use core::str::FromStr;
use serde_json::Value;
use slipway_host::scope::{Endpoint, ZonedAddr};

/// A request is smaller than this many bytes.
pub const MAX_REQUEST: usize = 4096;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// `add_hostfwd`.
    Add(Rule),
    /// `list_hostfwd`.
    List,
    /// `remove_hostfwd`.
    Remove(RuleId),
}

/// Why a client does not get it. The texts are part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not JSON.
    #[error("bad request: cannot parse JSON")]
    Json,
    /// JSON, but no object.
    #[error("bad request: json_object() failed")]
    NotAnObject,
    /// No string `execute`.
    #[error("bad request: no execute found")]
    NoExecute,
    /// A string `execute` that names nothing.
    #[error("bad request: unknown execute")]
    UnknownExecute,
    /// [`MAX_REQUEST`] bytes or more.
    #[error("bad request: too large message")]
    TooLarge,
    /// An argument of `add_hostfwd` that is missing or means nothing.
    #[error("bad request: add_hostfwd: bad arguments.{0}")]
    AddArgument(Argument),
    /// The host did not let us listen there.
    #[error("bad request: add_hostfwd: slirp_add_hostfwd failed")]
    AddFailed,
    /// `remove_hostfwd` with an id that does not exist.
    #[error("bad request: remove_hostfwd: bad arguments.id")]
    RemoveId,
}

/// An argument of `add_hostfwd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// `proto`.
    Proto,
    /// `host_addr`.
    HostAddr,
    /// `host_port`.
    HostPort,
    /// `guest_addr`.
    GuestAddr,
    /// `guest_port`.
    GuestPort,
}

impl Argument {
    const fn key(self) -> &'static str {
        match self {
            Self::Proto => "proto",
            Self::HostAddr => "host_addr",
            Self::HostPort => "host_port",
            Self::GuestAddr => "guest_addr",
            Self::GuestPort => "guest_port",
        }
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

impl Request {
    /// Reads a request from all that has arrived so far; `end` tells that no more will. `None`: incomplete as yet.
    ///
    /// # Errors
    /// What is wrong with it, in the words of the contract.
    pub fn parse(received: &[u8], end: bool) -> Option<Result<Self, Refusal>> {
        if received.len() >= MAX_REQUEST {
            return Some(Err(Refusal::TooLarge));
        }
        let text = received.split(|&byte| byte == 0).next().unwrap_or_default();
        match serde_json::Deserializer::from_slice(text).into_iter::<Value>().next() {
            Some(Ok(value)) => Some(Self::from_value(&value)),
            Some(Err(error)) if !error.is_eof() => Some(Err(Refusal::Json)),
            Some(Err(_)) | None if end => Some(Err(Refusal::Json)),
            Some(Err(_)) | None => None,
        }
    }

    fn from_value(value: &Value) -> Result<Self, Refusal> {
        let request = value.as_object().ok_or(Refusal::NotAnObject)?;
        let execute = request.get("execute").and_then(Value::as_str).ok_or(Refusal::NoExecute)?;
        let arguments = request.get("arguments").unwrap_or(&Value::Null);
        match execute {
            "add_hostfwd" => rule(arguments).map(Self::Add).map_err(Refusal::AddArgument),
            "list_hostfwd" => Ok(Self::List),
            "remove_hostfwd" => arguments
                .get("id")
                .and_then(whole_number)
                .and_then(NonZeroU64::new)
                .map(|id| Self::Remove(RuleId::from(id)))
                .ok_or(Refusal::RemoveId),
            _ => Err(Refusal::UnknownExecute),
        }
    }
}

/// The rule that the arguments of `add_hostfwd` describe, or the first argument that is wrong.
fn rule(arguments: &Value) -> Result<Rule, Argument> {
    let (proto, ipv6) = proto(arguments).ok_or(Argument::Proto)?;
    let host = host_address(arguments, ipv6)?;
    let host_port = port(arguments, Argument::HostPort)?;
    // The family is known by now if anything names it: without a host address, the guest's decides.
    let family = ipv6.or_else(|| host.map(|address| address.ip().is_ipv6()));
    let guest = guest_address(arguments, family)?;
    let guest_port = port(arguments, Argument::GuestPort)?;
    let ipv6 = family.or_else(|| guest.map(|address| address.is_ipv6())).unwrap_or(false);
    let any = if ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let guest = guest.filter(|address| !address.is_unspecified());
    let ports = Ports::single(Some(host_port), guest_port);
    Rule::new(proto, Some(host.unwrap_or_else(|| any.into())), ports, guest).map_err(|_| Argument::GuestAddr)
}

/// The protocol, and whether its name demands a family.
fn proto(arguments: &Value) -> Option<(Proto, Option<bool>)> {
    match arguments.get(Argument::Proto.key())?.as_str()? {
        "tcp" => Some((Proto::Tcp, None)),
        "tcp4" => Some((Proto::Tcp, Some(false))),
        "tcp6" => Some((Proto::Tcp, Some(true))),
        "udp" => Some((Proto::Udp, None)),
        "udp4" => Some((Proto::Udp, Some(false))),
        "udp6" => Some((Proto::Udp, Some(true))),
        _ => None,
    }
}

/// Where to listen.
fn host_address(arguments: &Value, ipv6: Option<bool>) -> Result<Option<ZonedAddr>, Argument> {
    let address: Option<ZonedAddr> = parse(arguments, Argument::HostAddr)?;
    in_family(address, ipv6, ZonedAddr::ip).ok_or(Argument::HostAddr)
}

/// Where that leads.
fn guest_address(arguments: &Value, ipv6: Option<bool>) -> Result<Option<IpAddr>, Argument> {
    let address: Option<IpAddr> = parse(arguments, Argument::GuestAddr)?;
    in_family(address.map(|ip| ip.to_canonical()), ipv6, |ip| *ip).ok_or(Argument::GuestAddr)
}

/// An address literal; `None` if it is absent, null or empty.
fn parse<T: FromStr>(arguments: &Value, argument: Argument) -> Result<Option<T>, Argument> {
    match arguments.get(argument.key()) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_str().ok_or(argument)? {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| argument),
        },
    }
}

/// `None` if it is an address of another family than `ipv6` demands.
fn in_family<T>(address: Option<T>, ipv6: Option<bool>, ip: fn(&T) -> IpAddr) -> Option<Option<T>> {
    let wrong = |address: &T| ipv6.is_some_and(|ipv6| ipv6 != ip(address).is_ipv6());
    if address.as_ref().is_some_and(wrong) { None } else { Some(address) }
}

fn port(arguments: &Value, argument: Argument) -> Result<NonZeroU16, Argument> {
    let number = arguments.get(argument.key()).and_then(whole_number).ok_or(argument)?;
    u16::try_from(number).ok().and_then(NonZeroU16::new).ok_or(argument)
}

/// A whole number however it is spelt: JSON makes no difference between `80`, `80.0` and `8e1`.
fn whole_number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64()?.to_string().parse().ok())
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The rule is in force under this id.
    Added(RuleId),
    /// Everything that is forwarded.
    Entries(Vec<Entry>),
    /// The rule is no more.
    Removed,
    /// No.
    Refused(Refusal),
}

/// One line of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The rule's id.
    pub id: RuleId,
    /// Its protocol.
    pub proto: Proto,
    /// Where we listen.
    pub host: Endpoint,
    /// Where that leads; the unspecified address if the guest's is not known yet.
    pub guest: SocketAddr,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No text in here needs escaping: addresses, numbers and our own words.
        match self {
            Self::Added(id) => write!(f, r#"{{"return":{{"id":{id}}}}}"#),
            Self::Removed => f.write_str(r#"{"return":{}}"#),
            Self::Refused(refusal) => write!(f, r#"{{"error":{{"desc":"{refusal}"}}}}"#),
            Self::Entries(entries) => {
                let list = Entries(entries);
                write!(f, r#"{{"return":{{"entries":[{list}]}},"entries":[{list}]}}"#)
            }
        }
    }
}

/// The inside of the list's brackets.
struct Entries<'a>(&'a [Entry]);

impl fmt::Display for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, Entry { id, proto, host, guest }) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            write!(
                f,
                r#"{{"id":{id},"proto":"{proto}","host_addr":"{}","host_port":{},"guest_addr":"{}","guest_port":{}}}"#,
                host.address,
                host.port,
                guest.ip(),
                guest.port(),
            )?;
        }
        Ok(())
    }
}

/// What a server that grants every wish would reply to `request`: parser and printer in one call, for fuzzing.
#[must_use]
pub fn dry_run(request: &[u8]) -> String {
    let id = RuleId::FIRST;
    let reply = match Request::parse(request, true) {
        None => Reply::Refused(Refusal::Json),
        Some(Err(refusal)) => Reply::Refused(refusal),
        Some(Ok(Request::Remove(_))) => Reply::Removed,
        Some(Ok(Request::List)) => Reply::Entries(Vec::new()),
        Some(Ok(Request::Add(rule))) => {
            let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            let address = rule.listen().unwrap_or_else(|| any.into());
            let guest = rule.target().unwrap_or(any);
            let entries = rule.ports().pairs().map(|(host_port, guest_port)| Entry {
                id,
                proto: rule.proto(),
                host: Endpoint { address, port: host_port },
                guest: SocketAddr::new(guest, guest_port.get()),
            });
            Reply::Entries(entries.collect())
        }
    };
    reply.to_string()
}

#[cfg(test)]
mod tests;
