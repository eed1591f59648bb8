//! Places for conversations, each with a name that later tenants of its place do not have.

/// The name of a conversation: a place, and how many had it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) place: u32,
    pub(super) generation: u32,
}

/// As many places as a token can name ([`crate::token`]), far more than a process can have descriptors.
const PLACES: u32 = 1 << 24;
/// Generations that a token can name.
const GENERATIONS: u32 = 1 << 31;

/// Conversations by name.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// The name that the next one to be put in will have; `None`: there is no place.
    pub(super) fn next(&self) -> Option<Id> {
        match self.free.last() {
            Some(&place) => {
                let (generation, _) = self.places.get(usize::try_from(place).ok()?)?;
                Some(Id { place, generation: *generation })
            }
            None => {
                let place = u32::try_from(self.places.len()).ok().filter(|place| *place < PLACES)?;
                Some(Id { place, generation: 0 })
            }
        }
    }

    /// Puts one in, under the name that [`Slab::next`] has just said.
    pub(super) fn put(&mut self, tenant: T) {
        match self.free.pop() {
            Some(place) => {
                if let Some((_, vacant)) = usize::try_from(place).ok().and_then(|at| self.places.get_mut(at))
                {
                    *vacant = Some(tenant);
                }
            }
            None => self.places.push((0, Some(tenant))),
        }
    }

    /// The one of this name.
    pub(super) fn get(&mut self, id: Id) -> Option<&mut T> {
        let (generation, tenant) = self.places.get_mut(usize::try_from(id.place).ok()?)?;
        if *generation == id.generation { tenant.as_mut() } else { None }
    }

    /// Takes it out.
    pub(super) fn take(&mut self, id: Id) -> Option<T> {
        let (generation, tenant) = self.places.get_mut(usize::try_from(id.place).ok()?)?;
        if *generation != id.generation {
            return None;
        }
        let tenant = tenant.take()?;
        *generation = (*generation + 1) % GENERATIONS;
        self.free.push(id.place);
        Some(tenant)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.places.iter().zip(0..).filter_map(|((generation, tenant), place)| {
            Some((Id { place, generation: *generation }, tenant.as_ref()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_that_of_somebody_else() {
        let mut slab = Slab::default();
        let first = slab.next().unwrap();
        slab.put('a');
        let second = slab.next().unwrap();
        slab.put('b');
        assert_eq!((slab.get(first).copied(), slab.get(second).copied()), (Some('a'), Some('b')));
        assert_eq!(slab.take(first), Some('a'));
        assert_eq!((slab.take(first), slab.len()), (None, 1));
        let third = slab.next().unwrap();
        slab.put('c');
        assert_eq!((third.place, third.generation), (first.place, first.generation + 1));
        assert_eq!((slab.get(first).copied(), slab.get(third).copied()), (None, Some('c')));
        assert_eq!(slab.iter().map(|(_, tenant)| *tenant).collect::<String>(), "cb");
    }
}
