/* Declarations for the demo guest's C files. The guest uses only integer instructions: some hosts execute it in KVM's instruction emulator,
 * which does not support vector instructions. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define MAX_CPUS 64          /* also in boot.S */
#define AP_TRAMPOLINE 0x8000 /* also in boot.S */

/* The next action of the first CPU. Set it in the debugger (`set var scenario = SCENARIO_RESET`) or on the kernel command line. */
enum scenario {
    SCENARIO_RUN = 0,          /* count primes, a few after each tick, and halt in between */
    SCENARIO_POWER_OFF = 1,    /* ACPI power-off by PM1a_CNT at port 0x604, as in QEMU's `pc` and `q35` */
    SCENARIO_INT3 = 2,         /* one INT3 of the guest: its handler counts it in `int3_count` */
    SCENARIO_PAGE_FAULT = 3,   /* one read of an unmapped page: its handler counts it in `page_fault_count` and continues behind it */
    SCENARIO_TRIPLE_FAULT = 4, /* a fault without a usable IDT */
    SCENARIO_RESET = 5,        /* reset by port 0xcf9 */
    SCENARIO_RESET_KBD = 6,    /* reset by the keyboard controller's pulse command */
    SCENARIO_SPIN = 7,         /* as RUN, but never halt */
    SCENARIO_PANIC = 8,        /* report a panic by the pvpanic port, and go on */
    SCENARIO_MODES = 9,        /* go through all processor modes, down to real mode and back */
};

/* One for each CPU, at the index of its APIC id. */
struct cpu {
    volatile bool online;
    uint32_t id;               /* APIC id */
    volatile uint64_t ticks;   /* timer interrupts taken */
    volatile uint64_t rounds;  /* calls of do_round() */
    volatile uint64_t primes;  /* primes found */
    uint32_t next;             /* the next number to test */
};

/* The registers that trap_common pushes, in memory order, and the frame the CPU pushed. */
struct trap_frame {
    uint64_t rbp, r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};

extern volatile enum scenario scenario;
extern volatile uint64_t counter;
extern volatile uint32_t cpus_online;
extern volatile uint64_t int3_count;
extern volatile uint64_t page_fault_count;
extern volatile uint64_t page_fault_address;
extern struct cpu cpus[MAX_CPUS];

/* main.c */
void run_scenario(void);

/* boot.S */
void tour_modes(void);

/* machine.c */
void serial_init(void);
int serial_read(void); /* the next byte, or -1 */
void print(const char *text);
void print_line(const char *before, uint64_t number, const char *after);
void interrupts_init(void);
void timer_start(uint32_t hz);
void start_other_cpus(void);
void apic_init(void);
uint32_t apic_id(void);
void power_off(void);
void reset_by_cf9(void);
void reset_by_keyboard(void);
void triple_fault(void);
void report_panic(void);
void read_unmapped(void);

static inline void outb(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static inline void outw(uint16_t port, uint16_t value) { __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port)); }
static inline uint8_t inb(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
