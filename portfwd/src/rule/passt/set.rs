//! What a table of such rules may hold: how many, for how many ports, and no two for the same place.
//!
//! The original says so before anything is opened, so that a mistake is found when it is read: two rules conflict when
//! protocol and a port are the same and their addresses are, or one of them is any address. The interface plays no
//! part in that. What else listens on this host, the kernel says later.

use super::draft::{Draft, MAX_RULES, MAX_SOCKETS, Reason, Refusal, Verb};
use super::{Context, ParseError, parse, proto_of, side_of};
use crate::rule::{Proto, Rule};
use core::net::IpAddr;
use slipway_host::inside::Side;

/// The rules of one side, in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSet {
    rules: Vec<Rule>,
    sockets: usize,
}

impl RuleSet {
    /// Rules that are in force somewhere: they were looked at before.
    #[must_use]
    pub fn in_force(rules: Vec<Rule>) -> Self {
        let sockets = rules.iter().map(|rule| usize::from(rule.ports().count().get())).sum();
        Self { rules, sockets }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// When there is no room for it, or another is in the same place.
    pub fn add(&mut self, rule: Rule) -> Result<(), Refusal> {
        let draft = Draft::from(&rule);
        let refused = |reason| Err(draft.refused(Verb::Add, reason));
        if let Some(other) = self.rules.iter().find(|other| conflict(&rule, other)) {
            return refused(Reason::Conflict(Box::new([draft, other.into()])));
        }
        if self.rules.len() == MAX_RULES {
            return refused(Reason::TooManyRules);
        }
        let sockets = self.sockets + usize::from(rule.ports().count().get());
        if sockets > MAX_SOCKETS {
            return refused(Reason::TooManySockets);
        }
        self.sockets = sockets;
        self.rules.push(rule);
        Ok(())
    }

    /// Deletes the rule that is just like this one.
    ///
    /// # Errors
    /// When there is none.
    pub fn delete(&mut self, rule: Rule) -> Result<(), Refusal> {
        let draft = Draft::from(&rule);
        let missing = || draft.refused(Verb::Delete, Reason::Missing(Box::new(draft)));
        let place = self.rules.iter().position(|other| *other == rule).ok_or_else(missing)?;
        self.rules.remove(place);
        self.sockets -= usize::from(rule.ports().count().get());
        Ok(())
    }

    /// Deletes all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether there is a rule of a protocol.
    #[must_use]
    pub fn has(&self, proto: Proto) -> bool {
        self.rules.iter().any(|rule| rule.proto() == proto)
    }
}

/// Whether both would listen in the same place.
fn conflict(one: &Rule, other: &Rule) -> bool {
    let ends = |rule: &Rule| {
        let draft = Draft::from(rule);
        (draft.first, draft.last)
    };
    let ((first, last), (begin, end)) = (ends(one), ends(other));
    let listen = |rule: &Rule| rule.listen().map(|listen| listen.ip());
    one.proto() == other.proto() && first <= end && begin <= last && overlap(listen(one), listen(other))
}

fn overlap(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            one == other
                || one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified())
        }
        _ => true,
    }
}

/// The rules of both sides, as the options of a command line add and delete them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwards {
    /// Those that listen on the host.
    pub host: RuleSet,
    /// Those that listen in the guest's namespace.
    pub namespace: RuleSet,
}

impl Forwards {
    /// The rules of a side.
    #[must_use]
    pub const fn of(&self, side: Side) -> &RuleSet {
        match side {
            Side::Host => &self.host,
            Side::Namespace => &self.namespace,
        }
    }

    /// The rules of a side, to change them.
    pub const fn of_mut(&mut self, side: Side) -> &mut RuleSet {
        match side {
            Side::Host => &mut self.host,
            Side::Namespace => &mut self.namespace,
        }
    }

    /// All rules.
    pub fn all(&self) -> impl Iterator<Item = Rule> {
        self.host.rules.iter().chain(&self.namespace.rules).copied()
    }

    /// Adds or deletes what the SPEC of an option `t`, `u`, `T` or `U` says, and returns a warning if there is one.
    ///
    /// # Errors
    /// When it is no SPEC, or one of its rules cannot be added or deleted; those before it are.
    pub fn apply(
        &mut self,
        verb: Verb,
        option: char,
        spec: &str,
        context: &Context,
    ) -> Result<Option<String>, ParseError> {
        let spec = parse(option, spec, context)?;
        let set = self.of_mut(side_of(option));
        if spec.none && set.has(proto_of(option)) {
            return Err(ParseError::NoneConflict(option));
        }
        for rule in spec.rules {
            match verb {
                Verb::Add => set.add(rule)?,
                Verb::Delete => set.delete(rule)?,
            }
        }
        Ok(spec.warning)
    }
}
