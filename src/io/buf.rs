//! Memory that direct I/O accepts: zeroed, and aligned to the largest block size in use.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

/// Alignment of memory, offsets and lengths of direct I/O: what 4Kn drives ask; smaller askers accept it.
pub const BLOCK_BYTES: usize = 4096;

/// A fixed piece of memory, [`BLOCK_BYTES`] aligned, all of it initialised. It does not move when its owner does.
pub struct AlignedBuf {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory is owned by this value alone, like a `Box<[u8]>`.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// `len_bytes` zeros.
    ///
    /// # Panics
    /// If `len_bytes` is zero or not a multiple of [`BLOCK_BYTES`].
    pub fn zeroed(len_bytes: usize) -> AlignedBuf {
        assert!(len_bytes > 0, "an empty buffer");
        assert!(len_bytes.is_multiple_of(BLOCK_BYTES), "{len_bytes} is not a multiple of {BLOCK_BYTES}");
        let layout = Layout::from_size_align(len_bytes, BLOCK_BYTES).expect("a sane size");
        // SAFETY: the layout's size is not zero, asserted above.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        AlignedBuf { base, layout }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `base` is `layout.size()` bytes, zeroed at birth, borrowed as long as `self`.
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes it the only borrow.
        unsafe { slice::from_raw_parts_mut(self.base.as_ptr(), self.layout.size()) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout, freed once.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_and_zero() {
        let mut buf = AlignedBuf::zeroed(3 * BLOCK_BYTES);
        assert_eq!(buf.as_ptr() as usize % BLOCK_BYTES, 0);
        assert_eq!(buf.len(), 3 * BLOCK_BYTES);
        assert!(buf.iter().all(|&b| b == 0));
        buf[BLOCK_BYTES..].fill(7);
        assert_eq!(buf[BLOCK_BYTES - 1], 0);
        assert_eq!(buf[3 * BLOCK_BYTES - 1], 7);
    }

    #[test]
    #[should_panic(expected = "not a multiple")]
    fn refuses_odd_sizes() {
        AlignedBuf::zeroed(1000);
    }
}
