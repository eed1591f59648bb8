use super::*;
use proptest::prelude::*;

const ALL: Context = Context { can: Capabilities::ALL, ephemeral: (32_768, 60_999) };

/// The rules of a SPEC, as they are shown, without the blank at the end of a line.
fn shown(option: char, spec: &str, context: &Context) -> Result<Vec<String>, String> {
    let mut forwards = Forwards::default();
    forwards.apply(Verb::Add, option, spec, context).map_err(|error| error.to_string())?;
    Ok(forwards.all().map(|rule| Draft::from(&rule).to_string().trim_end().to_owned()).collect())
}

fn rules(spec: &str) -> Vec<String> {
    shown('t', spec, &ALL).unwrap_or_else(|error| panic!("{spec}: {error}"))
}

fn refusal(option: char, spec: &str) -> String {
    shown(option, spec, &ALL).expect_err(spec)
}

#[test]
fn the_forms_of_the_original_become_the_rules_that_it_shows() {
    let table: &[(&str, &[&str])] = &[
        ("none", &[]),
        ("8080", &["TCP [*]:8080  =>  8080"]),
        ("80, 81", &["TCP [*]:80  =>  80", "TCP [*]:81  =>  81"]),
        ("127.0.0.1/8080", &["TCP [127.0.0.1]:8080  =>  8080"]),
        ("::1/5000-5002:6000-6002", &["TCP [::1]:5000-5002  =>  6000-6002"]),
        ("[::1]/8080:80", &["TCP [::1]:8080  =>  80"]),
        ("/80", &["TCP [*]:80  =>  80"]),
        ("*/53", &["TCP [*]:53  =>  53"]),
        ("%lo/80", &["TCP [*]%lo:80  =>  80"]),
        ("::1%lo/80:90", &["TCP [::1]%lo:80  =>  90"]),
        ("fe80::1%lo/80", &["TCP [fe80::1]%lo:80  =>  80"]),
        ("8080:fd00::1/80", &["TCP [8080:fd00::1]:80  =>  80"]),
        ("::ffff:127.0.0.1/80", &["TCP [127.0.0.1]:80  =>  80"]),
        (
            "*%lo/53,80-90,~85",
            &["TCP [*]%lo:53  =>  53", "TCP [*]%lo:80-84  =>  80-84", "TCP [*]%lo:86-90  =>  86-90"],
        ),
        ("1-10,~3-4,~9", &["TCP [*]:1-2  =>  1-2", "TCP [*]:5-8  =>  5-8", "TCP [*]:10  =>  10"]),
        ("80-90:180-190,~85", &["TCP [*]:80-84  =>  180-184", "TCP [*]:86-90  =>  186-190"]),
        ("80-81:82-83,~81", &["TCP [*]:80  =>  82"]),
        ("80-82,auto", &["TCP [*]:80-82  =>  80-82  (auto-scan)"]),
        ("0.0.0.0/auto,80:10.0.0.1/81,~82", &["TCP [0.0.0.0]:80  =>  10.0.0.1:81  (auto-scan)"]),
        ("all,80", &["TCP [*]:80  =>  80"]),
        (
            "auto,~80",
            &[
                "TCP [*]:1-79  =>  1-79  (best effort) (auto-scan)",
                "TCP [*]:81-32767  =>  81-32767  (best effort) (auto-scan)",
                "TCP [*]:61000-65535  =>  61000-65535  (best effort) (auto-scan)",
            ],
        ),
        (
            "all,all",
            &[
                "TCP [*]:1-32767  =>  1-32767  (best effort)",
                "TCP [*]:61000-65535  =>  61000-65535  (best effort)",
            ],
        ),
        (
            "0.0.0.0/~1-65530,all:10.0.0.1,all:10.0.0.2",
            &["TCP [0.0.0.0]:65531-65535  =>  10.0.0.2:65531-65535  (best effort)"],
        ),
        ("~1-65530,all:0.0.0.0", &["TCP [*]:65531-65535  =>  65531-65535  (best effort)"]),
        ("127.0.0.1/8080:10.0.0.1", &["TCP [127.0.0.1]:8080  =>  10.0.0.1:8080"]),
        ("0.0.0.0/8080:[10.0.0.1]/80", &["TCP [0.0.0.0]:8080  =>  10.0.0.1:80"]),
        ("::/8080:fd00::1/80", &["TCP [::]:8080  =>  fd00::1:80"]),
        ("::/80:::", &["TCP [::]:80  =>  80"]),
        ("65534-65535:1-2", &["TCP [*]:65534-65535  =>  1-2"]),
        ("~1-65535", &[]),
        ("80,~80", &[]),
        ("1-5,~0", &["TCP [*]:1-5  =>  1-5"]),
        ("080", &["TCP [*]:80  =>  80"]),
    ];
    for (spec, expected) in table {
        assert_eq!(rules(spec), *expected, "{spec}");
    }
}

#[test]
fn what_is_not_of_the_grammar_is_shown_without_the_listening_address() {
    for spec in [
        "65536",
        "5-0",
        "80-79",
        "80-82:90-91",
        "80:90-91",
        "80-81:90",
        "",
        ",",
        "80,",
        ",80",
        "80,,81",
        "auto:80",
        "all:80",
        "all:",
        "none,80",
        "80,none",
        "~80:90",
        "foo",
        "80:foo",
        "1.2.3.4%/80",
        "%/80",
        "%abcdefghijklmnopq/80",
        "1.2.3/80",
        "[::1/80",
        "::1]/80",
        "[]/80",
        "[*]/80",
        "80-81:127.0.0.1/90",
        "80 ,81",
        "80 ",
        "80-",
        "-80",
        "80-82-84",
        "80:81:82",
        "80:10.0.0.1/90/91",
        "ALL",
        "80:",
        "80:/90",
        "80:*/90",
        "5/6",
        "auto/5",
        "99999999999999999999",
        "80:fe80::1%lo",
        "80:10.0.0.1/",
    ] {
        assert_eq!(refusal('t', spec), format!("Invalid port specifier '{spec}'"), "{spec}");
    }
    assert_eq!(refusal('t', "1.2.3.4/"), "Invalid port specifier ''");
    assert_eq!(refusal('t', "127.0.0.1/127.0.0.1/80"), "Invalid port specifier '127.0.0.1/80'");
    assert_eq!(refusal('t', "127.0.0.1/80,%lo/81"), "Invalid port specifier '80,%lo/81'");
}

#[test]
fn impossible_rules_are_refused_in_the_words_of_the_original() {
    let table = [
        ("0", "Forwarding rule attempts to map from port 0\nUnable to add rule TCP [*]:0  =>  0 "),
        ("80:0", "Forwarding rule attempts to map to port 0\nUnable to add rule TCP [*]:80  =>  0 "),
        (
            "8080:10.0.0.1/80",
            "Dual stack forward to IPv4 address 10.0.0.1 unsupported\nDid you mean 0.0.0.0/... instead?\n\
             Unable to add rule TCP [*]:8080  =>  10.0.0.1:80 ",
        ),
        (
            "80:[fd00::1]/80",
            "Dual stack forward to IPv6 address fd00::1 unsupported\nDid you mean [::]/... instead?\n\
             Unable to add rule TCP [*]:80  =>  fd00::1:80 ",
        ),
        (
            "127.0.0.1/80:::1/80",
            "Forward from IPv4 (127.0.0.1) to IPv6 (::1) unsupported\n\
             Unable to add rule TCP [127.0.0.1]:80  =>  ::1:80 ",
        ),
        (
            "0.0.0.0/80:224.0.0.1",
            "Multicast target address 224.0.0.1 for forwarding rule\n\
             Unable to add rule TCP [0.0.0.0]:80  =>  224.0.0.1:80 ",
        ),
        (
            "80,80",
            "Forwarding configuration conflict: TCP [*]:80  =>  80  versus TCP [*]:80  =>  80 \n\
             Unable to add rule TCP [*]:80  =>  80 ",
        ),
        (
            "80-90,85",
            "Forwarding configuration conflict: TCP [*]:85  =>  85  versus TCP [*]:80-90  =>  80-90 \n\
             Unable to add rule TCP [*]:85  =>  85 ",
        ),
    ];
    for (spec, text) in table {
        assert_eq!(refusal('t', spec), text, "{spec}");
    }
    assert!(
        refusal('t', "fe80::1/80").contains("fe80::1 is a link-local address, which needs its interface")
    );
}

#[test]
fn what_the_guest_does_not_have_cannot_be_asked_for() {
    let can = Capabilities::ALL;
    let v4 = Context { can: Capabilities { ipv6: false, ..can }, ..ALL };
    let v6 = Context { can: Capabilities { ipv4: false, ..can }, ..ALL };
    assert_eq!(shown('t', "80", &v4).unwrap(), ["TCP [0.0.0.0]:80  =>  80"]);
    assert_eq!(shown('t', "80", &v6).unwrap(), ["TCP [::]:80  =>  80"]);
    assert_eq!(shown('t', "80:10.0.0.1", &v4).unwrap(), ["TCP [0.0.0.0]:80  =>  10.0.0.1:80"]);
    let error = shown('t', "::1/80", &v4).unwrap_err();
    assert_eq!(error, "IPv6 forward, but IPv6 not enabled\nUnable to add rule TCP [::1]:80  =>  80 ");
    let error = shown('t', "127.0.0.1/80", &v6).unwrap_err();
    assert_eq!(error, "IPv4 forward, but IPv4 not enabled\nUnable to add rule TCP [127.0.0.1]:80  =>  80 ");
    let no_tcp = Context { can: Capabilities { tcp: false, ..can }, ..ALL };
    let error = shown('t', "81", &no_tcp).unwrap_err();
    assert_eq!(
        error,
        "Can't add TCP forwarding rule, TCP not enabled\nUnable to add rule TCP [*]:81  =>  81 "
    );
    assert_eq!(shown('u', "81", &no_tcp).unwrap(), ["UDP [*]:81  =>  81"]);
    let passt = Context { can: Capabilities { scan: false, ..can }, ..ALL };
    assert_eq!(
        shown('t', "80,auto", &passt).unwrap_err(),
        "'auto' port forwarding is only allowed for pasta"
    );
    let old = Context { can: Capabilities { interface: false, ..can }, ..ALL };
    let error = shown('t', "%lo/5", &old).unwrap_err();
    assert_eq!(error, "Device binding for '-t %lo/5' unsupported (requires kernel 5.7+)");
}

#[test]
fn the_namespaces_options_listen_on_its_loopback() {
    assert_eq!(shown('T', "80:81", &ALL).unwrap(), ["TCP [*]%lo:80  =>  81"]);
    assert_eq!(shown('U', "80,auto", &ALL).unwrap(), ["UDP [*]%lo:80  =>  80  (auto-scan)"]);
    for spec in ["127.0.0.1/80", "%lo/80", "/80", "*/90"] {
        assert_eq!(refusal('T', spec), format!("Listening address not allowed for -T {spec}"));
    }
    assert_eq!(refusal('U', "1/2"), "Invalid port specifier '1/2'");
    let old = Context { can: Capabilities { interface: false, ..Capabilities::ALL }, ..ALL };
    let spec = parse('T', "5", &old).unwrap();
    assert_eq!(
        spec.warning.as_deref(),
        Some("SO_BINDTODEVICE unavailable, forwarding only 127.0.0.1 and ::1 for '-T 5'")
    );
    assert_eq!(shown('T', "5", &old).unwrap(), ["TCP [127.0.0.1]:5  =>  5", "TCP [::1]:5  =>  5"]);
    assert!(spec.rules.iter().all(|rule| rule.side() == Side::Namespace));
}

/// Options one after the other, and the first error.
fn options(given: &[(char, &str)]) -> Result<Forwards, String> {
    let mut forwards = Forwards::default();
    for (option, spec) in given {
        forwards.apply(Verb::Add, *option, spec, &ALL).map_err(|error| error.to_string())?;
    }
    Ok(forwards)
}

#[test]
fn none_stands_alone_and_first() {
    assert_eq!(
        options(&[('t', "80"), ('t', "none")]).unwrap_err(),
        "-t none conflicts with previous options"
    );
    assert_eq!(
        options(&[('U', "80"), ('U', "none")]).unwrap_err(),
        "-U none conflicts with previous options"
    );
    options(&[('t', "none"), ('t', "80"), ('u', "none"), ('T', "none"), ('T', "none")]).unwrap();
}

#[test]
fn rules_conflict_by_protocol_address_and_port() {
    let conflicts = |one: (char, &str), other: (char, &str)| options(&[one, other]).is_err();
    for (one, other) in [
        ("auto", "80"),
        ("127.0.0.1/80", "0.0.0.0/80"),
        ("0.0.0.0/80-90", "127.0.0.1/90-99"),
        ("::1/80", "80"),
        ("%lo/80", "%eth0/80"),
        ("::/80", "::1/80"),
    ] {
        assert!(conflicts(('t', one), ('t', other)), "{one} {other}");
        assert!(!conflicts(('t', one), ('u', other)), "{one} {other}");
    }
    assert!(!conflicts(('t', "80"), ('T', "80")), "each side has its table");
    for (one, other) in [
        ("127.0.0.1/80", "127.0.0.2/80"),
        ("127.0.0.1/80", "::/80"),
        ("127.0.0.1/80", "::1/80"),
        ("80-89", "90"),
    ] {
        assert!(!conflicts(('t', one), ('t', other)), "{one} {other}");
    }
}

#[test]
fn a_table_holds_255_rules_and_327680_ports() {
    let many = |count: u16| (1..=count).map(|n| (n * 10).to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(rules(&many(255)).len(), 255);
    let text = "Too many rules (maximum 255)\nUnable to add rule TCP [*]:2560  =>  2560 ";
    assert_eq!(refusal('t', &many(256)), text);
    let mut forwards = options(&[('t', &many(255))]).unwrap();
    let error = forwards.apply(Verb::Add, 't', "2560", &ALL).unwrap_err();
    assert_eq!(error.to_string(), text);
    let mut forwards = Forwards::default();
    for n in 2..=6 {
        forwards.apply(Verb::Add, 't', &format!("127.0.0.{n}/1-65535"), &ALL).unwrap();
    }
    forwards.apply(Verb::Add, 't', "127.0.0.7/1-5", &ALL).unwrap();
    let error = forwards.apply(Verb::Add, 't', "127.0.0.7/6", &ALL).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Rules require too many listening sockets (maximum 327680)\nUnable to add rule TCP [127.0.0.7]:6  =>  6 "
    );
    forwards.apply(Verb::Delete, 't', "127.0.0.7/1-5", &ALL).unwrap();
    forwards.apply(Verb::Add, 't', "127.0.0.7/6", &ALL).unwrap();
}

#[test]
fn only_the_very_rule_is_deleted() {
    let mut forwards = options(&[('t', "80-90"), ('t', "100,auto")]).unwrap();
    for spec in ["80-89", "80-90:81-91", "100", "%lo/80-90"] {
        let error = forwards.apply(Verb::Delete, 't', spec, &ALL).unwrap_err().to_string();
        assert!(error.starts_with("Couldn't find forwarding rule to delete: TCP [*]"), "{spec}: {error}");
        assert!(error.contains("\nUnable to delete rule TCP [*]"), "{spec}: {error}");
    }
    forwards.apply(Verb::Delete, 't', "80-90", &ALL).unwrap();
    forwards.apply(Verb::Delete, 't', "100,auto", &ALL).unwrap();
    assert_eq!(forwards, Forwards::default());
}

#[test]
fn a_spec_of_nothing_but_ranges_and_exceptions_costs_little() {
    let spec = "1-65535,~5,".repeat(50_000);
    assert!(refusal('t', spec.trim_end_matches(',')).starts_with("Too many rules (maximum 255)\n"));
    let spec: Vec<_> = (0..30_000_u32).map(|n| format!("~{}", n * 2)).collect();
    assert!(refusal('t', &spec.join(",")).starts_with("Too many rules (maximum 255)\n"));
}

proptest! {
    #[test]
    fn any_text_is_survived_and_what_it_means_can_be_deleted(
        option in prop::sample::select(vec!['t', 'u', 'T', 'U']),
        spec in "([0-9.:*\\[\\]]{0,9}(%[a-z]{1,3})?/)?(~?[0-9]{1,5}(-[0-9]{1,5})?(:[0-9./:-]{1,9})?|auto|all|,|~){0,9}",
    ) {
        let mut forwards = Forwards::default();
        let Ok(parsed) = parse(option, &spec, &ALL) else { return Ok(()) };
        for rule in &parsed.rules {
            prop_assert_eq!(Draft::from(rule).check(side_of(option), ALL.can), Ok(*rule));
            for (port, target) in rule.ports().pairs() {
                prop_assert_eq!(rule.ports().leading_to(target.get()), Some((port, target)));
            }
        }
        if forwards.apply(Verb::Add, option, &spec, &ALL).is_ok() {
            forwards.apply(Verb::Delete, option, &spec, &ALL).unwrap();
            prop_assert_eq!(forwards, Forwards::default());
        }
    }
}
