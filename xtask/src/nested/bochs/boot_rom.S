# An option ROM for Bochs that starts a Linux kernel which Bochs has put into RAM: no disk, no boot loader, no decompression.
#
# Bochs's RAM holds the kernel's real-mode setup code at SETUP (Linux, Documentation/arch/x86/boot.rst), the uncompressed kernel at its own
# addresses, and the initramfs. The BIOS calls the ROM's first part, which takes over INT 19h ("boot the system"). INT 19h then enters the
# setup code, which asks the BIOS for the memory map and goes to 32-bit protected mode. The setup header's `code32_start` leads back here:
# the last part goes to 64-bit mode and enters the kernel as its own decompressor does.
#
# `bochs/firmware.rs` fills in the last bytes of the ROM.

        .set    BASE, 0xd0000
        .set    SETUP_SEGMENT, 0x9000
        .set    STACK, 0x97f0
        .set    TABLES, 0x70000                 # 6 pages of conventional memory that the setup code leaves alone

        .code16
        .globl  _start
_start: .byte   0x55, 0xaa, 1                   # one block of 512 bytes
        push    %ds
        push    %ax
        xor     %ax, %ax
        mov     %ax, %ds
        movw    $boot, 4 * 0x19
        mov     %cs, 4 * 0x19 + 2
        pop     %ax
        pop     %ds
        lret

boot:   cli
        # The time from power-on at which the kernel starts.
        movl    %cs:delay, %ecx
        jecxz   2f
1:      dec     %ecx
        jnz     1b
2:      mov     $SETUP_SEGMENT, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %fs
        mov     %ax, %gs
        mov     %ax, %ss
        mov     $STACK, %sp
        ljmp    $SETUP_SEGMENT + 0x20, $0

        # Entered by the setup code with flat segments, interrupts off, and %esi on the boot parameters.
        .code32
        .org    0x80
protected:
        # Identity-mapped pages of 2 MiB for the first 4 GiB: PML4, PDPT, 4 page directories.
        cld
        mov     $TABLES, %edi
        mov     $6 * 4096 / 4, %ecx
        xor     %eax, %eax
        rep stosl
        movl    $TABLES + 0x1003, TABLES        # present, writable
        mov     $TABLES + 0x1000, %edi
        mov     $TABLES + 0x2003, %eax
1:      mov     %eax, (%edi)
        add     $8, %edi
        add     $0x1000, %eax
        cmp     $TABLES + 0x6003, %eax
        jne     1b
        mov     $TABLES + 0x2000, %edi
        mov     $0x83, %eax                     # present, writable, 2 MiB
2:      mov     %eax, (%edi)
        add     $8, %edi
        add     $0x200000, %eax
        jnc     2b

        mov     %cr4, %eax
        or      $1 << 5, %eax                   # PAE
        mov     %eax, %cr4
        mov     $TABLES, %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx               # EFER
        rdmsr
        or      $1 << 8, %eax                   # LME
        wrmsr
        mov     %cr0, %eax
        or      $1 << 31, %eax                  # PG
        mov     %eax, %cr0
        lgdt    BASE + gdt_pointer
        ljmp    $0x10, $BASE + long

        .code64
long:   mov     $0x18, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     %esi, %esi
        mov     BASE + entry, %eax
        jmp     *%rax

        .balign 8
        # As the boot protocol numbers them.
gdt:    .quad   0, 0
        .quad   0x00af9a000000ffff              # 0x10: code, 64 bits
        .quad   0x00cf92000000ffff              # 0x18: data
gdt_pointer:
        .word   . - gdt - 1
        .long   BASE + gdt

        .org    512 - 12
entry:  .long   0                               # the kernel's, a physical address
delay:  .long   0                               # rounds before the kernel starts
        .long   0                               # the sum of all bytes of a ROM is 0
