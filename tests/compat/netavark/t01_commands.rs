//! The command line, what is printed where, and the errors that clients compare.

use std::os::unix::ffi::OsStringExt as _;

use serde_json::{Value, json};
use slipway_lab::LIMIT;

use crate::host;
use crate::place::{error, line};
use crate::request::{Join, request};

fn simple() -> Value {
    request("one", &[Join::bridge("podman", "podman0", &["10.88.0.1/16"])])
}

#[test]
fn versions_as_their_callers_read_them() {
    let host = host!("versions_as_their_callers_read_them");
    let short = host.bare(&["--version"]).ok(LIMIT).unwrap().out();
    let number = short.strip_prefix("netavark ").unwrap().trim_end();
    assert_eq!(number.split('.').filter(|part| part.parse::<u32>().is_ok()).count(), 3, "{short}");
    let long: Value = serde_json::from_str(&host.bare(&["version"]).ok(LIMIT).unwrap().out()).unwrap();
    assert_eq!((&long["version"], &long["default_fw_driver"]), (&json!(number), &json!("nftables")));
    for key in ["commit", "build_time", "target"] {
        assert!(long[key].is_string(), "{long}");
    }
}

#[test]
fn a_wrong_command_line_is_not_json() {
    let host = host!("a_wrong_command_line_is_not_json");
    for words in [&["setup"][..], &["setup", ""], &["no-such-command"], &["--no-such-option", "version"], &[]]
    {
        let output = host.cmd(words).run(LIMIT).unwrap();
        assert_eq!((output.code(), output.out().as_str()), (2, ""), "{words:?}: {output}");
        assert!(!output.err().is_empty());
    }
}

#[test]
fn the_request_must_be_readable() {
    let host = host!("the_request_must_be_readable");
    let container = host.container();
    let path = container.path();
    let fed = |input: &str| error(&host.cmd(&["setup", &path]).input(input).run(LIMIT).unwrap());
    let text = "failed to load network options: IO error: EOF while parsing a value at line 1 column 0";
    assert_eq!(fed(""), text);
    assert!(fed("{").starts_with("failed to load network options: IO error: EOF while parsing an object"));
    assert!(fed("{}").starts_with("failed to load network options: IO error: missing field `container_id`"));
    assert!(fed("[1]").starts_with("failed to load network options: IO error: "));
    let missing = host.cmd(&["--file", "/no/such/file", "setup", &path]).run(LIMIT).unwrap();
    let text = "failed to load network options: IO error: No such file or directory (os error 2)";
    assert_eq!(error(&missing), text);
    // Podman decodes strictly what a failure prints: Host::refused demands exactly one key.
    let mut strange = simple();
    strange["port_mappings"] = json!([{"host_port": 70000}]);
    assert!(host.refused(&container, &strange).starts_with("failed to load network options: IO error: "));
    host.is_clean();
}

#[test]
fn the_namespace_must_exist() {
    let host = host!("the_namespace_must_exist");
    let output = host.cmd(&["setup", "/no/such/netns"]).input(line(&simple())).run(LIMIT).unwrap();
    assert_eq!(error(&output), "invalid namespace path: IO error: No such file or directory (os error 2)");
    host.is_clean();
}

#[test]
fn the_run_directory_must_be_given() {
    let host = host!("the_run_directory_must_be_given");
    let container = host.container();
    for command in ["setup", "teardown"] {
        let output = host.bare(&[command, &container.path()]).input(line(&simple())).run(LIMIT).unwrap();
        let text = format!("--config not specified but required for netavark {command}");
        assert!(error(&output).contains(&text), "{output}");
    }
}

#[test]
fn the_run_directory_may_have_any_name() {
    let host = host!("the_run_directory_may_have_any_name");
    let container = host.container();
    let mut name = host.machine.dir().as_os_str().to_owned().into_vec();
    name.extend_from_slice(b"/\xff.run");
    let name = std::ffi::OsString::from_vec(name);
    std::fs::create_dir(&name).unwrap();
    for command in ["setup", "teardown"] {
        let run = host.bare(&["--config"]).arg(name.clone()).args([command, &container.path()]);
        run.input(line(&simple())).ok(LIMIT).unwrap();
    }
    host.is_clean();
}

#[test]
fn unknown_keys_and_options_are_passed_over() {
    let host = host!("unknown_keys_and_options_are_passed_over");
    let container = host.container();
    let join = Join::bridge("podman", "podman0", &["10.88.0.1/16"]);
    let mut request =
        request("one", &[join.with("hello", 1).option("colour", "red").own("more", json!([1]))]);
    request["of_a_later_version"] = json!({"x": null});
    host.setup(&container, &request);
    host.teardown(&container, &request);
    host.is_clean();
}

#[test]
fn what_a_network_lacks_is_named_before_anything_is_done() {
    let host = host!("what_a_network_lacks_is_named_before_anything_is_done");
    let container = host.container();
    let good = || Join::bridge("podman", "podman0", &["10.88.0.1/16"]);
    let cases: &[(Join, &str)] = &[
        (good().with("driver", "nosuch"), "unknown network driver \"nosuch\""),
        (good().with("ipam_options", json!({"driver": "odd"})), "unsupported ipam driver odd"),
        (good().with("network_interface", ""), "no bridge interface name given"),
        (good().own("interface_name", ""), "no container interface name given"),
        (good().own("static_ips", Value::Null), "no static ips provided"),
        (good().option("mode", "odd"), "invalid bridge mode \"odd\""),
        (good().option("mtu", "many"), "unable to parse \"mtu\": invalid digit found in string"),
        (good().option("metric", "-1"), "unable to parse \"metric\": invalid digit found in string"),
        (
            good().with("ipam_options", json!({"driver": "dhcp"})),
            "cannot use dhcp ipam driver without using the option mode=unmanaged",
        ),
    ];
    for (join, expected) in cases {
        let said = host.refused(&container, &request("one", std::slice::from_ref(join)));
        assert!(said.contains(expected), "{said} | {expected}");
    }
    if host.is_ours() {
        let mut lost = simple();
        lost["network_info"] = json!({});
        assert_eq!(host.refused(&container, &lost), "network info for network podman not found");
    }
    host.is_clean();
}

#[test]
fn ids_do_not_lead_elsewhere() {
    let host = host!(ours "ids_do_not_lead_elsewhere");
    let container = host.container();
    for bad in ["", ".", "..", "../../../evil", "a/b"] {
        let net = Join::bridge("podman", "podman0", &["10.88.0.1/16"]).with("id", bad);
        assert_eq!(
            host.refused(&container, &request("one", &[net])),
            format!("{bad:?} cannot be a network ID")
        );
        let mut other = simple();
        other["container_id"] = json!(bad);
        assert_eq!(host.refused(&container, &other), format!("{bad:?} cannot be a container ID"));
    }
    host.is_clean();
    // Odd, but names; shorter than what other names are cut from, or not to be cut there.
    for odd in ["x", "ééééééééé", "-"] {
        let net = Join::bridge("podman", "podman0", &["10.88.0.1/16"]).with("id", odd);
        let request = request("one", &[net]);
        let output = host.cmd(&["setup", &container.path()]).input(line(&request)).run(LIMIT).unwrap();
        assert!(matches!(output.code(), 0 | 1), "{output}");
        if output.success() {
            host.teardown(&container, &request);
        }
        host.is_clean();
    }
}

#[test]
fn addresses_that_are_none_are_named() {
    let host = host!("addresses_that_are_none_are_named");
    let container = host.container();
    let join = |mac: &str| {
        let join = Join::bridge("podman", "podman0", &["10.88.0.1/16"]);
        request("one", &[join.own("static_mac", mac)])
    };
    assert!(host.refused(&container, &join("aa:bb:cc")).contains("invalid mac length for address: aa:bb:cc"));
    assert!(host.refused(&container, &join("xx:bb:cc:dd:ee:ff")).contains("unable to parse mac address"));
    // The kernel's own words come through.
    let said = host.refused(&container, &join("00:00:00:00:00:00"));
    assert!(said.contains("Cannot assign requested address"), "{said}");
    host.setup(&container, &join("AA-bb-cc-dd-ee-02"));
    host.teardown(&container, &join("AA-bb-cc-dd-ee-02"));
}

#[test]
fn the_firewall_must_be_known() {
    let host = host!("the_firewall_must_be_known");
    let container = host.container();
    let run = |words: &[&str]| {
        host.cmd(words).args(["setup", &container.path()]).input(line(&simple())).run(LIMIT).unwrap()
    };
    let said = error(&run(&["--firewall-driver", "carrier-pigeon"]));
    assert!(said.contains("Must provide a valid firewall backend, got carrier-pigeon"), "{said}");
    // The driver of old is refused in the same words, and one line on standard error says what there is instead.
    let by_variable =
        host.cmd(&["setup", &container.path()]).input(line(&simple())).env("NETAVARK_FW", "IPTables");
    let refused = if host.is_ours() {
        vec![run(&["--firewall-driver", "iptables"]), by_variable.run(LIMIT).unwrap()]
    } else {
        // The original of that age has it.
        Vec::new()
    };
    for output in &refused {
        assert_eq!(error(output), "Must provide a valid firewall backend, got iptables");
        let told = output.err();
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(
            told.contains(
                "nothing but iptables are out of scope: use nftables (the default), firewalld or none"
            ),
            "{told}"
        );
    }
    let output = host
        .cmd(&["setup", &container.path()])
        .input(line(&simple()))
        .env("NETAVARK_DNS_PORT", "many")
        .run(LIMIT)
        .unwrap();
    assert!(error(&output).starts_with("Invalid NETAVARK_DNS_PORT many: "), "{output}");
    host.is_clean();
    // Capitals do not matter, and the option beats the environment.
    let words = ["--firewall-driver", "NONE", "setup"];
    let shown = host.cmd(&words).arg(container.path()).input(line(&simple())).env("NETAVARK_FW", "nftables");
    let shown = shown.env("RUST_LOG", "netavark=info").ok(LIMIT).unwrap();
    assert!(shown.err().starts_with("[INFO  netavark::firewall] Not using firewall\n"), "{shown}");
    assert_eq!(host.rules(), "");
}

#[test]
fn update_changes_the_first_line_of_a_networks_file() {
    let Some(host) = host!("update_changes_the_first_line_of_a_networks_file").with_dns("update") else {
        return;
    };
    let run = |servers: &str| {
        let output =
            host.cmd(&["update", "podman", "--network-dns-servers", servers]).input("null\n").run(LIMIT);
        output.unwrap()
    };
    // No such network: nothing to do.
    let output = run("198.51.100.1");
    assert!(output.success() && output.all().is_empty(), "{output}");
    let dir = host.config.join("aardvark-dns");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("podman"), "10.88.0.1 198.51.100.9\nid 10.88.0.2  one\n").unwrap();
    // Nobody to signal: the file is changed, the failure told.
    let _ = run("198.51.100.1,198.51.100.2");
    let text = std::fs::read_to_string(dir.join("podman")).unwrap();
    assert_eq!(text, "10.88.0.1 198.51.100.1,198.51.100.2\nid 10.88.0.2  one\n");
    let output = run("");
    assert!(output.success(), "{output}");
    assert_eq!(std::fs::read_to_string(dir.join("podman")).unwrap(), "10.88.0.1\nid 10.88.0.2  one\n");
}

#[test]
fn create_completes_a_network() {
    let host = host!("create_completes_a_network");
    if !host.bare(&["--help"]).ok(LIMIT).unwrap().out().contains("create") {
        println!("SKIP create_completes_a_network: versions before 2 have no create");
        return;
    }
    let input = json!({
        "network": {"name": "new", "id": "a".repeat(64), "driver": "bridge", "dns_enabled": true,
            "internal": false, "ipv6_enabled": true, "ipam_options": {"driver": "host-local"}},
        "used": {"interfaces": ["podman1"], "names": {"old": "b"}, "subnets": ["10.89.0.0/24"]},
        "options": {"subnet_pools": [{"base": "10.89.0.0/16", "size": 24}], "default_interface_name": "podman",
            "check_used_subnets": true}
    });
    let run = |input: &Value| host.cmd(&["create"]).input(line(input)).run(LIMIT).unwrap();
    let output = run(&input);
    assert!(output.success() && output.err().is_empty(), "{output}");
    let made: Value = serde_json::from_str(&output.out()).unwrap();
    assert_eq!(made["network_interface"], "podman2");
    assert_eq!(made["subnets"][0], json!({"subnet": "10.89.1.0/24", "gateway": "10.89.1.1"}));
    let second = made["subnets"][1]["subnet"].as_str().unwrap();
    assert!(second.starts_with("fd") && second.ends_with("/64"), "{made}");
    let mut taken = input.clone();
    taken["network"]["name"] = "old".into();
    assert_eq!(error(&run(&taken)), "network already exists old");
    let mut overlap = input.clone();
    overlap["network"]["subnets"] = json!([{"subnet": "10.89.0.128/25"}]);
    let text = "subnet 10.89.0.128/25 is already used on the host or by another config";
    assert_eq!(error(&run(&overlap)), text);
    let mut odd = input;
    odd["network"]["options"] = json!({"colour": "red"});
    assert_eq!(error(&run(&odd)), "unsupported bridge network option: colour");
}
