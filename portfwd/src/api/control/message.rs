//! Requests and replies of the control socket, without any I/O: one JSON object is one packet (docs/control.md).
//!
//! ```text
//! {"execute":"add","arguments":{"rules":[RULE,...]}}         {"return":{"ids":[[1],[2,3]]}}
//! {"execute":"replace","arguments":{"rules":[RULE,...]}}     {"return":{"ids":[[1],[2,3]]}}
//! {"execute":"remove","arguments":{"ids":[1,2]}}             {"return":{}}
//! {"execute":"list","arguments":{"after":0}}                 {"return":{"rules":[...],"more":false}}
//! {"execute":"connections","arguments":{"after":0}}          {"return":{"connections":[...],"more":false}}
//! anything else                                              {"error":"...","errno":22}
//! ```
//!
//! A rule is an object of fields, or an option of pasta with its SPEC, which may mean several rules. A key that is not
//! known is refused: where `listen` is misspelt, a port would be open to everybody. Bounds are checked before memory is
//! taken; JSON has its own on depth (serde_json's).

use crate::forwarder::Connection;
use crate::rule::Rule;
use crate::rule::passt::{Context, Draft, Verb, parse};
use crate::rule::{Proto, passt};
use crate::table::{Info, RuleId};
use core::net::IpAddr;
use core::num::NonZeroU64;
use nix::errno::Errno;
use serde_json::{Map, Value, json};
use slipway_host::inside::Side;
use slipway_host::scope::Zone;
use slipway_host::splice;

/// A request has at most this many bytes.
pub const MAX_REQUEST: usize = 64 << 10;
/// Rules of one request: as many as both tables hold.
pub const MAX_BATCH: usize = 2 * passt::MAX_RULES;
/// Rules of one reply.
pub const MAX_LISTED: usize = 100;
/// Connections of one reply.
pub const MAX_CONNECTIONS: usize = 250;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// These rules, too; each entry of the request is one or several rules.
    Add(Vec<Vec<Rule>>),
    /// These rules and no others.
    Replace(Vec<Vec<Rule>>),
    /// These no more.
    Remove(Vec<RuleId>),
    /// Those with an id above this one.
    List(u64),
    /// Connections and conversations with an id above this one.
    Connections(u64),
}

/// Why a client does not get it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// What to do about it; may have several lines.
    pub text: String,
    /// The kernel's number, or the one that it would have for this.
    pub errno: Errno,
    /// Which entry of the request is to blame, counted from 0.
    pub entry: Option<usize>,
}

impl Refusal {
    /// A request that makes no sense.
    #[must_use]
    pub fn bad(text: impl Into<String>) -> Self {
        Self { text: text.into(), errno: Errno::EINVAL, entry: None }
    }

    /// As a reply.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut reply = json!({ "error": self.text, "errno": self.errno as i32 });
        if let (Some(entry), Some(map)) = (self.entry, reply.as_object_mut()) {
            map.insert("entry".to_owned(), entry.into());
        }
        reply.to_string()
    }
}

impl Request {
    /// Reads a packet.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(packet: &[u8], context: &Context) -> Result<Self, Refusal> {
        if packet.len() > MAX_REQUEST {
            return Err(Refusal::bad(format!("a request has at most {MAX_REQUEST} bytes")));
        }
        let value: Value = serde_json::from_slice(packet)
            .map_err(|error| Refusal::bad(format!("the request is no JSON: {error}")))?;
        let request = Fields::of(&value, "the request", &["execute", "arguments"])?;
        let execute = request.text("execute")?.unwrap_or_default();
        let nothing = json!({});
        let arguments = request.get("arguments").unwrap_or(&nothing);
        let arguments = |keys| Fields::of(arguments, "arguments", keys);
        match execute {
            "add" => Ok(Self::Add(rules(&arguments(&["rules"])?, context)?)),
            "replace" => Ok(Self::Replace(rules(&arguments(&["rules"])?, context)?)),
            "remove" => {
                let arguments = arguments(&["ids"])?;
                let id = |value: &Value| value.as_u64().and_then(NonZeroU64::new).map(RuleId::from);
                let ids = arguments.list("ids")?.iter().map(id).collect::<Option<Vec<_>>>();
                ids.map(Self::Remove).ok_or_else(|| Refusal::bad("ids are numbers from 1 on"))
            }
            "list" => Ok(Self::List(after(&arguments(&["after"])?)?)),
            "connections" => Ok(Self::Connections(after(&arguments(&["after"])?)?)),
            _ => Err(Refusal::bad("execute is one of add, replace, remove, list, connections")),
        }
    }
}

/// The members of an object, all of which are known.
struct Fields<'a> {
    map: &'a Map<String, Value>,
    name: &'static str,
}

impl<'a> Fields<'a> {
    fn of(value: &'a Value, name: &'static str, keys: &[&str]) -> Result<Self, Refusal> {
        let map = value.as_object().ok_or_else(|| Refusal::bad(format!("{name} must be an object")))?;
        match map.keys().find(|key| !keys.contains(&key.as_str())) {
            // Not repeated: it may be 64 KiB of anything.
            Some(_) => Err(Refusal::bad(format!("{name} has an unknown key: known are {}", keys.join(", ")))),
            None => Ok(Self { map, name }),
        }
    }

    /// A member; null is as good as none.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &str) -> Refusal {
        Refusal::bad(format!("{key} of {} must be {expected}", self.name))
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, Refusal> {
        let text = |value: &'a Value| value.as_str().ok_or_else(|| self.wrong(key, "a string"));
        self.get(key).map(text).transpose()
    }

    fn flag(&self, key: &str) -> Result<bool, Refusal> {
        let flag = |value: &Value| value.as_bool().ok_or_else(|| self.wrong(key, "true or false"));
        self.get(key).map_or(Ok(false), flag)
    }

    fn list(&self, key: &str) -> Result<&'a [Value], Refusal> {
        let list = self.get(key).and_then(Value::as_array).ok_or_else(|| self.wrong(key, "a list"))?;
        if list.len() > MAX_BATCH {
            return Err(self.wrong(key, &format!("no longer than {MAX_BATCH}")));
        }
        Ok(list)
    }
}

/// The id behind which a list goes on.
fn after(arguments: &Fields<'_>) -> Result<u64, Refusal> {
    arguments.get("after").map_or(Some(0), Value::as_u64).ok_or_else(|| Refusal::bad("after is an id"))
}

fn rules(arguments: &Fields<'_>, context: &Context) -> Result<Vec<Vec<Rule>>, Refusal> {
    let list = arguments.list("rules")?.iter().enumerate();
    let entry = |(at, value)| entry(value, context).map_err(|refusal| Refusal { entry: Some(at), ..refusal });
    list.map(entry).collect()
}

/// One entry of a list of rules.
fn entry(value: &Value, context: &Context) -> Result<Vec<Rule>, Refusal> {
    if value.get("spec").is_none() {
        return rule(value, context).map(|rule| vec![rule]);
    }
    let fields = Fields::of(value, "a rule with spec", &["option", "spec"])?;
    let option = match fields.text("option")?.unwrap_or("t") {
        "t" => 't',
        "u" => 'u',
        "T" => 'T',
        "U" => 'U',
        _ => return Err(fields.wrong("option", "one of t, u, T, U")),
    };
    let spec = parse(option, fields.text("spec")?.unwrap_or_default(), context);
    spec.map(|spec| spec.rules).map_err(|error| Refusal::bad(error.to_string()))
}

const KEYS: [&str; 9] =
    ["side", "proto", "listen", "interface", "ports", "to", "target", "best_effort", "auto"];

fn rule(value: &Value, context: &Context) -> Result<Rule, Refusal> {
    let fields = Fields::of(value, "a rule", &KEYS)?;
    let side = match fields.text("side")? {
        None | Some("host") => Side::Host,
        Some("namespace") => Side::Namespace,
        Some(_) => return Err(fields.wrong("side", "host or namespace")),
    };
    let proto = match fields.text("proto")? {
        None | Some("tcp") => Proto::Tcp,
        Some("udp") => Proto::Udp,
        Some(_) => return Err(fields.wrong("proto", "tcp or udp")),
    };
    let address = |key: &str| -> Result<Option<IpAddr>, Refusal> {
        let text = fields.text(key)?;
        let address = text.map(|text| text.parse::<IpAddr>().map_err(|_| fields.wrong(key, "an IP address")));
        Ok(address.transpose()?.map(|address| address.to_canonical()))
    };
    let interface = fields
        .text("interface")?
        .map(|name| Zone::new(name).ok_or_else(|| fields.wrong("interface", "the name of an interface")));
    let (first, last) = ports(&fields)?;
    let to = match fields.get("to") {
        None => first,
        Some(to) => port(to).ok_or_else(|| fields.wrong("to", "a port"))?,
    };
    let draft = Draft {
        proto,
        listen: address("listen")?,
        interface: interface.transpose()?,
        first,
        last,
        to,
        target: address("target")?.filter(|target| !target.is_unspecified()),
        weak: fields.flag("best_effort")?,
        scan: fields.flag("auto")?,
    };
    if draft.scan && !context.can.scan {
        return Err(Refusal::bad(passt::ParseError::Auto.to_string()));
    }
    if draft.interface.is_some() && !context.can.interface {
        return Err(Refusal::bad("sockets cannot be bound to an interface (requires kernel 5.7+)"));
    }
    let rule = draft.check(side, context.can);
    rule.map_err(|reason| Refusal::bad(draft.refused(Verb::Add, reason).to_string()))
}

/// A port, or a pair of the first and the last.
fn ports(fields: &Fields<'_>) -> Result<(u16, u16), Refusal> {
    let pair = match fields.get("ports") {
        Some(Value::Array(pair)) => match pair.as_slice() {
            [first, last] => port(first).zip(port(last)),
            _ => None,
        },
        Some(one) => port(one).map(|one| (one, one)),
        None => None,
    };
    pair.ok_or_else(|| fields.wrong("ports", "a port, or a list of the first and the last"))
}

fn port(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok())
}

/// A rule as an object that is read as the same rule.
#[must_use]
pub fn object(rule: &Rule) -> Value {
    let Draft { proto, listen, interface, first, last, to, target, weak, scan } = Draft::from(rule);
    json!({
        "side": side_name(rule.side()),
        "proto": proto.name(),
        "listen": listen.map(|address| address.to_string()),
        "interface": interface.as_ref().map(Zone::as_str),
        "ports": [first, last],
        "to": to,
        "target": target.map(|address| address.to_string()),
        "best_effort": weak,
        "auto": scan,
    })
}

/// A rule in force, with what it has done.
#[must_use]
pub fn listed(info: &Info<'_>) -> Value {
    let mut value = object(info.rule);
    if let Some(map) = value.as_object_mut() {
        map.insert("id".to_owned(), info.id.get().into());
        map.insert("listening".to_owned(), info.endpoints().count().into());
        map.insert("missing".to_owned(), info.missing.into());
        map.insert("accepted".to_owned(), info.counters.accepted.into());
        map.insert("refused".to_owned(), info.counters.refused.into());
    }
    value
}

/// A connection, or a conversation over UDP or ICMP, as it is now.
#[must_use]
pub fn connection(connection: &Connection) -> Value {
    let id = connection.id();
    match connection {
        Connection::Link(flow) => json!({
            "id": id,
            "by": "link",
            "proto": flow.protocol,
            "guest": flow.guest.to_string(),
            "peer": flow.peer.to_string(),
            "state": (!flow.state.is_empty()).then_some(flow.state),
        }),
        Connection::Shortcut(conversation) => json!({
            "id": id,
            "by": "shortcut",
            "proto": match conversation.proto {
                splice::Proto::Tcp => "tcp",
                splice::Proto::Udp => "udp",
            },
            "side": side_name(conversation.side),
            "client": conversation.client.to_string(),
            "server": conversation.server.to_string(),
            "up": conversation.up,
            "down": conversation.down,
        }),
    }
}

const fn side_name(side: Side) -> &'static str {
    match side {
        Side::Host => "host",
        Side::Namespace => "namespace",
    }
}

/// The reply to a request that was carried out.
#[must_use]
pub fn granted(value: &Value) -> String {
    json!({ "return": value }).to_string()
}

/// What a server that grants every wish would reply to `packet`: parser and printer in one call, for fuzzing. Each rule
/// that is understood is printed so that it is understood again.
///
/// # Panics
/// When that does not hold: that is the finding.
#[must_use]
#[expect(clippy::panic, reason = "a broken promise is what the fuzzer looks for")]
pub fn dry_run(packet: &[u8], context: &Context) -> String {
    let entries = match Request::parse(packet, context) {
        Err(refusal) => return refusal.to_json(),
        Ok(Request::Add(entries) | Request::Replace(entries)) => entries,
        Ok(Request::Remove(_) | Request::List(_) | Request::Connections(_)) => Vec::new(),
    };
    let rules: Vec<Value> = entries.iter().flatten().map(object).collect();
    for (value, expected) in rules.iter().zip(entries.iter().flatten()) {
        if rule(value, context).as_ref() != Ok(expected) {
            panic!("{expected:?} printed as {value}");
        }
    }
    granted(&json!({ "rules": rules }))
}

#[cfg(test)]
mod tests;
