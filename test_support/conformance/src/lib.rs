//! The conformance suite: what a debug server promises to its clients, counted by the guest. The programs are in `tests/`; their guests and fixtures are the crate
//! `test_machine`.
