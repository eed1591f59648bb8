use super::super::message::Leased;
use super::*;

fn found() -> Found {
    let advert = [
        &[134, 0, 0, 0, 64, 0xc0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &[
            3, 4, 64, 0xc0, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0,
        ],
        &[25, 3, 0, 0, 0, 0, 0, 9, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &[31, 2, 0, 0, 0, 0, 0, 9, 3, b'l', b'a', b'n', 0, 0, 0, 0],
        &[5, 1, 0, 0, 0, 0, 5, 220],
    ];
    Found {
        advert: Advert::parse("fe80::1".parse().unwrap(), &advert.concat()),
        grant: Some(Grant {
            server: vec![0, 3, 0, 1, 0xab],
            addresses: vec![Leased { address: "fd00::7".parse().unwrap(), preferred: 100, valid: 200 }],
            withdrawn: Vec::new(),
            times: [50, 80, 200],
        }),
        known: Some(Known {
            dns_servers: vec!["fd00::53".parse().unwrap()],
            search: vec!["example.org".into()],
        }),
        own: vec!["fd00::200:ff:fe00:1/64".parse().unwrap()],
    }
}

#[test]
fn a_message_in_the_contracts_words() {
    let lease = found().to_message("02:00:00:00:00:01", "asked").unwrap();
    assert!(lease.is_v6);
    assert_eq!((lease.yiaddr.as_str(), lease.subnet_mask.as_str()), ("fd00::7", "ffff:ffff:ffff:ffff::"));
    assert_eq!((lease.t1, lease.t2, lease.lease_time, lease.mtu), (50, 80, 200, 1500));
    assert_eq!(
        (lease.gateways, lease.dns_servers),
        (vec!["fe80::1".to_owned()], vec!["fd00::53".to_owned()])
    );
    assert_eq!((lease.domain_name.as_str(), lease.srv_id.as_str()), ("example.org lan", "00030001ab"));
    assert_eq!((lease.siaddr.as_str(), lease.mac_address.as_str()), ("", "02:00:00:00:00:01"));
}

#[test]
fn without_a_server_the_interfaces_own_address_is_told() {
    let own = Found { grant: None, known: None, ..found() };
    let lease = own.to_message("", "asked").unwrap();
    assert_eq!(lease.yiaddr, "fd00::200:ff:fe00:1");
    assert_eq!((lease.t1, lease.lease_time), (FOREVER, FOREVER));
    assert_eq!((lease.domain_name.as_str(), lease.srv_id.as_str()), ("lan", ""));
    let bare = Found { advert: None, ..found() };
    let lease = bare.to_message("", "asked").unwrap();
    assert_eq!(lease.subnet_mask, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    assert_eq!((lease.gateways.len(), lease.domain_name.as_str()), (0, "example.org"));
}

#[test]
fn nothing_has_its_reason() {
    let four = Duration::from_secs(4);
    let nothing = Found::default();
    assert_eq!(nothing.to_message("", ""), None);
    assert_eq!(nothing.why_nothing("br0", four), "no router and no DHCPv6 server answered on br0 within 4 s");
    let mut silent = Found { grant: None, own: Vec::new(), ..found() };
    assert!(silent.why_nothing("br0", four).contains("refers to DHCPv6, but no server granted an address"));
    silent.advert = silent.advert.map(|advert| Advert { managed: false, ..advert });
    assert!(silent.why_nothing("br0", four).contains("announce no prefix"));
}
