//! Entries that one write(2) puts into the file.

/// So many bytes are written at once. More would not be faster, and would be memory that a
/// shim keeps.
const FULL: usize = 64 * 1024;

/// Whole entries, one after the other.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where it ends in the batch.
    end: u32,
    /// How many bytes of the container's output it holds.
    output: u32,
}

impl Batch {
    /// Ends the entry that was appended to `bytes`, and that holds so many bytes of output.
    pub(super) fn end_entry(&mut self, output: usize) {
        let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.entries.push(Entry { end: short(self.bytes.len()), output: short(output) });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// The end of the first entry that ends at `offset` or after it; else the batch's end.
    pub(super) fn entry_end(&self, offset: u64) -> usize {
        let at = self.entries.partition_point(|entry| u64::from(entry.end) < offset);
        self.entries.get(at).map_or(self.bytes.len(), |entry| entry.end as usize)
    }

    /// How many bytes of output the entries hold that end after `offset`.
    pub(super) fn output_after(&self, offset: usize) -> u64 {
        let at = self.entries.partition_point(|entry| entry.end as usize <= offset);
        self.entries[at..].iter().map(|entry| u64::from(entry.output)).sum()
    }

    /// How many entries end after `offset`.
    pub(super) fn entries_after(&self, offset: usize) -> u64 {
        let at = self.entries.partition_point(|entry| entry.end as usize <= offset);
        (self.entries.len() - at) as u64
    }

    /// The end of the last entry that ends at `offset` or before it.
    pub(super) fn whole_entries(&self, offset: usize) -> usize {
        let at = self.entries.partition_point(|entry| entry.end as usize <= offset);
        at.checked_sub(1).map_or(0, |at| self.entries[at].end as usize)
    }

    /// Drops what comes after the entry that ends at `offset`.
    pub(super) fn truncate(&mut self, offset: usize) {
        self.bytes.truncate(offset);
        self.entries.retain(|entry| entry.end as usize <= offset);
    }

    /// Whether an entry ends at `offset`, or none has begun there.
    pub(super) fn is_boundary(&self, offset: usize) -> bool {
        offset == 0 || self.entry_end(offset as u64) == offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_by_entry() {
        let mut batch = Batch::default();
        for length in [3, 4, 5] {
            batch.bytes.extend(vec![b'x'; length]);
            batch.end_entry(length * 10);
        }
        let ends: Vec<usize> = [0, 1, 3, 4, 7, 8, 12, 13].map(|at| batch.entry_end(at)).to_vec();
        assert_eq!(ends, [3, 3, 3, 7, 7, 12, 12, 12]);
        let lost = [0, 2, 3, 6, 7, 12].map(|at| batch.output_after(at));
        assert_eq!(lost, [120, 120, 90, 90, 50, 0]);
        let boundaries = [0, 1, 3, 7, 8, 12].map(|at| batch.is_boundary(at));
        assert_eq!(boundaries, [true, false, true, true, false, true]);
        let whole = [0, 2, 3, 6, 7, 12, 99].map(|at| batch.whole_entries(at));
        assert_eq!(whole, [0, 0, 3, 3, 7, 12, 12]);
        assert_eq!([0, 3, 11, 12].map(|at| batch.entries_after(at)), [3, 2, 1, 0]);
        batch.truncate(7);
        assert_eq!((batch.bytes.len(), batch.entries_after(0)), (7, 2));
    }
}
