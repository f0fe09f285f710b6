/* The guest of the tests that use only a VMM's debug server: a loop with a timer at 1 kHz.
 *
 * It is an ELF file with a PVH entry (Xen's "x86/HVM direct boot ABI": 32-bit protected mode, flat segments, no paging). It needs the devices of every PC:
 * two 8259 interrupt controllers and an 8254 timer, and 2 MiB of memory. It uses one CPU. RBX counts the turns, and `ticks` counts the interrupts. */

    .section .note.Xen, "a", @note
    .balign 4
    .long 4                     /* name size */
    .long 4                     /* descriptor size */
    .long 18                    /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long pvh_start

    .text
    .code32
    .globl pvh_start
    .type pvh_start, @function
pvh_start:
    cli
    cld
    lgdt gdt_pointer
    mov $0x20, %eax             /* PAE */
    mov %eax, %cr4
    mov $pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx       /* EFER */
    rdmsr
    or $0x100, %eax             /* LME */
    wrmsr
    mov %cr0, %eax
    or $0x80000001, %eax        /* PG, PE */
    mov %eax, %cr0
    ljmp $0x08, $start_64
    .size pvh_start, . - pvh_start

    .code64
    .type start_64, @function
start_64:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    lea stack_end(%rip), %rsp
    lidt idt_pointer(%rip)
    /* The first controller uses vectors from 20h, with only IRQ 0 unmasked. The second controller is masked. */
    .irp pair, 0x1120, 0x2021, 0x0421, 0x0121, 0xfe21, 0xffa1, 0x3443, 0xa940, 0x0440
    mov $(\pair >> 8), %al
    out %al, $(\pair & 0xff)
    .endr
    xor %ebx, %ebx
    sti
    jmp turn
    .size start_64, . - start_64

/* The tests use these addresses without reading symbols. */
    .org 0x200
    .globl turn
    .type turn, @function
turn:
    inc %rbx                    /* 3 bytes */
    .globl site
site:
    nop
    nop
    jmp turn
    .size turn, . - turn

    .org 0x300
    .globl tick
    .type tick, @function
tick:
    push %rax
    incq ticks
    mov $0x20, %al
    out %al, $0x20
    pop %rax
    iretq
    .size tick, . - tick

    .data
    .globl ticks
ticks:
    .quad 0
    .balign 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
/* The handler's address is 0x100300: see linker.ld. */
idt:
    .fill 64, 8, 0
    .quad 0x00108e0000080300
    .quad 0
idt_end:
idt_pointer:
    .word idt_end - idt - 1
    .quad idt

/* The first 2 MiB, virtual = physical. Accessed and dirty are set, so running the guest does not change the entries. */
    .balign 4096
pml4:
    .quad pdpt + 0x23
    .fill 511, 8, 0
pdpt:
    .quad page_directory + 0x23
    .fill 511, 8, 0
page_directory:
    .quad 0xe3
    .fill 511, 8, 0
stack:
    .fill 4096, 1, 0
stack_end:

    .section .note.GNU-stack, "", @progbits
