//! What the kernel keeps of one process: memory, processor time, and how often it was woken (proc(5)).

use std::time::Duration;

use crate::tool::Done;

/// A process, by its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account(pub(crate) u32);

impl Account {
    /// All processes of the group that this one leads: also those that it has started and that are no children of its.
    pub(crate) fn of_group(self) -> Done<Vec<Self>> {
        let all = std::fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?.flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Self));
        // One that ends meanwhile is none of them any more.
        let group = |one: &Self| one.read("stat").ok().and_then(|stat| group(&stat)) == Some(self.0);
        match numbers.filter(group).collect::<Vec<_>>() {
            none if none.is_empty() => Err(format!("no process of the group {}", self.0)),
            found => Ok(found),
        }
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident(self) -> Done<f64> {
        field(&self.read("status")?, "VmRSS:")
    }

    /// Proportional memory, in KiB: a page that several processes share counts for each of them in part.
    pub(crate) fn proportional(self) -> Done<f64> {
        field(&self.read("smaps_rollup")?, "Pss:")
    }

    /// The processor time that all of its threads have used.
    pub(crate) fn used(self) -> Done<Duration> {
        let of = |text: String| text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos);
        let all = self.threads("schedstat")?.into_iter().map(of).sum::<Option<Duration>>();
        all.filter(|used| !used.is_zero()).ok_or_else(|| format!("no processor time of {}", self.0))
    }

    /// How often its threads have gone to sleep, and so been woken.
    pub(crate) fn sleeps(self) -> Done<f64> {
        self.threads("status")?.iter().map(|text| field(text, "voluntary_ctxt_switches:")).sum()
    }

    fn threads(self, file: &str) -> Done<Vec<String>> {
        let dir = format!("/proc/{}/task", self.0);
        let threads = std::fs::read_dir(&dir).map_err(|error| format!("{dir}: {error}"))?;
        threads
            .flatten()
            .map(|thread| read(&format!("{dir}/{}/{file}", thread.file_name().display())))
            .collect()
    }

    fn read(self, file: &str) -> Done<String> {
        read(&format!("/proc/{}/{file}", self.0))
    }
}

fn read(path: &str) -> Done<String> {
    std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

/// The process group in `/proc/PID/stat`, whose second field may hold anything: the third behind its end.
fn group(stat: &str) -> Option<u32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(2)?.parse().ok()
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Done<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let number = line.split_whitespace().next().and_then(|number| number.parse().ok());
    number.ok_or_else(|| format!("no {name} there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_this_process() {
        let this = Account(std::process::id());
        let (resident, proportional) = (this.resident().unwrap(), this.proportional().unwrap());
        assert!(proportional > 100.0 && proportional <= resident, "{proportional} of {resident} KiB");
        // The test's own thread is one of them.
        let of_this_thread = || {
            let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            field(&text, "voluntary_ctxt_switches:").unwrap()
        };
        let before = of_this_thread();
        (0..5).for_each(|_| std::thread::sleep(Duration::from_millis(1)));
        assert!(of_this_thread() >= before + 5.0);
        assert!(this.sleeps().unwrap() >= before + 5.0);
        assert!(this.used().unwrap() > Duration::ZERO);
        assert!(Account(u32::MAX).used().is_err());
    }

    #[test]
    fn a_group_is_more_than_children() {
        use std::os::unix::process::CommandExt as _;
        // The middle shell ends, and what it started is nobody's child.
        let script = "sh -c 'sleep 20 & echo'; cat";
        let mut leader = std::process::Command::new("sh");
        let leader = leader.args(["-c", script]).stdin(std::process::Stdio::piped());
        let mut leader = leader.stdout(std::process::Stdio::null()).process_group(0).spawn().unwrap();
        let there = |_| {
            std::thread::sleep(Duration::from_millis(5));
            Account(leader.id()).of_group().is_ok_and(|all| all.len() >= 3)
        };
        assert!((0..4000).any(there), "{:?}", Account(leader.id()).of_group());
        let words = |one: &Account| one.read("comm").unwrap_or_default();
        let all = Account(leader.id()).of_group().unwrap();
        assert!(all.iter().any(|one| words(one).trim() == "sleep"), "{all:?}");
        let end =
            std::process::Command::new("kill").args(["-KILL", "--", &format!("-{}", leader.id())]).status();
        assert!(end.unwrap().success());
        leader.wait().unwrap();
        assert_eq!(group("7 (a) b) R 1 42 42 0"), Some(42));
        assert!(Account(u32::MAX).of_group().is_err());
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text =
            "Pss:     120 kB\nPss_Anon: 7 kB\nnonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t3\n";
        assert_eq!(field(text, "Pss:"), Ok(120.0));
        assert_eq!(field(text, "voluntary_ctxt_switches:"), Ok(3.0));
        assert!(field(text, "Rss:").is_err());
    }
}
