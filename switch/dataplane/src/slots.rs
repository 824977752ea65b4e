//! A table whose ids carry a generation: a stale id finds nothing.

/// Slots given out, freed and given out again under another generation.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Index and generation of the new item.
    pub(crate) fn insert(&mut self, item: T) -> (u32, u32) {
        let mut id = (0, 0);
        self.insert_with(|index, generation| {
            id = (index, generation);
            item
        });
        id
    }

    /// Puts in an item that knows its index and generation.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(u32, u32) -> T) -> &mut T {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let (generation, item) = &mut self.slots[index as usize];
        item.insert(make(index, *generation))
    }

    #[inline]
    pub(crate) fn get(&self, index: usize, generation: u32) -> Option<&T> {
        let (current, item) = self.slots.get(index)?;
        if *current == generation { item.as_ref() } else { None }
    }

    /// What is in a slot at this time, whatever its generation.
    #[inline]
    pub(crate) fn at(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.1.as_ref()
    }

    /// The same, to change.
    #[inline]
    pub(crate) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize)?.1.as_mut()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: usize, generation: u32) -> Option<&mut T> {
        let (current, item) = self.slots.get_mut(index)?;
        if *current == generation { item.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, index: usize, generation: u32) -> Option<T> {
        let (current, item) = self.slots.get_mut(index)?;
        if *current != generation {
            return None;
        }
        let item = item.take()?;
        *current = current.wrapping_add(1);
        self.free.push(u32::try_from(index).unwrap_or(u32::MAX));
        Some(item)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u32, &T)> {
        (0_u32..).zip(&self.slots).filter_map(|(index, (generation, item))| Some((index, *generation, item.as_ref()?)))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, u32, &mut T)> {
        (0_u32..).zip(&mut self.slots).filter_map(|(index, (generation, item))| Some((index, *generation, item.as_mut()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_id_finds_nothing() {
        let mut slots = Slots::new();
        let (index, generation) = slots.insert('a');
        assert_eq!(slots.remove(index as usize, generation), Some('a'));
        let (again, newer) = slots.insert('b');
        assert_eq!(again, index);
        assert_eq!(slots.get(index as usize, generation), None);
        assert_eq!(slots.get(again as usize, newer), Some(&'b'));
        assert_eq!(slots.len(), 1);
    }
}
