//! A set of ports: one bit each, 8 KiB in all.

use std::fmt;

/// A set of ports.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet(Box<[u64; WORDS]>);

const WORDS: usize = (1 << 16) / 64;

impl Default for PortSet {
    fn default() -> Self {
        Self(Box::new([0; WORDS]))
    }
}

impl PortSet {
    /// Adds a port.
    pub fn insert(&mut self, port: u16) {
        if let Some(word) = self.0.get_mut(usize::from(port) / 64) {
            *word |= 1 << (port % 64);
        }
    }

    /// Whether a port is in it.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.get(usize::from(port) / 64).is_some_and(|word| word & 1 << (port % 64) != 0)
    }

    /// Takes out what is in `others`.
    pub fn remove_all(&mut self, others: &Self) {
        for (word, other) in self.0.iter_mut().zip(others.0.iter()) {
            *word &= !other;
        }
    }

    /// Adds what is in `others`.
    pub fn insert_all(&mut self, others: &Self) {
        for (word, other) in self.0.iter_mut().zip(others.0.iter()) {
            *word |= other;
        }
    }

    /// Its ports, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        (0..=u16::MAX).step_by(64).zip(self.0.iter()).flat_map(|(first, word)| {
            let mut left = *word;
            core::iter::from_fn(move || {
                let bit = u16::try_from(left.trailing_zeros()).ok().filter(|_| left != 0)?;
                left &= left - 1;
                Some(first + bit)
            })
        })
    }
}

impl Extend<u16> for PortSet {
    fn extend<I: IntoIterator<Item = u16>>(&mut self, ports: I) {
        ports.into_iter().for_each(|port| self.insert(port));
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut set = Self::default();
        set.extend(ports);
        set
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_ports_are_added_and_taken_away() {
        let mut set: PortSet = [0, 63, 64, 80, u16::MAX].into_iter().collect();
        set.remove_all(&[63, 81].into_iter().collect());
        set.insert_all(&[7, 80].into_iter().collect());
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 7, 64, 80, u16::MAX]);
        assert!(set.contains(7) && !set.contains(63));
        assert_eq!(format!("{set:?}"), "{0, 7, 64, 80, 65535}");
    }
}
