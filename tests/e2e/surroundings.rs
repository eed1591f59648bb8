//! What lies around a command: a host that replaces its resolv.conf, a container whose filter knows no new calls, pipes
//! that nobody reads.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use slipway_lab::{LIMIT, Lab, Running, lab};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// The nameserver that a command of `run` sees.
const OURS: &str = "nameserver 10.0.2.3";

/// Gives host an /etc of its own, in which files can be renamed; `None` where the lab has no root.
fn own_etc(lab: &Lab, test: &str) -> Option<PathBuf> {
    if !lab.by_root() {
        println!("SKIP {test}: needs root for an /etc of its own");
        return None;
    }
    let etc = lab.dir().join("own-etc");
    let script = r#"mkdir "$0" && cp -a /etc/. "$0" && mount --bind "$0" /etc"#;
    lab.host_root(["sh", "-c", script]).arg(etc.clone().into_os_string()).ok(LIMIT).unwrap();
    Some(etc)
}

const MOUNTS_ON_ETC: &str = "grep -c ' /etc ' /proc/self/mountinfo\n";

/// A command that shows its resolv.conf, or something else, whenever it is asked.
struct Shower {
    command: Running,
    shown: usize,
}

impl Shower {
    fn start(lab: &Lab) -> Self {
        let script = "while read -r line; do eval \"$line\" 2>&1; echo done; done";
        let command = lab.host([
            &lab.program("slipway"),
            "run",
            "-q",
            "--map-root",
            "--dns",
            "192.0.2.2",
            "--",
            "sh",
            "-c",
            script,
        ]);
        Self { command: command.start().unwrap(), shown: 0 }
    }

    fn show(&mut self) -> String {
        self.told("cat /etc/resolv.conf\n")
    }

    /// What it says to a line of shell.
    fn told(&mut self, line: &str) -> String {
        self.command.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        let shown = self.shown;
        self.command.until(LIMIT, |command| command.stdout()[shown..].contains("done\n")).unwrap();
        let text = self.command.stdout();
        self.shown = text.len();
        text[shown..].to_owned()
    }

    /// It sees ours again before long, and then for good.
    fn sees_ours(&mut self, when: &str) {
        let mut shown = String::new();
        let soon = (0..200).any(|_| {
            shown = self.show();
            let ours = shown.contains(OURS);
            if !ours {
                std::thread::sleep(Duration::from_millis(20));
            }
            ours
        });
        assert!(soon, "{when}: {shown}{}", self.command.stderr());
        std::thread::sleep(Duration::from_millis(50));
        assert!(self.show().contains(OURS), "{when}");
    }
}

fn host(lab: &Lab, script: &str) {
    lab.host_root(["sh", "-ec", script]).ok(LIMIT).unwrap();
}

#[test]
fn a_resolv_conf_that_is_replaced_stays_covered() {
    const NAME: &str = "a_resolv_conf_that_is_replaced_stays_covered";
    let (lab, _) = lab!(ours "a_resolv_conf_that_is_replaced_stays_covered", []);
    let Some(_) = own_etc(&lab, NAME) else { return };
    host(&lab, "rm /etc/resolv.conf; echo nameserver 127.0.0.1 > /etc/resolv.conf");
    let mut shower = Shower::start(&lab);
    assert!(shower.show().contains(OURS));
    let on_etc = shower.told(MOUNTS_ON_ETC);
    for round in 0..3 {
        host(&lab, "echo nameserver 127.0.0.53 > /etc/new; mv /etc/new /etc/resolv.conf");
        shower.sees_ours(&format!("renamed over, round {round}"));
    }
    host(
        &lab,
        "mkdir /etc/there; echo nameserver 127.0.0.54 > /etc/there/stub; ln -s there/stub /etc/new; mv /etc/new /etc/resolv.conf",
    );
    shower.sees_ours("a link in its place");
    host(&lab, "echo nameserver 127.0.0.55 > /etc/new; mv /etc/new /etc/there/stub");
    shower.sees_ours("renamed over the link's target");
    host(&lab, "echo nameserver 127.0.0.56 > /etc/new; mv /etc/new /etc/resolv.conf");
    shower.sees_ours("a file in the link's place");
    host(&lab, "echo nameserver 127.0.0.57 > /etc/resolv.conf");
    shower.sees_ours("written in place");
    // Everything else is the host's, as it is now.
    host(
        &lab,
        "echo 192.0.2.9 somebody >> /etc/hosts; echo 192.0.2.9 other > /etc/new; mv /etc/new /etc/networks",
    );
    let script = "grep -c somebody /etc/hosts; cat /etc/networks; ls /etc | grep -c .";
    let inside =
        lab.host([&lab.program("slipway"), "run", "-q", "--", "sh", "-c", script]).ok(LIMIT).unwrap();
    assert_eq!(inside.out(), lab.host(["sh", "-c", script]).ok(LIMIT).unwrap().out());
    // Nothing else of /etc suffers when it is gone for a moment: files there can still be replaced.
    host(&lab, "rm /etc/resolv.conf; sleep 0.1; echo nameserver 127.0.0.58 > /etc/resolv.conf");
    shower.sees_ours("removed and made anew");
    host(
        &lab,
        "rm /etc/resolv.conf; ln -s nowhere/yet /etc/resolv.conf; sleep 0.1; mkdir -p /etc/nowhere; echo nameserver 127.0.0.59 > /etc/nowhere/yet",
    );
    shower.sees_ours("a link whose target came later");
    assert_eq!(shower.told(MOUNTS_ON_ETC), on_etc, "the whole of /etc is not covered");
    // What the command itself mounts above it stays.
    shower.told("mount -t tmpfs own /etc && echo nameserver 192.0.2.77 > /etc/resolv.conf\n");
    host(&lab, "echo nameserver 127.0.0.60 > /etc/new; mv /etc/new /etc/resolv.conf; sleep 0.2");
    assert!(shower.show().contains("192.0.2.77"));
}

#[test]
fn a_host_without_resolv_conf_does_not_matter() {
    const NAME: &str = "a_host_without_resolv_conf_does_not_matter";
    let (lab, _) = lab!(ours "a_host_without_resolv_conf_does_not_matter", []);
    let Some(_) = own_etc(&lab, NAME) else { return };
    for (what, script) in [
        ("missing", "rm -f /etc/resolv.conf"),
        ("dangling", "rm -f /etc/resolv.conf; ln -s ../run/nobody/filled/resolv.conf /etc/resolv.conf"),
    ] {
        host(&lab, script);
        let mut shower = Shower::start(&lab);
        assert!(shower.show().contains(OURS), "{what}");
        host(&lab, "rm -f /etc/resolv.conf; echo nameserver 127.0.0.53 > /etc/resolv.conf");
        shower.sees_ours(what);
        // Names, kinds, rights, sizes, links and contents are the host's.
        host(&lab, script);
        let script = r"cd /etc; find . -maxdepth 1 ! -name . ! -name resolv.conf -printf '%M %s %f %l\n' | sort; cksum passwd hosts ssl/*";
        let inside =
            lab.host([&lab.program("slipway"), "run", "-q", "--", "sh", "-c", script]).run(LIMIT).unwrap();
        let outside = lab.host(["sh", "-c", script]).run(LIMIT).unwrap();
        let (inside, outside) = (inside.out(), outside.out());
        let differ: Vec<_> = inside.lines().zip(outside.lines()).filter(|(a, b)| a != b).take(5).collect();
        assert!(differ.is_empty() && inside.len() == outside.len(), "{what}: {differ:?}");
    }
}

/// Words that start a program where every call that is newer than Linux 5.0 fails with this errno.
fn old_kernel(lab: &Lab, errno: Errno) -> [String; 3] {
    [lab.program("slipway-lab-peer"), "old-kernel".to_owned(), (errno as i32).to_string()]
}

/// What filters and kernels say of calls that they do not know.
const ANSWERS: [Errno; 4] = [Errno::EPERM, Errno::ENOSYS, Errno::EACCES, Errno::EINVAL];

#[test]
fn run_needs_no_new_calls() {
    let (lab, _) = lab!(ours "run_needs_no_new_calls", []);
    let slipway = lab.program("slipway");
    for errno in ANSWERS {
        let run = |script| {
            lab.host(old_kernel(&lab, errno)).args([&slipway, "run", "-q", "--", "sh", "-c", script])
        };
        let output = run("ip route | grep -q default && cat /etc/resolv.conf; exit 7").run(LIMIT).unwrap();
        assert!(output.code() == 7 && output.out().contains(OURS), "{errno}: {output}");
        let mut command = run("echo started; exec sleep 60").start().unwrap();
        command.until(LIMIT, |command| command.stdout().contains("started")).unwrap();
        let pid = i32::try_from(command.pid()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        assert_eq!(command.finish(LIMIT).unwrap().expect("it ends").code(), 143, "{errno}");
    }
}

#[test]
fn attach_needs_no_new_calls() {
    let (lab, _) = lab!(ours "attach_needs_no_new_calls", []);
    let slipway = lab.program("slipway");
    for errno in ANSWERS {
        let attach = |target: &str| {
            lab.host(old_kernel(&lab, errno)).args([slipway.as_str(), "attach", "--ready-fd=1", target])
        };
        for path in [false, true] {
            let mut container = lab.container().unwrap();
            let pid = container.pid();
            let target = if path { format!("/proc/{pid}/ns/net") } else { pid.to_string() };
            let mut command =
                attach(&target).args(path.then(|| format!("--userns=/proc/{pid}/ns/user"))).start().unwrap();
            command.until(LIMIT, |command| command.stdout() == "1").unwrap();
            assert!(container.sh("ping -c1 -W5 10.0.2.2").unwrap().success());
            assert!(command.ended().unwrap().is_none());
            container.end();
            let ended = command.finish(LIMIT).unwrap().expect("it ends with its target");
            assert_eq!(ended.code(), 0, "{errno}: {ended}");
        }
        let output = attach("4194304").run(LIMIT).unwrap();
        assert!(output.err().contains("there is no process 4194304"), "{errno}: {output}");
    }
}

#[test]
fn slirp4netns_needs_no_new_calls() {
    let (lab, _) = lab!(ours "slirp4netns_needs_no_new_calls", []);
    for errno in ANSWERS {
        let container = lab.container().unwrap();
        let mut command = lab
            .host(old_kernel(&lab, errno))
            .args([&lab.program("slirp4netns"), "-c", "-e0", "-r1", "--enable-sandbox", "--enable-seccomp"])
            .args([&container.pid().to_string(), "tap0"])
            .start()
            .unwrap();
        command
            .until(LIMIT, |command| command.stdout().ends_with('1') && command.stdout().contains("MTU"))
            .unwrap();
        assert!(container.sh("ping -c1 -W5 10.0.2.2").unwrap().success(), "{errno}: {}", command.stderr());
        command.stdin.take();
        assert_eq!(command.finish(LIMIT).unwrap().expect("it ends").code(), 0, "{errno}");
    }
}

#[test]
fn a_pipe_that_nobody_reads_stops_nothing() {
    let (lab, _) = lab!(ours "a_pipe_that_nobody_reads_stops_nothing", ["ping"]);
    let container = lab.container().unwrap();
    let (fifo, api) = (lab.home().join("fifo"), lab.home().join("api.sock"));
    let script = r#"mkfifo "$HOME/fifo"; exec "$@" 2<>"$HOME/fifo""#;
    let mut slirp = lab
        .host(["sh", "-c", script, "sh"])
        .args([&lab.program("slirp4netns"), "-c", "-e0", "-r1", "--enable-seccomp", "--api-socket"])
        .args([api.to_string_lossy().into_owned(), container.pid().to_string(), "tap0".to_owned()])
        .start()
        .unwrap();
    slirp.until(LIMIT, |slirp| slirp.stdout().ends_with('1') && slirp.stdout().contains("MTU")).unwrap();
    let ask = || slipway_lab::api(&api, br#"{"execute":"list_hostfwd"}"#).unwrap();
    for number in 0..1500 {
        let reply = ask();
        assert!(reply.contains("entries"), "request {number}: {reply}");
    }
    assert!(container.sh("ping -c1 -W5 10.0.2.2").unwrap().success(), "the network goes on");
    let read =
        || lab.host(["timeout", "1", "cat"]).arg(fifo.clone().into_os_string()).run(LIMIT).unwrap().out();
    let held = read();
    assert!(held.contains("list_hostfwd") && !held.contains("lines lost"), "{} bytes", held.len());
    ask();
    let rest = read();
    assert!(rest.contains(" lines lost\n") && rest.ends_with('\n'), "{rest}");
    slirp.stdin.take();
    assert_eq!(slirp.finish(LIMIT).unwrap().expect("it ends").code(), 0);
}
