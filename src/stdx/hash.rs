//! A keyed hash of short texts that outsiders choose.
//!
//! Folded 64x64 multiplication over 16 bytes a step, every constant derived from the seed, so that nobody who lacks the seed
//! can prepare texts that collide. Equal seeds give equal hashes on every machine: a simulation can be repeated.

/// Hashes texts under one seed.
#[derive(Clone, Debug)]
pub struct KeyedHash {
    secrets: [u64; 4],
}

impl KeyedHash {
    pub fn new(seed: u64) -> KeyedHash {
        let mut state = seed;
        KeyedHash { secrets: std::array::from_fn(|_| split_mix(&mut state) | 1) }
    }

    #[inline]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let [a, b, c, d] = self.secrets;
        let length = bytes.len();
        let (first, second);
        let mut state = a;
        if length > 16 {
            let mut rest = bytes;
            while rest.len() > 16 {
                state = fold(word(rest, 0) ^ b, word(rest, 8) ^ state);
                rest = &rest[16..];
            }
            // The last 16 bytes, partly seen before.
            first = word(bytes, length - 16);
            second = word(bytes, length - 8);
        } else if length >= 8 {
            first = word(bytes, 0);
            second = word(bytes, length - 8);
        } else if length >= 4 {
            first = u64::from(half(bytes, 0));
            second = u64::from(half(bytes, length - 4));
        } else if length > 0 {
            first = u64::from(bytes[0]) | u64::from(bytes[length / 2]) << 8;
            second = u64::from(bytes[length - 1]);
        } else {
            (first, second) = (0, 0);
        }
        fold(fold(first ^ c, second ^ state) ^ d, length as u64 ^ b)
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were sliced"))
}

#[inline]
fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were sliced"))
}

/// The next number of the SplitMix64 sequence: seeds grow into keys with it.
pub fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_length_hashes_and_the_seed_matters() {
        let text = b"/an/application/with/some/longer/path-0000000017";
        let (one, two) = (KeyedHash::new(1), KeyedHash::new(2));
        let mut seen = HashSet::new();
        for length in 0..=text.len() {
            assert_eq!(one.hash(&text[..length]), KeyedHash::new(1).hash(&text[..length]));
            assert!(seen.insert(one.hash(&text[..length])));
            assert!(seen.insert(two.hash(&text[..length])));
        }
    }

    /// The index takes its slot from the high bits: numbered names must spread over them.
    #[test]
    fn high_bits_of_numbered_names_spread() {
        let hash = KeyedHash::new(7);
        let mut buckets = [0u32; 256];
        for number in 0..65_536 {
            buckets[(hash.hash(format!("/bench/node-{number:010}").as_bytes()) >> 56) as usize] += 1;
        }
        assert!(buckets.iter().all(|&count| (150..370).contains(&count)), "{buckets:?}");
    }
}
