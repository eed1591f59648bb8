//! The units of `contrib/systemd` under a real systemd, as process 1 of namespaces of its own on the machine of the
//! test: its own `/run`, its own units and nothing else, and a control group of its own.

use serde_json::json;
use slipway_lab::{Output, Running, subject, which};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::place::Place;
use crate::{LIMIT, fixture};

const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// Where the test's own group is made: below systemd's hierarchy of old, or below the only one.
const GROUPS: [(&str, &str); 2] =
    [("/sys/fs/cgroup/systemd", "cgroup -o none,name=systemd"), ("/sys/fs/cgroup", "cgroup2")];

/// Units that a system has, as far as ours refer to them.
const OTHERS: [(&str, &str); 8] = [
    ("sysinit.target", "[Unit]\nDefaultDependencies=no\n"),
    ("basic.target", "[Unit]\nDefaultDependencies=no\n"),
    ("default.target", "[Unit]\nDefaultDependencies=no\n"),
    ("shutdown.target", "[Unit]\nDefaultDependencies=no\n"),
    ("umount.target", "[Unit]\nDefaultDependencies=no\n"),
    ("sockets.target", "[Unit]\nDefaultDependencies=no\nWants=netavark-dhcp-proxy.socket\n"),
    ("lab.target", "[Unit]\nWants=sockets.target nftables.service netavark-nftables-reload.service\n"),
    (
        "nftables.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecReload=/bin/true\n",
    ),
];

/// Ours.
const UNITS: [&str; 6] = [
    "netavark-dhcp-proxy.socket",
    "netavark-dhcp-proxy.service",
    "netavark-nftables-reload.service",
    "netavark-firewalld-reload.service",
    "user/slipway-uplink.socket",
    "user/slipway-uplink.service",
];

/// A group whose processes have ended goes with this.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..50 {
            remove(&self.0);
            if !self.0.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn remove(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}

/// A machine need not be able to do this, even where the other suites must run.
fn skip<T>(test: &str, reason: &str) -> Option<T> {
    println!("SKIP {test}: {reason}");
    None
}

/// A running systemd. The order matters: it ends before its group is removed.
struct Systemd {
    unshare: Running,
    _group: Group,
}

impl Systemd {
    fn boot(place: &Place, test: &str) -> Option<Self> {
        let missing =
            ["unshare", "nsenter", "systemctl"].into_iter().find(|program| which(program).is_none());
        if let Some(program) = missing.or_else(|| (!Path::new(SYSTEMD).exists()).then_some(SYSTEMD)) {
            return skip(test, &format!("{program} is missing"));
        }
        let group = GROUPS.iter().find_map(|(root, kind)| {
            let path = Path::new(root).join(format!("slipway-lab-{}", std::process::id()));
            std::fs::create_dir(&path).ok()?;
            Some((Group(path), *kind))
        });
        let Some((group, kind)) = group else { return skip(test, "no control group can be made") };
        let dir = place.dir().display();
        install(place);
        let script = format!(
            "set -e
             echo $$ > {0}/cgroup.procs
             exec unshare --fork --pid --mount --uts --ipc --cgroup --kill-child=KILL sh -ec '
                 mount --make-rprivate /
                 touch {dir}/netns; mount --bind {netns} {dir}/netns
                 mount --bind {dir}/run /run
                 mount --bind {dir}/units /usr/lib/systemd/system
                 mount --bind {dir}/none /etc/systemd/system
                 if [ -d /usr/lib/systemd/system-generators ]; then mount --bind {dir}/none /usr/lib/systemd/system-generators; fi
                 mount -t proc proc /proc
                 mount -t tmpfs tmpfs /sys/fs/cgroup
                 at=/sys/fs/cgroup; case \"{kind}\" in cgroup2) ;; *) at=$at/systemd; mkdir $at;; esac
                 mount -t {kind} cgroup $at
                 exec env -i PATH=$PATH container=lab {SYSTEMD} --system --unit=lab.target --log-target=console --show-status=no'",
            group.0.display(),
            netns = place.container.path(),
        );
        let unshare = place.machine.cmd(["sh", "-c", &script]).start().unwrap();
        let mut systemd = Self { unshare, _group: group };
        let socket = place.dir().join("run/podman/nv-proxy.sock");
        let up = systemd.unshare.until(LIMIT, |_| socket.exists());
        if let Err(error) = up {
            return skip(test, &format!("systemd does not come up here: {error}"));
        }
        Some(systemd)
    }

    /// `systemctl` beside it.
    fn ctl(&self, place: &Place, words: &str) -> Output {
        let children = format!("/proc/{0}/task/{0}/children", self.unshare.pid());
        let init = std::fs::read_to_string(children).unwrap();
        let words = format!("nsenter -t {} -m -p -C systemctl --no-pager {words}", init.trim());
        place.machine.cmd(["sh", "-c", &words]).run(LIMIT).unwrap()
    }

    /// One property of a unit.
    fn show(&self, place: &Place, unit: &str, property: &str) -> String {
        self.ctl(place, &format!("show -P {property} {unit}")).out().trim().to_owned()
    }
}

/// Puts the units where this systemd will look for them, with the program's place in them.
fn install(place: &Place) {
    let (units, contrib) =
        (place.dir().join("units"), Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/systemd"));
    for dir in ["units", "none", "run", "bin"] {
        std::fs::create_dir(place.dir().join(dir)).unwrap();
    }
    let bin = place.dir().join("bin");
    std::os::unix::fs::symlink(&place.proxy, bin.join("netavark")).unwrap();
    std::os::unix::fs::symlink(subject().unwrap().path(), bin.join("slipway")).unwrap();
    for name in UNITS {
        let text = std::fs::read_to_string(contrib.join(name)).unwrap();
        let name = Path::new(name).file_name().unwrap();
        std::fs::write(units.join(name), text.replace("@BIN@", bin.to_str().unwrap())).unwrap();
    }
    for (name, text) in OTHERS {
        std::fs::write(units.join(name), text).unwrap();
    }
}

#[test]
fn t07_the_units_do_what_they_say() {
    const NAME: &str = "t07_the_units_do_what_they_say";
    const PROXY: &str = "netavark-dhcp-proxy.service";
    let place = fixture!("t07_the_units_do_what_they_say");
    place.world_with_ipv6(&["fd00:5::1/64"]);
    let _server = place.server("198.51.100.50", &["--enable-ra", "--dhcp-range=fd00:5::50,fd00:5::50,64,2m"]);
    let Some(systemd) = Systemd::boot(&place, NAME) else { return };
    let socket = place.dir().join("run/podman/nv-proxy.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert_eq!(systemd.show(&place, PROXY, "ActiveState"), "inactive", "nobody has asked for anything");

    // The first call starts it; both versions of IP come from the real network.
    let mut request = place.request();
    request["ns_path"] = json!(place.dir().join("netns"));
    let call = |command: &str, version: u8| {
        let mut request = request.clone();
        request["version"] = json!(version);
        let output = place.client_of(&socket, command, &request).run(LIMIT).unwrap();
        assert!(output.success(), "{output}");
        serde_json::from_str::<serde_json::Value>(&output.out()).unwrap()["yiaddr"].clone()
    };
    assert_eq!((call("setup", 0), call("setup", 1)), (json!("198.51.100.50"), json!("fd00:5::50")));
    assert_eq!(systemd.show(&place, PROXY, "ActiveState"), "active");
    assert!(place.dir().join("run/podman/nv-proxy.lease").exists());
    assert_eq!(call("teardown", 0), json!("198.51.100.50"));

    // It ends when told to, cleanly, and leaves the socket to systemd, by which the next call starts it again.
    assert!(systemd.ctl(&place, &format!("stop {PROXY}")).success());
    assert_eq!(systemd.show(&place, PROXY, "Result"), "success");
    assert!(socket.exists());
    assert_eq!(call("teardown", 0), json!(""));
    assert_eq!(systemd.show(&place, PROXY, "ActiveState"), "active");

    // Rules are made again with each reload of nftables, and each restart.
    const RULES: &str = "netavark-nftables-reload.service";
    assert_eq!(systemd.show(&place, RULES, "ActiveState"), "active");
    let ran = |property: &str| systemd.show(&place, RULES, property);
    let (reloaded, started) = (ran("ExecReload"), ran("ExecStart"));
    assert!(systemd.ctl(&place, "reload nftables.service").success());
    Place::until("the rules are made again", || {
        ran("ExecReload") != reloaded && ran("ExecReload").contains("status=0")
    });
    assert!(systemd.ctl(&place, "restart nftables.service").success());
    Place::until("and again", || ran("ExecStart") != started && ran("ActiveState") == "active");

    // The uplink's unit is a user's, or root's as here. The first caller starts it.
    const UPLINK: &str = "slipway-uplink.service";
    assert!(systemd.ctl(&place, "start slipway-uplink.socket").success());
    assert_eq!(systemd.show(&place, UPLINK, "ActiveState"), "inactive");
    let show = || {
        let at = place.dir().join("run/slipway/uplink.sock");
        let program = place.dir().join("bin/slipway");
        let words =
            [program.as_os_str(), "uplink".as_ref(), "--show".as_ref(), "--socket".as_ref(), at.as_os_str()];
        place.machine.cmd(words).run(LIMIT).unwrap()
    };
    let shown = show();
    assert!(shown.success() && shown.out() == "no networks\n", "{shown}\n{}", systemd.unshare.stderr());
    assert_eq!(systemd.show(&place, UPLINK, "ActiveState"), "active");
    assert!(systemd.ctl(&place, &format!("stop {UPLINK}")).success());
    assert_eq!(systemd.show(&place, UPLINK, "Result"), "success");

    let failed = systemd.ctl(&place, "--failed --plain --no-legend");
    let ours = ["netavark", "slipway"].iter().any(|name| failed.out().contains(name));
    assert!(!ours, "{failed}\n{}", systemd.unshare.stderr());
}
