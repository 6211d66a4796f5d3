//! What a test did, kept by thread and shown only when the test fails.

use std::cell::RefCell;

const BYTES_MAX: usize = 64 << 10;

thread_local! {
    static TRANSCRIPT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Adds a line to the record of the running test.
pub fn note(line: &str) {
    TRANSCRIPT.with_borrow_mut(|text| {
        // A test in a loop is only interesting at its end.
        if text.len() > BYTES_MAX {
            let mut cut = text.len() - BYTES_MAX / 2;
            while !text.is_char_boundary(cut) {
                cut += 1;
            }
            text.replace_range(..cut, "...\n");
        }
        text.push_str(line);
        text.push('\n');
    });
}

/// Takes the record away.
pub(crate) fn take() -> String {
    TRANSCRIPT.take()
}
