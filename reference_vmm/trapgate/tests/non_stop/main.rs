//! Non-stop mode: each vCPU of the demo guest stops by itself, and the others run.

mod counts;
mod gdb;
mod session;
