//! Every way in which a client can go, in every state: the guest's memory and debug state are as if no debugger had
//! ever attached, and the guest runs on (I6).

mod bed;
mod gdb;
mod silent;
mod table;
