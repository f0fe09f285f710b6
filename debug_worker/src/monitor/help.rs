//! The list of commands for `monitor help`. The Guide's table has the same rows.

/// The syntax of each command, and its purpose.
pub(super) const COMMANDS: [(&str, &str); 31] = [
    ("help", "this list"),
    ("status", "what each VP is doing"),
    (
        "breakpoints",
        "each breakpoint and how it is armed; the last refused breakpoints with the reasons",
    ),
    ("regs", "all system registers of a VP"),
    ("mode", "the processor mode of a VP"),
    (
        "disas [ADDR [COUNT]]",
        "code, decoded in the mode of a VP, from its next instruction or ADDR on",
    ),
    (
        "translate ADDR",
        "the page walk of a virtual address on a VP",
    ),
    (
        "phys x ADDR LEN",
        "physical memory, at most 4096 bytes at a time",
    ),
    ("msr", "the names of the MSRs that NUM accepts"),
    (
        "msr read NUM",
        "a model-specific register of a VP, by number or name",
    ),
    (
        "msr write NUM VALUE",
        "writes a model-specific register of a VP",
    ),
    ("nmi", "raises an NMI on a VP, which takes it when it runs"),
    (
        "dump FILE",
        "writes an ELF core file of the guest into the folder that --dump-dir names",
    ),
    (
        "stats",
        "counts since the start of the debug server: sessions, packets, stops by cause, requests with their latencies",
    ),
    (
        "doctor",
        "the features of this host that work, and those that do not",
    ),
    (
        "stop-on [LIST]",
        "the events that stop the guest: a list of reset,poweroff,triple-fault,panic, or none",
    ),
    (
        "freeze-time",
        "whether the guest's clocks stop while the guest is stopped",
    ),
    (
        "freeze-time on|off",
        "changes this setting, from the end of the present stop on",
    ),
    ("step-irqs", "whether steps take interrupts"),
    (
        "step-irqs on",
        "a step takes a pending interrupt and ends at its handler",
    ),
    (
        "step-irqs off",
        "a pending interrupt waits until the guest runs (default)",
    ),
    (
        "reset",
        "resets the guest, which stays stopped at its first instruction",
    ),
    ("quit", "ends the guest for good"),
    (
        "info registers [-a]",
        "in QEMU's format: the registers of a VP, or of all VPs",
    ),
    (
        "info mem",
        "in QEMU's format: the ranges that a VP's page tables map",
    ),
    (
        "info tlb",
        "in QEMU's format: the pages that a VP's page tables map",
    ),
    ("info mtree [-f]", "in QEMU's format: the RAM ranges"),
    (
        "xp /FMT ADDR",
        "in QEMU's format: physical memory; FMT is a count, one of x d u o c and one of b h w g",
    ),
    (
        "gva2gpa ADDR",
        "in QEMU's format: the physical address of a virtual address on a VP",
    ),
    ("gpa2hva ADDR", "refused, with the reason"),
    (
        "system_reset",
        "as `reset`; `reset halt` and `reset init` do the same",
    ),
];

/// Notes that apply to several commands.
const NOTES: &str = "\
Numbers are decimal, or hexadecimal with 0x. For a symbol or a register: eval \"monitor translate %p\", SYMBOL
A command about one VP uses the VP of the selected thread, or VP N with `vp N` at its end. The output names the VP.
";

pub(super) fn text() -> String {
    let mut text = "Commands:\n".to_owned();
    for (usage, purpose) in COMMANDS {
        text.push_str(&format!("  monitor {usage:22} {purpose}\n"));
    }
    text.push_str(NOTES);
    text
}
