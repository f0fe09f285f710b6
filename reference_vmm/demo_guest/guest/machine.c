/* Drivers for the PC of the demo guest: serial port, local APIC, interrupt table, power-off and reset. */

#include "demo.h"

#define COM1 0x3f8
#define LAPIC 0xfee00000u
#define LAPIC_ID 0x20
#define LAPIC_EOI 0xb0
#define LAPIC_SPURIOUS 0xf0
#define LAPIC_ICR_LOW 0x300
#define LAPIC_TIMER 0x320
#define LAPIC_TIMER_INITIAL 0x380
#define LAPIC_TIMER_DIVIDE 0x3e0
#define X2APIC_MSR(reg) (0x800 + ((reg) >> 4))
#define APIC_BASE 0x1b /* MSR */
#define APIC_BASE_X2APIC 0x400
#define TIMER_VECTOR 0x40
#define SPURIOUS_VECTOR 0xff
/* KVM's and QEMU's local APIC timers count nanoseconds. */
#define LAPIC_TIMER_HZ 1000000000u

struct gate {
    uint16_t offset_low, selector;
    uint8_t ist, type;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
};

struct __attribute__((packed)) table_pointer {
    uint16_t limit;
    uint64_t base;
};

extern char exception_stubs[], timer_stub[], spurious_stub[], ap_trampoline[], ap_trampoline_end[];

static struct gate idt[256];
static volatile uint32_t print_lock;

/* Whether the VMM has started the first CPU in x2APIC mode, in which the registers of the local APIC are MSRs (SDM volume 3, "Extended XAPIC (x2APIC)"). */
static bool x2apic;

static uint64_t read_msr(uint32_t msr)
{
    uint32_t low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (uint64_t)high << 32 | low;
}

static void write_msr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

static void lapic_write(uint32_t reg, uint32_t value)
{
    if (x2apic)
        write_msr(X2APIC_MSR(reg), value);
    else
        *(volatile uint32_t *)(uintptr_t)(LAPIC + reg) = value;
}

uint32_t apic_id(void)
{
    if (x2apic)
        return (uint32_t)read_msr(X2APIC_MSR(LAPIC_ID));
    return *(volatile uint32_t *)(uintptr_t)(LAPIC + LAPIC_ID) >> 24;
}

/* For the first CPU, before any other runs. */
void apic_init(void)
{
    x2apic = (read_msr(APIC_BASE) & APIC_BASE_X2APIC) != 0;
}

/* Puts the local APIC of this CPU into the mode of the first CPU's. */
static void apic_follow(void)
{
    uint64_t base = read_msr(APIC_BASE);

    if (x2apic && !(base & APIC_BASE_X2APIC))
        write_msr(APIC_BASE, base | APIC_BASE_X2APIC);
}

void serial_init(void)
{
    outb(COM1 + 1, 0x00); /* no interrupts */
    outb(COM1 + 3, 0x80); /* divisor: 115200 baud */
    outb(COM1 + 0, 0x01);
    outb(COM1 + 1, 0x00);
    outb(COM1 + 3, 0x03); /* 8 bits, no parity */
    outb(COM1 + 2, 0x07); /* FIFOs on and empty */
}

static void put(const char *text)
{
    for (; *text; text++) {
        while (!(inb(COM1 + 5) & 0x20))
            ;
        outb(COM1, *text);
    }
}

static void lock_serial(void)
{
    while (__atomic_exchange_n(&print_lock, 1, __ATOMIC_ACQUIRE))
        __asm__ volatile("pause");
}

static void unlock_serial(void) { __atomic_store_n(&print_lock, 0, __ATOMIC_RELEASE); }

void print(const char *text)
{
    lock_serial();
    put(text);
    unlock_serial();
}

int serial_read(void) { return inb(COM1 + 5) & 0x01 ? inb(COM1) : -1; }

void print_line(const char *before, uint64_t number, const char *after)
{
    char digits[21];
    char *p = digits + sizeof digits;

    *--p = 0;
    do {
        *--p = '0' + number % 10;
        number /= 10;
    } while (number);
    lock_serial();
    put(before);
    put(p);
    put(after);
    unlock_serial();
}

static void set_gate(unsigned vector, const char *stub)
{
    uint64_t address = (uint64_t)stub;

    idt[vector] = (struct gate){
        .offset_low = address,
        .selector = 0x18, /* CODE64 in boot.S */
        .type = 0x8e,     /* present, interrupt gate */
        .offset_middle = address >> 16,
        .offset_high = address >> 32,
    };
}

/* For the first CPU; the others load the same table in timer_start(). */
void interrupts_init(void)
{
    for (unsigned vector = 0; vector < 32; vector++)
        set_gate(vector, exception_stubs + 16 * vector);
    set_gate(TIMER_VECTOR, timer_stub);
    set_gate(SPURIOUS_VECTOR, spurious_stub);
    /* The two 8259 interrupt controllers stay masked: the guest uses only the timers of the local APICs. */
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

void timer_start(uint32_t hz)
{
    struct table_pointer pointer = { sizeof idt - 1, (uint64_t)idt };

    __asm__ volatile("lidt %0" : : "m"(pointer));
    apic_follow();
    lapic_write(LAPIC_SPURIOUS, 0x100 | SPURIOUS_VECTOR);
    lapic_write(LAPIC_TIMER_DIVIDE, 0xb);                /* by 1 */
    lapic_write(LAPIC_TIMER, 0x20000 | TIMER_VECTOR);    /* periodic */
    lapic_write(LAPIC_TIMER_INITIAL, LAPIC_TIMER_HZ / hz);
}

void timer_interrupt(void)
{
    lapic_write(LAPIC_EOI, 0);
    cpus[apic_id() % MAX_CPUS].ticks++;
}

/* Sends INIT and two start-up messages to all other CPUs. Each CPU that arrives increments `cpus_online`. */
void start_other_cpus(void)
{
    char *to = (char *)(uintptr_t)AP_TRAMPOLINE;

    for (const char *from = ap_trampoline; from < ap_trampoline_end; from++)
        *to++ = *from;
    lapic_write(LAPIC_ICR_LOW, 0xc4500);
    for (volatile int pause = 0; pause < 1000; pause++)
        ;
    lapic_write(LAPIC_ICR_LOW, 0xc4600 | AP_TRAMPOLINE >> 12);
    lapic_write(LAPIC_ICR_LOW, 0xc4600 | AP_TRAMPOLINE >> 12);
}

void exception(struct trap_frame *frame)
{
    if (frame->vector == 3) {
        int3_count++;
        return;
    }
    if (frame->vector == 14) {
        uint64_t address;

        __asm__ volatile("mov %%cr2, %0" : "=r"(address));
        page_fault_count++;
        page_fault_address = address;
        frame->rip = frame->rax; /* read_unmapped() has put the next address into RAX */
        return;
    }
    print_line("demo guest: unexpected exception ", frame->vector, "\n");
    for (;;)
        __asm__ volatile("cli; hlt");
}

void read_unmapped(void)
{
    /* The first byte behind the memory that boot.S maps. */
    __asm__ volatile("lea 1f(%%rip), %%rax\n\tmovb (%0), %%cl\n1:" : : "r"(0x100000000ul) : "rax", "rcx", "memory");
}

void power_off(void)
{
    outw(0x604, 0x2000); /* SLP_EN, SLP_TYP 0 */
}

void reset_by_cf9(void)
{
    outb(0xcf9, 0x02);
    outb(0xcf9, 0x06);
}

void reset_by_keyboard(void)
{
    while (inb(0x64) & 0x02)
        ;
    outb(0x64, 0xfe);
}

/* Writes to QEMU's pvpanic port. Without this device the write has no effect. */
void report_panic(void)
{
    outb(0x505, 0x01);
}

void triple_fault(void)
{
    struct table_pointer nothing = { 0, 0 };

    __asm__ volatile("lidt %0; ud2" : : "m"(nothing));
}
