/* Trapgate's demo guest: every CPU counts primes in short bursts, one burst for each tick of its timer. */

#include "demo.h"

#define TIMER_HZ 100
#define ROUNDS_PER_TICK 2
#define NUMBERS_PER_ROUND 10
#define LAST_NUMBER 1000
#define REPORT_SECONDS 10

/* This address survives a reset: it is outside the image, which is loaded again, and firmware does not write there. */
#define BOOT_RECORD ((volatile struct boot_record *)0x800000)
#define BOOT_RECORD_MAGIC 0x7472617067617465u

struct boot_record {
    uint64_t magic;
    uint64_t boots;
};

/* The used part of Xen's hvm_start_info. */
struct start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modules, command_line;
};

volatile enum scenario scenario;
volatile uint64_t counter; /* rounds of all CPUs */
volatile uint32_t cpus_online;
volatile uint64_t int3_count;
volatile uint64_t page_fault_count;
volatile uint64_t page_fault_address;
struct cpu cpus[MAX_CPUS];

static uint32_t timer_hz = TIMER_HZ;

static const struct {
    const char *name;
    enum scenario scenario;
} scenario_names[] = {
    { "run", SCENARIO_RUN },
    { "poweroff", SCENARIO_POWER_OFF },
    { "int3", SCENARIO_INT3 },
    { "pagefault", SCENARIO_PAGE_FAULT },
    { "triplefault", SCENARIO_TRIPLE_FAULT },
    { "reset", SCENARIO_RESET },
    { "reset-kbd", SCENARIO_RESET_KBD },
    { "spin", SCENARIO_SPIN },
    { "panic", SCENARIO_PANIC },
    { "modes", SCENARIO_MODES },
};

__attribute__((noinline)) bool is_prime(uint32_t n)
{
    if (n < 2)
        return false;
    for (uint32_t divisor = 2; divisor * divisor <= n; divisor++) {
        if (n % divisor == 0)
            return false;
    }
    return true;
}

__attribute__((noinline)) uint32_t count_primes(uint32_t from, uint32_t to)
{
    uint32_t found = 0;

    for (uint32_t n = from; n < to; n++) {
        if (is_prime(n))
            found++;
    }
    return found;
}

__attribute__((noinline)) void do_round(struct cpu *cpu)
{
    uint32_t from = cpu->next;
    uint32_t found = count_primes(from, from + NUMBERS_PER_ROUND);

    cpu->primes += found;
    cpu->next = from + NUMBERS_PER_ROUND < LAST_NUMBER ? from + NUMBERS_PER_ROUND : 0;
    cpu->rounds++;
    __atomic_fetch_add(&counter, 1, __ATOMIC_RELAXED);
}

static void wait_for_tick(struct cpu *cpu, uint64_t seen)
{
    /* No tick can come between the check and the halt, because `sti` takes effect after the next instruction. */
    __asm__ volatile("cli");
    while (cpu->ticks == seen && scenario != SCENARIO_SPIN)
        __asm__ volatile("sti; hlt; cli");
    __asm__ volatile("sti");
}

static void report(struct cpu *cpu)
{
    print_line("demo guest: ", cpu->ticks / timer_hz, " s, ");
    print_line("", cpus_online, " CPUs, ");
    print_line("", counter, " rounds\n");
}

/* Keys on the serial line: q powers off, r resets, any other key prints a report. */
static void read_key(struct cpu *cpu)
{
    int key = serial_read();

    if (key == 'q')
        scenario = SCENARIO_POWER_OFF;
    else if (key == 'r')
        scenario = SCENARIO_RESET;
    else if (key >= 0)
        report(cpu);
}

__attribute__((noreturn)) static void cpu_loop(struct cpu *cpu)
{
    uint64_t next_report = REPORT_SECONDS * timer_hz;

    for (;;) {
        uint64_t seen = cpu->ticks;

        for (int round = 0; round < ROUNDS_PER_TICK; round++)
            do_round(cpu);
        if (cpu->id == 0) {
            read_key(cpu);
            run_scenario();
            if (cpu->ticks >= next_report) {
                next_report += REPORT_SECONDS * timer_hz;
                report(cpu);
            }
        }
        wait_for_tick(cpu, seen);
    }
}

/* Carries out the scenario of the debugger or of the command line once, and returns to RUN. */
void run_scenario(void)
{
    enum scenario wanted = scenario;

    if (wanted == SCENARIO_RUN || wanted == SCENARIO_SPIN)
        return;
    scenario = SCENARIO_RUN;
    switch (wanted) {
    case SCENARIO_POWER_OFF:
        print("demo guest: power off\n");
        power_off();
        break;
    case SCENARIO_INT3:
        __asm__ volatile("int3");
        print("demo guest: int3 handled\n");
        break;
    case SCENARIO_PAGE_FAULT:
        read_unmapped();
        print("demo guest: page fault handled\n");
        break;
    case SCENARIO_TRIPLE_FAULT:
        print("demo guest: triple fault\n");
        triple_fault();
        break;
    case SCENARIO_MODES:
        tour_modes();
        print("demo guest: back from all modes\n");
        break;
    case SCENARIO_PANIC:
        print("demo guest: panic\n");
        report_panic();
        print("demo guest: on after the panic\n");
        break;
    case SCENARIO_RESET:
        print("demo guest: reset by port 0xcf9\n");
        reset_by_cf9();
        break;
    case SCENARIO_RESET_KBD:
        print("demo guest: reset by the keyboard controller\n");
        reset_by_keyboard();
        break;
    default:
        print("demo guest: no such scenario\n");
        break;
    }
}

static struct cpu *cpu_online(uint32_t id)
{
    struct cpu *cpu = &cpus[id % MAX_CPUS];

    cpu->id = id;
    cpu->online = true;
    __atomic_fetch_add(&cpus_online, 1, __ATOMIC_RELAXED);
    return cpu;
}

/* The text after `name` on the command line, or null. */
static const char *option(const char *line, const char *name)
{
    for (; line && *line; line++) {
        const char *rest = line, *want = name;

        while (*want && *rest == *want)
            rest++, want++;
        if (!*want)
            return rest;
        while (line[1] && *line != ' ')
            line++;
    }
    return 0;
}

/* The length of the first word, if both texts begin with the same word; otherwise 0. */
static uint32_t same_word(const char *text, const char *word)
{
    uint32_t length = 0;

    while (word[length] && text[length] == word[length])
        length++;
    return !word[length] && (!text[length] || text[length] == ' ' || text[length] == ',') ? length : 0;
}

/* `scenario=FIRST,SECOND...`: one scenario for each boot. Later boots use RUN. */
static enum scenario scenario_of_boot(const char *list, uint64_t boot)
{
    while (list && boot > 1) {
        while (*list && *list != ' ' && *list != ',')
            list++;
        list = *list == ',' ? list + 1 : 0;
        boot--;
    }
    for (unsigned i = 0; list && i < sizeof scenario_names / sizeof *scenario_names; i++) {
        if (same_word(list, scenario_names[i].name))
            return scenario_names[i].scenario;
    }
    return SCENARIO_RUN;
}

static uint64_t count_boot(void)
{
    volatile struct boot_record *record = BOOT_RECORD;

    if (record->magic != BOOT_RECORD_MAGIC) {
        record->magic = BOOT_RECORD_MAGIC;
        record->boots = 0;
    }
    return ++record->boots;
}

void first_cpu_main(const struct start_info *info)
{
    const char *line = info->command_line ? (const char *)info->command_line : "";
    const char *hz = option(line, "hz=");
    uint64_t boot = count_boot();

    serial_init();
    print_line("demo guest: boot ", boot, ", command line: ");
    print(line);
    print("\n");
    if (hz) {
        uint32_t value = 0;

        for (; *hz >= '0' && *hz <= '9' && value < 100000; hz++)
            value = value * 10 + (*hz - '0');
        if (value)
            timer_hz = value;
    }
    scenario = scenario_of_boot(option(line, "scenario="), boot);
    interrupts_init();
    apic_init();
    start_other_cpus();
    timer_start(timer_hz);
    cpu_loop(cpu_online(apic_id()));
}

void next_cpu_main(uint32_t id)
{
    struct cpu *cpu = cpu_online(id);

    print_line("demo guest: CPU ", id, " is up\n");
    timer_start(timer_hz);
    cpu_loop(cpu);
}
