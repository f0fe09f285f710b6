//! vCPU threads on KVM, all-stop coordination, breakpoints, stepping and memory, behind DebugRequest
