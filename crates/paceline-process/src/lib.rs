//! Child processes with timeouts, chains, and nothing left behind.
