//! The host's network changes under running flows: the guest follows within a second, and whoever is not concerned
//! loses nothing. Contract: pasta, what the original does not do.
//!
//! ```text
//!   world ══ eth0, eth1 ══ host ══ TAP ══ guest ══ bridge, masquerade ══ container
//! ```
//! The guest is like `eth0` at first; the flows go by `eth1`.

use super::ours;
use std::os::unix::fs::symlink;
use std::process::Command;

/// What both tests begin with. They run in a PID namespace: with the script everything else ends.
const WORLD: &str = r#"
set -e
fresh() { # a namespace that lives as long as the test
    unshare -n sleep 100 & made=$!
    for i in $(seq 100); do
        test "$(readlink /proc/$made/ns/net)" != "$(readlink /proc/self/ns/net)" && break
        sleep 0.05
    done
}
pidfile=$(mktemp)
trap 'rm -f $pidfile' EXIT
ip link set lo up
fresh; world=$made; fresh; guest=$made; fresh; container=$made
world() { nsenter -t $world -n "$@"; }
guest() { nsenter -t $guest -n "$@"; }
container() { nsenter -t $container -n "$@"; }
for n in 0 1; do
    ip link add eth$n type veth peer name world$n
    ip link set world$n netns $world
    world ip link set world$n up
    world ip addr add 10.$n.0.1/24 dev world$n
done
ip link set eth1 up
ip addr add 10.1.0.2/24 dev eth1
up0() { ip link set eth0 up; ip addr add 10.0.0.2/24 dev eth0; ip route add default via 10.0.0.1 metric 50; }
servers() {
    world ncat -lk 10.1.0.1 7 -e /bin/cat >/dev/null 2>&1 &
    world ncat -lk 10.1.0.1 9 -c "head -c $1 /dev/zero" >/dev/null 2>&1 &
    sleep 0.5
}
start() {
    "$PASTA" --config-net --no-map-gw -t none -u none -T none -U none --quiet --pid $pidfile "$@" \
        --netns /proc/$guest/ns/net
}
"#;

/// A container downloads while the address of a link that is not its own changes again and again.
const BULK: &str = r#"
up0; servers 100000000
start
guest ip link add br0 type bridge
guest ip addr add 10.89.0.1/24 dev br0
guest ip link set br0 up
guest ip link add p0 type veth peer name eth0c
guest ip link set p0 master br0 up
guest ip link set eth0c netns $container
container ip link set eth0c up
container ip addr add 10.89.0.2/24 dev eth0c
container ip route add default via 10.89.0.1
guest sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward' || { echo cannot forward; exit 0; }
guest nft -f - <<END || { echo cannot masquerade; exit 0; }
table ip nat {
    chain post { type nat hook postrouting priority 100; ip saddr 10.89.0.0/24 oifname "eth0" masquerade; }
}
END
out=$(mktemp)
container sh -c 'ncat --recv-only 10.1.0.1 9 | wc -c' > $out & loading=$!
changes=0
for i in $(seq 100); do
    kill -0 $loading 2>/dev/null || break
    # With the first address of a network the kernel takes the others.
    ip addr flush dev eth0
    ip addr add 10.0.0.$((10 + i))/24 dev eth0
    ip route replace default via 10.0.0.1 metric 50
    changes=$((changes + 1))
    sleep 0.3
done
wait $loading
echo "loaded $(cat $out)"; rm $out
test $changes -ge 2 && echo changed
"#;

/// Each row changes something, waits until the guest has it, and sees that a connection from before still answers.
const MATRIX: &str = r#"
servers 1
start
echo "== none at start"
has() { # what, in the output of a command, within three seconds
    what=$1; shift
    for i in $(seq 60); do
        guest "$@" 2>/dev/null | grep -q -- "$what" && { echo "has $what"; return; }
        sleep 0.05
    done
    echo "MISSES $what: $(guest "$@")"
}
has 'inet 10.1.0.2/24' ip addr
mkfifo $pidfile.in; exec 8<>$pidfile.in; rm $pidfile.in
mkfifo $pidfile.out; exec 9<>$pidfile.out; rm $pidfile.out
guest ncat 10.1.0.1 7 <&8 >&9 2>/dev/null &
flows() {
    echo "word $1" >&8
    got=
    read -t 5 got <&9 || :
    test "$got" = "word $1" && echo "flows $1" || echo "STOPS $1"
}
flows start
echo "== default link"; up0
has 'inet 10.0.0.2/24' ip addr; has 'default via 10.0.0.1' ip route; flows link
echo "== address"; ip addr add 10.0.0.7/24 dev eth0
has 'inet 10.0.0.7/24' ip addr; flows address
echo "== route"; ip route add 10.77.0.0/16 via 10.0.0.1
has '10.77.0.0/16 via 10.0.0.1' ip route; flows route
echo "== metric"; ip route del default; ip route add default via 10.0.0.1 metric 70
has 'default via 10.0.0.1 .*metric 70' ip route; flows metric
echo "== MTU"; ip link set eth1 mtu 1400; world ip link set world1 mtu 1400
flows mtu
echo "== link gone and back"; ip link set eth0 down
has 'inet 10.1.0.2/24' ip addr; flows gone
ip link set eth0 up; ip route add 10.77.0.0/16 via 10.0.0.1; ip route add default via 10.0.0.1 metric 70
has '10.77.0.0/16 via 10.0.0.1' ip route; has 'default via 10.0.0.1 .*metric 70' ip route; flows back
"#;

/// What a script says; `None` after saying why it cannot be run.
fn said(test: &str, script: &str) -> Option<String> {
    let program = ours(test)?;
    let needed = ["ip", "unshare", "nsenter", "ncat", "nft"];
    if let Some(missing) = slipway_lab::missing(&needed) {
        println!("SKIP {test}: {missing} is not installed");
        return None;
    }
    let tried = Command::new("unshare").args(["-rnmpf", "--mount-proc", "true"]).output();
    if std::fs::File::open("/dev/net/tun").is_err() || !tried.is_ok_and(|tried| tried.status.success()) {
        println!("SKIP {test}: no TAP, or no user namespace");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let pasta = dir.path().join("pasta");
    symlink(&program, &pasta).unwrap();
    let mut command = Command::new("timeout");
    command.args([
        "90",
        "unshare",
        "-rnmpf",
        "--kill-child",
        "--mount-proc",
        "bash",
        "-c",
        &format!("{WORLD}{script}"),
    ]);
    let output = command.env("PASTA", &pasta).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    Some(said)
}

#[test]
fn a_container_downloads_by_one_link_while_the_others_address_changes() {
    let test = "a_container_downloads_by_one_link_while_the_others_address_changes";
    let Some(said) = said(test, BULK) else { return };
    if said.contains("cannot") {
        println!("SKIP {test}: {said}");
        return;
    }
    assert_eq!(said, "loaded 100000000\nchanged\n", "not a byte is lost");
}

#[test]
fn the_guest_follows_each_change_under_a_running_flow() {
    let Some(said) = said("the_guest_follows_each_change_under_a_running_flow", MATRIX) else { return };
    assert!(!said.contains("MISSES") && !said.contains("STOPS"), "{said}");
    assert_eq!((said.matches("has ").count(), said.matches("flows ").count()), (9, 8), "{said}");
}
