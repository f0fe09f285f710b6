//! The list of commands, for `monitor help`. The Guide's table has the same rows.

/// How each command is written, and what it is for.
pub(super) const COMMANDS: [(&str, &str); 30] = [
    ("help", "this list"),
    ("status", "what each VP is doing"),
    (
        "breakpoints",
        "each breakpoint, how it is armed, and which were refused last and why",
    ),
    ("regs", "all system registers of a VP"),
    ("mode", "the processor mode of a VP"),
    (
        "disas [ADDR [COUNT]]",
        "code as a VP decodes it in its mode, from its next instruction or ADDR on",
    ),
    (
        "translate ADDR",
        "the page walk of a virtual address on a VP",
    ),
    (
        "phys x ADDR LEN",
        "physical memory, at most 4096 bytes at a time",
    ),
    ("msr", "the names of MSRs that can be given for NUM"),
    (
        "msr read NUM",
        "a model-specific register of a VP, by number or name",
    ),
    ("msr write NUM VALUE", "writes one"),
    ("nmi", "an NMI for a VP, delivered when it runs"),
    (
        "dump FILE",
        "an ELF core file of the guest, in the folder that --dump-dir named",
    ),
    ("doctor", "what works on this host and what does not"),
    (
        "stop-on [LIST]",
        "which of reset,poweroff,triple-fault,panic stop the guest; none: none of them",
    ),
    (
        "freeze-time",
        "whether the guest's clocks stand while it is stopped",
    ),
    (
        "freeze-time on|off",
        "chooses, from the end of the present stop on",
    ),
    ("step-irqs", "whether steps take interrupts"),
    (
        "step-irqs on",
        "a step ends at the handler of an interrupt that waits",
    ),
    (
        "step-irqs off",
        "interrupts wait until the guest runs (so at first)",
    ),
    (
        "reset",
        "resets the guest; it stays stopped at its first instruction",
    ),
    ("quit", "ends the guest for good"),
    (
        "info registers [-a]",
        "as QEMU's monitor shows them: of a VP, or of all",
    ),
    ("info mem", "as QEMU's: what a VP's page tables map"),
    ("info tlb", "as QEMU's: each page they map"),
    ("info mtree [-f]", "as QEMU's: where RAM is"),
    (
        "xp /FMT ADDR",
        "as QEMU's: physical memory; FMT is a count, one of x d u o c and one of b h w g",
    ),
    (
        "gva2gpa ADDR",
        "as QEMU's: the physical address of a virtual one on a VP",
    ),
    ("gpa2hva ADDR", "as QEMU's, but refused, with the reason"),
    (
        "system_reset",
        "as `reset`, and so are `reset halt` and `reset init`",
    ),
];

/// What is true of several commands.
const NOTES: &str = "\
Numbers are decimal, or hexadecimal with 0x. For a symbol or a register: eval \"monitor translate %p\", SYMBOL
What is about one VP is about that of the selected thread, and says so; with `vp N` at its end, about VP N.
";

pub(super) fn text() -> String {
    let mut text = "Commands:\n".to_owned();
    for (usage, what) in COMMANDS {
        text.push_str(&format!("  monitor {usage:22} {what}\n"));
    }
    text.push_str(NOTES);
    text
}
