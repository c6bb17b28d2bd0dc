//! A map by name whose hash costs little for short names, because each request looks its endpoint up.
//!
//! The keys are the operator's. What a client asks for is looked up and never stored, so that no client can make keys collide.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by name.
pub type NameMap<T> = HashMap<Box<str>, T, BuildHasherDefault<NameHasher>>;

/// FNV-1a with 64 bits (Fowler, Noll and Vo).
#[derive(Clone, Copy, Debug)]
pub struct NameHasher(u64);

impl Default for NameHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u8(byte);
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn the_hash_is_that_of_its_definition() {
        let hash = |text: &str| {
            let mut hasher = NameHasher::default();
            hasher.write(text.as_bytes());
            hasher.finish()
        };
        // From the vectors of the definition.
        let vectors =
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)];
        for (text, wanted) in vectors {
            assert_eq!(hash(text), wanted, "{text}");
        }
    }

    #[test]
    fn names_that_differ_in_a_digit_spread() {
        let map: NameMap<u32> = (0..1_000).map(|number| (format!("model-{number}").into(), number)).collect();
        assert_eq!(map.get("model-7"), Some(&7));
        assert_eq!(map.get("model-1000"), None);
        let mut low_bits: Vec<u64> = map.keys().map(|name| map.hasher().hash_one(name) % 2048).collect();
        low_bits.sort_unstable();
        low_bits.dedup();
        // A thousand names at random fall into 791 of 2 048 places.
        assert!(low_bits.len() > 740, "{}", low_bits.len());
    }
}
