//! The network of the host, in the guest: at the start, and when it changes. Contract: pasta E.1, E.2.

use super::ours;
use std::os::unix::fs::symlink;
use std::process::Command;

/// In namespaces of its own: a host, a guest, and `pasta` for it. What is seen goes to standard output, each look
/// behind a line of its own.
const SCRIPT: &str = r#"
set -e
ip link set lo up
ip link add eth0 type veth peer name world
ip link set world up
ip link set eth0 up
ip addr add 10.0.0.2/24 dev eth0
ip route add default via 10.0.0.1 metric 50
ip -6 addr add 2001:db8::2/64 dev eth0 nodad
ip -6 route add default via fe80::9 dev eth0
unshare -n sleep 60 & guest=$!
for i in $(seq 100); do
    test "$(readlink /proc/$guest/ns/net)" != "$(readlink /proc/self/ns/net)" && break
    sleep 0.05
done
pidfile=$(mktemp)
trap 'kill $guest; kill $(cat $pidfile); rm $pidfile' EXIT
"$PASTA" --config-net -t none -u none -T none -U none --quiet --pid $pidfile --netns /proc/$guest/ns/net
look() {
    echo "== $1"
    nsenter -t $guest -n sh -c 'ip addr show dev eth0; ip route; ip -6 route'
}
look start
ip addr add 10.0.0.7/24 dev eth0
ip addr del 10.0.0.2/24 dev eth0
ip addr replace 10.0.0.7/24 dev eth0
ip route replace default via 10.0.0.3
for i in $(seq 100); do
    nsenter -t $guest -n ip route | grep -q 'via 10.0.0.1' || break
    sleep 0.05
done
look changed
"#;

#[test]
fn the_guest_looks_like_the_host_and_goes_on_doing_so() {
    let name = "the_guest_looks_like_the_host_and_goes_on_doing_so";
    let Some(program) = ours(name) else { return };
    let able = ["/dev/net/tun"].iter().all(|path| std::fs::File::open(path).is_ok());
    let tried = Command::new("unshare").args(["-rnm", "ip", "-V"]).output();
    if !able || !tried.is_ok_and(|tried| tried.status.success()) {
        println!("SKIP {name}: no TAP, no user namespace, or no ip(8)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let pasta = dir.path().join("pasta");
    symlink(&program, &pasta).unwrap();
    let script = ["-rnm", "sh", "-c", SCRIPT];
    let output = Command::new("unshare").args(script).env("PASTA", &pasta).output().unwrap();
    let seen = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{seen}{said}");
    assert_eq!(said, "", "nothing is said when all is well");
    let (start, changed) = seen.split_once("== changed").unwrap();
    for line in [
        "mtu 65520",
        "inet 10.0.0.2/24 scope global eth0",
        "inet6 2001:db8::2/64",
        "default via 10.0.0.1 dev eth0 metric 50",
        "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.2",
        "default via fe80::9 dev eth0",
    ] {
        assert!(start.contains(line), "{line}\n{start}");
    }
    assert!(!seen.contains("tentative"), "{seen}");
    for line in [
        "inet 10.0.0.2/24 scope global deprecated eth0",
        "inet 10.0.0.7/24",
        "default via 10.0.0.3 dev eth0 src 10.0.0.7",
        "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.7",
        "default via fe80::9 dev eth0",
    ] {
        assert!(changed.contains(line), "{line}\n{changed}");
    }
}
