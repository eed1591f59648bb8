//! Sockets of the host that lead to sockets of a machine by its SSH server, which is OpenSSH's.
//!
//! The machine is a container as in `gvproxy`; its sshd runs in its network namespace as the lab's ordinary user, who
//! can let in nobody but himself. Sockets have paths, so those "of the machine" are served by the test itself.

use super::gvproxy::{FIRST, Network, lab, machine};
use super::machine::Machine;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slipway_lab::{Cmd, Container, LIMIT, Lab, Running, now, which};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PROGRAMS: [&str; 4] = ["busybox", "ncat", "sshd", "ssh-keygen"];

/// Who logs in: the lab's user.
fn user(lab: &Lab) -> String {
    let shown = lab.host(["id", "-un"]).run(LIMIT).unwrap().out();
    shown.trim().to_owned()
}

/// A file that belongs to the lab's user.
fn write(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let path = lab.home().join(name);
    let script = format!("umask 077; cat > {}", path.display());
    lab.host(["sh", "-c", &script]).input(text).ok(LIMIT).unwrap();
    path
}

/// A key of the lab's user, made with these words.
fn key(lab: &Lab, name: &str, words: &[&str]) -> PathBuf {
    let path = lab.home().join(name);
    let place = path.to_string_lossy().into_owned();
    let mut command = lab.host(["ssh-keygen", "-q", "-f", &place]).args(words);
    if !words.contains(&"-N") {
        command = command.args(["-N", ""]);
    }
    command.ok(LIMIT).unwrap();
    path
}

/// The machine's server.
struct Sshd<'a> {
    lab: &'a Lab,
    container: &'a Container,
    running: Option<Running>,
    config: PathBuf,
}

impl<'a> Sshd<'a> {
    /// One that lets in these keys, with these lines in its configuration; it does not run yet.
    fn new(lab: &'a Lab, container: &'a Container, keys: &[&Path], lines: &str) -> Self {
        let host_key = key(lab, "host_key", &["-t", "ed25519"]);
        let public = keys.iter().map(|key| {
            let path = PathBuf::from(format!("{}.pub", key.display()));
            std::fs::read_to_string(path).unwrap()
        });
        let allowed = write(lab, "allowed", &public.collect::<String>());
        let text = format!(
            "{lines}\nListenAddress 0.0.0.0:22\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PidFile none\nPasswordAuthentication no\n",
            host_key.display(),
            allowed.display()
        );
        let config = write(lab, "sshd_config", &text);
        let opened = container.sh("echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
        assert!(opened.success(), "{opened}");
        Self { lab, container, running: None, config }
    }

    fn cmd(&self) -> Cmd {
        let program = which("sshd").unwrap();
        let net = format!("--net=/proc/{}/ns/net", self.container.pid());
        let ids = self.lab.host(["sh", "-c", "id -u; id -g"]).run(LIMIT).unwrap().out();
        let (uid, gid) = ids.trim().split_once('\n').unwrap();
        let words = ["nsenter", &net, "setpriv", "--reuid", uid, "--regid", gid, "--clear-groups"];
        let config = self.config.to_string_lossy().into_owned();
        self.lab.host_root(words).arg(program.into_os_string()).args(["-D", "-e", "-f", &config])
    }

    fn start(&mut self) {
        let mut running = self.cmd().start().unwrap();
        running.until_listens("tcp", 22).unwrap();
        self.running = Some(running);
    }

    fn stop(&mut self) {
        self.tell(Signal::SIGKILL);
        self.running = None;
    }

    /// Sends a signal to it and to those that serve its connections, which are sessions of their own: all that are
    /// called so in the machine.
    fn tell(&self, signal: Signal) {
        let net = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let name = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let machine = std::fs::read_link(format!("/proc/{}/ns/net", self.container.pid())).unwrap();
        let names = std::fs::read_dir("/proc").unwrap().flatten();
        let numbers = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        for pid in numbers.filter(|pid| name(*pid) == "sshd\n" && net(*pid).as_ref() == Some(&machine)) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Sshd<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Serves what comes to a socket of the machine, each client by a thread of its own, until the test's process ends.
fn served(path: &Path, serve: fn(UnixStream)) {
    let listener = UnixListener::bind(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || serve(client));
        }
    });
}

/// Sends back what comes, until that ends.
fn echo(mut client: UnixStream) {
    let mut back = client.try_clone().unwrap();
    let _ = std::io::copy(&mut client, &mut back);
    let _ = back.shutdown(Shutdown::Write);
}

/// Says something when everything has been said to it.
fn answers_at_the_end(mut client: UnixStream) {
    let mut heard = Vec::new();
    let _ = client.read_to_end(&mut heard);
    let _ = client.write_all(format!("{} bytes", heard.len()).as_bytes());
}

/// Says something at once and ends that half; what it hears then it writes down.
fn ends_first(mut client: UnixStream) {
    let _ = client.write_all(b"the last word");
    let _ = client.shutdown(Shutdown::Write);
    let mut heard = Vec::new();
    let _ = client.read_to_end(&mut heard);
    let path = client.local_addr().unwrap().as_pathname().unwrap().with_extension("heard");
    std::fs::write(path, heard).unwrap();
}

/// Says as much as anybody takes.
fn pours(mut client: UnixStream) {
    while client.write_all(&[7; 65_536]).is_ok() {}
}

fn client(socket: &Path) -> UnixStream {
    let client = UnixStream::connect(socket).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    client.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    client
}

/// What comes back of `bytes` until the other end has ended.
fn exchanged(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut reading = client(socket);
    let mut writing = reading.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // It may be hung up on.
            let _ = writing.write_all(bytes);
            let _ = writing.shutdown(Shutdown::Write);
        });
        let mut back = Vec::new();
        let _ = reading.read_to_end(&mut back);
        back
    })
}

/// The four words of a forward.
fn words(socket: &Path, dest: &Path, user: &str, identity: &Path) -> Vec<String> {
    [("-forward-sock", socket), ("-forward-dest", dest), ("-forward-identity", identity)]
        .into_iter()
        .flat_map(|(flag, path)| [flag.to_owned(), path.to_string_lossy().into_owned()])
        .chain(["-forward-user".to_owned(), user.to_owned()])
        .collect()
}

fn start(lab: &Lab, words: &[String]) -> Network {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Network::start(lab, &words)
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = now() + LIMIT;
    while !done() {
        assert!(now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A machine with its address.
fn attached(lab: &Lab, network: &Network) -> (Container, Machine) {
    let (container, machine, lease) = machine(lab, network, Some(FIRST));
    assert!(lease.contains("192.168.127.2/24"), "{lease}");
    (container, machine)
}

#[test]
fn podmans_whole_command_line_leads_to_the_machines_socket() {
    let test = "podmans_whole_command_line_leads_to_the_machines_socket";
    let Some(lab) = lab(test, &PROGRAMS) else { return };
    let at = |name: &str| lab.home().join(name);
    let identity = key(&lab, "machine", &["-t", "ed25519"]);
    let (api, dest) = (at("api.sock"), at("podman.sock"));
    served(&dest, echo);
    // One that a process that was killed has left behind.
    drop(UnixListener::bind(&api).unwrap());
    let mut all = ["-ssh-port", "41118"].map(String::from).to_vec();
    all.extend(words(&api, &dest, &user(&lab), &identity));
    for (flag, name) in [("-pid-file", "pid"), ("-log-file", "log")] {
        all.extend([flag.to_owned(), at(name).to_string_lossy().into_owned()]);
    }
    let network = start(&lab, &all);
    until("the socket is there", || UnixStream::connect(&api).is_ok());
    assert_eq!(std::fs::metadata(&api).unwrap().permissions().mode() & 0o777, 0o600);
    let (container, machine) = attached(&lab, &network);
    // A client that is early waits for the server that is late.
    let early = std::thread::spawn({
        let api = api.clone();
        move || exchanged(&api, b"early")
    });
    std::thread::sleep(Duration::from_secs(2));
    let mut sshd = Sshd::new(&lab, &container, &[&identity], "RekeyLimit 1M");
    sshd.start();
    assert_eq!(early.join().unwrap(), b"early");
    // Enough for new keys now and then, both ways.
    let large: Vec<u8> = (0..6_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    assert!(exchanged(&api, &large) == large, "bytes are lost");
    std::thread::scope(|scope| {
        let many: Vec<_> = (0..20_u8)
            .map(|number| {
                let api = &api;
                scope.spawn(move || {
                    let bytes = vec![number; 100_000];
                    assert!(exchanged(api, &bytes) == bytes);
                })
            })
            .collect();
        many.into_iter().for_each(|one| one.join().unwrap());
    });
    machine.hang_up();
    network.ends();
    assert!(!api.exists());
    let log = std::fs::read_to_string(at("log")).unwrap();
    assert!(log.contains("level=info msg=\"an SSH connection leads to"), "{log}");
    assert_eq!(log.matches("an SSH connection leads to").count(), 1, "one is for all: {log}");
}

#[test]
fn halves_end_by_themselves_and_a_client_that_does_not_read_holds_up_nobody() {
    let test = "halves_end_by_themselves_and_a_client_that_does_not_read_holds_up_nobody";
    let Some(lab) = lab(test, &PROGRAMS) else { return };
    let at = |name: &str| lab.home().join(name);
    let identity = key(&lab, "machine", &["-t", "ecdsa", "-b", "256"]);
    let servers = [
        ("echo", echo as fn(UnixStream)),
        ("asks", answers_at_the_end),
        ("ends", ends_first),
        ("pours", pours),
    ];
    let user = user(&lab);
    let mut all = ["-ssh-port", "-1"].map(String::from).to_vec();
    for (name, serve) in servers {
        served(&at(name), serve);
        all.extend(words(&at(&format!("{name}.sock")), &at(name), &user, &identity));
    }
    let network = start(&lab, &all);
    let (container, machine) = attached(&lab, &network);
    let mut sshd = Sshd::new(&lab, &container, &[&identity], "Ciphers chacha20-poly1305@openssh.com");
    sshd.start();
    assert_eq!(exchanged(&at("asks.sock"), &[1; 300_000]), b"300000 bytes");
    let mut late = client(&at("ends.sock"));
    let mut word = Vec::new();
    late.read_to_end(&mut word).unwrap();
    assert_eq!(word, b"the last word");
    late.write_all(b"and still one").unwrap();
    drop(late);
    until("the other half goes on", || {
        std::fs::read(at("ends.heard")).is_ok_and(|heard| heard == b"and still one")
    });
    // Of one connection: one that takes nothing, one that takes everything.
    let mut slow = client(&at("pours.sock"));
    let mut first = [0];
    slow.read_exact(&mut first).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let mut quick = client(&at("pours.sock"));
    let mut taken = vec![0; 8 << 20];
    quick.read_exact(&mut taken).unwrap();
    drop(quick);
    slow.read_exact(&mut taken).unwrap();
    assert_eq!(exchanged(&at("echo.sock"), b"x"), b"x");
    machine.hang_up();
    network.ends();
}

#[test]
fn a_server_that_goes_and_comes_is_reached_again() {
    let test = "a_server_that_goes_and_comes_is_reached_again";
    let Some(lab) = lab(test, &PROGRAMS) else { return };
    let at = |name: &str| lab.home().join(name);
    let identity = key(&lab, "machine", &["-t", "ecdsa", "-b", "384"]);
    let (api, dest) = (at("api.sock"), at("podman.sock"));
    served(&dest, echo);
    let mut all = ["-ssh-port", "-1"].map(String::from).to_vec();
    all.extend(words(&api, &dest, &user(&lab), &identity));
    let network = start(&lab, &all);
    let (container, machine) = attached(&lab, &network);
    let mut sshd = Sshd::new(&lab, &container, &[&identity], "Ciphers aes128-gcm@openssh.com");
    for _ in 0..2 {
        sshd.start();
        let mut held = client(&api);
        let mut byte = [0];
        held.write_all(b"x").unwrap();
        held.read_exact(&mut byte).unwrap();
        // It stops in the middle, and goes on.
        sshd.tell(Signal::SIGSTOP);
        held.write_all(b"y").unwrap();
        std::thread::sleep(Duration::from_secs(2));
        sshd.tell(Signal::SIGCONT);
        held.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"y");
        // It ends, and a client that comes meanwhile waits for the next one.
        sshd.stop();
        let mut rest = Vec::new();
        let _ = held.read_to_end(&mut rest);
        assert!(rest.is_empty());
    }
    let waiting = std::thread::spawn({
        let api = api.clone();
        move || exchanged(&api, b"again")
    });
    sshd.start();
    assert_eq!(waiting.join().unwrap(), b"again");
    // The socket of the machine is not there: whoever comes is hung up on, the connection stays.
    std::fs::remove_file(&dest).unwrap();
    assert!(exchanged(&api, b"x").is_empty());
    served(&dest, echo);
    assert_eq!(exchanged(&api, b"x"), b"x");
    let said = network.process.stderr();
    assert!(said.contains("couldn't reestablish ssh tunnel on path: "), "{said}");
    machine.hang_up();
    network.ends();
}

#[test]
fn keys_that_do_not_do_end_nothing() {
    let test = "keys_that_do_not_do_end_nothing";
    let Some(lab) = lab(test, &PROGRAMS) else { return };
    let at = |name: &str| lab.home().join(name);
    let good = key(&lab, "good", &["-t", "ed25519"]);
    let stranger = key(&lab, "stranger", &["-t", "ed25519"]);
    let locked = key(&lab, "locked", &["-t", "ed25519", "-N", "secret"]);
    let garbage = write(&lab, "garbage", "nothing of a key");
    let vanishing = write(&lab, "vanishing", "x");
    let directory = lab.home();
    let dest = at("podman.sock");
    served(&dest, echo);
    let user = user(&lab);
    let mut all = ["-ssh-port", "-1"].map(String::from).to_vec();
    let keys = [
        ("stranger", &stranger, "the server does not let "),
        ("locked", &locked, "it has a passphrase, and nobody is here to be asked for it"),
        ("garbage", &garbage, "it is no private key"),
        ("vanishing", &vanishing, "no such file or directory"),
        ("directory", &directory, "is a directory"),
    ];
    for (name, identity, _) in keys {
        all.extend(words(&at(&format!("{name}.sock")), &dest, &user, identity));
    }
    all.extend(words(&at("good.sock"), &dest, &user, &good));
    std::fs::remove_file(&vanishing).unwrap();
    std::os::unix::fs::symlink(&good, &vanishing).unwrap();
    let network = start(&lab, &all);
    std::fs::remove_file(&vanishing).unwrap();
    let (container, machine) = attached(&lab, &network);
    let mut sshd = Sshd::new(&lab, &container, &[&good], "");
    sshd.start();
    for (name, _, why) in keys {
        assert!(exchanged(&at(&format!("{name}.sock")), b"x").is_empty(), "{name}");
        until(name, || network.process.stderr().contains(why));
    }
    assert_eq!(exchanged(&at("good.sock"), b"x"), b"x");
    // A key that is there later does.
    lab.host(["cp".as_ref(), good.as_os_str(), vanishing.as_os_str()]).ok(LIMIT).unwrap();
    until("it is read anew", || exchanged(&at("vanishing.sock"), b"x") == b"x");
    machine.hang_up();
    network.ends();
}

#[test]
fn sockets_are_exposed_by_the_api_and_lead_there_too() {
    let test = "sockets_are_exposed_by_the_api_and_lead_there_too";
    let Some(lab) = lab(test, &[&PROGRAMS[..], &["curl"]].concat()) else { return };
    let at = |name: &str| lab.home().join(name);
    let identity = key(&lab, "machine", &["-t", "ed25519"]);
    let (api, exposed, dest) = (at("api.sock"), at("exposed.sock"), at("podman.sock"));
    served(&dest, echo);
    let all = ["-ssh-port", "-1", "-listen", &format!("unix://{}", api.display())].map(String::from);
    let network = start(&lab, &all);
    let (container, machine) = attached(&lab, &network);
    let mut sshd = Sshd::new(&lab, &container, &[&identity], "");
    sshd.start();
    let post = |path: &str| {
        let (key, user) = (identity.display(), user(&lab));
        let (local, dest) = (exposed.display(), dest.display());
        let remote = format!("ssh-tunnel://{user}@192.168.127.2:22{dest}?key={key}");
        let body = format!(r#"{{"local":"{local}","remote":"{remote}","protocol":"unix"}}"#);
        let socket = api.to_string_lossy().into_owned();
        let url = format!("http://gvproxy/services/forwarder/{path}");
        let words = ["curl", "-sS", "--max-time", "20", "-w", "%{http_code}", "--unix-socket", &socket, "-d"];
        lab.host(words).args([&body, &url]).run(LIMIT).unwrap().all()
    };
    assert_eq!(post("expose"), "200");
    assert_eq!(exchanged(&exposed, b"by the API"), b"by the API");
    let mut held = client(&exposed);
    held.write_all(b"x").unwrap();
    let mut byte = [0];
    held.read_exact(&mut byte).unwrap();
    assert_eq!(post("unexpose"), "200");
    assert!(!exposed.exists());
    held.write_all(b"y").unwrap();
    held.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"y", "those who have come live on");
    // Whoever holds keys is gone; packets and those who are connected go on, and the rest says so.
    machine.hang_up();
    network.ends();
}
