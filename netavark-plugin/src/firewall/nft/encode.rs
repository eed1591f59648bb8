//! Rules into expressions: the same list that nft(8) compiles from the same text.
//!
//! nf_tables runs a rule as a list of small steps over registers: load something into register 1, compare it, go on if
//! it matched, and at the end give a verdict. nft prints rules by recognising which steps it would have made itself, so
//! they are made exactly as it makes them: the address family is asked for once, before the first address (the table is
//! of the family inet); a prefix of whole bytes is compared with as many bytes, any other through a mask; a range is
//! two comparisons. Learnt from the output of `nft --debug=netlink`.

use super::rule::{Clause, Direction, End, PortMap, Rule};
use super::wire::{
    BRIDGES, COMMENT, DESTINATION_PORT, DESTINATION_REWRITTEN, IPV4_ADDRESSES, IPV6_ADDRESSES, NAME_LENGTH,
    base, cmp, ct, expression as e, family, fib, meta, nat, object, register, set, verdict,
};
use ipnet::IpNet;
use slipway_host::netlink::netfilter::Attributes;
use std::net::{IpAddr, SocketAddr};

/// A set without a name that a rule looks something up in. It must be made before the rule, in the same transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnonymousSet {
    /// `{ tcp, udp }`
    TcpAndUdp,
    /// Ports, and an address with a port for each.
    Ports(PortMap),
}

/// Entries of a set in one message: an attribute holds less than 64 KiB.
const ENTRIES_PER_MESSAGE: usize = 1000;

impl Rule {
    /// The set that the rule needs, if any. No rule needs two.
    pub(super) fn set(&self) -> Option<AnonymousSet> {
        self.clauses().iter().find_map(|clause| match clause {
            Clause::TcpOrUdp => Some(AnonymousSet::TcpAndUdp),
            Clause::DnatByPort(map) => Some(AnonymousSet::Ports(*map)),
            _ => None,
        })
    }

    /// Writes the expressions (NFTA_RULE_EXPRESSIONS) and, where there is one, the comment. `set` is the number that
    /// the rule's set has in this transaction.
    pub(super) fn encode(&self, out: &mut Attributes, set: u32) {
        out.nested(object::RULE_EXPRESSIONS, |list| {
            let mut program = Program { list, family_known: false, set };
            for clause in self.clauses() {
                program.clause(clause);
            }
        });
        for clause in self.clauses() {
            if let Clause::DnatByPort(map) = clause {
                let text = map.to_string();
                let mut data = vec![COMMENT, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)];
                data.extend(text.as_bytes());
                data.push(0);
                out.bytes(object::RULE_USERDATA, &data);
            }
        }
    }
}

/// A rule's expressions being written.
struct Program<'a> {
    list: &'a mut Attributes,
    family_known: bool,
    set: u32,
}

impl Program<'_> {
    fn clause(&mut self, clause: &Clause) {
        match clause {
            Clause::Address { end, net, equal } => self.address(*end, *net, *equal),
            Clause::Protocol(number) => {
                self.load_meta(meta::L4PROTO);
                self.compare(cmp::EQ, &[*number]);
            }
            Clause::TcpOrUdp => {
                self.load_meta(meta::L4PROTO);
                self.look_up("__set%d", false);
            }
            Clause::OurBridge(direction) => {
                self.load_interface(*direction);
                self.look_up_named(BRIDGES);
            }
            Clause::Port { first, last } => self.port(*first, *last),
            Clause::State(bits) => {
                self.load_ct(ct::STATE);
                self.has_any(*bits);
            }
            Clause::ConnectionMark(bits) => {
                self.load_ct(ct::MARK);
                self.has_bits(*bits);
            }
            Clause::PacketMark(bits) => {
                self.load_meta(meta::MARK);
                self.has_bits(*bits);
            }
            Clause::Interface { direction, name, equal } => self.interface(*direction, name, *equal),
            Clause::LocalDestination => {
                self.load_kind_of_address(fib::DADDR);
                self.compare(cmp::EQ, &fib::LOCAL.to_ne_bytes());
            }
            Clause::ElsewhereDestination => {
                self.load_kind_of_address(fib::DADDR | fib::IIF);
                self.compare(cmp::NEQ, &fib::LOCAL.to_ne_bytes());
            }
            Clause::Rewritten => {
                self.load_ct(ct::STATUS);
                self.has_any(DESTINATION_REWRITTEN);
            }
            Clause::SetPacketMark(bits) => {
                self.add_to_mark(*bits);
                self.expression("meta", |list| {
                    list.number(e::META_KEY, meta::MARK);
                    list.number(e::META_SREG, register::FIRST);
                });
            }
            Clause::SetConnectionMark(bits) => {
                self.add_to_mark(*bits);
                self.expression("ct", |list| {
                    list.number(e::CT_KEY, ct::MARK);
                    list.number(e::CT_SREG, register::FIRST);
                });
            }
            Clause::Accept => self.verdict(verdict::ACCEPT, None),
            Clause::Drop => self.verdict(verdict::DROP, None),
            Clause::Jump(chain) => self.verdict(verdict::JUMP, Some(chain)),
            Clause::Masquerade => self.expression("masq", |_| {}),
            Clause::Snat(to) => {
                self.immediate(register::FIRST, &octets(*to));
                self.nat(nat::SOURCE, *to, None, 0);
            }
            Clause::Dnat(to) => {
                self.immediate(register::FIRST, &octets(to.ip()));
                self.immediate(register::SECOND, &to.port().to_be_bytes());
                self.nat(nat::DESTINATION, to.ip(), Some(register::SECOND), nat::PORT_GIVEN);
            }
            Clause::DnatByPort(map) => self.dnat_by_port(map),
        }
    }

    fn address(&mut self, end: End, net: IpNet, equal: bool) {
        let (number, offsets) = match net {
            IpNet::V4(_) => (family::IPV4, IPV4_ADDRESSES),
            IpNet::V6(_) => (family::IPV6, IPV6_ADDRESSES),
        };
        if !self.family_known {
            self.load_meta(meta::NFPROTO);
            self.compare(cmp::EQ, &[number]);
            self.family_known = true;
        }
        let offset = if end == End::Source { offsets.0 } else { offsets.1 };
        let op = if equal { cmp::EQ } else { cmp::NEQ };
        let network = octets(net.network());
        let prefix = usize::from(net.prefix_len());
        let whole = network.get(..prefix / 8).filter(|bytes| prefix.is_multiple_of(8) && !bytes.is_empty());
        if let Some(bytes) = whole {
            self.load_payload(base::NETWORK, offset, bytes.len());
            self.compare(op, bytes);
        } else {
            self.load_payload(base::NETWORK, offset, network.len());
            self.mask(&octets(net.netmask()), &vec![0; network.len()]);
            self.compare(op, &network);
        }
    }

    fn port(&mut self, first: u16, last: u16) {
        self.load_payload(base::TRANSPORT, DESTINATION_PORT, 2);
        if first == last {
            self.compare(cmp::EQ, &first.to_be_bytes());
        } else {
            self.compare(cmp::GTE, &first.to_be_bytes());
            self.compare(cmp::LTE, &last.to_be_bytes());
        }
    }

    fn interface(&mut self, direction: Direction, name: &str, equal: bool) {
        self.load_interface(direction);
        self.compare(if equal { cmp::EQ } else { cmp::NEQ }, &interface_key(name));
    }

    fn dnat_by_port(&mut self, map: &PortMap) {
        self.load_payload(base::TRANSPORT, DESTINATION_PORT, 2);
        self.look_up("__map%d", true);
        let to = map.to.ip();
        // Behind the address in the data, and so in the registers.
        let port = if to.is_ipv4() { register::FIRST_WORD_2 } else { register::SECOND };
        self.nat(nat::DESTINATION, to, Some(port), 0);
    }

    fn load_meta(&mut self, key: u32) {
        self.expression("meta", |list| {
            list.number(e::META_KEY, key);
            list.number(e::META_DREG, register::FIRST);
        });
    }

    fn load_interface(&mut self, direction: Direction) {
        self.load_meta(if direction == Direction::In { meta::IIFNAME } else { meta::OIFNAME });
    }

    fn load_kind_of_address(&mut self, flags: u32) {
        self.expression("fib", |list| {
            list.number(e::FIB_FLAGS, flags);
            list.number(e::FIB_RESULT, fib::RESULT_TYPE);
            list.number(e::FIB_DREG, register::FIRST);
        });
    }

    fn load_ct(&mut self, key: u32) {
        self.expression("ct", |list| {
            list.number(e::CT_KEY, key);
            list.number(e::CT_DREG, register::FIRST);
        });
    }

    fn load_payload(&mut self, base: u32, offset: u32, length: usize) {
        self.expression("payload", |list| {
            list.number(e::PAYLOAD_DREG, register::FIRST);
            list.number(e::PAYLOAD_BASE, base);
            list.number(e::PAYLOAD_OFFSET, offset);
            list.number(e::PAYLOAD_LENGTH, number(length));
        });
    }

    fn compare(&mut self, op: u32, value: &[u8]) {
        self.expression("cmp", |list| {
            list.number(e::CMP_SREG, register::FIRST);
            list.number(e::CMP_OP, op);
            list.nested(e::CMP_DATA, |list| list.bytes(e::VALUE, value));
        });
    }

    /// Register 1 becomes itself `& mask ^ xor`.
    fn mask(&mut self, mask: &[u8], xor: &[u8]) {
        self.expression("bitwise", |list| {
            list.number(e::BITWISE_SREG, register::FIRST);
            list.number(e::BITWISE_DREG, register::FIRST);
            list.number(e::BITWISE_OP, 0);
            list.number(e::BITWISE_LENGTH, number(mask.len()));
            list.nested(e::BITWISE_MASK, |list| list.bytes(e::VALUE, mask));
            list.nested(e::BITWISE_XOR, |list| list.bytes(e::VALUE, xor));
        });
    }

    fn has_any(&mut self, bits: u32) {
        self.mask(&bits.to_ne_bytes(), &[0; 4]);
        self.compare(cmp::NEQ, &[0; 4]);
    }

    fn has_bits(&mut self, bits: u32) {
        self.mask(&bits.to_ne_bytes(), &[0; 4]);
        self.compare(cmp::EQ, &bits.to_ne_bytes());
    }

    /// Register 1 becomes the packet's mark with these bits set.
    fn add_to_mark(&mut self, bits: u32) {
        self.load_meta(meta::MARK);
        self.mask(&(!bits).to_ne_bytes(), &bits.to_ne_bytes());
    }

    fn look_up(&mut self, name: &str, map: bool) {
        let set = self.set;
        self.expression("lookup", |list| {
            list.number(e::LOOKUP_SREG, register::FIRST);
            if map {
                list.number(e::LOOKUP_DREG, register::FIRST);
            }
            list.text(e::LOOKUP_SET, name);
            list.number(e::LOOKUP_SET_ID, set);
        });
    }

    fn look_up_named(&mut self, name: &str) {
        self.expression("lookup", |list| {
            list.number(e::LOOKUP_SREG, register::FIRST);
            list.text(e::LOOKUP_SET, name);
        });
    }

    fn immediate(&mut self, register: u32, value: &[u8]) {
        self.expression("immediate", |list| {
            list.number(e::IMMEDIATE_DREG, register);
            list.nested(e::IMMEDIATE_DATA, |list| list.bytes(e::VALUE, value));
        });
    }

    fn verdict(&mut self, code: u32, chain: Option<&str>) {
        self.expression("immediate", |list| {
            list.number(e::IMMEDIATE_DREG, register::VERDICT);
            list.nested(e::IMMEDIATE_DATA, |list| {
                list.nested(e::VERDICT, |list| {
                    list.number(e::VERDICT_CODE, code);
                    if let Some(chain) = chain {
                        list.text(e::VERDICT_CHAIN, chain);
                    }
                });
            });
        });
    }

    fn nat(&mut self, kind: u32, to: IpAddr, port: Option<u32>, flags: u32) {
        let family = if to.is_ipv4() { family::IPV4 } else { family::IPV6 };
        self.expression("nat", |list| {
            list.number(e::NAT_TYPE, kind);
            list.number(e::NAT_FAMILY, u32::from(family));
            list.number(e::NAT_ADDRESS, register::FIRST);
            if let Some(port) = port {
                list.number(e::NAT_PORT, port);
            }
            if flags != 0 {
                list.number(e::NAT_FLAGS, flags);
            }
        });
    }

    fn expression(&mut self, name: &str, write: impl FnOnce(&mut Attributes)) {
        self.list.nested(object::ENTRY, |list| {
            list.text(e::NAME, name);
            list.nested(e::DATA, write);
        });
    }
}

impl AnonymousSet {
    /// Writes what NFT_MSG_NEWSET says. `id` names the set within the transaction.
    pub(super) fn encode(self, table: &str, id: u32, out: &mut Attributes) {
        out.text(set::TABLE, table);
        out.text(set::NAME, self.name());
        match self {
            Self::TcpAndUdp => {
                out.number(set::FLAGS, set::ANONYMOUS);
                out.number(set::KEY_TYPE, set::TYPE_PROTOCOL);
                out.number(set::KEY_LENGTH, 1);
            }
            Self::Ports(map) => {
                let (address, length) =
                    if map.to.is_ipv4() { (set::TYPE_IPV4_ADDRESS, 8) } else { (set::TYPE_IPV6_ADDRESS, 20) };
                out.number(set::FLAGS, set::ANONYMOUS | set::MAP);
                out.number(set::KEY_TYPE, set::TYPE_SERVICE);
                out.number(set::KEY_LENGTH, 2);
                out.number(set::DATA_TYPE, address << set::TYPE_BITS | set::TYPE_SERVICE);
                out.number(set::DATA_LENGTH, length);
            }
        }
        out.number(set::ID, id);
        let size = number(self.entries().count());
        out.nested(set::DESCRIPTION, |list| list.number(set::DESCRIPTION_SIZE, size));
        out.bytes(set::USERDATA, &self.userdata());
    }

    /// The entries, in as many messages as they need: each writes what NFT_MSG_NEWSETELEM says.
    pub(super) fn encode_entries(
        self,
        table: &str,
        id: u32,
        mut message: impl FnMut(&dyn Fn(&mut Attributes)),
    ) {
        let entries: Vec<_> = self.entries().collect();
        for part in entries.chunks(ENTRIES_PER_MESSAGE) {
            message(&|out| {
                out.text(set::ELEMENTS_TABLE, table);
                out.text(set::ELEMENTS_SET, self.name());
                out.number(set::ELEMENTS_SET_ID, id);
                out.nested(set::ELEMENTS, |list| {
                    for (key, data) in part {
                        list.nested(object::ENTRY, |list| {
                            list.nested(set::ELEMENT_KEY, |list| list.bytes(e::VALUE, key));
                            if !data.is_empty() {
                                list.nested(set::ELEMENT_DATA, |list| list.bytes(e::VALUE, data));
                            }
                        });
                    }
                });
            });
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::TcpAndUdp => "__set%d",
            Self::Ports(_) => "__map%d",
        }
    }

    /// What nft(8) keeps with a set for printing it, in the byte order of the host: kind, length, value. 0 and 1 are
    /// the byte order of keys and data (1 the host's, 2 the network's), 3 is the expression that gives the key (9: a
    /// meta key, its number in 1), 6 says whether the data are intervals.
    fn userdata(self) -> Vec<u8> {
        match self {
            Self::TcpAndUdp => {
                let key = [printing(0, 9), vec![1, 6], printing(0, meta::L4PROTO)].concat();
                [printing(0, 1), vec![3, 14], key].concat()
            }
            Self::Ports(_) => [printing(0, 2), printing(1, 0), printing(6, 0)].concat(),
        }
    }

    fn entries(self) -> Box<dyn Iterator<Item = (Vec<u8>, Vec<u8>)>> {
        match self {
            Self::TcpAndUdp => Box::new([6, 17].into_iter().map(|number| (vec![number], Vec::new()))),
            Self::Ports(map) => {
                Box::new(map.entries().map(|(port, to)| (port.to_be_bytes().to_vec(), address_and_port(to))))
            }
        }
    }
}

/// Writes what NFT_MSG_NEWSET says of the set of our bridges.
pub(super) fn bridge_set(table: &str, out: &mut Attributes) {
    out.text(set::TABLE, table);
    out.text(set::NAME, BRIDGES);
    out.number(set::FLAGS, 0);
    out.number(set::KEY_TYPE, set::TYPE_INTERFACE);
    out.number(set::KEY_LENGTH, number(NAME_LENGTH));
    // Numbers are looked up by the transaction's anonymous sets, from 1; a set with a name is looked up by that.
    out.number(set::ID, 0);
    out.bytes(set::USERDATA, &printing(0, 1));
}

/// Writes what NFT_MSG_NEWSETELEM and NFT_MSG_DELSETELEM say of one bridge in that set.
pub(super) fn bridge_element(table: &str, bridge: &str, out: &mut Attributes) {
    out.text(set::ELEMENTS_TABLE, table);
    out.text(set::ELEMENTS_SET, BRIDGES);
    out.nested(set::ELEMENTS, |list| {
        list.nested(object::ENTRY, |list| {
            list.nested(set::ELEMENT_KEY, |list| list.bytes(e::VALUE, &interface_key(bridge)));
        });
    });
}

/// An interface's name as it is compared. No interface has a longer one, and the zero at its end belongs to it.
fn interface_key(name: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = name.bytes().take(NAME_LENGTH - 1).collect();
    bytes.resize(NAME_LENGTH, 0);
    bytes
}

/// What nft(8) keeps with a set for printing it: kind, length, value in the byte order of the host.
fn printing(kind: u8, value: u32) -> Vec<u8> {
    [&[kind, 4][..], &value.to_ne_bytes()].concat()
}

/// Each part of data of two parts begins at a multiple of four bytes.
fn address_and_port(to: SocketAddr) -> Vec<u8> {
    let mut data = octets(to.ip());
    data.extend(to.port().to_be_bytes());
    data.extend([0; 2]);
    data
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A length, which is small.
fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
