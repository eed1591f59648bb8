//! The main job, live: a process in a fresh unprivileged user and network namespace gets a network.
//!
//! The machine is played by the lab's *host*, the rest of the world by the lab's *world*: nothing leaves them, and
//! nothing of the real machine changes. `slipway run` starts one shell inside; the demo types into it and shows what
//! came back, one check mark a step. The first step that fails ends the demo with the program's own words.

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use slipway_lab::{Cmd, HOST4, HOST6, Lab, LabOptions, Running, WORLD4, WORLD6};

use crate::tool::{self, Done};
use crate::{deps, iperf, release};

const LIMIT: Duration = Duration::from_secs(15);
const PORT: u16 = 8080;

/// Installs, builds, shows.
pub(crate) fn run() -> Done {
    println!(
        "The main job of slipway, live. First what it takes: programs of Debian, and a release build (some minutes, once)."
    );
    deps::ensure(deps::DEMO)?;
    machine_will_do()?;
    let program = release::build("slipway", "slipway")?;
    println!();
    let options = LabOptions { programs: vec![("slipway".to_owned(), program)], ..LabOptions::default() };
    let lab = Lab::new(&options).map_err(no_lab)?;
    let mut demo = Demo::new(&lab)?;
    demo.steps()?;
    println!("\nAll of it over namespaces of the demo's own, as {}.", demo.user);
    Ok(())
}

/// Looks whether the demo can be given at all, before minutes are spent on building it.
fn machine_will_do() -> Done {
    // The lab of root has a device of its own.
    if !tool::is_root() {
        let device = File::options().read(true).write(true).open("/dev/net/tun");
        device.map_err(|error| {
            format!("/dev/net/tun: {error}; as root: modprobe tun; chmod 0666 /dev/net/tun (in a container: --device /dev/net/tun)")
        })?;
    }
    Lab::new(&LabOptions::default()).map(drop).map_err(no_lab)
}

fn no_lab(error: impl std::fmt::Display) -> String {
    format!("cannot make the demo's namespaces: {error}")
}

struct Demo<'a> {
    lab: &'a Lab,
    shell: Running,
    user: String,
    asked: usize,
    _servers: Vec<Running>,
}

impl<'a> Demo<'a> {
    fn new(lab: &'a Lab) -> Done<Self> {
        std::fs::write(lab.dir().join("www/index.html"), "hello from the other side\n").map_err(said)?;
        let servers = vec![
            lab.dns().map_err(said)?,
            lab.http().map_err(said)?,
            Running::server(lab.world(["iperf3", "-s"]), "tcp", 5201).map_err(said)?,
        ];
        let words = ["run", "--quiet", "--map-root", "--publish", &format!("{PORT}:80"), "--", "sh"];
        println!("$ slipway {}", words.join(" "));
        let shell = lab.host([lab.program("slipway")]).args(words).start().map_err(said)?;
        let id = lab.host(["id", "-u"]).ok(LIMIT).map_err(said)?.out();
        let user = if lab.by_root() { format!("user {}", id.trim()) } else { "an ordinary user".to_owned() };
        Ok(Self { lab, shell, user, asked: 0, _servers: servers })
    }

    fn steps(&mut self) -> Done {
        let who = self.inside("echo user $(id -u) inside; ip -o link show dev tap0 | cut -d' ' -f2-5")?;
        step("a fresh user and network namespace, made without root", &who, who.contains("tap0"))?;
        let v4 = self.inside("ip -o -4 address show tap0 | tr -s ' ' | cut -d' ' -f2-4")?;
        step("an IPv4 address", &v4, v4.contains("10.0.2.100/24"))?;
        let v6 = self.inside(
            "for i in $(seq 100); do ip -6 route | grep -q ^default && break; sleep 0.05; done
             ip -o -6 address show tap0 scope global | tr -s ' ' | cut -d' ' -f2-4",
        )?;
        step("an IPv6 address", &v6, v6.contains("fd00:"))?;
        let name = self.inside("getent ahosts name.test | grep STREAM")?;
        step("a name resolves", &name, name.contains(WORLD4) && name.contains(WORLD6))?;
        for (family, address) in [("IPv4", WORLD4), ("IPv6", WORLD6)] {
            let echo = self.inside(&format!("ping -c1 -W5 {address} | tail -2 | head -1"))?;
            step(&format!("an echo comes back over {family}"), &echo, echo.contains(" 0% packet loss"))?;
        }
        for family in ["-4", "-6"] {
            let page = self.inside(&format!("curl {family} -sS -m 10 http://name.test/index.html"))?;
            step(
                &format!("curl {family} fetches from a server by name"),
                &page,
                page.contains("other side"),
            )?;
        }
        self.inside("mkdir -p /tmp/slipway-demo.$$; cd /tmp/slipway-demo.$$; echo served from inside > index.html; busybox httpd -p 80; echo")?;
        for (family, address) in [("IPv4", HOST4.to_owned()), ("IPv6", format!("[{HOST6}]"))] {
            let url = format!("http://{address}:{PORT}/index.html");
            let page = self.lab.world(["curl", "-sS", "-m", "10", &url]).run(LIMIT).map_err(said)?;
            step(
                &format!("the published port is reached over {family}"),
                &page.all(),
                page.out().contains("inside"),
            )?;
        }
        self.inside("cd /; rm -rf /tmp/slipway-demo.$$; echo")?;
        let up = self.rate(&[])?;
        let down = self.rate(&["-R"])?;
        let host = rate(self.lab.host(["iperf3", "-J", "-t", "2", "-c", WORLD4]))?;
        let line = format!(
            "{up:.1} Gbit/s out, {down:.1} Gbit/s in; the machine itself without us: {host:.1} Gbit/s"
        );
        step("throughput", &line, up > 0.01 && down > 0.01)?;
        self.shell.stdin.take();
        let end = self.shell.finish(LIMIT).map_err(said)?;
        let code = end.as_ref().map_or(-1, slipway_lab::Output::code);
        step("the shell ends and everything is gone", &format!("exit status {code}"), code == 0)
    }

    /// Types a script into the shell inside and gives what it printed.
    fn inside(&mut self, script: &str) -> Done<String> {
        self.asked += 1;
        let (begin, end) = (format!("::begin {}::", self.asked), format!("::end {}::", self.asked));
        let stdin = self.shell.stdin.as_mut().ok_or("the shell inside has ended")?;
        let text = format!("echo '{begin}'\n{{ {script}\n}} 2>&1 </dev/null\necho '{end}'\n");
        if stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).is_err() {
            // It has ended, and said why.
            self.shell.finish(LIMIT).map_err(said)?;
            return Err(self.shell.stderr().trim().to_owned());
        }
        if let Err(error) = self.shell.until(LIMIT, |running| running.stdout().contains(&end)) {
            // What the program says for itself is worth more than how it was started.
            let told = self.shell.stderr();
            return Err(if told.trim().is_empty() { said(error) } else { told.trim().to_owned() });
        }
        let all = self.shell.stdout();
        let (_, rest) = all.split_once(&begin).unwrap_or_default();
        Ok(rest.split(&end).next().unwrap_or_default().trim().to_owned())
    }

    fn rate(&mut self, words: &[&str]) -> Done<f64> {
        let report = self.inside(&format!("iperf3 -J -t 2 -c {WORLD4} {}", words.join(" ")))?;
        iperf::received(&report, 2)
    }
}

fn rate(command: Cmd) -> Done<f64> {
    iperf::received(&command.run(LIMIT).map_err(said)?.out(), 2)
}

fn step(what: &str, shown: &str, good: bool) -> Done {
    let (mark, end) =
        if good { ("\u{2714}", Ok(())) } else { ("\u{2718}", Err(format!("demo: {what}: failed"))) };
    println!("{mark} {what}");
    for line in shown.lines().filter(|line| !line.trim().is_empty()) {
        println!("    {}", line.trim_end());
    }
    end
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
