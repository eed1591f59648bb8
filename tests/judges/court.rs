//! Where a judge is heard: a lab with the program under judgement, its servers in world, and the table of what was
//! said.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use slipway_lab::{
    Cmd, Container, GATEWAY4, GATEWAY6, LIMIT, Lab, NAMESERVER4, Output, Running, Slirp, Subject, WORLD4,
    WORLD6, now, skip,
};

/// The original, which hears the same questions.
const ORIGINAL: &str = "/usr/bin/slirp4netns";
/// How much larger the program may be afterwards: tables that have grown, and what the allocator keeps.
const KEPT: u64 = 8 << 20;
/// Until memory has gone back and neighbours have found each other again.
const PATIENCE: Duration = Duration::from_secs(20);
/// A second address of each family in world.
pub(crate) const OTHER4: &str = "192.0.2.3";
/// The one of IPv6.
pub(crate) const OTHER6: &str = "2001:db8:1::3";

/// What slipway must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Must {
    /// This, which the judge is content with, too.
    Say(&'static str),
    /// This, although the judge has another word for it, for this reason.
    SayFor(&'static str, &'static str),
    /// The question does not concern us, for this reason: one of these is said.
    NotAsked(&'static [&'static str], &'static str),
}

impl Must {
    /// Whether that is what had to be said.
    pub(crate) fn is(self, said: &str) -> bool {
        match self {
            Self::Say(word) | Self::SayFor(word, _) => said == word,
            Self::NotAsked(words, _) => words.contains(&said),
        }
    }
}

/// One question and the answers.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// The question, as the judge has it.
    pub(crate) question: String,
    /// What slipway must say.
    pub(crate) must: Must,
    /// What slipway or the original says.
    pub(crate) said: String,
}

/// A lab in which somebody is judged.
#[derive(Debug)]
pub(crate) struct Court {
    pub(crate) lab: Lab,
    pub(crate) subject: Subject,
    _servers: Vec<Running>,
}

/// A guest of the court, with its own instance of the program.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) container: Container,
    pub(crate) slirp: Slirp,
    before: u64,
}

impl Court {
    fn new(subject: Subject) -> Result<Self, String> {
        let mut options = subject.lab_options();
        options.programs.extend(slipway_lab::peer().map(|peer| ("slipway-lab-peer".to_owned(), peer)));
        let lab = Lab::new(&options).map_err(|error| error.to_string())?;
        if !lab.by_root() {
            return Err("needs root".to_owned());
        }
        std::fs::write(lab.dir().join("www/index.html"), "hello\n").map_err(|error| error.to_string())?;
        let script =
            format!("ip address add {OTHER4}/24 dev veth0; ip address add {OTHER6}/64 dev veth0 nodad");
        let servers =
            lab.world(["sh", "-c", &script]).ok(LIMIT).and_then(|_| Ok(vec![lab.dns()?, lab.http()?]));
        Ok(Self { lab, subject, _servers: servers.map_err(|error| error.to_string())? })
    }

    /// A container with IPv4 and IPv6 behind the program.
    pub(crate) fn guest(&self) -> Guest {
        let container = self.lab.container().unwrap();
        let slirp = self.lab.slirp(&container, &["-c", "--enable-ipv6", "--mtu=1500"]).unwrap();
        let guest = Guest { before: 0, container, slirp };
        guest.own("global");
        // Everything has been used once, so what is used again costs nothing new.
        let well = guest.well();
        assert!(well.is_ok() || !self.subject.is_slipway(), "before the judge: {well:?}");
        Guest { before: resident(guest.slirp.process.pid()), ..guest }
    }

    /// What remains to be asked of a guest that a judge has done with: it is there, it works, it is small.
    pub(crate) fn look_after(&self, guest: &mut Guest, judge: &str) {
        let ended = guest.slirp.process.ended().unwrap();
        let well = guest.well();
        let bound = guest.before + KEPT;
        let after = falls_to(guest.slirp.process.pid(), bound);
        println!("{}, after {judge}: {ended:?} {well:?}, {} then {after} bytes", self.name(), guest.before);
        if self.subject.is_slipway() {
            assert!(ended.is_none(), "{judge}: {ended:?}\n{}", guest.slirp.process.stderr());
            assert!(well.is_ok(), "{judge}: {well:?}\n{}", guest.slirp.process.stderr());
            assert!(after <= bound, "{judge}: {after} bytes stay, it began with {}", guest.before);
        }
    }

    fn name(&self) -> &'static str {
        if self.subject.is_slipway() { "slipway" } else { "the original" }
    }
}

impl Guest {
    /// The container's address of this scope.
    pub(crate) fn own(&self, scope: &str) -> String {
        let script = format!(
            "for i in $(seq 200); do
               ip -6 route show default | grep -q via && ip -6 -o address show dev tap0 scope {scope} -tentative | grep inet6 && break
               sleep 0.05
             done"
        );
        let shown = self.container.sh(&script).unwrap().out();
        let address = shown.split_whitespace().find_map(|word| word.strip_suffix("/64"));
        address.unwrap_or_else(|| panic!("no IPv6 address: {shown}")).to_owned()
    }

    /// The router's link-local address.
    pub(crate) fn router(&self) -> String {
        let shown = self.container.sh("ip -6 route show default").unwrap().out();
        let mut words = shown.split_whitespace().skip_while(|word| *word != "via");
        words.nth(1).unwrap_or_else(|| panic!("no router: {shown}")).to_owned()
    }

    /// A command with the machine's own root in the container's network namespace: some judges change to the account
    /// `nobody`, which a container of one account does not have.
    pub(crate) fn as_root<'a>(&self, argv: impl IntoIterator<Item = &'a str>) -> Cmd {
        Cmd::new(argv).under(["nsenter", "--target", &self.container.pid().to_string(), "--net"])
    }

    /// Pings, a name and a page over both families; what fails at first, since a judge may have left neighbours
    /// confused, is asked again.
    fn well(&self) -> Result<(), String> {
        let checks = [
            format!("ping -4 -c1 -W2 {GATEWAY4} && ping -4 -c1 -W2 {WORLD4} && ping -6 -c1 -W2 {GATEWAY6}"),
            format!("dig +short +tries=2 +time=2 @{NAMESERVER4} name.test | grep -q '^{WORLD4}$'"),
            format!("curl -sfm 5 --noproxy '*' http://{WORLD4}/index.html | grep -q hello"),
            format!("curl -sfm 5 --noproxy '*' 'http://[{WORLD6}]/index.html' | grep -q hello"),
        ];
        for check in checks {
            let end = now() + PATIENCE;
            loop {
                let output = self.container.sh(&check).unwrap();
                if output.success() {
                    break;
                }
                if now() >= end {
                    return Err(format!("{check}: {output}"));
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(())
    }
}

/// Bytes of memory that a process has in the machine.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

/// Waits until the process is no larger than that; returns how large it is in the end.
fn falls_to(pid: u32, bound: u64) -> u64 {
    let start: Instant = now();
    while resident(pid) > bound && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
    }
    resident(pid)
}

/// Runs a judge for at most so long. One that is still at it then is stopped, which is no verdict; what it has printed
/// counts.
pub(crate) fn bounded(command: Cmd, limit: Duration) -> Output {
    let seconds = format!("{:.1}", limit.as_secs_f32());
    let limited = command.under(["timeout", "--signal=INT", "--kill-after=2", &seconds]);
    limited.run(limit + LIMIT).unwrap()
}

/// Hears a judge about slipway and, beside it, about the original; `hear` asks all questions and says what was
/// answered.
///
/// # Panics
///
/// When slipway says anything but what it must.
pub(crate) fn judge(test: &str, programs: &[&str], hear: impl Fn(&Court) -> Vec<Row> + Sync) {
    let wanted = ["ping", "dig", "dnsmasq", "busybox", "curl", "timeout"];
    let missing = slipway_lab::missing(&[&wanted, programs].concat());
    let court = match missing {
        Some(program) => Err(format!("{program} is not installed (cargo xtask deps)")),
        None => slipway_lab::subject().and_then(Court::new),
    };
    let Some(court) = court.map_or_else(|reason| skip(test, &reason), Some) else { return };
    let original = original(&court);
    let (ours, theirs) = std::thread::scope(|scope| {
        let theirs = original.as_ref().map(|court| scope.spawn(|| hear(court)));
        let ours = hear(&court);
        (ours, theirs.map(|theirs| theirs.join()))
    });
    let theirs = match theirs {
        Some(Ok(rows)) => rows,
        Some(Err(_)) => {
            println!("the original could not be heard");
            Vec::new()
        }
        None => Vec::new(),
    };
    print(test, &ours, &theirs);
    let wrong: Vec<_> = ours.iter().filter(|row| !row.must.is(&row.said)).collect();
    assert!(wrong.is_empty() || !court.subject.is_slipway(), "{test}: {wrong:#?}");
}

/// The original, where it is installed and not itself the one that is judged.
fn original(court: &Court) -> Option<Court> {
    if !court.subject.is_slipway() || !Path::new(ORIGINAL).is_file() {
        println!("the original is not heard beside");
        return None;
    }
    let court = Court::new(Subject::Peer(PathBuf::from(ORIGINAL)));
    court.map_err(|error| println!("the original is not heard: {error}")).ok()
}

/// The table, as `docs/judges.md` has it.
fn print(test: &str, ours: &[Row], theirs: &[Row]) {
    println!("\n{test}\n| question | must | slipway | the original | why |\n|---|---|---|---|---|");
    for (at, row) in ours.iter().enumerate() {
        let original = theirs.get(at).map_or("-", |row| row.said.as_str());
        let (must, why) = match row.must {
            Must::Say(must) => (must.to_owned(), ""),
            Must::SayFor(must, why) => (must.to_owned(), why),
            Must::NotAsked(_, why) => ("(not asked of us)".to_owned(), why),
        };
        println!("| {} | {must} | {} | {original} | {why} |", row.question, row.said);
    }
    println!();
}

#[test]
fn a_verdict_is_the_word_and_nothing_like_it() {
    assert!(Must::Say("answered").is("answered") && !Must::Say("answered").is("answered twice"));
    assert!(Must::NotAsked(&["a", "b"], "why").is("b") && !Must::NotAsked(&["a", "b"], "why").is("ab"));
    assert!(!Must::SayFor("silence", "why").is("why"));
}
