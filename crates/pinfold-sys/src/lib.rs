//! The only unsafe code: thin, checked wrappers over the kernel.
