//! Backend: namespaces, overlay, Landlock, seccomp, cgroups.
