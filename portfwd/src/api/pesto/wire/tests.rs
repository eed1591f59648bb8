use super::*;
use crate::rule::passt::{Context, parse};
use proptest::prelude::*;

const ALL: Context = Context { can: Capabilities::ALL, ephemeral: (32_768, 60_999) };

fn drafts(option: char, spec: &str) -> Vec<Draft> {
    parse(option, spec, &ALL).unwrap().rules.iter().map(Draft::from).collect()
}

type Tables = Vec<(Side, Vec<Draft>)>;

fn update(bytes: &[u8]) -> Result<Option<Tables>, WireError> {
    let mut update = Update::default();
    Ok(update.feed(bytes)?.then(|| update.tables().to_vec()))
}

/// Bytes that pesto 0.0~git20261002 wrote.
#[test]
fn rules_of_the_original_are_understood_and_written_alike() {
    let dual = "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000500052\
                005a0601";
    let loopback = "00000000000000000000000000000000000000000000000000000000000000006c6f000000000000000000000000000000\
                    050005000506\
                    01";
    let target = "00000000000000000000ffff0a00000100000000000000000000ffff0a000002000000000000000000000000000000000005\
                  000500050600";
    for (hex, option, spec) in
        [(dual, 't', "80-82:90-92"), (loopback, 'T', "5"), (target, 't', "10.0.0.1/5:10.0.0.2")]
    {
        let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let hex = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = digits.chunks(2).map(hex).collect();
        let draft = read_rule(bytes.as_slice().try_into().unwrap()).unwrap();
        assert_eq!(vec![draft], drafts(option, spec), "{spec}");
        assert_eq!(rule(&draft).as_slice(), bytes, "{spec}");
    }
}

#[test]
fn whole_tables_come_back_however_they_are_cut() {
    let mut bytes = Vec::new();
    new_table(3, &drafts('U', "53,auto"), &mut bytes);
    new_table(1, &drafts('t', "fe80::1%eth0/80-90,~85"), &mut bytes);
    bytes.push(0);
    let whole = update(&bytes).unwrap().unwrap();
    assert_eq!(
        whole.iter().map(|(side, rules)| (*side, rules.len())).collect::<Vec<_>>(),
        [(Side::Namespace, 1), (Side::Host, 2)]
    );
    for portion in [1, 2, 3, 55, 56, 57] {
        let mut update = Update::default();
        let ends: Vec<bool> = bytes.chunks(portion).map(|some| update.feed(some).unwrap()).collect();
        assert!(ends.iter().rev().skip(1).all(|end| !end) && ends.last() == Some(&true), "{portion}");
        assert_eq!(update.tables(), whole);
        assert!(update.partial.capacity() < 2 * RULE_LEN);
    }
    assert_eq!(update(&[0]).unwrap(), Some(Vec::new()));
    assert_eq!(update(&bytes[..bytes.len() - 1]).unwrap(), None);
}

#[test]
fn what_makes_no_sense_is_refused_before_it_costs_anything() {
    let count = |place: u8, count: u32| [&[place][..], &count.to_be_bytes()].concat();
    assert_eq!(update(&count(1, u32::MAX)), Err(WireError::TooMany));
    assert_eq!(update(&count(1, 256)), Err(WireError::TooMany));
    assert_eq!(update(&count(1, 255)), Ok(None));
    for place in [2, 4, 255] {
        assert_eq!(update(&count(place, 0)), Err(WireError::Place(place)));
    }
    assert_eq!(update(&[count(1, 0), count(1, 0)].concat()), Err(WireError::Twice));
    let good = rule(&drafts('t', "80")[0]);
    let with = |at: usize, byte: u8| {
        let mut bytes = good;
        bytes[at] = byte;
        read_rule(&bytes).unwrap_err()
    };
    assert_eq!(with(54, 132), WireError::Rule("an unknown protocol"));
    assert_eq!(with(55, 9), WireError::Rule("unknown flags"));
    assert_eq!(with(15, 1), WireError::Rule("an address and all of both families"));
    assert_eq!(with(32, b'/'), WireError::Rule("an interface whose name none has"));
    let mut endless = good;
    endless[32..48].fill(b'x');
    assert_eq!(read_rule(&endless), Err(WireError::Name));
}

#[test]
fn a_greeting_is_looked_at_field_by_field() {
    let good = greeting();
    let with = |at: usize, byte: u8| {
        let mut bytes: [u8; GREETING_LEN] = good.as_slice().try_into().unwrap();
        bytes[at] = byte;
        read_greeting(&bytes).map_err(|error| error.to_string())
    };
    assert_eq!(with(0, b'b'), Ok(()));
    assert_eq!(with(0, b'x').unwrap_err(), "Bad magic number from server");
    assert_eq!(with(11, 3).unwrap_err(), "Unknown server protocol version 3 > 2");
    assert_eq!(with(11, 1).unwrap_err(), "Unsupported server protocol version 1");
    assert_eq!(with(15, 64).unwrap_err(), "Server has unexpected pif name size (64 not 128)");
    assert_eq!(with(19, 32).unwrap_err(), "Server has unexpected IFNAMSIZ (32 not 16)");
}

#[test]
fn abilities_and_heads_come_back() {
    assert_eq!(abilities(Capabilities::ALL), 0x3f);
    for bits in 0..64 {
        assert_eq!(abilities(read_abilities(bits | 0xffc0)), bits);
    }
    let mut bytes = Vec::new();
    table(Side::Namespace, Capabilities::ALL, &drafts('T', "80"), &mut bytes);
    let head = read_head(bytes[0], bytes[1..HEAD_LEN].try_into().unwrap()).unwrap();
    let expected =
        Head { place: 3, name: "SPLICE".to_owned(), can: Capabilities::ALL, answers: true, count: 1 };
    assert_eq!((head, bytes.len()), (expected, HEAD_LEN + RULE_LEN));
    let escape: Vec<u8> = [&b"\x1b[31m"[..], &[0; HEAD_LEN]].concat();
    assert_eq!(read_head(9, escape[..HEAD_LEN - 1].try_into().unwrap()).unwrap().name, "?[31m");
    assert_eq!(read_head(9, &[b'x'; HEAD_LEN - 1]), Err(WireError::Name));
}

#[test]
fn a_status_is_read_only_where_there_is_one() {
    assert_eq!(Status::read(b""), None);
    for done in [true, false] {
        let status = Status { done, text: "two\nlines".to_owned() };
        assert_eq!(Status::read(&status.to_bytes()), Some(status));
    }
    let long = Status { done: false, text: "x".repeat(1 << 20) };
    assert_eq!(long.to_bytes().len(), MAX_STATUS + 1);
}

proptest! {
    #[test]
    fn any_bytes_are_survived_and_take_little(bytes: Vec<u8>, cut in 0..64_usize) {
        let mut update = Update::default();
        let mut portions = bytes.chunks(cut + 1);
        let _ = portions.try_for_each(|some| update.feed(some).map(drop));
        prop_assert!(update.tables().iter().map(|(_, rules)| rules.len()).sum::<usize>() <= bytes.len() / RULE_LEN);
        prop_assert!(update.partial.capacity() < 2 * RULE_LEN);
    }

    #[test]
    fn any_rule_that_is_understood_is_written_alike(mut bytes: [u8; RULE_LEN], short: bool) {
        if short {
            bytes[32..48].fill(0);
            bytes[54] = 6;
            bytes[55] &= 6;
        }
        if let Ok(draft) = read_rule(&bytes) {
            prop_assert_eq!(read_rule(&rule(&draft)), Ok(draft));
        }
    }
}
