use super::*;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn query(name: &str, opt: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, u8::from(!opt.is_empty())];
    bytes.extend_from_slice(&crate::zone::wire_name(name).unwrap());
    bytes.extend_from_slice(&[0, 1, 0, 1]);
    bytes.extend_from_slice(opt);
    bytes
}

/// An answer: rcode, then records as (section, type, TTL, data).
fn answer(query: &[u8], rcode: u8, records: &[(usize, u16, u32, &[u8])]) -> Vec<u8> {
    let end = 12 + Query::parse(query).unwrap().question_section().len();
    let mut bytes = query[..end].to_vec();
    (bytes[2], bytes[3], bytes[11]) = (0x81, 0x80 | rcode, 0);
    for (section, record_type, ttl, data) in records {
        bytes[7 + 2 * section] += 1;
        bytes.extend_from_slice(&[0xc0, 12]);
        bytes.extend_from_slice(&record_type.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        bytes.extend_from_slice(&ttl.to_be_bytes());
        bytes.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(data);
    }
    bytes
}

const OPT: [u8; 11] = [0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0];
const ADDRESS: [u8; 4] = [192, 0, 2, 1];
/// Two root names and five numbers, the last of them 30.
const SOA: [u8; 22] = [0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 30];

struct Bench {
    cache: Cache,
    server: SocketAddr,
}

impl Bench {
    fn new() -> Self {
        let limits = Limits { entries: 8, bytes: 4096, max_ttl: secs(1000), max_negative_ttl: secs(20) };
        Self { cache: Cache::new(limits), server: SocketAddr::from(([198, 51, 100, 1], 53)) }
    }

    fn key(&self, query: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        key(&Query::parse(query).unwrap(), &[self.server], &mut out).then_some(out)
    }

    fn put(&mut self, now: u64, query: &[u8], answer: &[u8]) {
        let key = self.key(query).unwrap();
        self.cache.put(secs(now), &key, answer);
    }

    fn get(&mut self, now: u64, query: &[u8]) -> Option<Vec<u8>> {
        let (key, mut out) = (self.key(query)?, Vec::new());
        let query = Query::parse(query).unwrap();
        self.cache.get(secs(now), &key, &query, 512, &mut out).then_some(out)
    }
}

#[test]
fn an_answer_lives_as_long_as_its_shortest_ttl() {
    let mut bench = Bench::new();
    let asked = query("A.example", &[]);
    let records: [(usize, u16, u32, &[u8]); 2] = [(0, 1, 300, &ADDRESS), (0, 1, 60, &ADDRESS)];
    bench.put(10, &asked, &answer(&asked, 0, &records));
    let mut other = query("a.EXAMPLE", &[]);
    (other[0], other[1]) = (0xab, 0xcd);
    let given = bench.get(50, &other).unwrap();
    // One's own id and spelling, and what is left of the TTLs.
    let records: [(usize, u16, u32, &[u8]); 2] = [(0, 1, 260, &ADDRESS), (0, 1, 20, &ADDRESS)];
    assert_eq!(given, answer(&other, 0, &records));
    assert!(bench.get(69, &asked).is_some() && bench.get(70, &asked).is_none());
}

#[test]
fn that_there_is_none_lives_as_long_as_the_soa_says() {
    let mut bench = Bench::new();
    let asked = query("none.example", &[]);
    let soa = |ttl| -> [(usize, u16, u32, &'static [u8]); 1] { [(1, 6, ttl, &SOA)] };
    bench.put(0, &asked, &answer(&asked, 3, &[]));
    assert!(bench.get(0, &asked).is_none(), "no SOA");
    bench.put(0, &asked, &answer(&asked, 3, &soa(10)));
    assert!(bench.get(9, &asked).is_some() && bench.get(10, &asked).is_none());
    bench.put(100, &asked, &answer(&asked, 0, &soa(3600)));
    assert!(bench.get(119, &asked).is_some() && bench.get(120, &asked).is_none(), "our own limit");
}

#[test]
fn what_is_not_kept() {
    let asked = query("x.example", &[]);
    let record: [(usize, u16, u32, &[u8]); 1] = [(0, 1, 300, &ADDRESS)];
    let good = answer(&asked, 0, &record);
    let never = |change: &dyn Fn(&mut Vec<u8>)| {
        let (mut bench, mut bytes) = (Bench::new(), good.clone());
        change(&mut bytes);
        bench.put(0, &asked, &bytes);
        bench.cache.is_empty()
    };
    assert!(!never(&|_| {}));
    assert!(never(&|bytes| bytes[2] |= 2), "truncated");
    assert!(never(&|bytes| bytes[3] |= 2), "SERVFAIL");
    assert!(never(&|bytes| bytes[2] &= 0x7f), "no answer");
    assert!(never(&|bytes| bytes.truncate(40)), "cut off");
    assert!(never(&|bytes| bytes[9] = 9), "promises more");
    let ttl = good.len() - 10;
    assert!(never(&|bytes| bytes[ttl..ttl + 4].fill(0)), "TTL 0");
    assert!(never(&|bytes| bytes[ttl] = 0x80), "TTL below 0");
    assert!(never(&|bytes| bytes.splice(12..23 + 4, []).for_each(drop)), "another shape");
}

#[test]
fn questions_that_differ_are_kept_apart() {
    let bench = Bench::new();
    let plain = bench.key(&query("a.example", &[])).unwrap();
    let mut differing = vec![plain.clone(), bench.key(&query("b.example", &[])).unwrap()];
    differing.push(bench.key(&query("a.example", &OPT)).unwrap());
    for (at, byte) in [(2, 0), (3, 0x10), (3, 0x20), (24, 28)] {
        let mut asked = query("a.example", &[]);
        asked[at] = byte;
        differing.push(bench.key(&asked).unwrap());
    }
    let elsewhere = Bench { server: SocketAddr::from(([198, 51, 100, 2], 53)), ..Bench::new() };
    differing.push(elsewhere.key(&query("a.example", &[])).unwrap());
    let count = differing.len();
    differing.sort();
    differing.dedup();
    assert_eq!(differing.len(), count);
    assert_eq!(bench.key(&query("A.EXAMPLE", &[])).unwrap(), plain);
    // Options, other versions, other classes and operations go past the cache.
    let mut cookie = OPT;
    cookie[10] = 1;
    let cookie = query("a.example", &[&cookie[..], &[0]].concat());
    let mut version = OPT;
    version[6] = 1;
    let mut class = query("a.example", &[]);
    *class.last_mut().unwrap() = 3;
    let mut opcode = query("a.example", &[]);
    opcode[2] |= 5 << 3;
    for odd in [&cookie, &query("a.example", &version), &class, &opcode, &vec![0; 12]] {
        assert_eq!(bench.key(odd), None);
    }
}

#[test]
fn an_answer_too_long_for_the_client_is_fetched_anew() {
    let mut bench = Bench::new();
    let asked = query("long.example", &[]);
    bench.put(0, &asked, &answer(&asked, 0, &[(0, 1, 300, &[7; 600])]));
    assert_eq!((bench.cache.len(), bench.get(1, &asked)), (1, None));
}

#[test]
fn bounded_in_number_and_bytes_the_oldest_goes_first() {
    let mut bench = Bench::new();
    let name = |n: u32| query(&format!("n{n}.example"), &[]);
    let record: [(usize, u16, u32, &[u8]); 1] = [(0, 1, 300, &ADDRESS)];
    for n in 0..100 {
        bench.put(0, &name(n), &answer(&name(n), 0, &record));
        bench.put(0, &name(n / 2), &answer(&name(n / 2), 0, &record));
        assert!(bench.cache.len() <= 8 && bench.cache.order.len() <= 16);
    }
    assert!(bench.get(1, &name(99)).is_some() && bench.get(1, &name(80)).is_none());
    for n in 0..100 {
        bench.put(0, &name(n), &answer(&name(n), 0, &[(0, 1, 300, &[7; 1500])]));
        assert!(bench.cache.bytes <= 4096, "{}", bench.cache.bytes);
    }
    assert!(!bench.cache.is_empty());
    let counted: usize = bench.cache.entries.iter().map(|(key, entry)| entry.bytes(key)).sum();
    assert_eq!(counted, bench.cache.bytes);
}
