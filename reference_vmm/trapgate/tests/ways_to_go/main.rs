//! Every way a client can go, in every state: the guest's memory and debug state are as if nobody had ever attached, and it runs on (I6).

mod bed;
mod gdb;
mod silent;
mod table;
