//! Mutants of valid input for unit tests of what reads it: the same ones each time.

/// Calls `judge` with `count` mutants of `valid`.
pub(crate) fn each(valid: &[u8], count: u32, mut judge: impl FnMut(&[u8])) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    // xorshift64; below a number that is not 0.
    let mut below = move |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % limit as u64) as usize
    };
    for _ in 0..count {
        let mut bytes = valid.to_vec();
        for _ in 0..=below(3) {
            let at = below(bytes.len() + 1);
            let end = (at + below(9)).min(bytes.len());
            match below(5) {
                0 if at < bytes.len() => bytes[at] ^= 1 << below(8),
                1 => bytes.truncate(at),
                2 => drop(bytes.drain(at..end)),
                // The longest numbers of protobuf, and lengths beyond every limit.
                3 => drop(bytes.splice(at..at, [0xff, 0xff, 0xff, 0xff, [0x0f, 0xff][below(2)]])),
                _ => drop(bytes.splice(at..end, [below(256) as u8, below(256) as u8])),
            }
        }
        judge(&bytes);
    }
}
