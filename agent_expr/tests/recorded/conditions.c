// The program whose conditions record.py compiles with GDB. The data is made so that signs, widths and offsets matter.

enum colour { RED, GREEN = 7, BLUE };

struct bits {
    unsigned low : 3;
    int middle : 7;
    unsigned high : 22;
    unsigned long long wide : 40;
};

struct __attribute__((packed)) packed {
    char tag;
    int value;
    unsigned short half;
};

struct node {
    int key;
    struct node *next;
    char name[8];
    union {
        unsigned long whole;
        unsigned char part[8];
    } both;
};

signed char sc = -5;
unsigned char uc = 250;
short s = -300;
unsigned short us = 65000;
int i = -70000;
unsigned u = 4000000000u;
long l = -5000000000l;
unsigned long ul = 0xfedcba9876543210ul;
int zero = 0;
_Bool yes = 1;
enum colour colour = BLUE;
int array[5] = {10, -20, 30, -40, 50};
int grid[2][3] = {{1, 2, 3}, {4, 5, 6}};
char text[] = "trapgate";
struct bits bits = {5, -33, 0x2abcde, 0x98badcfe12};
struct packed packed = {'p', -123456, 54321};
struct node second = {22, 0, "second", {0x1122334455667788ul}};
struct node first = {11, &second, "first", {0x8877665544332211ul}};
struct node *list = &first;
const char *word = text;
void (*function)(void) = 0;

/* The frame pointer is the base of the variables. */
__attribute__((noinline)) int in_memory(int argument) {
    volatile int local = argument * 3;
    volatile signed char byte = -1;
    volatile unsigned long big = 0x8000000000000001ul;
    struct node here = {33, &first, "here", {7}};
    struct node *volatile pointer = &here;
    local += pointer->key;
    return local + byte + (int)big; /* stop 1 */
}

/* The arguments are in registers at the first instruction. */
__attribute__((noinline, optimize("O1"))) int in_registers(int a, unsigned b, signed char c, unsigned long d) {
    __asm__ volatile("nop" : : "r"(a), "r"(b), "r"(c), "r"(d)); /* stop 2 */
    return a + (int)b + c + (int)d;
}

void _start(void) {
    in_memory(14);
    in_registers(-3, 3000000000u, -7, 1ul << 40);
    for (;;) {
        __asm__ volatile("" : : : "memory");
    }
}
