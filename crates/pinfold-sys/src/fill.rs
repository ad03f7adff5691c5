//! Reading into memory that has not been written yet. Man pages: read(2), pread(2).

use std::{io, os::fd::AsFd};

use bytes::BytesMut;

/// Reads once into the spare capacity of `buffer`, at most `limit` bytes. 0 is the end.
///
/// # Errors
/// What `read` says.
pub fn read_into(fd: impl AsFd, buffer: &mut BytesMut, limit: usize) -> io::Result<usize> {
    let spare = buffer.spare_capacity_mut();
    let room = spare.len().min(limit);
    let (filled, _) = rustix::io::read(fd, &mut spare[..room])?;
    let filled = filled.len();
    // SAFETY: the kernel has written `filled` bytes right behind the present end, within capacity.
    unsafe { buffer.set_len(buffer.len() + filled) };
    Ok(filled)
}

/// Reads once at `offset` of a file, like [`read_into`].
///
/// # Errors
/// What `pread` says.
pub fn pread_into(
    fd: impl AsFd,
    buffer: &mut BytesMut,
    limit: usize,
    offset: u64,
) -> io::Result<usize> {
    let spare = buffer.spare_capacity_mut();
    let room = spare.len().min(limit);
    let (filled, _) = rustix::io::pread(fd, &mut spare[..room], offset)?;
    let filled = filled.len();
    // SAFETY: as in `read_into`.
    unsafe { buffer.set_len(buffer.len() + filled) };
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Write, pipe};

    #[test]
    fn bytes_land_behind_what_is_there_and_never_beyond_the_limit() {
        let (reader, mut writer) = pipe().expect("pipe");
        writer.write_all(b"hello").expect("fits");
        drop(writer);
        let mut buffer = BytesMut::with_capacity(64);
        buffer.extend_from_slice(b">");
        assert_eq!(read_into(&reader, &mut buffer, 2).expect("read"), 2);
        assert_eq!(read_into(&reader, &mut buffer, usize::MAX).expect("read"), 3);
        assert_eq!(read_into(&reader, &mut buffer, usize::MAX).expect("end"), 0);
        assert_eq!(&buffer[..], b">hello");
        let mut full = BytesMut::new();
        assert_eq!(read_into(&reader, &mut full, usize::MAX).expect("no room"), 0);
    }
}
