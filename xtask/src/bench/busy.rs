//! Processor time of the whole machine for a piece of work: what the subject uses, and what it makes the kernel and the
//! programs at both ends use.
//!
//! The kernel's account of all cores (`/proc/stat`, proc(5)) does not say for whom they worked. So the machine is
//! watched first while nothing is done, until it is idle; what it used then is taken off. When it does not become idle,
//! the figure would be somebody else's and there is none.

use std::time::Duration;

use crate::tool::Done;

/// How long the machine is watched, and how often at most.
const IDLE: Duration = Duration::from_secs(2);
const PATIENCE: usize = 5;
/// The most that others may use meanwhile, of all cores.
const OTHERS: f64 = 0.05;

/// Ticks of all cores since the start: those in which they worked, and all.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ticks {
    busy: f64,
    all: f64,
}

/// The busy seconds that each gigabyte takes of work that gives the gigabytes it carried.
pub(super) fn per_gigabyte(work: impl FnOnce() -> Done<f64>) -> Done<f64> {
    let others = idle(|| {
        let before = Ticks::now()?;
        std::thread::sleep(IDLE);
        Ok(Ticks::now()?.since(before))
    })?;
    let before = Ticks::now()?;
    let gigabytes = work()?;
    Ok(Ticks::now()?.since(before).seconds_beside(others) / gigabytes)
}

/// The share of all cores that others use on the idle machine.
fn idle(mut watch: impl FnMut() -> Done<Ticks>) -> Done<f64> {
    let mut others = 0.0;
    for _ in 0..PATIENCE {
        others = watch()?.busy_share();
        if others <= OTHERS {
            return Ok(others);
        }
    }
    Err(format!("the machine is busy without us: {:.0} % of all cores", others * 100.0))
}

impl Ticks {
    fn now() -> Done<Self> {
        let text = std::fs::read_to_string("/proc/stat").map_err(|error| format!("/proc/stat: {error}"))?;
        Self::read(&text).ok_or_else(|| "/proc/stat has no first line".to_owned())
    }

    fn read(text: &str) -> Option<Self> {
        let words = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        // user, nice, system, idle, iowait, irq, softirq, steal; what guests used is in user already.
        let counts: Vec<f64> = words.take(8).filter_map(|word| word.parse().ok()).collect();
        let [user, nice, system, idle, waiting, interrupts, soft, stolen] = counts.try_into().ok()?;
        let busy: f64 = user + nice + system + interrupts + soft;
        Some(Self { busy, all: busy + idle + waiting + stolen })
    }

    fn since(self, before: Self) -> Self {
        Self { busy: self.busy - before.busy, all: self.all - before.all }
    }

    /// The busy seconds, less what others use. A tick is a hundredth of a second wherever Linux runs (USER_HZ).
    fn seconds_beside(self, others: f64) -> f64 {
        (self.busy - others * self.all).max(0.0) / 100.0
    }

    fn busy_share(self) -> f64 {
        if self.all > 0.0 { self.busy / self.all } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_account_is_read() {
        let text = "cpu  100 1 50 800 7 3 9 30 0 0\ncpu0 1 2 3\n";
        assert_eq!(Ticks::read(text), Some(Ticks { busy: 163.0, all: 1000.0 }));
        assert_eq!(Ticks::read("cpu0 1 2 3 4 5 6 7 8\n"), None);
        assert_eq!(Ticks::read("cpu  1 2 3\n"), None);
    }

    #[test]
    fn what_others_use_is_taken_off() {
        // Four seconds of two cores at three quarters, of which others use 2 %.
        let seconds = Ticks { busy: 600.0, all: 800.0 }.seconds_beside(0.02);
        assert!((seconds - (0.75 - 0.02) * 8.0).abs() < 1e-9, "{seconds}");
    }

    #[test]
    fn a_machine_that_others_use_is_waited_for_and_then_refused() {
        let share = |busy| Ok(Ticks { busy, all: 400.0 });
        let mut watched = [200.0, 40.0, 4.0, 0.0].into_iter();
        assert_eq!(idle(|| share(watched.next().unwrap())), Ok(0.01));
        assert_eq!(watched.next(), Some(0.0));
        let mut count = 0;
        let error = idle(|| {
            count += 1;
            share(40.0)
        });
        assert_eq!(
            (error.unwrap_err().as_str(), count),
            ("the machine is busy without us: 10 % of all cores", 5)
        );
    }
}
