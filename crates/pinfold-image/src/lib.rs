//! Images: layers, OCI, Debian, the host view, templates.
