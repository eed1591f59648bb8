//! The numbers of nf_tables: messages, attributes, keys. Source: Linux `include/uapi/linux/netfilter/nf_tables.h`.

/// NFNL_SUBSYS_NFTABLES.
pub(super) const SUBSYSTEM: u8 = 10;

/// NFPROTO_*: families of tables and of addresses.
pub(super) mod family {
    pub(in super::super) const INET: u8 = 1;
    pub(in super::super) const IPV4: u8 = 2;
    pub(in super::super) const IPV6: u8 = 10;
}

/// NFT_MSG_*.
pub(super) mod message {
    pub(in super::super) const NEW_TABLE: u8 = 0;
    pub(in super::super) const DELETE_TABLE: u8 = 2;
    pub(in super::super) const NEW_CHAIN: u8 = 3;
    pub(in super::super) const GET_CHAIN: u8 = 4;
    pub(in super::super) const DELETE_CHAIN: u8 = 5;
    pub(in super::super) const NEW_RULE: u8 = 6;
    pub(in super::super) const GET_RULE: u8 = 7;
    pub(in super::super) const DELETE_RULE: u8 = 8;
    pub(in super::super) const NEW_SET: u8 = 9;
    pub(in super::super) const NEW_ELEMENTS: u8 = 12;
    pub(in super::super) const GET_ELEMENTS: u8 = 13;
    pub(in super::super) const DELETE_ELEMENTS: u8 = 14;
    pub(in super::super) const GET_GENERATION: u8 = 16;
}

/// NFTA_TABLE_*, NFTA_CHAIN_*, NFTA_HOOK_*, NFTA_RULE_*, NFTA_GEN_*.
pub(super) mod object {
    pub(in super::super) const GENERATION: u16 = 1;
    pub(in super::super) const TABLE_NAME: u16 = 1;
    pub(in super::super) const TABLE_FLAGS: u16 = 2;
    pub(in super::super) const CHAIN_TABLE: u16 = 1;
    pub(in super::super) const CHAIN_NAME: u16 = 3;
    pub(in super::super) const CHAIN_HOOK: u16 = 4;
    pub(in super::super) const CHAIN_POLICY: u16 = 5;
    pub(in super::super) const CHAIN_TYPE: u16 = 7;
    pub(in super::super) const HOOK_NUMBER: u16 = 1;
    pub(in super::super) const HOOK_PRIORITY: u16 = 2;
    pub(in super::super) const RULE_TABLE: u16 = 1;
    pub(in super::super) const RULE_CHAIN: u16 = 2;
    pub(in super::super) const RULE_HANDLE: u16 = 3;
    pub(in super::super) const RULE_EXPRESSIONS: u16 = 4;
    pub(in super::super) const RULE_USERDATA: u16 = 7;
    /// An entry of a list (NFTA_LIST_ELEM).
    pub(in super::super) const ENTRY: u16 = 1;
}

/// NFTA_SET_*, NFTA_SET_ELEM_*, and flags and types of sets.
pub(super) mod set {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const NAME: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 3;
    pub(in super::super) const KEY_TYPE: u16 = 4;
    pub(in super::super) const KEY_LENGTH: u16 = 5;
    pub(in super::super) const DATA_TYPE: u16 = 6;
    pub(in super::super) const DATA_LENGTH: u16 = 7;
    pub(in super::super) const DESCRIPTION: u16 = 9;
    pub(in super::super) const ID: u16 = 10;
    pub(in super::super) const USERDATA: u16 = 13;
    pub(in super::super) const DESCRIPTION_SIZE: u16 = 1;

    pub(in super::super) const ELEMENTS_TABLE: u16 = 1;
    pub(in super::super) const ELEMENTS_SET: u16 = 2;
    pub(in super::super) const ELEMENTS: u16 = 3;
    pub(in super::super) const ELEMENTS_SET_ID: u16 = 4;
    pub(in super::super) const ELEMENT_KEY: u16 = 1;
    pub(in super::super) const ELEMENT_DATA: u16 = 2;

    /// NFT_SET_ANONYMOUS | NFT_SET_CONSTANT, and NFT_SET_MAP.
    pub(in super::super) const ANONYMOUS: u32 = 0x1 | 0x2;
    pub(in super::super) const MAP: u32 = 0x8;

    /// Types of keys and data. They mean nothing to the kernel: nft(8) prints by them.
    pub(in super::super) const TYPE_IPV4_ADDRESS: u32 = 7;
    pub(in super::super) const TYPE_IPV6_ADDRESS: u32 = 8;
    pub(in super::super) const TYPE_PROTOCOL: u32 = 12;
    pub(in super::super) const TYPE_SERVICE: u32 = 13;
    pub(in super::super) const TYPE_INTERFACE: u32 = 41;
    /// A type of two parts has the first part's number shifted by so many bits.
    pub(in super::super) const TYPE_BITS: u32 = 6;
}

/// NFTA_EXPR_* and the attributes of each kind of expression.
pub(super) mod expression {
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const DATA: u16 = 2;

    /// NFTA_DATA_*: a value, or a verdict with its own attributes.
    pub(in super::super) const VALUE: u16 = 1;
    pub(in super::super) const VERDICT: u16 = 2;
    pub(in super::super) const VERDICT_CODE: u16 = 1;
    pub(in super::super) const VERDICT_CHAIN: u16 = 2;

    pub(in super::super) const META_DREG: u16 = 1;
    pub(in super::super) const META_KEY: u16 = 2;
    pub(in super::super) const META_SREG: u16 = 3;
    pub(in super::super) const CT_DREG: u16 = 1;
    pub(in super::super) const CT_KEY: u16 = 2;
    pub(in super::super) const CT_SREG: u16 = 4;
    pub(in super::super) const FIB_DREG: u16 = 1;
    pub(in super::super) const FIB_RESULT: u16 = 2;
    pub(in super::super) const FIB_FLAGS: u16 = 3;
    pub(in super::super) const PAYLOAD_DREG: u16 = 1;
    pub(in super::super) const PAYLOAD_BASE: u16 = 2;
    pub(in super::super) const PAYLOAD_OFFSET: u16 = 3;
    pub(in super::super) const PAYLOAD_LENGTH: u16 = 4;
    pub(in super::super) const CMP_SREG: u16 = 1;
    pub(in super::super) const CMP_OP: u16 = 2;
    pub(in super::super) const CMP_DATA: u16 = 3;
    pub(in super::super) const RANGE_SREG: u16 = 1;
    pub(in super::super) const RANGE_OP: u16 = 2;
    pub(in super::super) const RANGE_FROM: u16 = 3;
    pub(in super::super) const RANGE_TO: u16 = 4;
    pub(in super::super) const BITWISE_SREG: u16 = 1;
    pub(in super::super) const BITWISE_DREG: u16 = 2;
    pub(in super::super) const BITWISE_LENGTH: u16 = 3;
    pub(in super::super) const BITWISE_MASK: u16 = 4;
    pub(in super::super) const BITWISE_XOR: u16 = 5;
    pub(in super::super) const BITWISE_OP: u16 = 6;
    pub(in super::super) const LOOKUP_SET: u16 = 1;
    pub(in super::super) const LOOKUP_SREG: u16 = 2;
    pub(in super::super) const LOOKUP_DREG: u16 = 3;
    pub(in super::super) const LOOKUP_SET_ID: u16 = 4;
    pub(in super::super) const LOOKUP_FLAGS: u16 = 5;
    pub(in super::super) const IMMEDIATE_DREG: u16 = 1;
    pub(in super::super) const IMMEDIATE_DATA: u16 = 2;
    pub(in super::super) const NAT_TYPE: u16 = 1;
    pub(in super::super) const NAT_FAMILY: u16 = 2;
    pub(in super::super) const NAT_ADDRESS: u16 = 3;
    pub(in super::super) const NAT_PORT: u16 = 5;
    pub(in super::super) const NAT_FLAGS: u16 = 7;
}

/// NFT_META_*.
pub(super) mod meta {
    pub(in super::super) const MARK: u32 = 3;
    pub(in super::super) const IIFNAME: u32 = 6;
    pub(in super::super) const OIFNAME: u32 = 7;
    pub(in super::super) const NFPROTO: u32 = 15;
    pub(in super::super) const L4PROTO: u32 = 16;
}

/// NFT_CT_*.
pub(super) mod ct {
    pub(in super::super) const STATE: u32 = 0;
    pub(in super::super) const STATUS: u32 = 2;
    pub(in super::super) const MARK: u32 = 3;
}

/// NFT_CMP_*.
pub(super) mod cmp {
    pub(in super::super) const EQ: u32 = 0;
    pub(in super::super) const NEQ: u32 = 1;
    pub(in super::super) const LTE: u32 = 3;
    pub(in super::super) const GTE: u32 = 5;
}

/// NFT_PAYLOAD_*_HEADER.
pub(super) mod base {
    pub(in super::super) const NETWORK: u32 = 1;
    pub(in super::super) const TRANSPORT: u32 = 2;
}

/// Registers: 0 takes verdicts, 1 and 2 hold 16 bytes each, 9 is the second four bytes of 1.
pub(super) mod register {
    pub(in super::super) const VERDICT: u32 = 0;
    pub(in super::super) const FIRST: u32 = 1;
    pub(in super::super) const SECOND: u32 = 2;
    pub(in super::super) const FIRST_WORD_2: u32 = 9;
}

/// Verdicts: NF_DROP, NF_ACCEPT, NFT_JUMP (-3).
pub(super) mod verdict {
    pub(in super::super) const DROP: u32 = 0;
    pub(in super::super) const ACCEPT: u32 = 1;
    pub(in super::super) const JUMP: u32 = (-3_i32).cast_unsigned();
}

/// NFT_NAT_*.
pub(super) mod nat {
    pub(in super::super) const SOURCE: u32 = 0;
    pub(in super::super) const DESTINATION: u32 = 1;
    /// NF_NAT_RANGE_PROTO_SPECIFIED: a port is given. nft(8) says so for single ports, not for maps.
    pub(in super::super) const PORT_GIVEN: u32 = 2;
}

/// What "is it an address of this host" is made of: NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR, NFTA_FIB_F_IIF,
/// RTN_LOCAL.
pub(super) mod fib {
    pub(in super::super) const RESULT_TYPE: u32 = 3;
    pub(in super::super) const DADDR: u32 = 2;
    pub(in super::super) const IIF: u32 = 8;
    pub(in super::super) const LOCAL: u32 = 2;
}

/// IPS_DST_NAT of a connection's status.
pub(super) const DESTINATION_REWRITTEN: u32 = 0x20;

/// The set of the names of our bridges.
pub(super) const BRIDGES: &str = "bridges";

/// Where the addresses are in an IP header: source, destination.
pub(super) const IPV4_ADDRESSES: (u32, u32) = (12, 16);
pub(super) const IPV6_ADDRESSES: (u32, u32) = (8, 24);
/// Where the destination port is in a TCP, UDP or SCTP header.
pub(super) const DESTINATION_PORT: u32 = 2;
/// IFNAMSIZ.
pub(super) const NAME_LENGTH: usize = 16;
/// The kind of a comment in a rule's user data.
pub(super) const COMMENT: u8 = 0;
