/* From the PVH entry (32-bit protected mode, no paging) to C in long mode, on the first CPU and on the others.
 *
 * PVH start-of-day state: Xen's "x86/HVM direct boot ABI" (docs/misc/pvh.pandoc): %ebx = physical address of the start info,
 * flat 32-bit segments, CR0.PE set, everything else off. */

#define STACK_SIZE 4096
#define MAX_CPUS 64             /* also in demo.h */
#define AP_TRAMPOLINE 0x8000    /* also in demo.h; the start-up message carries its page number */

#define CODE32 0x08
#define DATA 0x10
#define CODE64 0x18
#define TOUR_CODE16 0x20
#define TOUR_DATA16 0x28
#define TOUR_LOW 0xa000         /* also the base in the descriptor */

    .cfi_sections .debug_frame

    .section .note.Xen, "a", @note
    .balign 4
    .long 4                     /* name size */
    .long 4                     /* descriptor size */
    .long 18                    /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long pvh_start

/* Turns long mode on. The code behind it runs in 32-bit compatibility mode. It uses no stack, because the other CPUs run it at the same time. */
    .macro enter_long_mode
    mov %cr4, %eax
    or $0x20, %eax              /* PAE */
    mov %eax, %cr4
    mov $pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx       /* EFER */
    rdmsr
    or $0x100, %eax             /* LME */
    wrmsr
    mov %cr0, %eax
    or $0x80010001, %eax        /* PG, WP, PE */
    mov %eax, %cr0
    .endm

    .macro load_segments
    mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    .endm

    .text
    .code32
    .globl pvh_start
    .type pvh_start, @function
pvh_start:
    cli
    cld
    mov %ebx, start_info_address
    lgdt gdt_pointer
    enter_long_mode
    ljmp $CODE64, $first_cpu_64
    .size pvh_start, . - pvh_start

    .code64
    .type first_cpu_64, @function
first_cpu_64:
    .cfi_startproc
    .cfi_undefined %rip          /* nobody called it: a backtrace ends here */
    load_segments
    lea stacks + STACK_SIZE(%rip), %rsp
    xor %ebp, %ebp              /* the end of the frame chain */
    mov start_info_address(%rip), %edi
    call first_cpu_main
0:  hlt
    jmp 0b
    .cfi_endproc
    .size first_cpu_64, . - first_cpu_64

/* Entry of the other CPUs: the initial APIC id selects the stack and the entry in `cpus`. */
    .globl next_cpu_64
    .type next_cpu_64, @function
next_cpu_64:
    .cfi_startproc
    .cfi_undefined %rip          /* nobody called it: a backtrace ends here */
    load_segments
    mov $1, %eax
    cpuid
    shr $24, %ebx
    cmp $MAX_CPUS, %ebx
    jae 0f
    mov %ebx, %edi
    lea 1(%rbx), %eax
    shl $12, %eax               /* STACK_SIZE each */
    lea stacks(%rip), %rsp
    add %rax, %rsp
    xor %ebp, %ebp
    call next_cpu_main
0:  cli
    hlt
    jmp 0b
    .cfi_endproc
    .size next_cpu_64, . - next_cpu_64

/* The first code of the other CPUs, copied to AP_TRAMPOLINE: 16-bit real mode, CS = AP_TRAMPOLINE >> 4, IP = 0. */
    .code16
    .globl ap_trampoline
ap_trampoline:
    cli
    cld
    mov %cs, %ax
    mov %ax, %ds
    lgdtl (ap_gdt_pointer - ap_trampoline)
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $CODE32, $(ap_protected_mode)
    .balign 4
ap_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
    .globl ap_trampoline_end
ap_trampoline_end:

    .code32
ap_protected_mode:
    mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %ss
    enter_long_mode
    ljmp $CODE64, $next_cpu_64

/* A tour through the modes, on the first CPU and with interrupts off: 64-bit, compatibility, 32-bit, 16-bit protected and real mode, and back. EBX counts them. */
    .code64
    .globl tour_modes
    .type tour_modes, @function
tour_modes:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    pushfq
    cli
    cld
    mov %rsp, tour_stack(%rip)
    xor %ebx, %ebx
    lea tour_low(%rip), %rsi
    mov $TOUR_LOW, %edi
    mov $(tour_low_end - tour_low), %ecx
    rep movsb
    push $CODE32
    lea tour_compatibility(%rip), %rax
    push %rax
    lretq
    .size tour_modes, . - tour_modes

    .code32
    .globl tour_compatibility
    .type tour_compatibility, @function
tour_compatibility:
    inc %ebx
    nop
    mov %cr0, %eax
    and $0x7fffffff, %eax       /* PG off: this leaves long mode */
    mov %eax, %cr0
    mov $0xc0000080, %ecx       /* EFER */
    rdmsr
    and $~0x100, %eax           /* LME off */
    wrmsr
    .size tour_compatibility, . - tour_compatibility
    .globl tour_protected_32
    .type tour_protected_32, @function
tour_protected_32:
    inc %ebx
    nop
    ljmp $TOUR_CODE16, $0
    .size tour_protected_32, . - tour_protected_32

/* This code runs at TOUR_LOW, the base of the 16-bit code segment in both modes. */
    .code16
tour_low:
tour_16:
    inc %bx
    nop
    mov $TOUR_DATA16, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov %cr0, %eax
    and $~1, %eax               /* PE off */
    mov %eax, %cr0
    ljmp $(TOUR_LOW >> 4), $(tour_0 - tour_low)
tour_0:
    inc %bx
    nop
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $CODE32, $tour_back_32
tour_low_end:
    /* The addresses at which these two labels are executed, for debuggers. */
    .globl tour_protected_16
    .set tour_protected_16, TOUR_LOW + (tour_16 - tour_low)
    .globl tour_real
    .set tour_real, TOUR_LOW + (tour_0 - tour_low)

    .code32
tour_back_32:
    mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    enter_long_mode
    ljmp $CODE64, $tour_back

    .code64
    .globl tour_back
    .type tour_back, @function
tour_back:
    inc %ebx
    load_segments
    mov tour_stack(%rip), %rsp
    popfq
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
    .size tour_back, . - tour_back

/* Interrupts and exceptions. Every stub pushes the same frame: error code (or 0), vector, then the registers of `struct trap_frame`. */
    .code64
    .globl exception_stubs
    .balign 16
exception_stubs:                /* 16 bytes each, 32 of them */
    .set vector, 0
    .rept 32
    .balign 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
    push $0                     /* instead of an error code */
    .endif
    push $vector
    jmp trap_common
    .set vector, vector + 1
    .endr

    .type trap_common, @function
trap_common:
    push %rax
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %rbp
    mov %rsp, %rbp
    mov %rsp, %rdi
    cld
    call exception
    pop %rbp
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp
    iretq
    .size trap_common, . - trap_common

/* The timer has a short handler, because it runs hundreds of times per second and some hosts execute it in an instruction emulator. */
    .globl timer_stub
    .type timer_stub, @function
    .balign 16
timer_stub:
    push %rax
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    cld
    call timer_interrupt
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rax
    iretq
    .size timer_stub, . - timer_stub

    .globl spurious_stub
spurious_stub:
    iretq

    .data
    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff    /* CODE32 */
    .quad 0x00cf93000000ffff    /* DATA */
    .quad 0x00af9b000000ffff    /* CODE64 */
    .quad 0x00009b00a000ffff    /* TOUR_CODE16: base TOUR_LOW, 64 KiB */
    .quad 0x000093000000ffff    /* TOUR_DATA16 */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt

/* The first 4 GiB, virtual = physical, in 2 MiB pages; the last GiB (devices) uncached. */
    .balign 4096
pml4:
    .quad pdpt + 3
    .fill 511, 8, 0
pdpt:
    .quad page_directories + 0x0003
    .quad page_directories + 0x1003
    .quad page_directories + 0x2003
    .quad page_directories + 0x3003
    .fill 508, 8, 0
page_directories:
    .set page, 0
    .rept 2048
    .if page < 1536
    .quad (page << 21) + 0x83
    .else
    .quad (page << 21) + 0x9b
    .endif
    .set page, page + 1
    .endr

    .bss
    .balign 16
start_info_address:
    .skip 8
tour_stack:
    .skip 8
    .balign 4096
stacks:
    .skip STACK_SIZE * MAX_CPUS

    .section .note.GNU-stack, "", @progbits
