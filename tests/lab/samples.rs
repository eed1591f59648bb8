//! Times that were measured, and what is told of them.
//!
//! Every sample is kept: a few seconds of requests are some hundred thousand, and a percentile of all of them needs no
//! choice of bounds.

use std::time::Duration;

/// Measured times.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// One more.
    pub(crate) fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest time that at least so many of a hundred samples do not exceed (the nearest-rank percentile, 1 to
    /// 100), for each of these; `None` without samples.
    pub(crate) fn percentiles<const N: usize>(mut self, ranks: [usize; N]) -> Option<[Duration; N]> {
        self.0.sort_unstable();
        let last = self.0.len().checked_sub(1)?;
        let index = |rank: usize| (self.0.len() * rank).div_ceil(100).saturating_sub(1).min(last);
        Some(ranks.map(|rank| self.0.get(index(rank)).copied().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(milliseconds: impl IntoIterator<Item = u64>) -> Samples {
        let mut samples = Samples::default();
        milliseconds.into_iter().for_each(|sample| samples.add(Duration::from_millis(sample)));
        samples
    }

    #[test]
    fn percentiles_are_samples_whatever_their_order() {
        let shown = samples((1..=100).rev()).percentiles([50, 99, 100]).unwrap();
        assert_eq!(shown, [50, 99, 100].map(Duration::from_millis));
        let shown = samples([7, 1, 9]).percentiles([1, 50, 99]).unwrap();
        assert_eq!(shown, [1, 7, 9].map(Duration::from_millis));
    }

    #[test]
    fn of_two_hundred_the_99th_percentile_leaves_out_two() {
        let shown = samples((1..=198).map(|_| 1).chain([500, 500])).percentiles([99]).unwrap();
        assert_eq!(shown, [Duration::from_millis(1)]);
        let shown = samples((1..=197).map(|_| 1).chain([500; 3])).percentiles([99]).unwrap();
        assert_eq!(shown, [Duration::from_millis(500)]);
    }

    #[test]
    fn of_nothing_nothing_is_told() {
        assert_eq!(samples([]).percentiles([50]), None);
    }
}
