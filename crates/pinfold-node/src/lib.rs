//! The workspaces of one machine: lifecycle, images, pool, recovery.
