//! The built-in demo guest: a PVH ELF kernel with line information
