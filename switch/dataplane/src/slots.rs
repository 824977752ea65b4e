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

    /// Index and generation of the new item.
    pub(crate) fn insert(&mut self, item: T) -> (u32, u32) {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.1 = Some(item);
            return (index, slot.0);
        }
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push((0, Some(item)));
        (index, 0)
    }

    #[inline]
    pub(crate) fn get(&self, index: usize, generation: u32) -> Option<&T> {
        let (current, item) = self.slots.get(index)?;
        if *current == generation { item.as_ref() } else { None }
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
