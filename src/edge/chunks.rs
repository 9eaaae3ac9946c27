//! Arrays that grow in pieces of a fixed length.
//!
//! A vector that grows is copied, and its old memory stays with the process for a while: for a million watches a third
//! of what they take. Here nothing moves, and at most one piece is not full.

use std::ops::{Index, IndexMut};

/// Entries of a piece.
const LENGTH: usize = 1024;

/// An array of places that are used again: with 32-bit indices, fewer than 2^32 - 1.
#[derive(Debug)]
pub(super) struct Chunks<T> {
    pieces: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { pieces: Vec::new(), len: 0 }
    }
}

impl<T> Chunks<T> {
    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The entry at `index`, if there is one.
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.pieces.get(index as usize / LENGTH)?.get(index as usize % LENGTH)
    }

    /// Appends an entry.
    pub(super) fn push(&mut self, value: T) {
        if self.len.is_multiple_of(LENGTH) {
            self.pieces.push(Vec::with_capacity(LENGTH));
        }
        self.pieces[self.len / LENGTH].push(value);
        self.len += 1;
    }

    /// Whether it holds memory that is worth giving back when nothing is in it any more.
    pub(super) fn is_large(&self) -> bool {
        self.pieces.len() > 4
    }
}

impl<T> Index<u32> for Chunks<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        &self.pieces[index as usize / LENGTH][index as usize % LENGTH]
    }
}

impl<T> IndexMut<u32> for Chunks<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.pieces[index as usize / LENGTH][index as usize % LENGTH]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stay_where_they_are() {
        let mut chunks = Chunks::default();
        for number in 0..5 * LENGTH as u32 {
            chunks.push(number);
        }
        let first: *const u32 = &raw const chunks[0];
        chunks.push(7);
        chunks[0] = 9;
        assert_eq!((chunks.len(), chunks[0], chunks[LENGTH as u32]), (5 * LENGTH + 1, 9, LENGTH as u32));
        assert_eq!((chunks.get(5 * LENGTH as u32), chunks.get(5 * LENGTH as u32 + 1)), (Some(&7), None));
        assert_eq!((chunks.get(u32::MAX), first), (None, &raw const chunks[0]));
        assert!(chunks.is_large() && !Chunks::<u32>::default().is_large());
    }
}
