//! Host and guest messages: bounded frames and their codec. Pure: no I/O.
