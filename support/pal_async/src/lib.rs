//! Executor, sockets and timers with the names and signatures of OpenVMM's pal_async
