//! A buffer that several tasks write at once, each its own elements.

/// Start of a buffer. Whoever uses the pointer states why no two tasks touch the same element.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

impl Shared {
    pub(crate) fn new(buffer: &mut [f32]) -> Self {
        Self(buffer.as_mut_ptr())
    }

    /// A method, so that closures capture the whole and not the pointer inside.
    pub(crate) fn get(self) -> *mut f32 {
        self.0
    }
}

// SAFETY: tasks write disjoint elements, as stated where the pointer is used.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}
