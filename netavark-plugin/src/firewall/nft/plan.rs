//! The plan: what has to change in the table, from what is there and what is wanted. Pure.
//!
//! [`Plan`] keeps a picture of the table and changes it with every step it writes down, so that several things planned
//! together see each other. It knows only the chains that were read for it: [`super::network`] and [`super::ports`] say
//! which they look at ([`Wanted`]) and what they do.

use super::decode::Listed;
use super::rule::Rule;
use super::wire::BRIDGES;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What has to be known of a chain before planning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    /// Whether it exists.
    Existence,
    /// Its rules. A chain that does not exist has none.
    Rules,
}

/// Chains to read, and whether the set of our bridges is to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Wanted {
    chains: BTreeMap<String, Look>,
    bridges: bool,
}

impl Wanted {
    pub(super) fn rules(&mut self, chain: impl Into<String>) {
        self.chains.insert(chain.into(), Look::Rules);
    }

    pub(super) fn existence(&mut self, chain: impl Into<String>) {
        self.chains.entry(chain.into()).or_insert(Look::Existence);
    }

    pub(super) fn bridges(&mut self) {
        self.bridges = true;
    }

    pub(super) fn wants_bridges(&self) -> bool {
        self.bridges
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chains.is_empty() && !self.bridges
    }

    /// What is still to be read when `read` has been.
    pub(super) fn without(mut self, read: &Self) -> Self {
        self.chains.retain(|chain, look| read.chains.get(chain).is_none_or(|known| known < look));
        self.bridges &= !read.bridges;
        self
    }

    pub(super) fn chains(&self) -> impl Iterator<Item = (&str, Look)> {
        self.chains.iter().map(|(chain, look)| (chain.as_str(), *look))
    }
}

/// What is in the table, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Ruleset {
    chains: BTreeMap<String, Vec<Entry>>,
    /// The set of our bridges; `None` when there is none.
    bridges: Option<BTreeSet<String>>,
}

/// A rule in a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// `None` for one that this plan adds.
    handle: Option<u64>,
    /// `None` for a foreign one.
    rule: Option<Rule>,
}

impl Ruleset {
    /// A chain that exists, with the rules that were asked for.
    pub(super) fn add_chain(&mut self, chain: &str, rules: Vec<Listed>) {
        let entries = rules.into_iter().map(|l| Entry { handle: Some(l.handle), rule: l.rule }).collect();
        self.chains.insert(chain.to_owned(), entries);
    }

    /// The set of our bridges, which exists.
    pub(super) fn set_bridges(&mut self, names: impl IntoIterator<Item = String>) {
        self.bridges = Some(names.into_iter().collect());
    }
}

/// A chain that the kernel calls.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    /// NF_INET_*.
    pub(super) hook: u32,
    pub(super) hook_name: &'static str,
    pub(super) priority: i32,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Make the table.
    Table,
    /// Make a chain that the kernel calls at a hook.
    BaseChain(&'static Base),
    /// Make a chain.
    Chain(String),
    /// Put a rule behind the others of its chain.
    Append(String, Rule),
    /// Put a rule before the others of its chain.
    Insert(String, Rule),
    /// Remove a rule.
    Delete { chain: String, handle: u64, rule: Rule },
    /// Remove a chain with its rules.
    DeleteChain(String),
    /// Remove the table with all that is in it.
    DeleteTable,
    /// Make the set of our bridges.
    BridgeSet,
    /// Put a bridge into it.
    AddBridge(String),
    /// Take one out of it.
    RemoveBridge(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table => f.write_str("add table"),
            Self::BaseChain(base) => write!(
                f,
                "add chain {} {{ type {} hook {} priority {}; policy accept; }}",
                base.name, base.kind, base.hook_name, base.priority
            ),
            Self::Chain(chain) => write!(f, "add chain {chain}"),
            Self::Append(chain, rule) => write!(f, "add rule {chain} {rule}"),
            Self::Insert(chain, rule) => write!(f, "insert rule {chain} {rule}"),
            Self::Delete { chain, handle, rule } => {
                write!(f, "delete rule {chain} handle {handle} # {rule}")
            }
            Self::DeleteChain(chain) => write!(f, "delete chain {chain}"),
            Self::DeleteTable => f.write_str("delete table"),
            Self::BridgeSet => write!(f, "add set {BRIDGES} {{ type ifname; }}"),
            Self::AddBridge(name) => write!(f, "add element {BRIDGES} {{ \"{name}\" }}"),
            Self::RemoveBridge(name) => write!(f, "delete element {BRIDGES} {{ \"{name}\" }}"),
        }
    }
}

/// Steps, and what the table will look like after them.
#[derive(Debug, Default)]
pub(super) struct Plan {
    ruleset: Ruleset,
    steps: Vec<Step>,
}

impl Plan {
    /// No steps yet.
    pub(super) fn new(ruleset: Ruleset) -> Self {
        Self { ruleset, steps: Vec::new() }
    }

    /// What was seen, for more to be added to it before anything is planned.
    pub(super) fn into_ruleset(self) -> Ruleset {
        self.ruleset
    }

    /// What is to be done, in order.
    pub(super) fn into_steps(self) -> Vec<Step> {
        self.steps
    }

    /// Makes the table, unless something of it was seen.
    pub(super) fn make_table(&mut self) {
        if self.ruleset.chains.is_empty() && self.ruleset.bridges.is_none() {
            self.steps.push(Step::Table);
        }
    }

    /// Makes a chain that the kernel calls, unless it was seen.
    pub(super) fn make_base_chain(&mut self, base: &'static Base) {
        if !self.has_chain(base.name) {
            self.ruleset.chains.insert(base.name.to_owned(), Vec::new());
            self.steps.push(Step::BaseChain(base));
        }
    }

    /// Makes a chain, unless it was seen.
    pub(super) fn make_chain(&mut self, chain: &str) {
        if !self.has_chain(chain) {
            self.ruleset.chains.insert(chain.to_owned(), Vec::new());
            self.steps.push(Step::Chain(chain.to_owned()));
        }
    }

    /// Makes the set of our bridges, unless it was seen.
    pub(super) fn make_bridge_set(&mut self) -> &mut BTreeSet<String> {
        if self.ruleset.bridges.is_none() {
            self.steps.push(Step::BridgeSet);
        }
        self.ruleset.bridges.get_or_insert_default()
    }

    /// Puts a bridge into the set, unless it is in it.
    pub(super) fn add_bridge(&mut self, name: &str) {
        if self.make_bridge_set().insert(name.to_owned()) {
            self.steps.push(Step::AddBridge(name.to_owned()));
        }
    }

    /// Takes those bridges out of the set for which `such` holds. Whether none is left.
    pub(super) fn remove_bridges(&mut self, such: impl Fn(&Self, &str) -> bool) -> bool {
        let Some(there) = self.ruleset.bridges.take() else { return true };
        let (gone, kept): (BTreeSet<_>, BTreeSet<_>) = there.into_iter().partition(|name| such(self, name));
        let none_left = kept.is_empty();
        self.ruleset.bridges = Some(kept);
        self.steps.extend(gone.into_iter().map(Step::RemoveBridge));
        none_left
    }

    /// Whether the chain exists.
    pub(super) fn has_chain(&self, chain: &str) -> bool {
        self.ruleset.chains.contains_key(chain)
    }

    /// Whether the chain has such a rule.
    pub(super) fn has(&self, chain: &str, such: impl Fn(&Rule) -> bool) -> bool {
        let entries = self.ruleset.chains.get(chain).into_iter().flatten();
        entries.filter_map(|entry| entry.rule.as_ref()).any(such)
    }

    /// Whether the chain has no rules. One that was not read has none.
    pub(super) fn is_empty(&self, chain: &str) -> bool {
        self.ruleset.chains.get(chain).is_none_or(Vec::is_empty)
    }

    /// The interfaces that the chain's rules name.
    pub(super) fn interfaces(&self, chain: &str) -> Vec<String> {
        let entries = self.ruleset.chains.get(chain).into_iter().flatten();
        let rules = entries.filter_map(|entry| entry.rule.as_ref());
        rules.filter_map(Rule::interface).map(str::to_owned).collect()
    }

    /// The rules of a chain that are understood; none of a chain that was not read.
    pub(super) fn rules(&self, chain: &str) -> impl Iterator<Item = &Rule> {
        self.ruleset.chains.get(chain).into_iter().flatten().filter_map(|entry| entry.rule.as_ref())
    }

    /// Whether all rules of a chain are understood.
    pub(super) fn understands(&self, chain: &str) -> bool {
        self.ruleset.chains.get(chain).into_iter().flatten().all(|entry| entry.rule.is_some())
    }

    /// The names of the chains that were seen.
    pub(super) fn chains(&self) -> impl Iterator<Item = &str> {
        self.ruleset.chains.keys().map(String::as_str)
    }

    pub(super) fn append(&mut self, chain: &str, rule: Rule) {
        let entries = self.ruleset.chains.entry(chain.to_owned()).or_default();
        entries.push(Entry { handle: None, rule: Some(rule.clone()) });
        self.steps.push(Step::Append(chain.to_owned(), rule));
    }

    pub(super) fn insert(&mut self, chain: &str, rule: Rule) {
        let entries = self.ruleset.chains.entry(chain.to_owned()).or_default();
        entries.insert(0, Entry { handle: None, rule: Some(rule.clone()) });
        self.steps.push(Step::Insert(chain.to_owned(), rule));
    }

    /// Removes the rules for which `such` holds. It is asked once for each, in the chain's order.
    pub(super) fn delete(&mut self, chain: &str, mut such: impl FnMut(&Rule) -> bool) {
        let Some(entries) = self.ruleset.chains.get_mut(chain) else { return };
        let steps = &mut self.steps;
        entries.retain(|entry| {
            let (Some(handle), Some(rule)) = (entry.handle, &entry.rule) else { return true };
            let gone = such(rule);
            if gone {
                steps.push(Step::Delete { chain: chain.to_owned(), handle, rule: rule.clone() });
            }
            !gone
        });
    }

    /// Removes the chain, if it exists. Nothing may jump to it any more.
    pub(super) fn delete_chain(&mut self, chain: &str) {
        if self.ruleset.chains.remove(chain).is_some() {
            self.steps.push(Step::DeleteChain(chain.to_owned()));
        }
    }

    /// Removes the table, with all that is in it.
    pub(super) fn delete_table(&mut self) {
        self.ruleset = Ruleset::default();
        self.steps.push(Step::DeleteTable);
    }
}
