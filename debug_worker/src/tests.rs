//! The whole server over real sockets, with a VM that is a fake. What is in one file belongs to one promise.

mod bed;
mod ends;
mod fake_vm;
mod hostile;
mod races;
mod sessions;
