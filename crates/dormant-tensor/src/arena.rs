//! Memory of activations and other temporaries, kept for the next step.
//!
//! A training step needs the same few hundred megabytes again and again. Given back to the system in between, every
//! page would have to be fetched and cleared anew: a tenth of a step.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Floats from the arena. Dropped, their memory waits there for the next one of about this size.
#[derive(Debug, Default)]
pub struct Buffer {
    values: Vec<f32>,
    /// Where a cache line begins.
    start: usize,
    len: usize,
}

/// Floats of a cache line, to which buffers are aligned.
const LINE: usize = 16;

type Lists = [Vec<Vec<f32>>; usize::BITS as usize];

/// Free memory by size: all in list `i` have room for 2^i floats. Pages that nobody has touched cost nothing.
static FREE: Mutex<Lists> = Mutex::new([const { Vec::new() }; usize::BITS as usize]);

/// A panic elsewhere leaves the lists whole: they are only pushed to and popped from.
fn free() -> MutexGuard<'static, Lists> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the free memory back to the system, as after a workload of another kind.
pub fn release() {
    free().iter_mut().for_each(Vec::clear);
}

impl Buffer {
    /// `len` floats of any value, to be overwritten.
    pub fn any(len: usize) -> Self {
        if len == 0 {
            return Self::default();
        }
        let size = len.next_power_of_two();
        let kept = free()[size.trailing_zeros() as usize].pop();
        let mut values = kept.unwrap_or_else(|| Vec::with_capacity(size + LINE));
        let start = values.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        // No more than needed is ever touched, and thus resident.
        if values.len() < start + len {
            values.resize(start + len, 0.0);
        }
        let mut buffer = Self { values, start, len };
        if cfg!(debug_assertions) {
            buffer.fill(f32::NAN);
        }
        buffer
    }

    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let mut buffer = Self::any(len);
        buffer.fill(0.0);
        buffer
    }

    /// The values of `source`.
    pub fn copy_of(source: &[f32]) -> Self {
        let mut buffer = Self::any(source.len());
        buffer.copy_from_slice(source);
        buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.values.is_empty() {
            let values = std::mem::take(&mut self.values);
            free()[(values.capacity() - LINE).ilog2() as usize].push(values);
        }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self::copy_of(self)
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again() {
        // A size that no other test asks for.
        let first = Buffer::any(3 << 20);
        let address = first.as_ptr();
        drop(first);
        let second = Buffer::any((3 << 20) + 1);
        assert_eq!(second.as_ptr(), address);
        assert_eq!(second.len(), (3 << 20) + 1);
    }

    #[test]
    fn zeros_and_copies_do_not_depend_on_what_was_there() {
        drop(Buffer::copy_of(&[7.0; 100]));
        assert_eq!(*Buffer::zeros(90), [0.0; 90]);
        assert_eq!(*Buffer::copy_of(&[1.0, 2.0]), [1.0, 2.0]);
        assert!(Buffer::any(0).is_empty());
    }
}
