//! Typed channels and RPC with the names and signatures of OpenVMM's mesh
