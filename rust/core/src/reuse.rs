//! Allocations of past requests, for the next one.

/// An empty vector in the allocation of `from`. Its elements may have another lifetime.
pub fn reuse_allocation<T, U>(mut from: Vec<T>) -> Vec<U> {
    from.clear();
    // Collecting a vector's own iterator keeps its allocation, if both element types have the same size.
    from.into_iter().filter_map(|_| None).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocation_is_reused() {
        let text = String::from("a b c");
        let words: Vec<&str> = text.split(' ').collect();
        let (address, room) = (words.as_ptr() as usize, words.capacity());
        let reused: Vec<&'static str> = reuse_allocation(words);
        assert_eq!((reused.as_ptr() as usize, reused.capacity(), reused.len()), (address, room, 0));
    }
}
