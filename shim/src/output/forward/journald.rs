//! journald's own protocol: a datagram of fields, or a sealed memory file with them.

use std::os::fd::{AsFd, AsRawFd};

use hull_runtime_sys::{Result, fd, socket};

/// Appends a field. A value with a line end has its length before it instead of `=`.
pub(crate) fn push_field(message: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    message.extend_from_slice(name);
    if value.contains(&b'\n') {
        message.push(b'\n');
        message.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        message.push(b'=');
    }
    message.extend_from_slice(value);
    message.push(b'\n');
}

/// Whether `name` can be a field's: capital letters, digits and `_`, which is not first.
pub(super) fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=64).contains(&name.len()) && name.bytes().all(is_part) && !name.starts_with('_')
}

/// Sends a message that is too large for a datagram.
pub(super) fn send_large(journal: impl AsFd, message: &[u8]) -> Result<()> {
    let file = fd::memory_file(c"hull-journal")?;
    fd::write_all(&file, message)?;
    fd::seal(&file)?;
    socket::send(journal, b"", &[file.as_raw_fd()])
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        os::{
            fd::OwnedFd,
            unix::{fs::FileExt, net::UnixDatagram},
        },
    };

    use super::*;

    #[test]
    fn fields_say_their_length_where_a_line_end_would_not() {
        let mut message = Vec::new();
        push_field(&mut message, b"A", b"b=c");
        push_field(&mut message, b"D", b"e\nf");
        assert_eq!(message, b"A=b=c\nD\n\x03\0\0\0\0\0\0\0e\nf\n");
    }

    #[test]
    fn names_are_journalds() {
        for (name, good) in [("A_1", true), ("_A", false), ("a", false), ("", false), ("A=", false)]
        {
            assert_eq!(is_name(name), good, "{name}");
        }
    }

    #[test]
    fn a_large_message_is_in_a_sealed_file() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let message = vec![b'x'; 1 << 20];
        send_large(&ours, &message).unwrap();
        let (bytes, mut files) = socket::receive(&theirs, &mut [0; 16]).unwrap();
        let file: OwnedFd = files.pop().unwrap();
        assert_eq!((bytes, fd::is_unwritable(&file).unwrap()), (0, true));
        let mut found = vec![0; message.len()];
        File::from(file).read_exact_at(&mut found, 0).unwrap();
        assert!(found == message);
    }
}
