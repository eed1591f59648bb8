//! To and from the kernel: reading the chains that a plan looks at, carrying the plan out in one transaction.
//!
//! Reading takes several requests, and others change rules too (there is a caller's lock around this program, but not
//! around nft(8)). The generation of all rules in the namespace is therefore asked for first and named in the
//! transaction: when it has changed meanwhile, the kernel refuses, and everything is read and planned again.
//!
//! After a transaction that removes or changes something, closing **any** netfilter socket waits until the kernel has
//! freed it, which takes an RCU grace period (10 to 20 ms). So the caller keeps the socket, and uses it for everything,
//! until its other work is done; and no chain is added that is there already, for that would be a change.
//!
//! Source: Linux `net/netfilter/nf_tables_api.c`.

use super::chains::TABLE;
use super::decode::{self, Listed};
use super::encode::{bridge_element, bridge_set};
use super::plan::{Base, Look, Plan, Ruleset, Step, Wanted};
use super::rule::Rule;
use super::wire::{BRIDGES, SUBSYSTEM, family, message, object, set};
use crate::error::{Error, Result};
use nix::errno::Errno;
use slipway_host::netlink::netfilter::{
    Attributes, Batch, ListEvent, Netfilter, Refused, Request, attributes,
};

/// How often a plan is made again because somebody else changed rules in between.
const ATTEMPTS: usize = 32;

/// NLM_F_CREATE: without NLM_F_EXCL it is no error when the thing is there already. Rules go first, except with
/// NLM_F_APPEND.
const CREATE: u16 = 0x400;
const APPEND: u16 = CREATE | 0x800;

/// Reads what `wanted` says, lets `plan` write down the changes, and makes them, all or none.
pub(super) fn change(
    socket: &mut Netfilter,
    wanted: &Wanted,
    plan: impl Fn(&mut Plan) -> Result<()>,
) -> Result<()> {
    change_further(socket, wanted, |_| Wanted::default(), plan)
}

/// The same in another table than that of all networks.
pub(super) fn change_in(
    table: &'static str,
    socket: &mut Netfilter,
    wanted: &Wanted,
    plan: impl Fn(&mut Plan) -> Result<()>,
) -> Result<()> {
    change_table(table, socket, wanted, |_| Wanted::default(), plan)
}

/// The same, where what was read says what else (`further`) is to be read before the changes are planned.
pub(super) fn change_further(
    socket: &mut Netfilter,
    wanted: &Wanted,
    further: impl Fn(&Plan) -> Wanted,
    plan: impl Fn(&mut Plan) -> Result<()>,
) -> Result<()> {
    change_table(TABLE, socket, wanted, further, plan)
}

fn change_table(
    table: &'static str,
    socket: &mut Netfilter,
    wanted: &Wanted,
    further: impl Fn(&Plan) -> Wanted,
    plan: impl Fn(&mut Plan) -> Result<()>,
) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let generation = generation(socket).map_err(unreadable)?;
        let mut changes = look(table, socket, wanted, &further).map_err(unreadable)?;
        plan(&mut changes)?;
        let steps = changes.into_steps();
        match commit(table, socket, generation, &steps) {
            Err(Refused { errno: Errno::ERESTART, .. }) => {}
            result => return result.map_err(|refused| refusal(&steps, refused)),
        }
    }
    Err(Error::msg("nftables error: somebody else keeps changing the ruleset; try again"))
}

fn look(
    table: &str,
    socket: &mut Netfilter,
    wanted: &Wanted,
    further: impl Fn(&Plan) -> Wanted,
) -> Result<Plan, Errno> {
    let mut ruleset = Ruleset::default();
    read(table, socket, wanted, &mut ruleset)?;
    let seen = Plan::new(ruleset);
    let further = further(&seen);
    let mut ruleset = seen.into_ruleset();
    read(table, socket, &further.without(wanted), &mut ruleset)?;
    Ok(Plan::new(ruleset))
}

/// The steps that [`change_further`] would take now.
pub(super) fn preview(
    wanted: &Wanted,
    further: impl Fn(&Plan) -> Wanted,
    plan: impl Fn(&mut Plan) -> Result<()>,
) -> Result<Vec<Step>> {
    preview_table(TABLE, wanted, further, plan)
}

/// Those that [`change_in`] would take.
pub(super) fn preview_in(
    table: &str,
    wanted: &Wanted,
    plan: impl Fn(&mut Plan) -> Result<()>,
) -> Result<Vec<Step>> {
    preview_table(table, wanted, |_| Wanted::default(), plan)
}

fn preview_table(
    table: &str,
    wanted: &Wanted,
    further: impl Fn(&Plan) -> Wanted,
    plan: impl Fn(&mut Plan) -> Result<()>,
) -> Result<Vec<Step>> {
    let mut socket = Netfilter::open().map_err(|error| Error::msg(format!("nftables error: {error}")))?;
    let mut changes = look(table, &mut socket, wanted, further).map_err(unreadable)?;
    plan(&mut changes)?;
    Ok(changes.into_steps())
}

fn unreadable(errno: Errno) -> Error {
    let text = std::io::Error::from(errno);
    Error::msg(format!("nftables error: could not get the current ruleset from the kernel: {text}"))
}

fn refusal(steps: &[Step], refused: Refused) -> Error {
    let text = std::io::Error::from(refused.errno);
    let position = refused.message;
    let step = position.and_then(|position| {
        // A step may need several messages.
        let mut messages = 0;
        steps.iter().find(|step| {
            messages += message_count(step);
            position < messages
        })
    });
    let step = step.map_or_else(String::new, |step| format!(" at \"{step}\""));
    let hint = match refused.errno {
        Errno::ENOENT | Errno::EOPNOTSUPP if !step.is_empty() => " (does this kernel have all of that?)",
        Errno::EPERM => " (CAP_NET_ADMIN is needed in this network namespace)",
        Errno::EMSGSIZE | Errno::ENOBUFS => " (net.core.wmem_max may be too small for so many rules)",
        _ => "",
    };
    Error::msg(format!("nftables error: the kernel refused the ruleset{step}: {text}{hint}"))
}

fn request(kind: u8) -> Request {
    Request { subsystem: SUBSYSTEM, kind, family: family::INET }
}

fn generation(socket: &mut Netfilter) -> Result<u32, Errno> {
    let request = Request { family: 0, ..request(message::GET_GENERATION) };
    let number = socket.get(request, &Attributes::default(), |answer| {
        let value = attributes(answer).find(|(kind, _)| *kind == object::GENERATION)?.1;
        Some(u32::from_be_bytes(value.try_into().ok()?))
    })?;
    number.flatten().ok_or(Errno::EPROTO)
}

fn read(table: &str, socket: &mut Netfilter, wanted: &Wanted, ruleset: &mut Ruleset) -> Result<(), Errno> {
    if wanted.wants_bridges()
        && let Some(names) = read_bridges(table, socket)?
    {
        ruleset.set_bridges(names);
    }
    for (chain, look) in wanted.chains() {
        let mut name = Attributes::default();
        name.text(object::CHAIN_TABLE, table);
        name.text(object::CHAIN_NAME, chain);
        if socket.get(request(message::GET_CHAIN), &name, |_| ())?.is_none() {
            continue;
        }
        let mut rules = Vec::new();
        if look == Look::Rules {
            let mut name = Attributes::default();
            name.text(object::RULE_TABLE, table);
            name.text(object::RULE_CHAIN, chain);
            socket.list(request(message::GET_RULE), &name, |event| match event {
                ListEvent::Restart => rules.clear(),
                // Old kernels do not filter by chain.
                ListEvent::Entry(entry) => {
                    rules.extend(Listed::decode(entry).filter(|listed| listed.chain == chain));
                }
            })?;
        }
        ruleset.add_chain(chain, rules);
    }
    Ok(())
}

/// The names in the set of our bridges; `None` when there is no such set.
fn read_bridges(table: &str, socket: &mut Netfilter) -> Result<Option<Vec<String>>, Errno> {
    let mut name = Attributes::default();
    name.text(set::ELEMENTS_TABLE, table);
    name.text(set::ELEMENTS_SET, BRIDGES);
    let mut names = Vec::new();
    let listed = socket.list(request(message::GET_ELEMENTS), &name, |event| match event {
        ListEvent::Restart => names.clear(),
        ListEvent::Entry(entry) => names.extend(decode::bridges(entry)),
    });
    match listed {
        Ok(()) => Ok(Some(names)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn commit(
    table: &'static str,
    socket: &mut Netfilter,
    generation: u32,
    steps: &[Step],
) -> Result<(), Refused> {
    let mut writer = Writer { table, batch: Batch::new(SUBSYSTEM, Some(generation)), sets: 0 };
    for step in steps {
        writer.step(step);
    }
    socket.commit(writer.batch)
}

/// How many messages [`Writer::step`] makes of a step.
fn message_count(step: &Step) -> usize {
    let mut messages = 1;
    if let Step::Append(_, rule) | Step::Insert(_, rule) = step
        && let Some(set) = rule.set()
    {
        messages += 1;
        set.encode_entries(TABLE, 0, |_| messages += 1);
    }
    messages
}

/// A transaction being written.
struct Writer {
    table: &'static str,
    batch: Batch,
    /// How many sets it has so far: the last one's number.
    sets: u32,
}

impl Writer {
    fn step(&mut self, step: &Step) {
        let table = self.table;
        match step {
            Step::Table => self.message(message::NEW_TABLE, CREATE, |list| {
                list.text(object::TABLE_NAME, table);
                list.number(object::TABLE_FLAGS, 0);
            }),
            Step::DeleteTable => {
                self.message(message::DELETE_TABLE, 0, |list| list.text(object::TABLE_NAME, table));
            }
            Step::BaseChain(base) => self.base_chain(base),
            Step::Chain(chain) => self.message(message::NEW_CHAIN, CREATE, |list| {
                list.text(object::CHAIN_TABLE, table);
                list.text(object::CHAIN_NAME, chain);
            }),
            Step::Append(chain, rule) => self.rule(chain, rule, APPEND),
            Step::Insert(chain, rule) => self.rule(chain, rule, CREATE),
            Step::Delete { chain, handle, .. } => self.message(message::DELETE_RULE, 0, |list| {
                list.text(object::RULE_TABLE, table);
                list.text(object::RULE_CHAIN, chain);
                list.long(object::RULE_HANDLE, *handle);
            }),
            Step::BridgeSet => self.message(message::NEW_SET, CREATE, |list| bridge_set(table, list)),
            Step::AddBridge(name) => {
                self.message(message::NEW_ELEMENTS, CREATE, |list| bridge_element(table, name, list));
            }
            Step::RemoveBridge(name) => {
                self.message(message::DELETE_ELEMENTS, 0, |list| bridge_element(table, name, list));
            }
            Step::DeleteChain(chain) => self.message(message::DELETE_CHAIN, 0, |list| {
                list.text(object::CHAIN_TABLE, table);
                list.text(object::CHAIN_NAME, chain);
            }),
        }
    }

    fn base_chain(&mut self, base: &Base) {
        let table = self.table;
        self.message(message::NEW_CHAIN, CREATE, |list| {
            list.text(object::CHAIN_TABLE, table);
            list.text(object::CHAIN_NAME, base.name);
            list.text(object::CHAIN_TYPE, base.kind);
            list.number(object::CHAIN_POLICY, 1);
            list.nested(object::CHAIN_HOOK, |list| {
                list.number(object::HOOK_NUMBER, base.hook);
                list.number(object::HOOK_PRIORITY, base.priority.cast_unsigned());
            });
        });
    }

    fn rule(&mut self, chain: &str, rule: &Rule, flags: u16) {
        let table = self.table;
        if let Some(set) = rule.set() {
            self.sets += 1;
            let id = self.sets;
            self.message(message::NEW_SET, CREATE, |list| set.encode(table, id, list));
            set.encode_entries(table, id, |write| self.message(message::NEW_ELEMENTS, CREATE, write));
        }
        let set = self.sets;
        self.message(message::NEW_RULE, flags, |list| {
            list.text(object::RULE_TABLE, table);
            list.text(object::RULE_CHAIN, chain);
            rule.encode(list, set);
        });
    }

    fn message(&mut self, kind: u8, flags: u16, write: impl FnOnce(&mut Attributes)) {
        self.batch.push(kind, family::INET, flags, write);
    }
}
