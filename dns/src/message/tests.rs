use super::*;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as HickoryQuery};
use hickory_proto::rr::{Name, RData, RecordType as HickoryType, rdata};
use proptest::prelude::*;

/// A query as hickory would send it.
fn sent(name: &str, record_type: u16, edns: bool) -> Vec<u8> {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.authentic_data = true;
    message.metadata.checking_disabled = true;
    message.add_query(HickoryQuery::query(Name::from_ascii(name).unwrap(), HickoryType::from(record_type)));
    if edns {
        let mut edns = Edns::new();
        edns.set_max_payload(1232).set_dnssec_ok(true).set_version(0);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

#[test]
fn a_query_is_read() {
    let bytes = sent("WWW.Example.org.", 28, true);
    let query = Query::parse(&bytes).unwrap();
    assert_eq!((query.id(), query.record_type(), query.class()), (0x1234, RecordType::AAAA, CLASS_IN));
    assert_eq!((query.udp_size(), query.opcode(), query.questions()), (1232, 0, 1));
    assert_eq!(query.name().text(), b"www.example.org.");
    assert_eq!(query.name().to_string(), "www.example.org.");
    assert_eq!(query.name_as_asked(&mut [0; MAX_NAME]), b"WWW.Example.org.");
    assert!(query.ends_with_exactly(b".Example.org.") && !query.ends_with_exactly(b".example.org."));
    assert!(query.ends_with_exactly(b"") && !query.ends_with_exactly(b"w.WWW.Example.org."));
    assert_eq!(query.opt().map(<[u8]>::len), Some(11));
    assert_eq!(Query::parse(&sent("a.", 1, false)).unwrap().udp_size(), 512);
}

#[test]
fn a_query_without_question_asks_for_the_root() {
    let query = Query::parse(&[0; 12]).unwrap();
    assert_eq!((query.name().text(), query.record_type()), (&b"."[..], RecordType::A));
    let mut out = Vec::new();
    let mut answer = AnswerBuilder::new(&query, Rcode::NOERROR, 512, &mut out);
    answer.record(RecordType::A, 0, &[192, 0, 2, 1]);
    answer.finish();
    assert_eq!(Message::from_vec(&out).unwrap().answers[0].name, Name::root());
}

#[test]
fn an_answer_has_the_query_in_it_and_hickory_reads_it() {
    let bytes = sent("Web.dns.podman.", 1, true);
    let query = Query::parse(&bytes).unwrap();
    let mut out = vec![9; 99];
    let mut answer = AnswerBuilder::new(&query, Rcode::NOERROR, MAX_MESSAGE, &mut out);
    answer.record(RecordType::A, 0, &[10, 89, 0, 2]);
    answer.record(RecordType::A, 0, &[10, 89, 0, 3]);
    answer.finish();
    let (asked, read) = (Message::from_vec(&bytes).unwrap(), Message::from_vec(&out).unwrap());
    assert_eq!((read.queries, read.edns), (asked.queries.clone(), asked.edns.clone()));
    let flags = read.metadata;
    assert_eq!(flags.message_type, MessageType::Response);
    assert!(flags.recursion_desired && flags.recursion_available && flags.checking_disabled);
    assert!(!flags.authoritative && !flags.truncation && !flags.authentic_data);
    for (record, last) in read.answers.iter().zip([2, 3]) {
        assert_eq!(record.name.to_ascii(), "Web.dns.podman.");
        assert_eq!((record.ttl, &record.data), (0, &RData::A(rdata::A::new(10, 89, 0, last))));
    }
    assert_eq!(read.answers.len(), 2);
}

#[test]
fn ra_follows_rd_and_what_does_not_fit_is_cut() {
    let mut bytes = sent("web.", 1, true);
    bytes[2] = 0;
    let query = Query::parse(&bytes).unwrap();
    let mut out = Vec::new();
    let mut answer = AnswerBuilder::new(&query, Rcode::NXDOMAIN, 12 + 9 + 11 + 16, &mut out);
    (0..2).for_each(|last| answer.record(RecordType::A, 0, &[10, 89, 0, last]));
    answer.finish();
    let read = Message::from_vec(&out).unwrap();
    assert!(!read.metadata.recursion_available && read.metadata.truncation && read.edns.is_some());
    assert_eq!((read.answers.len(), out.len()), (1, 12 + 9 + 11 + 16));
    assert_eq!(u16::from(read.metadata.response_code), 3);
}

#[test]
fn malformed_messages_are_named() {
    let good = sent("www.example.org.", 1, true);
    for len in 0..good.len() {
        assert_eq!(Query::parse(&good[..len]).unwrap_err(), Malformed::Truncated, "{len}");
    }
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Query::parse(&bytes).map(|query| query.questions())
    };
    assert_eq!(with(2, 0x80), Err(Malformed::NotAQuery));
    // The name: a pointer to itself, an unknown kind of label, a label over the end.
    assert_eq!(with(12, 0xc0), Err(Malformed::Name));
    assert_eq!(with(12, 0x41), Err(Malformed::Name));
    assert_eq!(with(12, 63), Err(Malformed::Truncated));
    // More questions and records than there are.
    assert!(with(4, 0xff).is_err() && with(6, 0xff).is_err() && with(8, 1).is_err() && with(10, 1).is_err());
    assert_eq!(Query::parse(&vec![0; MAX_MESSAGE + 1]).unwrap_err(), Malformed::TooLong);
    // What follows the message does not matter.
    assert!(Query::parse(&[&good[..], &[0xc0; 900]].concat()).is_ok());
}

#[test]
fn names_end_at_255_bytes() {
    let name = |labels: usize, last: usize| {
        let mut bytes = vec![0; 12];
        bytes[5] = 1;
        (0..labels).for_each(|_| bytes.extend_from_slice(&[&[63][..], &[b'A'; 63]].concat()));
        bytes.push(u8::try_from(last).unwrap());
        bytes.extend_from_slice(&vec![b'B'; last]);
        bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
        bytes
    };
    let longest = name(3, 61);
    let query = Query::parse(&longest).unwrap();
    assert_eq!(query.name().text().len(), 254);
    assert_eq!(query.question_section().len(), 255 + 4);
    assert_eq!(Query::parse(&name(3, 62)).unwrap_err(), Malformed::Name);
    assert_eq!(Query::parse(&name(4, 1)).unwrap_err(), Malformed::Name);
}

#[test]
fn dots_and_strange_bytes_in_labels_are_not_mistaken() {
    let mut bytes = vec![0; 12];
    bytes[5] = 1;
    bytes.extend_from_slice(b"\x03a.b\x01\xff\x00\x00\x01\x00\x01");
    let query = Query::parse(&bytes).unwrap();
    assert_eq!(query.name().plain(), None);
    assert_eq!(query.name().to_string(), "a.b.\\255.");
}

#[test]
fn a_message_of_pointers_costs_one_pass() {
    // As many additional records as fit, each named by a chain of pointers through all those before it.
    let mut bytes = vec![0; 12];
    while bytes.len() + 12 <= MAX_MESSAGE {
        let before = u16::try_from(bytes.len() - 12).unwrap().min(0x3fff) | 0xc000;
        bytes.extend_from_slice(&before.to_be_bytes());
        bytes.extend_from_slice(&[0; 10]);
    }
    let count = u16::try_from((bytes.len() - 12) / 12).unwrap();
    bytes[10..12].copy_from_slice(&count.to_be_bytes());
    for _ in 0..200 {
        assert!(Query::parse(&bytes).is_ok());
    }
}

#[test]
fn types_and_codes_have_names() {
    let shown = [1, 28, 12, 65, 64999].map(|number| RecordType(number).to_string());
    assert_eq!(shown, ["A", "AAAA", "PTR", "HTTPS", "TYPE64999"]);
    let shown = [0, 1, 2, 3, 4, 5, 9].map(|number| Rcode(number).to_string());
    assert_eq!(shown, ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "RCODE9"]);
}

#[test]
fn questions_compare_without_case_but_with_their_numbers() {
    let question = |name: &str, kind| sent(name, kind, false)[12..].to_vec();
    assert!(same_question(&question("A.b.", 1), &question("a.B.", 1)));
    assert!(!same_question(&question("a.b.", 65), &question("a.b.", 97)));
    assert!(!same_question(&question("a.b.", 1), &question("a.c.", 1)));
    assert!(same_question(&[], &[]) && !same_question(&[], &question("a.", 1)));
}

proptest! {
    /// Any bytes: no panic, and what hickory takes for a query without compressed names we take too.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Reply::parse(&bytes).map(|reply| reply.records(|_, _, _, _, _| ()));
        if let Ok(query) = Query::parse(&bytes) {
            let mut out = Vec::new();
            empty(&query, Rcode::NXDOMAIN, &mut out);
            prop_assert_eq!(Reply::parse(&out).unwrap().questions(), query.questions());
            let _ = query.name().to_string();
        }
    }

    /// Damaged queries: what hickory can read whole, we can read as far as it matters. (But not a compressed name in
    /// the first question, which can only point into the header.)
    #[test]
    fn damaged(at in 0usize..60, byte: u8, cut in 20usize..80) {
        let mut bytes = sent("some.where.example.", 1, true);
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        bytes.truncate(cut);
        let _ = Reply::parse(&bytes);
        match (Query::parse(&bytes), Message::from_vec(&bytes)) {
            (Err(Malformed::NotAQuery | Malformed::Name), _) | (_, Err(_)) => {}
            (ours, Ok(message)) => {
                let first = message.queries.first();
                let (ours, name) = (ours.unwrap(), first.map_or_else(Name::root, |q| q.name().clone()));
                if ours.name().plain().is_some() && ours.name().text().is_ascii() && !name.to_ascii().contains('\\') {
                    let lower = name.to_lowercase().to_ascii();
                    prop_assert_eq!(ours.name().text(), lower.as_bytes());
                }
                prop_assert_eq!(ours.record_type().0, first.map_or(1, |q| q.query_type().into()));
                prop_assert_eq!(ours.opt().is_some(), message.edns.is_some());
            }
        }
    }

    /// Any good query: read as it was written, and the answer reads back.
    #[test]
    fn round_trip(name in "([a-zA-Z0-9_][a-zA-Z0-9_-]{0,20}\\.){1,8}", record_type in 1u16..300, edns: bool) {
        prop_assume!(!(41..42).contains(&record_type) && !(249..256).contains(&record_type));
        let bytes = sent(&name, record_type, edns);
        let query = Query::parse(&bytes).unwrap();
        let lower = name.to_ascii_lowercase();
        prop_assert_eq!(query.name().text(), lower.as_bytes());
        prop_assert_eq!(query.record_type().0, record_type);
        let mut out = Vec::new();
        prop_assert!(servfail(&bytes, &mut out));
        let read = Message::from_vec(&out).unwrap();
        prop_assert_eq!(read.queries[0].name().to_ascii(), name);
        prop_assert_eq!(read.edns.is_some(), edns);
    }
}
