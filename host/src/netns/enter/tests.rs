//! A TAP out of somebody else's namespace: what the contract with container engines says, and what goes wrong.

use super::super::testing::{has_tun, in_new_mounts, unprivileged, unprivileged_with_tun, with_tun};
use super::*;
use crate::netlink::{Kind, Netlink, NewLink, Request};
use crate::netns::{Configure, Side};
use crate::sys::tun::{self, Flags};
use crate::template::{self, Device, Snapshot, Template, Wishes};
use nix::sched::unshare;
use nix::unistd::{getegid, geteuid, pipe2, read};
use slipway_netstack::addr::MacAddr;
use slipway_netstack::config::Mtu;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How many times ten milliseconds what must come is waited for.
const PATIENCE: u32 = 3000;

/// A process in namespaces of its own, which lives as long as this does.
struct Inhabitant {
    pid: Pid,
    life: Option<OwnedFd>,
}

impl Inhabitant {
    /// `None` when the machine gives it none.
    fn new(kinds: CloneFlags, furnish: impl FnOnce()) -> Option<Self> {
        let flags = nix::fcntl::OFlag::O_CLOEXEC;
        let (ready_read, ready) = pipe2(flags).unwrap();
        let (life_read, life) = pipe2(flags).unwrap();
        let (uid, gid) = (geteuid(), getegid());
        let mut ours = Some(life);
        let pid = fork_child(|| {
            ours = None;
            if unshare(kinds).is_err() {
                return 1;
            }
            if kinds.contains(CloneFlags::CLONE_NEWUSER) {
                std::fs::write("/proc/self/setgroups", "deny").unwrap();
                std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
                std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
            }
            furnish();
            nix::unistd::write(&ready, b"1").unwrap();
            read(&life_read, &mut [0; 1]).unwrap();
            0
        })
        .unwrap();
        drop(ready);
        let inhabitant = Self { pid, life: ours };
        (read(&ready_read, &mut [0; 1]).unwrap() == 1).then_some(inhabitant)
    }

    /// One in a network namespace alone, for TAPs; or the test is passed over.
    fn in_net(name: &str) -> Option<Self> {
        if !has_tun(name) {
            return None;
        }
        let inhabitant = Self::new(CloneFlags::CLONE_NEWNET, || {});
        if inhabitant.is_none() {
            println!("SKIP {name}: no network namespace may be made here");
        }
        inhabitant
    }

    /// Runs `work` in its network namespace.
    fn within(&self, work: impl FnOnce()) {
        let child = fork_child(|| {
            Target::path(format!("/proc/{}/ns/net", self.pid)).join(None).unwrap();
            work();
            0
        })
        .unwrap();
        assert_eq!(wait_for(child).unwrap(), WaitStatus::Exited(child, 0));
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        self.life = None;
        let _ = wait_for(self.pid);
    }
}

fn wanted() -> Setup {
    Setup::Configure(Configure {
        mtu: Mtu::ETHERNET,
        mac: Some(MacAddr([0x02, 0, 0, 0, 0, 9])),
        v4: Some(Side { address: "10.0.2.100/24".parse().unwrap(), gateway: "10.0.2.2".parse().unwrap() }),
        v6: Some(Side { address: "fd00::100/64".parse().unwrap(), gateway: "fd00::2".parse().unwrap() }),
    })
}

/// The line that the child ended with.
fn line(result: Result<Opened, NetnsError>) -> String {
    match result.unwrap_err() {
        NetnsError::Child { message, status: 1 } => {
            assert_eq!(message.lines().count(), 1, "{message}");
            message
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tap_comes_out_configured() {
    let Some(there) = Inhabitant::in_net("a_tap_comes_out_configured") else { return };
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let opened = open_tap(&Target::pid(there.pid), "tap0", Some(&wanted())).unwrap();
    assert_eq!(opened.tap.name(), "tap0");
    assert!(opened.sent_fd > 2 && opened.received_fd() > 2);
    assert_eq!(std::fs::read_link("/proc/self/ns/net").unwrap(), own, "this process stays where it is");
    there.within(|| {
        let mut netlink = Netlink::open().unwrap();
        assert!(netlink.interface("lo").unwrap().up);
        let tap = netlink.interface("tap0").unwrap();
        assert!(tap.up && tap.mtu == 1500 && tap.mac == Some(MacAddr([0x02, 0, 0, 0, 0, 9])));
        assert_eq!(netlink.first_address("tap0", false).unwrap().to_string(), "10.0.2.100");
        let routes = std::fs::read_to_string("/proc/thread-self/net/route").unwrap();
        assert!(routes.lines().any(|route| route.starts_with("tap0\t00000000\t0202000A")), "{routes}");
    });
}

#[test]
fn a_tap_comes_out_as_its_template_says() {
    let Some(there) = Inhabitant::in_net("a_tap_comes_out_as_its_template_says") else { return };
    let template = Template::choose(&Snapshot::default(), &Wishes::default()).unwrap();
    let device = Device { mtu: Some(Mtu::ETHERNET), mac: Some(MacAddr([0x02, 0, 0, 0, 0, 9])) };
    let setup = Setup::Template(template::plan(&template, device));
    let opened = open_tap(&Target::pid(there.pid), template.ifname(), Some(&setup)).unwrap();
    assert_eq!(opened.tap.name(), "tap0");
    there.within(|| {
        let mut netlink = Netlink::open().unwrap();
        let tap = netlink.interface("tap0").unwrap();
        assert!(netlink.interface("lo").unwrap().up && tap.up && tap.mtu == 1500 && tap.mac == device.mac);
        assert_eq!(netlink.first_address("tap0", false).unwrap().to_string(), "169.254.2.1");
        let kind = Kind::Bridge { vlan_filtering: false };
        let taken = NewLink { name: "eth0", mtu: None, mac: None, master: None, netns: None, kind };
        netlink.run_one(&Request::create(&taken)).unwrap();
    });
    let told = line(open_tap(&Target::pid(there.pid), "eth0", Some(&setup)));
    let expected = "cannot attach to the TAP \"eth0\": Invalid argument (the name has 1 to 15 bytes, and must not be that \
                    of another kind of interface)";
    assert_eq!(told, expected);
}

#[test]
fn unconfigured_it_is_left_down() {
    let Some(there) = Inhabitant::in_net("unconfigured_it_is_left_down") else { return };
    let opened = open_tap(&Target::pid(there.pid), "tap0", None).unwrap();
    there.within(|| {
        let mut netlink = Netlink::open().unwrap();
        assert!(!netlink.interface("lo").unwrap().up && !netlink.interface("tap0").unwrap().up);
    });
    drop(opened);
    // A child that another test's thread forked just now has a copy of the descriptor, and keeps the TAP for as long as
    // it runs.
    there.within(|| {
        let mut netlink = Netlink::open().unwrap();
        let gone = (0..PATIENCE).any(|_| {
            let gone = netlink.interface("tap0").is_err();
            if !gone {
                std::thread::sleep(Duration::from_millis(10));
            }
            gone
        });
        assert!(gone, "it goes with us");
    });
}

/// RootlessKit makes the interface and names it to us.
#[test]
fn a_persistent_tap_is_attached_to() {
    let name = "a_persistent_tap_is_attached_to";
    if !has_tun(name) {
        return;
    }
    let furnish = || {
        let fd = tun::open_device(Path::new(tun::DEVICE)).unwrap();
        tun::attach(fd.as_fd(), "tap5", Flags::TAP | Flags::NO_PI).unwrap();
        tun::set_persistent(fd.as_fd(), true).unwrap();
    };
    let Some(there) = Inhabitant::new(CloneFlags::CLONE_NEWNET, furnish) else {
        println!("SKIP {name}: no network namespace may be made here");
        return;
    };
    let index = |there: &Inhabitant| {
        let file = tempfile::NamedTempFile::new().unwrap();
        there.within(|| {
            let tap = Netlink::open().unwrap().interface("tap5").unwrap();
            std::fs::write(file.path(), tap.index.to_string()).unwrap();
        });
        std::fs::read_to_string(file.path()).unwrap()
    };
    let before = index(&there);
    let opened = open_tap(&Target::pid(there.pid), "tap5", Some(&wanted())).unwrap();
    assert!(opened.tap.capabilities().checksum, "offloads need nothing of whoever made it");
    assert!(line(open_tap(&Target::pid(there.pid), "tap5", None)).contains("another program is attached"));
    drop(opened);
    assert_eq!(index(&there), before, "it outlives us");
}

#[test]
fn the_user_namespace_is_joined_first() {
    let name = "the_user_namespace_is_joined_first";
    unprivileged(name, || {
        let kinds = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET;
        let Some(there) = Inhabitant::new(kinds, || {}) else {
            println!("SKIP {name}: no user namespace may be made here");
            return;
        };
        let opened = open_tap(&Target::pid(there.pid), "tap0", Some(&wanted())).unwrap();
        assert_eq!(opened.tap.name(), "tap0");
        // Without it there is no right to the other.
        let path = format!("/proc/{}/ns/net", there.pid);
        assert_eq!(
            line(open_tap(&Target::path(&path), "tap1", None)),
            format!("cannot join the network namespace {path}: Operation not permitted")
        );
        let given = Target::path(&path).with_userns(Some(format!("/proc/{}/ns/user", there.pid).into()));
        open_tap(&given, "tap1", None).unwrap();
    });
}

/// Podman starts us within the user namespace already: joining it again is refused, which is no harm.
#[test]
fn a_user_namespace_that_cannot_be_joined_is_no_harm_alone() {
    let Some(there) = Inhabitant::in_net("a_user_namespace_that_cannot_be_joined_is_no_harm_alone") else {
        return;
    };
    let target = Target::path(format!("/proc/{}/ns/net", there.pid));
    open_tap(&target.clone().with_userns(Some("/proc/self/ns/user".into())), "tap0", None).unwrap();
    open_tap(&target.with_userns(Some("/no/such/file".into())), "tap1", None).unwrap();
}

#[test]
fn what_is_no_namespace_is_told() {
    assert_eq!(
        line(open_tap(&Target::path("/no/such/file"), "tap0", None)),
        "cannot join the network namespace /no/such/file: No such file or directory"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display();
    assert_eq!(
        line(open_tap(&Target::path(file.path()), "tap0", None)),
        format!("cannot join the network namespace {path}: Invalid argument")
    );
    let both = Target::path(file.path()).with_userns(Some("/no/user".into()));
    assert!(
        line(open_tap(&both, "tap0", None))
            .ends_with("Invalid argument (nor its user namespace /no/user: No such file or directory)")
    );
    // A process that ended: its number cannot be reused, for we have not waited for it.
    let child = fork_child(|| 0).unwrap();
    wait_for(child).unwrap();
    assert!(line(open_tap(&Target::pid(child), "tap0", None)).contains("No such file or directory"));
}

/// As if its number had passed to somebody else: the namespaces are there, but it is not.
#[test]
fn a_process_that_ended_before_it_was_entered_is_nobody() {
    let Some(there) = Inhabitant::in_net("a_process_that_ended_before_it_was_entered_is_nobody") else {
        return;
    };
    let ended = fork_child(|| 0).unwrap();
    let watch = Watch::process(ended).unwrap();
    wait_for(ended).unwrap();
    let told = line(open_tap_of(&watch, &Target::pid(there.pid), "tap0", None));
    assert!(told.contains("is gone"), "{told}");
    there.within(|| assert!(Netlink::open().unwrap().interface("tap0").is_err(), "nothing was made"));
    let watch = Watch::process(there.pid).unwrap();
    open_tap_of(&watch, &Target::pid(there.pid), "tap0", None).unwrap();
}

#[test]
fn a_bad_interface_name_is_told() {
    let Some(there) = Inhabitant::in_net("a_bad_interface_name_is_told") else { return };
    for name in ["", "sixteen-bytes-xx", "a/b", "lo"] {
        let told = line(open_tap(&Target::pid(there.pid), name, None));
        assert!(told.starts_with(&format!("cannot attach to the TAP \"{name}\": ")), "{told}");
    }
}

#[test]
fn a_missing_or_forbidden_device_is_told() {
    let name = "a_missing_or_forbidden_device_is_told";
    let kinds = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET;
    let told = |mode, expected: [&'static str; 2]| {
        unprivileged_with_tun(name, mode, move || {
            let Some(there) = Inhabitant::new(kinds, || {}) else {
                println!("SKIP {name}: no user namespace may be made here");
                return;
            };
            let line = line(open_tap(&Target::pid(there.pid), "tap0", None));
            assert!(line.starts_with(expected[0]) && line.contains(expected[1]), "{line}");
        });
    };
    told(None, ["open(\"/dev/net/tun\"): No such file or directory", "modprobe tun"]);
    told(Some(0o600), ["open(\"/dev/net/tun\"): Permission denied", "chmod 0666 /dev/net/tun"]);
}

/// `slirp4netns --netns-type=path` with what `ip netns add` and Podman leave.
#[test]
fn a_bound_namespace_is_entered() {
    let name = "a_bound_namespace_is_entered";
    let Some(there) = Inhabitant::in_net(name) else { return };
    in_new_mounts(name, || {
        let file = tempfile::NamedTempFile::new().unwrap();
        let from = format!("/proc/{}/ns/net", there.pid);
        let none = None::<&str>;
        nix::mount::mount(Some(from.as_str()), file.path(), none, nix::mount::MsFlags::MS_BIND, none)
            .unwrap();
        let opened = open_tap(&Target::path(file.path()), "tap0", Some(&wanted())).unwrap();
        assert_eq!(opened.tap.name(), "tap0");
        nix::mount::umount(file.path()).unwrap();
    });
}

#[test]
fn a_namespace_without_ipv6_gets_ipv4() {
    let name = "a_namespace_without_ipv6_gets_ipv4";
    with_tun(name, || {
        if let Err(error) = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") {
            println!("SKIP {name}: IPv6 cannot be switched off here: {error}");
            return;
        }
        let _tap = open_here("tap0", Some(&wanted())).unwrap();
        let mut netlink = Netlink::open().unwrap();
        assert_eq!(netlink.first_address("tap0", false).unwrap().to_string(), "10.0.2.100");
        assert!(netlink.first_address("tap0", true).is_err());
    });
}

#[test]
fn a_fifo_in_the_place_of_a_namespace_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let told = line(open_tap(&Target::path(&path), "tap0", None));
    assert!(told.ends_with(": Invalid argument"), "{told}");
}
