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

/// Class of one megabyte.
const LARGE: u32 = 18;

/// Free memory by size, and how much there is.
struct Arena {
    /// All in list `i` have room for 2^i floats. Pages that nobody has touched cost nothing.
    free: [Vec<Vec<f32>>; usize::BITS as usize],
    /// Floats in the lists that have been touched.
    idle: usize,
    /// The same of what is handed out.
    live: usize,
    /// The most of `live` so far.
    most: usize,
}

static ARENA: Mutex<Arena> =
    Mutex::new(Arena { free: [const { Vec::new() }; usize::BITS as usize], idle: 0, live: 0, most: 0 });

/// A panic elsewhere leaves the lists whole: they are only pushed to and popped from.
fn arena() -> MutexGuard<'static, Arena> {
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the free memory back to the system, as after a workload of another kind, or when a model has been loaded.
pub fn release() {
    let mut arena = arena();
    arena.shrink(0);
    arena.most = arena.live;
    drop(arena);
    return_freed_memory();
}

/// Has the C library give back what is freed, now and later: large pieces of memory get mappings of their own. By
/// default it learns from the sizes it sees to cut them from heaps, whose fragments were a fifth of the peak. While a
/// model is being loaded that is what we want, since its tensors come and go.
fn return_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: neither changes memory that is in use.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, size_of::<f32>() as i32 * (1 << LARGE));
        libc::malloc_trim(0);
    }
}

impl Arena {
    /// Memory for at least 2^`class` floats, `len` of them to be used. Up to four times as much is better than memory
    /// that is not there yet, unless it is so much that peaks grow by it.
    fn take(&mut self, class: u32, len: usize) -> Vec<f32> {
        let larger = if class < LARGE { 2 } else { 0 };
        let classes = class as usize..=class as usize + larger;
        let kept = classes.into_iter().find_map(|class| self.free[class].pop());
        let touched = kept.as_ref().map_or(0, Vec::len);
        self.idle -= touched;
        self.live += touched.max(len);
        self.most = self.most.max(self.live);
        kept.unwrap_or_else(|| {
            // Other sizes are wanted now. What is free may stay as long as it adds little to the peak that was there.
            self.shrink((self.most + self.most / 8).saturating_sub(self.live));
            Vec::with_capacity((1 << class) + LINE)
        })
    }

    fn put_back(&mut self, values: Vec<f32>) {
        self.live -= values.len();
        self.idle += values.len();
        self.free[(values.capacity() - LINE).ilog2() as usize].push(values);
    }

    /// Keeps at most `idle` free floats.
    fn shrink(&mut self, idle: usize) {
        for list in self.free.iter_mut().rev() {
            while self.idle > idle
                && let Some(values) = list.pop()
            {
                self.idle -= values.len();
            }
        }
    }
}

impl Buffer {
    /// `len` floats of any value, to be overwritten.
    pub fn any(len: usize) -> Self {
        if len == 0 {
            return Self::default();
        }
        let mut values = arena().take(len.next_power_of_two().ilog2(), len + LINE);
        let start = values.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        // No more than needed is ever touched, and thus resident.
        if values.len() < len + LINE {
            values.resize(len + LINE, 0.0);
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
            arena().put_back(std::mem::take(&mut self.values));
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
