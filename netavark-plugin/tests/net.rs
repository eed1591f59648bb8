//! `slipway net`, as people use it, inside network and mount namespaces of its own. Needs root and iproute2.

#![expect(clippy::unwrap_used, reason = "a test's helpers")]

use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_netavark");

/// Names of namespaces and records live on a /run of their own; `net` is the command.
const PREAMBLE: &str = r#"
    mount -t tmpfs run /run && mkdir -p /run/netns && ip link set lo up
    net() { bash -c 'exec -a slipway-net "$0" --firewall "$FIREWALL" "$@"' "$PROGRAM" "$@"; }
    ip netns add web; ip netns add db
"#;

fn can(name: &str) -> bool {
    let able = nix::unistd::geteuid().is_root()
        && Command::new("ip").arg("-V").output().is_ok_and(|output| output.status.success());
    if !able {
        println!("SKIP {name}: needs root and iproute2");
    }
    able
}

fn script(firewall: &str, text: &str) -> Output {
    Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "timeout", "60", "bash", "-euc"])
        .arg(format!("{PREAMBLE}\n{text}"))
        .env("PROGRAM", PROGRAM)
        .env("FIREWALL", firewall)
        .output()
        .unwrap()
}

fn run(firewall: &str, text: &str) -> String {
    let output = script(firewall, text);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.into_owned()
}

#[test]
fn namespaces_join_see_each_other_and_leave_nothing() {
    if !can("namespaces_join_see_each_other_and_leave_nothing") {
        return;
    }
    let out = run(
        "nftables",
        r"
        net up blue web --subnet 198.51.100.0/24 --subnet 2001:db8::/64 --no-dns -p 8080:80
        net up blue db --ip 198.51.100.77 --ip 2001:db8::77
        ip netns exec web ip -o addr show dev eth0 | grep -c -e 198.51.100.2/24 -e 2001:db8::2/64
        ip netns exec db ip -o route show default
        net show
        net down blue web
        ip netns exec web ip -o link | grep -c eth0 || true
        net down blue
        ip -o link | wc -l
        net show
        ",
    );
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(
        lines,
        [
            "web: eth0 198.51.100.2/24 2001:db8::2/64",
            "db: eth0 198.51.100.77/24 2001:db8::77/64",
            "2",
            "default via 198.51.100.1 dev eth0 proto static metric 100 ",
            "blue: bridge slip1, 198.51.100.0/24 via 198.51.100.1, 2001:db8::/64 via 2001:db8::1",
            "  web: eth0 198.51.100.2 2001:db8::2 8080:80/tcp (/run/netns/web)",
            "  db: eth0 198.51.100.77 2001:db8::77 (/run/netns/db)",
            "0",
            "1",
        ]
    );
}

#[test]
fn a_dry_run_tells_the_steps_and_takes_none() {
    if !can("a_dry_run_tells_the_steps_and_takes_none") {
        return;
    }
    let out = run(
        "nftables",
        "net up blue web --subnet 198.51.100.0/24 -p 8080:80 --no-dns --dry-run; net show; ip -o link | wc -l",
    );
    for step in [
        "host       ip link add slip1 type bridge",
        "container  ip addr add 198.51.100.2/24 dev INSIDE",
        "nft [inet netavark] add rule FORWARD ip saddr 198.51.100.0/24 accept",
        "dnat ip to 198.51.100.2:80",
    ] {
        assert!(out.contains(step), "{step}\n{out}");
    }
    assert!(out.ends_with("\n1\n"), "{out}");
}

#[test]
fn a_dry_run_of_the_end_tells_that_the_last_one_takes_the_bridge_along() {
    if !can("a_dry_run_of_the_end_tells_that_the_last_one_takes_the_bridge_along") {
        return;
    }
    let out = run(
        "nftables",
        r"
        net up blue web --subnet 198.51.100.0/24 -p 8080:80 --no-dns >/run/told
        net up blue db >/run/told
        net down blue web --dry-run; echo ===; net down blue --dry-run; net show | wc -l
        ",
    );
    let (one, all) = out.split_once("===").unwrap();
    assert!(one.contains("ip link del PORT\n") && !one.contains("BRIDGE"), "{one}");
    assert_eq!(all.matches("ip link del PORT\n").count(), 1, "{all}");
    assert_eq!(all.matches("ip link del PORT BRIDGE\n").count(), 1, "{all}");
    assert_eq!(all.matches("# tcp dport 8080 jump nv_").count(), 1, "{all}");
    assert!(all.contains("# ip saddr 198.51.100.0/24 accept"), "{all}");
    assert!(all.ends_with("\n3\n"), "nothing was done: {all}");
}

#[test]
fn a_namespace_that_is_gone_is_no_obstacle_and_its_name_is_not_trusted() {
    if !can("a_namespace_that_is_gone_is_no_obstacle_and_its_name_is_not_trusted") {
        return;
    }
    // The second "web" has an eth0, too, but never joined.
    let out = run(
        "none",
        r"
        net up blue web --subnet 198.51.100.0/24 --no-dns >/run/told
        net up blue db >/run/told
        ip netns del web; ip netns add web; ip -n web link add eth0 type veth peer name other
        net show | grep -c gone
        net down blue
        ip -n web -o link show eth0 | wc -l
        net show
        ",
    );
    assert_eq!(out, "1\n1\n");
}

#[test]
fn complaints_say_what_is_wrong_and_nothing_is_left_on_record() {
    if !can("complaints_say_what_is_wrong_and_nothing_is_left_on_record") {
        return;
    }
    for (command, said) in [
        ("net up blue nosuch", "network namespace /run/netns/nosuch: IO error: No such file"),
        ("net up b/ue web", "network name \"b/ue\": letters, digits"),
        ("net down blue", "there is no network blue"),
        (
            "net up blue web --no-dns --ip 203.0.113.1 --subnet 198.51.100.0/24",
            "203.0.113.1 is no address for",
        ),
        (
            "ip -n web link add eth7 type veth peer x; net up blue web --no-dns --interface eth7",
            "File exists",
        ),
    ] {
        let output = script("none", &format!("{command}; exit $?"));
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command}: {err}");
        assert!(err.contains(said), "{command}: {err}");
        let shown = script("none", &format!("{{ {command}; }} >/run/told 2>&1 || true; net show"));
        assert_eq!(String::from_utf8_lossy(&shown.stdout), "", "{command}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_disaster() {
    if !can("a_reader_that_has_seen_enough_is_no_disaster") {
        return;
    }
    // The pipe's other end is closed before anything is written.
    let text = "set +e; net up blue web --dry-run | exec 0<&- ; echo \"${PIPESTATUS[0]}\"";
    let output = script("none", text);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((out.as_ref(), err.as_ref()), ("0\n", ""));
}
