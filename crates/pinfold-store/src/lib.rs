//! State in SQLite: migrations, group commit.
