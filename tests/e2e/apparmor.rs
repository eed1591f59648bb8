//! Under the profiles that Debian packs for `/usr/bin/pasta` and `/usr/bin/passt`, which were written for the original:
//! whoever puts another program there puts it under them.
//!
//! They are enforced by the kernel of a virtual machine of its own, with the parser and the profiles of the tree
//! `qemu`; the machine's network is made of namespaces inside. What a profile forbids and nothing misses is listed
//! ([`HARMLESS`]); any other refusal in the kernel's log is a failure.

use slipway_lab::{Image, Vm, built, vm_fixture};

/// Refusals that nothing misses, by what their lines contain.
const HARMLESS: &[&str] = &[
    // Root of a user namespace opens what belongs to somebody else; the kernel tries whether it might.
    r#"operation="capable" class="cap" profile="pasta" "#,
    // Ports that the kernel gives nobody: without them, all of the range are taken to be the kernel's.
    "ip_local_reserved_ports",
    // The stage of the sandbox that hides files: Landlock stands in for it.
    r#"info="failed flags match" error=-13 profile="pasta" name="/" "#,
    r#"info="failed flags match" error=-13 profile="passt" name="/" "#,
    // Asked only to explain a failure better.
    "max_user_namespaces",
    "unprivileged_userns_clone",
    "apparmor_restrict_unprivileged_userns",
    // Of the command's form: low ports for those who are not root there, and what a command left behind, which its
    // namespace of processes ends.
    "/gid_map",
    "ip_unprivileged_port_start",
    "/children",
    // The other way is tried next.
    r#"profile="pasta" name="/proc/" "#,
    r#"name="/home/user/pasta.log" "#,
    // What the test itself makes it try.
    r#"name="/srv/control""#,
];

/// Functions for all scripts. busybox prefers its own commands; `ip` has to be the other one.
const WORDS: &str = "
ip() { /usr/bin/ip \"$@\"; }
world() { /usr/bin/ip netns exec world \"$@\"; }
user() { su user -c \"$*\"; }
container() { nsenter -t $(cat /tmp/container) -n \"$@\"; }
fetch() { wget -T 10 -qO- \"http://$1/index.html\"; }
tries() { for i in $(seq 50); do \"$@\" 2>/dev/null && return; sleep 0.1; done; \"$@\"; }
";

const SETUP: &str = "set -e
mount -t securityfs security /sys/kernel/security
for name in pasta passt; do apparmor_parser --replace --skip-cache /etc/apparmor.d/usr.bin.$name; done
ln /usr/bin/pasta /usr/bin/passt; ln /usr/bin/pasta /usr/bin/pesto
ip netns add world
ip link add veth0 type veth peer name veth0 netns world
ip address add 192.0.2.1/24 dev veth0; ip address add 2001:db8:1::1/64 dev veth0 nodad
ip link set veth0 up
world ip link set lo up
world /usr/bin/ip address add 192.0.2.2/24 dev veth0
world /usr/bin/ip address add 2001:db8:1::2/64 dev veth0 nodad
world ip link set veth0 up
ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8:1::2
echo nameserver 192.0.2.2 >/etc/resolv.conf
echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range
chmod 666 /dev/net/tun
mkdir -p /home/user /run/user/1000/netns /srv; chown -R user /home/user /run/user/1000 /srv
world httpd -p 80 -h /www/world
user 'unshare -U -r -n -m sleep 1000 >/dev/null 2>&1 & echo $! >/tmp/container'
tries grep -q sleep /proc/$(cat /tmp/container)/comm
cat /sys/kernel/security/apparmor/profiles
";

/// A script in the machine, which has to end well.
fn ok(vm: &mut Vm, script: &str) -> String {
    vm.ok(&format!("{WORDS}{script}")).unwrap()
}

fn furnish(image: &mut Image) {
    for module in ["inet_diag", "tcp_diag", "tun", "udp_diag", "veth"] {
        image.module(module).unwrap();
    }
    let ours = built("SLIPWAY_E2E_BINARY", "slipway").unwrap();
    image.program("/usr/bin/pasta", &ours).unwrap();
    for program in ["/usr/bin/ip", "/usr/sbin/apparmor_parser"] {
        image.program_of_tree(program).unwrap();
    }
    for files in ["/etc/apparmor", "/etc/apparmor.d", "/usr/share/apparmor-features"] {
        image.of_tree(files).unwrap();
    }
    image.user("user", 1000, "/home/user");
    for place in ["world", "container", "host"] {
        image.text(&format!("/www/{place}/index.html"), &format!("of the {place}\n"));
    }
    image.kernel_words("apparmor=1 security=apparmor");
    image.memory(640);
}

#[test]
fn everything_works_under_the_packaged_profiles() {
    let test = "everything_works_under_the_packaged_profiles";
    let Some((lab, mut image)) = vm_fixture(test, &[], &[]) else { return };
    furnish(&mut image);
    let mut vm = Vm::boot(&lab, &image, &[]).unwrap();
    let profiles = ok(&mut vm, SETUP);
    assert!(profiles.contains("pasta (enforce)") && profiles.contains("passt (enforce)"), "{profiles}");
    ok(&mut vm, "dmesg -c >/dev/null");
    a_process(&mut vm);
    a_path(&mut vm);
    a_command(&mut vm);
    a_machine(&mut vm);
    let log = ok(&mut vm, "dmesg | grep DENIED || :");
    let harmful = |line: &&str| !HARMLESS.iter().any(|known| line.contains(known));
    let harm: Vec<_> = log.lines().filter(harmful).collect();
    assert!(harm.is_empty(), "{harm:#?}");
}

/// A namespace by its process, with ports, pesto and the control socket; then one whose control socket is forbidden.
fn a_process(vm: &mut Vm) {
    let said = ok(
        vm,
        "user pasta --config-net --no-map-gw --quiet --pid /run/user/1000/pasta.pid --pcap /home/user/frames \
         -c /run/user/1000/pesto --control /run/user/1000/control $(cat /tmp/container)
         cat /proc/$(cat /run/user/1000/pasta.pid)/attr/current",
    );
    assert_eq!(said.trim_end_matches(['\n', '\0']), "pasta (enforce)", "it says nothing else");
    let seen = ok(
        vm,
        "container sh -c 'wget -T 10 -qO- http://192.0.2.2/index.html; wget -T 10 -qO- http://[2001:db8:1::2]/index.html'
         user nsenter -t $(cat /tmp/container) -U -n --preserve-credentials ping -c 1 -W 5 192.0.2.2
         user nsenter -t $(cat /tmp/container) -U -n --preserve-credentials ping -6 -c 1 -W 5 2001:db8:1::2",
    );
    assert_eq!(seen.matches("of the world\n").count(), 2, "{seen}");
    assert_eq!(seen.matches(" 0% packet loss").count(), 2, "{seen}");
    // Whoever listens is found by sock_diag, on both sides.
    let seen = ok(
        vm,
        "container httpd -p 8080 -h /www/container; httpd -p 127.0.0.1:81 -h /www/host
         tries fetch 127.0.0.1:8080; tries world wget -T 10 -qO- http://192.0.2.1:8080/index.html
         tries container wget -T 10 -qO- http://127.0.0.1:81/index.html
         user pesto --add -t 40080:8080 /run/user/1000/pesto; user pesto /run/user/1000/pesto
         world wget -T 10 -qO- http://192.0.2.1:40080/index.html
         test -S /run/user/1000/control && test -s /home/user/frames",
    );
    assert_eq!(seen.matches("of the container\n").count(), 3, "{seen}");
    assert!(seen.contains("of the host\n") && seen.contains(":40080  =>  8080"), "{seen}");
    ok(vm, "kill $(cat /run/user/1000/pasta.pid); tries test ! -e /proc/$(cat /run/user/1000/pasta.pid)");
    let none = "-t none -u none -T none -U none";
    let said = ok(
        vm,
        &format!(
            "user pasta --config-net --no-map-gw --debug {none} -l /home/user/pasta.log --pid /tmp/pasta.pid \
             --control /srv/control $(cat /tmp/container)
             container wget -T 10 -qO- http://192.0.2.2/index.html
             cat /home/user/pasta.log; kill $(cat /tmp/pasta.pid)"
        ),
    );
    assert!(said.contains("of the world\n"), "{said}");
    for expected in ["debug: a stage of the sandbox is left out", "no orders are taken"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

/// As Podman starts it: from a user namespace, for a file where users keep theirs.
fn a_path(vm: &mut Vm) {
    let script = "at=/run/user/1000/netns/netns-1; touch $at
unshare -n mount --bind /proc/self/ns/net $at
pasta --config-net -t 9090-9090:80-80 --dns-forward 169.254.1.1 -u none -T none -U none --no-map-gw --quiet \
    --pid /tmp/path.pid --netns $at --map-guest-addr 169.254.1.2 || exit
nsenter --net=$at wget -T 10 -qO- http://192.0.2.2/index.html
umount -l $at; rm $at
for i in $(seq 50); do [ -e /proc/$(cat /tmp/path.pid) ] || exit 0; sleep 0.1; done; exit 9
";
    let said =
        ok(vm, &format!("cat >/tmp/path.sh <<'END'\n{script}END\nuser unshare -U -r -m sh /tmp/path.sh"));
    assert_eq!(said, "of the world\n");
}

/// The form with a command, by a user and by root.
fn a_command(vm: &mut Vm) {
    let script = "hostname; id -u; wget -T 10 -qO- http://192.0.2.2/index.html; ps | wc -l; exit 7";
    let run =
        "pasta --config-net --no-map-gw --quiet -t none -u none -T none -U none sh /tmp/command.sh; echo $?";
    let seen = ok(vm, &format!("echo '{script}' >/tmp/command.sh; hostname lab; user '{run}'; {run}"));
    // Root is told that it becomes somebody else.
    let both: Vec<&str> = seen.lines().filter(|line| !line.starts_with("Started as root")).collect();
    assert_eq!(both.len() % 2, 0, "{seen}");
    for lines in both.chunks(both.len() / 2) {
        assert_eq!(lines[..3], ["pasta-lab", "0", "of the world"], "{seen}");
        assert_eq!(lines.last(), Some(&"7"), "{seen}");
        // Its own processes: a shell, ps and what counts them, and a line above.
        assert!(lines[3].trim().parse::<u32>().unwrap() <= 5, "{seen}");
    }
}

/// `passt` waits for its machine, under the other profile.
fn a_machine(vm: &mut Vm) {
    let seen = ok(
        vm,
        "user passt --quiet --pid /tmp/passt.pid -s /tmp/passt.socket -l /tmp/passt.log -t 8099:80 \
         -c /tmp/passt.pesto --control /tmp/passt.control
         cat /proc/$(cat /tmp/passt.pid)/attr/current; echo; user pesto /tmp/passt.pesto
         cat /tmp/passt.log | grep -v 'passt 2'; test -S /tmp/passt.control && kill $(cat /tmp/passt.pid)",
    );
    assert!(seen.starts_with("passt (enforce)") && seen.contains("TCP [*]:8099  =>  80"), "{seen}");
    assert!(!seen.contains("warn"), "{seen}");
}
