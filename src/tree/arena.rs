//! The memory of the tree: pages that are mapped once and never moved, and what lies in them.
//!
//! | What            | Addressed by                  | Page                                                   |
//! |-----------------|-------------------------------|--------------------------------------------------------|
//! | node headers    | 32-bit slot                   | `SLOTS_PER_PAGE` headers                               |
//! | blocks          | 32-bit number of a 16 B unit  | `UNITS_PER_PAGE` units; sizes of [`class_of`]          |
//! | large blocks    | `LARGE_FIRST` and above       | an allocation each                                     |
//! | ACL lists       | [`AclId`]                     | `ACLS_PER_PAGE` references to blocks                   |
//!
//! A block is one of:
//!
//! - a payload, immutable: `name length u32 LE, name, data length i32 BE (-1: null), data`. From the data length on these
//!   are the bytes of a reply.
//! - an ACL list, immutable, laid out as a payload with an empty name;
//! - words: an array of atomics (child lists in `u32`, index tables in `u64`), or a [`Family`]; zeroed when allocated.
//!
//! [`Arena`] is the shared half. It gives out references for as long as it is borrowed, which is longer than a block lives:
//! therefore its block functions are unsafe, and only [`super::view::View`], which proves that blocks stay, calls them.
//! [`Blocks`] is the writer's half: it decides which unit is used for what.

use std::alloc::{self, Layout};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::{slice, str};

use super::header::{Family, Header};

// Unit tests and Miri run on small pages, so that they cross many borders.
const SMALL: bool = cfg!(any(test, miri));

/// Miri walks a directory slowly.
const fn pages_max(count: usize) -> usize {
    if cfg!(miri) { 256 } else { count }
}

/// Four MiB of headers: two huge pages.
const SLOTS_PER_PAGE: usize = if SMALL { 64 } else { 65_536 };
const SLOT_PAGES_MAX: usize = pages_max(65_536);
/// Slots a tree can have.
pub(super) const SLOTS_MAX: u32 = (SLOTS_PER_PAGE * SLOT_PAGES_MAX - 1) as u32;

const UNIT_BYTES: usize = 16;
/// Two MiB of blocks: one huge page.
const UNITS_PER_PAGE: usize = if SMALL { 256 } else { 131_072 };
const UNIT_PAGES_MAX: usize = pages_max(LARGE_FIRST as usize / 131_072);
/// What is longer is an allocation of its own.
pub(super) const BLOCK_BYTES_MAX: usize = if SMALL { 1024 } else { 65_536 };
/// Block numbers from here on are large blocks. Below it are 60 GiB of units.
const LARGE_FIRST: u32 = 0xf000_0000;
const LARGE_PER_PAGE: usize = if SMALL { 4 } else { 4096 };
const LARGE_PAGES_MAX: usize = pages_max(65_536);

const ACLS_PER_PAGE: usize = if SMALL { 4 } else { 4096 };
const ACL_PAGES_MAX: usize = pages_max(65_536);
/// ACL lists a tree can have at once.
pub(super) const ACLS_MAX: u32 = (ACLS_PER_PAGE * ACL_PAGES_MAX) as u32;

/// Mappings from this size on are asked of the kernel directly and backed by huge pages.
const HUGE_BYTES: usize = 2 << 20;
const REGION_ALIGN: usize = 64;

/// The block with an empty name and no data: what a slot without a node refers to.
pub(super) const NO_BLOCK: u32 = 0;
/// The slot no node has. A reference that leads nowhere leads there.
const NO_SLOT: u32 = 0;

/// Memory that is valid when all its bytes are zero, and is changed through shared references only.
///
/// # Safety
///
/// The type is made of atomics, all-zero bytes are a value of it, it needs no drop and no more than 64 bytes alignment.
unsafe trait Zeroed: Sync {}
// SAFETY: only atomic integers inside, aligned to 64.
unsafe impl Zeroed for Header {}
// SAFETY: an atomic integer.
unsafe impl Zeroed for AtomicU32 {}
// SAFETY: an atomic pointer; zero is the null pointer.
unsafe impl Zeroed for AtomicPtr<u8> {}
/// Sixteen bytes of block memory. Never looked at as such.
#[repr(C, align(16))]
struct Unit([AtomicU64; 2]);
// SAFETY: atomic integers.
unsafe impl Zeroed for Unit {}

/// An array that grows by pages, and whose pages neither move nor go before it is dropped.
struct Paged<T: Zeroed, const PER_PAGE: usize, const PAGES_MAX: usize> {
    directory: Box<[AtomicPtr<T>]>,
}

impl<T: Zeroed, const PER_PAGE: usize, const PAGES_MAX: usize> Paged<T, PER_PAGE, PAGES_MAX> {
    fn new() -> Self {
        let layout =
            Layout::array::<AtomicPtr<T>>(PAGES_MAX).expect("a directory is below the largest layout");
        // SAFETY: the layout is not empty. All-zero bytes are null pointers, so the array is initialised; it is owned by
        // the box alone, which frees it with the layout it was made with.
        let directory = unsafe {
            let memory = alloc::alloc_zeroed(layout).cast::<AtomicPtr<T>>();
            if memory.is_null() {
                alloc::handle_alloc_error(layout);
            }
            Box::from_raw(ptr::slice_from_raw_parts_mut(memory, PAGES_MAX))
        };
        Paged { directory }
    }

    const PAGE_BYTES: usize = PER_PAGE * size_of::<T>();

    #[inline]
    fn pointer(&self, index: usize) -> Option<NonNull<T>> {
        let page = self.directory.get(index / PER_PAGE)?.load(Ordering::Acquire);
        // SAFETY: a page that is not null holds PER_PAGE elements, and the remainder is less.
        NonNull::new(page).map(|page| unsafe { page.add(index % PER_PAGE) })
    }

    #[inline]
    fn get(&self, index: usize) -> Option<&T> {
        // SAFETY: pages were mapped zeroed, which `Zeroed` makes valid, stay as long as `self`, and are changed
        // through shared references only.
        self.pointer(index).map(|element| unsafe { element.as_ref() })
    }

    /// Makes sure that the page of `index` is there. Returns the bytes mapped for it. For the writer only: two at once could map twice.
    fn grow_to(&self, index: usize, what: &str) -> usize {
        let page = index / PER_PAGE;
        assert!(page < PAGES_MAX, "the tree is full: {what} beyond {}", PER_PAGE * PAGES_MAX);
        if !self.directory[page].load(Ordering::Relaxed).is_null() {
            return 0;
        }
        let memory = map_region(Self::PAGE_BYTES, true);
        self.directory[page].store(memory.as_ptr().cast(), Ordering::Release);
        Self::PAGE_BYTES
    }
}

impl<T: Zeroed, const PER_PAGE: usize, const PAGES_MAX: usize> Drop for Paged<T, PER_PAGE, PAGES_MAX> {
    fn drop(&mut self) {
        // Pages are mapped in order, but for a directory's holes there is no rule: look at all.
        for page in self.directory.iter_mut() {
            if let Some(page) = NonNull::new(*page.get_mut()) {
                // SAFETY: mapped by `grow_to` with this size, and unreachable once `self` is gone.
                unsafe { unmap_region(page.cast(), Self::PAGE_BYTES) };
            }
        }
    }
}

/// What a payload says, borrowed from its block.
#[derive(Clone, Copy)]
pub(super) struct Payload<'a> {
    pub name: &'a str,
    /// Big-endian length (-1: null) and data.
    pub wire: &'a [u8],
}

impl<'a> Payload<'a> {
    #[inline]
    pub fn data(self) -> Option<&'a [u8]> {
        if self.wire[0] & 0x80 != 0 { None } else { Some(&self.wire[4..]) }
    }

    #[inline]
    pub fn data_bytes(self) -> usize {
        self.wire.len() - 4
    }

    fn bytes(self) -> usize {
        4 + self.name.len() + self.wire.len()
    }
}

/// The start of a large allocation. Written before the block is linked, then never.
#[repr(C, align(64))]
struct LargeHead {
    /// Bytes after this head.
    bytes: usize,
}

pub(super) struct Arena {
    headers: Paged<Header, SLOTS_PER_PAGE, SLOT_PAGES_MAX>,
    units: Paged<Unit, UNITS_PER_PAGE, UNIT_PAGES_MAX>,
    large: Paged<AtomicPtr<u8>, LARGE_PER_PAGE, LARGE_PAGES_MAX>,
    acls: Paged<AtomicU32, ACLS_PER_PAGE, ACL_PAGES_MAX>,
}

impl Arena {
    fn new() -> Arena {
        Arena { headers: Paged::new(), units: Paged::new(), large: Paged::new(), acls: Paged::new() }
    }

    /// The header in `slot`; of the slot without a node where there is none.
    #[inline]
    pub fn header(&self, slot: u32) -> &Header {
        self.headers
            .get(slot as usize)
            .or_else(|| self.headers.get(NO_SLOT as usize))
            .expect("the first page is mapped with the arena")
    }

    /// The block of an ACL list, or `NO_BLOCK`.
    pub fn acl_block(&self, id: u32) -> u32 {
        self.acls.get(id as usize).map_or(NO_BLOCK, |block| block.load(Ordering::Acquire))
    }

    #[inline]
    fn block(&self, block: u32) -> NonNull<u8> {
        if block < LARGE_FIRST {
            return self.units.pointer(block as usize).expect("a block is in a mapped page").cast();
        }
        let entry = self.large.get((block - LARGE_FIRST) as usize).expect("a large block is in the table");
        let head = NonNull::new(entry.load(Ordering::Acquire)).expect("a large block is allocated");
        // SAFETY: a large allocation is at least its head long.
        unsafe { head.add(size_of::<LargeHead>()) }
    }

    /// Bytes from the start of a block to the end of its page or allocation.
    fn reach(&self, block: u32) -> usize {
        if block < LARGE_FIRST {
            return (UNITS_PER_PAGE - block as usize % UNITS_PER_PAGE) * UNIT_BYTES;
        }
        // SAFETY: `block` points just behind the head, which is initialised and does not change while the block lives.
        unsafe { self.block(block).sub(size_of::<LargeHead>()).cast::<LargeHead>().as_ref().bytes }
    }

    /// Reads a payload.
    ///
    /// # Safety
    ///
    /// `block` was returned by [`Blocks::payload`] and is not reused while the result lives.
    #[inline]
    pub unsafe fn payload(&self, block: u32) -> Payload<'_> {
        let memory = self.block(block);
        // SAFETY: a payload starts with the length of its name, then the name, the length of its data, and the data; all
        // were written before its number was published (release, acquire) and do not change while it lives. The name
        // was a `str`. Lengths are as the allocation was made for.
        unsafe {
            let name_bytes = u32::from_le(memory.cast::<u32>().read()) as usize;
            let wire = memory.add(4 + name_bytes);
            let data_bytes = i32::from_be(wire.cast::<i32>().read_unaligned()).max(0) as usize;
            debug_assert!(8 + name_bytes + data_bytes <= self.reach(block));
            Payload {
                name: str::from_utf8_unchecked(slice::from_raw_parts(memory.add(4).as_ptr(), name_bytes)),
                wire: slice::from_raw_parts(wire.as_ptr(), 4 + data_bytes),
            }
        }
    }

    /// The words of a child list.
    ///
    /// # Safety
    ///
    /// `block` was returned by [`Blocks::words`] for at least `count` words, and is not reused while the result lives.
    #[inline]
    pub unsafe fn words(&self, block: u32, count: usize) -> &[AtomicU32] {
        let memory = self.block(block).cast::<AtomicU32>();
        // SAFETY: the block is that long, aligned to 16, was zeroed when allocated, and is only used as atomics.
        unsafe { slice::from_raw_parts(memory.as_ptr(), count) }
    }

    /// The family of a node.
    ///
    /// # Safety
    ///
    /// `block` was returned by [`Blocks::family`] and is not reused while the result lives.
    #[inline]
    pub unsafe fn family(&self, block: u32) -> &Family {
        // SAFETY: the block is that long, aligned to 16, was zeroed when allocated, and is only used as this one type, which is
        // made of atomic integers.
        unsafe { self.block(block).cast::<Family>().as_ref() }
    }

    /// The words of an index table.
    ///
    /// # Safety
    ///
    /// `block` was returned by [`Blocks::table`] and is not reused while the result lives.
    #[inline]
    pub unsafe fn table(&self, block: u32) -> &[AtomicU64] {
        let memory = self.block(block).cast::<AtomicU64>();
        // SAFETY: a table is a large block, as long as its head says, aligned to 64, zeroed, and only used as atomics.
        unsafe { slice::from_raw_parts(memory.as_ptr(), self.reach(block) / 8) }
    }

    #[inline]
    pub fn prefetch_header(&self, slot: u32) {
        if let Some(header) = self.headers.pointer(slot as usize) {
            prefetch(header.as_ptr());
        }
    }

    /// Fetches the first `lines` cache lines of a block.
    #[inline]
    pub fn prefetch_block(&self, block: u32, lines: usize) {
        if block < LARGE_FIRST
            && let Some(unit) = self.units.pointer(block as usize)
        {
            for line in 0..lines {
                prefetch(unit.as_ptr().cast::<u8>().wrapping_add(64 * line));
            }
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for page in self.large.directory.iter_mut() {
            let Some(page) = NonNull::new(*page.get_mut()) else { continue };
            for index in 0..LARGE_PER_PAGE {
                // SAFETY: the page holds that many entries, and nobody else has them any more.
                let entry = unsafe { page.add(index).as_mut().get_mut() };
                if let Some(head) = NonNull::new(*entry) {
                    // SAFETY: the entry is a live allocation of `Blocks::large`.
                    unsafe { free_large(head) };
                }
            }
        }
    }
}

#[inline]
pub(super) fn prefetch<T>(address: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch reads nothing the program can see, at any address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// Block sizes: every 16 B up to 256 B, then eight to a doubling. A block wastes an eighth of itself at most, or 15 bytes.
const CLASSES: usize = 80;

/// The size class that holds `units`.
fn class_of(units: usize) -> usize {
    debug_assert!(0 < units);
    if units <= 16 {
        return units - 1;
    }
    let exponent = (units - 1).ilog2() as usize;
    let eighths = units.div_ceil(1 << (exponent - 3));
    16 + (exponent - 4) * 8 + (eighths - 9)
}

fn class_units(class: usize) -> usize {
    if class < 16 {
        return class + 1;
    }
    let (doubling, eighth) = ((class - 16) / 8, (class - 16) % 8);
    (9 + eighth) << (doubling + 1)
}

/// Whether a block is an allocation of its own.
pub(super) fn is_large(block: u32) -> bool {
    LARGE_FIRST <= block
}

/// A block to be given back, with what is needed to do so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spent {
    pub block: u32,
    class: u8,
}

impl Spent {
    pub fn is_large(self) -> bool {
        is_large(self.block)
    }
}

/// The writer's half of the arena: allocation.
pub(super) struct Blocks {
    /// Free blocks of each class, linked through their first four bytes; 0 ends the list.
    free: [u32; CLASSES],
    /// Which of `free` have any.
    free_classes: u128,
    /// The unused rest of the newest page.
    rest: u32,
    rest_units: usize,
    units_next: u32,
    large_free: Vec<u32>,
    large_next: u32,
    slot_next: u32,
    /// First free slot, linked through `position`.
    slot_free: u32,
    /// Bytes mapped or allocated, used or not.
    mapped_bytes: usize,
}

impl Blocks {
    /// An arena and its writer's half.
    pub fn new() -> (Arena, Blocks) {
        let arena = Arena::new();
        let mut blocks = Blocks {
            free: [0; CLASSES],
            free_classes: 0,
            rest: 0,
            rest_units: 0,
            units_next: 0,
            large_free: Vec::new(),
            large_next: 0,
            slot_next: NO_SLOT,
            slot_free: NO_SLOT,
            mapped_bytes: 0,
        };
        let no_slot = blocks.slot(&arena);
        assert_eq!(no_slot, NO_SLOT);
        let no_block = blocks.payload(&arena, "", None);
        assert_eq!(no_block, NO_BLOCK);
        (arena, blocks)
    }

    pub fn mapped_bytes(&self) -> usize {
        self.mapped_bytes
    }

    /// Slots ever used: all lie below.
    pub fn slot_count(&self) -> u32 {
        self.slot_next
    }

    /// Takes a free slot. Its header is as its last node left it, but for `payload`, which is `NO_BLOCK`.
    pub fn slot(&mut self, arena: &Arena) -> u32 {
        if self.slot_free != NO_SLOT {
            let slot = self.slot_free;
            self.slot_free = arena.header(slot).position.load(Ordering::Relaxed);
            return slot;
        }
        let slot = self.slot_next;
        assert!(slot < SLOTS_MAX, "the tree is full: {SLOTS_MAX} nodes");
        self.mapped_bytes += arena.headers.grow_to(slot as usize, "nodes");
        self.slot_next += 1;
        slot
    }

    pub fn give_slot(&mut self, arena: &Arena, slot: u32) {
        arena.header(slot).position.store(self.slot_free, Ordering::Relaxed);
        self.slot_free = slot;
    }

    /// Writes a payload into a new block.
    pub fn payload(&mut self, arena: &Arena, name: &str, data: Option<&[u8]>) -> u32 {
        let (name_bytes, data_bytes) = (name.len(), data.map_or(0, <[u8]>::len));
        let wire_length: i32 =
            if data.is_some() { i32::try_from(data_bytes).expect("data is shorter than 2 GiB") } else { -1 };
        let block = self.block(arena, 8 + name_bytes + data_bytes);
        let memory = arena.block(block);
        // SAFETY: the block is as long as asked for and has been out of every reader's sight since it was taken from the
        // free list or a fresh page, so nobody else looks at it; source and target are apart.
        unsafe {
            memory
                .cast::<u32>()
                .write(u32::try_from(name_bytes).expect("a name is shorter than 4 GiB").to_le());
            ptr::copy_nonoverlapping(name.as_ptr(), memory.add(4).as_ptr(), name_bytes);
            let wire = memory.add(4 + name_bytes);
            wire.cast::<i32>().write_unaligned(wire_length.to_be());
            if let Some(data) = data {
                ptr::copy_nonoverlapping(data.as_ptr(), wire.add(4).as_ptr(), data_bytes);
            }
        }
        block
    }

    /// Zeroed words for a child list.
    pub fn words(&mut self, arena: &Arena, count: usize) -> u32 {
        let block = self.block(arena, 4 * count);
        // SAFETY: as in `payload`: the block is ours alone and that long.
        unsafe { arena.block(block).write_bytes(0, 4 * count) };
        block
    }

    /// A family of zeros.
    pub fn family(&mut self, arena: &Arena) -> u32 {
        self.words(arena, size_of::<Family>() / 4)
    }

    /// A zeroed index table of `count` entries.
    pub fn table(&mut self, arena: &Arena, count: usize) -> u32 {
        self.large(arena, 8 * count, true)
    }

    /// How to give back a payload that is no longer linked.
    pub fn spent_payload(&self, block: u32, payload: Payload<'_>) -> Spent {
        Self::spent(block, payload.bytes())
    }

    pub fn spent_words(&self, block: u32, count: usize) -> Spent {
        Self::spent(block, 4 * count)
    }

    pub fn spent_family(&self, block: u32) -> Spent {
        Self::spent(block, size_of::<Family>())
    }

    pub fn spent_table(&self, block: u32) -> Spent {
        assert!(LARGE_FIRST <= block);
        Spent { block, class: 0 }
    }

    fn spent(block: u32, bytes: usize) -> Spent {
        assert!(block != NO_BLOCK, "the empty block is nobody's to give back");
        let class = if block < LARGE_FIRST { class_of(bytes.div_ceil(UNIT_BYTES)) } else { 0 };
        Spent { block, class: class as u8 }
    }

    /// Gives a block back for reuse: no reader can have a reference into it any more.
    pub fn give(&mut self, arena: &Arena, spent: Spent) {
        if !spent.is_large() {
            self.push_free(arena, spent.block, usize::from(spent.class));
            return;
        }
        let index = spent.block - LARGE_FIRST;
        let entry = arena.large.get(index as usize).expect("a large block is in the table");
        let head =
            NonNull::new(entry.swap(ptr::null_mut(), Ordering::Relaxed)).expect("a block is given back once");
        // SAFETY: the entry was a live allocation of `large`, which nobody can reach any more.
        self.mapped_bytes -= unsafe { free_large(head) };
        self.large_free.push(index);
    }

    pub fn set_acl_block(&mut self, arena: &Arena, id: u32, block: u32) {
        self.mapped_bytes += arena.acls.grow_to(id as usize, "ACL lists");
        arena.acls.get(id as usize).expect("the page was just mapped").store(block, Ordering::Release);
    }

    fn block(&mut self, arena: &Arena, bytes: usize) -> u32 {
        if bytes > BLOCK_BYTES_MAX {
            return self.large(arena, bytes, false);
        }
        let class = class_of(bytes.div_ceil(UNIT_BYTES).max(1));
        let units = class_units(class);
        if self.free[class] != 0 {
            return self.pop_free(arena, class);
        }
        if self.rest_units < units {
            // Before the tree grows, cut up what is free and larger.
            let larger = self.free_classes >> class << class;
            let (from, from_units) = if larger != 0 {
                let class = larger.trailing_zeros() as usize;
                (self.pop_free(arena, class), class_units(class))
            } else {
                let from = self.units_next;
                self.mapped_bytes += arena.units.grow_to(from as usize, "blocks");
                self.units_next += UNITS_PER_PAGE as u32;
                (from, UNITS_PER_PAGE)
            };
            self.give_rest(arena);
            (self.rest, self.rest_units) = (from, from_units);
        }
        let block = self.rest;
        self.rest += units as u32;
        self.rest_units -= units;
        block
    }

    /// Makes free blocks of what is left of a page.
    fn give_rest(&mut self, arena: &Arena) {
        while self.rest_units > 0 {
            let mut class = class_of(self.rest_units.min(BLOCK_BYTES_MAX / UNIT_BYTES));
            if class_units(class) > self.rest_units {
                class -= 1;
            }
            let units = class_units(class);
            self.push_free(arena, self.rest, class);
            self.rest += units as u32;
            self.rest_units -= units;
        }
    }

    fn push_free(&mut self, arena: &Arena, block: u32, class: usize) {
        // SAFETY: a free block is the writer's alone and at least one unit long.
        unsafe { arena.block(block).cast::<u32>().write(self.free[class]) };
        self.free[class] = block;
        self.free_classes |= 1 << class;
    }

    fn pop_free(&mut self, arena: &Arena, class: usize) -> u32 {
        let block = self.free[class];
        assert!(block != 0, "class {class} was said to have a free block");
        // SAFETY: a free block is the writer's alone; `push_free` wrote its link.
        self.free[class] = unsafe { arena.block(block).cast::<u32>().read() };
        if self.free[class] == 0 {
            self.free_classes &= !(1 << class);
        }
        block
    }

    /// An allocation of its own.
    fn large(&mut self, arena: &Arena, bytes: usize, zeroed: bool) -> u32 {
        let index = self.large_free.pop().unwrap_or_else(|| {
            self.large_next += 1;
            self.large_next - 1
        });
        assert!(index < u32::MAX - LARGE_FIRST, "the tree is full: large values");
        self.mapped_bytes += arena.large.grow_to(index as usize, "large values");
        let region = map_region(large_region_bytes(bytes), zeroed);
        // SAFETY: the region is longer than its head, aligned to 64, and ours alone.
        unsafe { region.cast::<LargeHead>().write(LargeHead { bytes }) };
        self.mapped_bytes += large_region_bytes(bytes);
        let entry = arena.large.get(index as usize).expect("the page was just mapped");
        entry.store(region.as_ptr(), Ordering::Release);
        LARGE_FIRST + index
    }
}

fn large_region_bytes(bytes: usize) -> usize {
    size_of::<LargeHead>() + bytes
}

/// Frees a large allocation and returns how many bytes that were.
///
/// # Safety
///
/// `head` came from `map_region` in `Blocks::large`, is initialised, and is used by nobody any more.
unsafe fn free_large(head: NonNull<u8>) -> usize {
    // SAFETY: the caller's promise; the head says how long the region is.
    unsafe {
        let bytes = large_region_bytes(head.cast::<LargeHead>().as_ref().bytes);
        unmap_region(head, bytes);
        bytes
    }
}

fn is_mapping(bytes: usize) -> bool {
    HUGE_BYTES <= bytes && !cfg!(miri)
}

/// Memory aligned to 64 bytes at least, zeroed if wanted. A server that cannot get memory stops.
fn map_region(bytes: usize, zeroed: bool) -> NonNull<u8> {
    let layout = Layout::from_size_align(bytes, REGION_ALIGN).expect("a region is below the largest layout");
    if !is_mapping(bytes) {
        // SAFETY: no region is empty.
        let memory = unsafe { if zeroed { alloc::alloc_zeroed(layout) } else { alloc::alloc(layout) } };
        return NonNull::new(memory).unwrap_or_else(|| alloc::handle_alloc_error(layout));
    }
    // One huge page more than wanted, then the ends are cut to a border of huge pages.
    let length = bytes.next_multiple_of(HUGE_BYTES);
    // SAFETY: a fresh anonymous mapping touches nothing that exists; what is unmapped are ends of that mapping.
    unsafe {
        let memory = libc::mmap(
            ptr::null_mut(),
            length + HUGE_BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        );
        if memory == libc::MAP_FAILED {
            alloc::handle_alloc_error(layout);
        }
        let before = memory.align_offset(HUGE_BYTES);
        let start = memory.byte_add(before);
        if before > 0 {
            libc::munmap(memory, before);
        }
        libc::munmap(start.byte_add(length), HUGE_BYTES - before);
        // Refused where the kernel has no huge pages; small ones do as well.
        libc::madvise(start, length, libc::MADV_HUGEPAGE);
        NonNull::new(start.cast()).expect("a mapping is not at zero")
    }
}

/// # Safety
///
/// `memory` came from `map_region(bytes)` and is used by nobody any more.
unsafe fn unmap_region(memory: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise; the same rule decides how the region was made.
    unsafe {
        if is_mapping(bytes) {
            libc::munmap(memory.as_ptr().cast(), bytes.next_multiple_of(HUGE_BYTES));
        } else {
            let layout =
                Layout::from_size_align(bytes, REGION_ALIGN).expect("it was a layout when it was mapped");
            alloc::dealloc(memory.as_ptr(), layout);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_what_they_are_chosen_for_and_waste_an_eighth() {
        for units in (1..=4096).step_by(if cfg!(miri) { 37 } else { 1 }) {
            let class = class_of(units);
            let held = class_units(class);
            assert!(class < CLASSES);
            assert!(units <= held && (held - units) * 8 < held.max(9), "{units} in {held}");
            assert_eq!(class_of(held), class);
        }
        assert_eq!(class_of(4096), CLASSES - 1);
    }

    fn read(arena: &Arena, block: u32) -> (&str, Option<&[u8]>) {
        // SAFETY: the tests below give no block back while they look at it.
        let payload = unsafe { arena.payload(block) };
        (payload.name, payload.data())
    }

    #[test]
    fn payloads_of_all_sizes_are_read_back() {
        let (arena, mut blocks) = Blocks::new();
        let data: Vec<u8> = (0..3000u32).map(|byte| byte as u8).collect();
        let lengths = [0, 1, 15, 16, 100, 255, 1000, 1016, 1017, 2999];
        let made: Vec<u32> =
            lengths.iter().map(|&n| blocks.payload(&arena, "näme", Some(&data[..n]))).collect();
        for (&block, &length) in made.iter().zip(&lengths) {
            assert_eq!(read(&arena, block), ("näme", Some(&data[..length])));
        }
        let null = blocks.payload(&arena, "", None);
        assert_eq!(read(&arena, null), ("", None));
        assert_eq!(read(&arena, NO_BLOCK), ("", None));
    }

    #[test]
    fn memory_given_back_is_used_again() {
        let (arena, mut blocks) = Blocks::new();
        let mut peak = 0;
        let (rounds, lengths) = if cfg!(miri) { (3, 20) } else { (20, 150) };
        for round in 0..rounds {
            let mut made = Vec::new();
            for length in 0..lengths {
                let data = vec![round; length * 10];
                made.push((blocks.payload(&arena, "n", Some(&data)), data));
            }
            for (block, data) in made {
                assert_eq!(read(&arena, block), ("n", Some(&data[..])));
                // SAFETY: the block is live, and the payload is not used after `give`.
                let spent = blocks.spent_payload(block, unsafe { arena.payload(block) });
                blocks.give(&arena, spent);
            }
            if round == 0 {
                peak = blocks.mapped_bytes();
            }
            assert!(blocks.mapped_bytes() <= peak);
        }
    }

    #[test]
    fn words_come_zeroed_also_from_used_memory() {
        let (arena, mut blocks) = Blocks::new();
        for _ in 0..3 {
            for count in [4, 8, 64, 1024] {
                let block = blocks.words(&arena, count);
                // SAFETY: made for that many words just above, given back after the loop over them.
                let words = unsafe { arena.words(block, count) };
                for word in words {
                    assert_eq!(word.swap(u32::MAX, Ordering::Relaxed), 0);
                }
                let spent = blocks.spent_words(block, count);
                blocks.give(&arena, spent);
            }
        }
        let table = blocks.table(&arena, 100);
        // SAFETY: made just above and not given back.
        let table = unsafe { arena.table(table) };
        assert_eq!(table.len(), 100);
        assert!(table.iter().all(|entry| entry.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn slots_are_used_again_and_foreign_ones_lead_nowhere() {
        let (arena, mut blocks) = Blocks::new();
        let slots: Vec<u32> = (0..200).map(|_| blocks.slot(&arena)).collect();
        assert_eq!(slots, (1..=200).collect::<Vec<u32>>());
        blocks.give_slot(&arena, 7);
        blocks.give_slot(&arena, 9);
        assert_eq!([blocks.slot(&arena), blocks.slot(&arena), blocks.slot(&arena)], [9, 7, 201]);
        assert!(ptr::eq(arena.header(u32::MAX), arena.header(NO_SLOT)));
    }
}
