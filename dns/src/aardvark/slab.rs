//! Places with numbers: an event names a place, and what is kept for later names a place and who was in it.

/// A place and its occupant. Another one in the same place has another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// The place.
    pub(super) const fn index(self) -> u32 {
        self.index
    }
}

/// Numbered places.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    occupant: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// How many places are taken.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Takes a place for what `make` makes, which is told its key. `None`: `make` made nothing, or all numbers are
    /// taken.
    pub(super) fn insert(&mut self, make: impl FnOnce(Key) -> Option<T>) -> Option<Key> {
        let index = match self.free.last() {
            Some(index) => *index,
            None => u32::try_from(self.places.len()).ok()?,
        };
        let generation = self.place(index).map_or(0, |place| place.generation);
        let key = Key { index, generation };
        let occupant = make(key)?;
        if self.free.pop().is_some() {
            if let Some(place) = self.places.get_mut(at(index)) {
                place.occupant = Some(occupant);
            }
        } else {
            self.places.push(Place { generation, occupant: Some(occupant) });
        }
        Some(key)
    }

    /// The occupant that the key was given for.
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(at(key.index))?;
        if place.generation == key.generation { place.occupant.as_mut() } else { None }
    }

    /// The same, to look at.
    pub(super) fn get(&self, key: Key) -> Option<&T> {
        let place = self.place(key.index)?;
        if place.generation == key.generation { place.occupant.as_ref() } else { None }
    }

    /// The key of whoever is in a place now.
    pub(super) fn key(&self, index: u32) -> Option<Key> {
        let place = self.place(index)?;
        place.occupant.as_ref()?;
        Some(Key { index, generation: place.generation })
    }

    /// Empties the place that the key was given for.
    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let place = self.places.get_mut(at(key.index))?;
        if place.generation != key.generation {
            return None;
        }
        let occupant = place.occupant.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(occupant)
    }

    /// All occupants.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0..).zip(&self.places).filter_map(|(index, place)| {
            Some((Key { index, generation: place.generation }, place.occupant.as_ref()?))
        })
    }

    /// All occupants, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        (0..).zip(&mut self.places).filter_map(|(index, place)| {
            Some((Key { index, generation: place.generation }, place.occupant.as_mut()?))
        })
    }

    fn place(&self, index: u32) -> Option<&Place<T>> {
        self.places.get(at(index))
    }
}

fn at(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_under_another_key() {
        let mut slab = Slab::default();
        let first = slab.insert(|_| Some('a')).unwrap();
        let second = slab.insert(|_| Some('b')).unwrap();
        assert_eq!((first.index(), second.index(), slab.len()), (0, 1, 2));
        assert_eq!(slab.remove(first), Some('a'));
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.key(0), None);
        assert_eq!(slab.insert(|_| None), None);
        let third = slab.insert(|key| (key.index() == 0).then_some('c')).unwrap();
        assert_ne!(first, third);
        assert_eq!((slab.get(first), slab.get(third)), (None, Some(&'c')));
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.key(0), Some(third));
        assert_eq!(slab.iter().map(|(_, letter)| *letter).collect::<String>(), "cb");
        assert_eq!(slab.len(), 2);
    }
}
